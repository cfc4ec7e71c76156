/** Errors of DynamoDB that say the request was not carried out and never will be. */
const FINAL =
  /^((ConditionalCheckFailed|ResourceNotFound|Validation|Serialization|ItemCollectionSizeLimitExceeded|AccessDenied|UnrecognizedClient|MissingAuthenticationToken|IncompleteSignature)Exception|InvalidClientTokenId|MissingAuthenticationToken|OptInRequired)$/;

/**
 * Returns true if a failed call to the state table may succeed when it is made again: throttled, unanswered, the service's own
 * failure, credentials that come anew by themselves.
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
 */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  // Signed at the wrong time, the SDK corrects its clock by this very answer; a wrong secret stays wrong.
  if (error.name === "InvalidSignatureException") return /expired|not yet current/i.test(error.message);
  // The SDK finds no region anywhere: that does not come by itself, as credentials may.
  if (error.message === "Region is missing") return false;
  return !FINAL.test(error.name);
}
