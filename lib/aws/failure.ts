/*
 * Describes the failure of an AWS call, in words that stand in our own errors' messages. An SDK error's message may quote the request,
 * and with it row values: only names, codes, addresses and statuses are taken.
 */

/** Fields of Node's connection errors: https://nodejs.org/api/errors.html#class-systemerror */
interface ConnectionFacts {
  readonly code?: unknown;
  readonly address?: unknown;
  readonly port?: unknown;
  readonly hostname?: unknown;
}

/**
 * Names the failure of an AWS call: `ECONNREFUSED at 10.0.0.7:443` where nobody answered, `AccessDeniedException (HTTP 400)`
 * where the service did, and what is missing where no request was made. Never the error's own message.
 */
export function awsFailure(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  const status = httpStatus(error);
  if (status !== undefined) return `${error.name} (HTTP ${status})`;
  // Of several addresses of one name the first stands for all.
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const { code, address, port, hostname } = (cause ?? {}) as ConnectionFacts;
  if (typeof code === "string" && code !== "") {
    const host = typeof address === "string" ? address : hostname;
    if (typeof host !== "string") return code;
    return `${code} at ${host}${typeof port === "number" ? `:${port}` : ""}`;
  }
  // The SDK has no name for it.
  if (error.message === "Region is missing") return "no region is set (AWS_REGION)";
  if (error.name === "CredentialsProviderError")
    return "no credentials were found (CredentialsProviderError)";
  if (error.name === "TimeoutError") return "no answer in time (TimeoutError)";
  return error.name;
}

/** Returns true if a service answered the call, be it with a refusal. */
export function wasAnswered(error: unknown): boolean {
  return error instanceof Error && httpStatus(error) !== undefined;
}

/** Remedy where no service answered. */
export const REACH_AWS =
  "see that AWS can be reached from here: AWS_REGION, AWS_ENDPOINT_URL where one is set, the network, the credentials";

function httpStatus(error: Error): number | undefined {
  const { $metadata } = error as { readonly $metadata?: { readonly httpStatusCode?: number } };
  return $metadata?.httpStatusCode;
}
