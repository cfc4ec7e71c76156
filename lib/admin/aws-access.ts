import { awsFailure, REACH_AWS, wasAnswered } from "../aws/failure.ts";
import { ConfigurationError, defineError, type TributaryError } from "../change/tributary-error.ts";

/** Names who calls AWS: account, identity and region. */
export interface AwsCaller {
  /** Twelve digits; undefined where AWS does not tell. */
  readonly account: string | undefined;
  /** ARN of the user or role. */
  readonly identity: string | undefined;
  /** Name of the profile that was chosen, if one was. */
  readonly profile: string | undefined;
  readonly region: string;
}

/** There are no credentials, or AWS does not take them any more. */
export class AwsCredentialsError extends defineError("AWS_CREDENTIALS", "stop").from(
  (what: string, profile: string | undefined, cause: unknown) => ({
    message: `AWS does not take the credentials${profile === undefined ? "" : ` of the profile "${profile}"`}: ${what}`,
    remedy: `Sign in again (aws sso login${profile === undefined ? "" : ` --profile ${profile}`}, or new keys), or choose others with --profile. aws sts get-caller-identity shows what the AWS CLI finds.`,
    cause,
  }),
) {}

/** The caller lacks the right to make one call. */
export class AwsRightMissingError extends defineError("AWS_RIGHT_MISSING", "stop").from(
  (action: string, { identity, account, profile, region }: AwsCaller, cause: unknown) => ({
    message: `${identity ?? "the caller"} may not call ${action} in account ${account ?? "(unknown)"}, region ${region}${profile === undefined ? "" : ` (profile "${profile}")`}`,
    remedy: `Allow it the action ${action}, or choose an identity that has it with --profile. The docs list what each verb calls: Deploy, "Rights of the operator".`,
    cause,
    action,
  }),
) {}

/** An AWS service did not answer, or failed. */
export class AwsUnavailableError extends defineError("AWS_UNAVAILABLE", "restart").from(
  (action: string, cause: unknown) => ({
    message: `${action} failed: ${awsFailure(cause)}`,
    remedy: `Nothing was changed, and the command may be repeated: ${REACH_AWS}.`,
    cause,
  }),
) {}

const EXPIRED = /^(ExpiredToken|ExpiredTokenException|RequestExpired|TokenRefreshRequired)$/;
const WRONG =
  /^(InvalidClientTokenId|UnrecognizedClientException|SignatureDoesNotMatch|InvalidSignatureException|IncompleteSignature\w*|MissingAuthenticationToken\w*|AuthFailure|NotAuthorized)$/;
const DENIED = /^(AccessDenied\w*|UnauthorizedOperation|AuthorizationError\w*|NotAuthorizedException)$/;

/** Tells whether a failed call says that the caller lacks a right. */
export function isDenied(error: unknown): boolean {
  return error instanceof Error && DENIED.test(error.name);
}

/**
 * Returns the error of ours for a failed AWS call, by what it says of region, credentials and rights. `action` is the right that the call
 * needs, such as `ecs:RunTask`.
 */
export function awsAccessError(error: unknown, action: string, caller: AwsCaller): TributaryError {
  if (!(error instanceof Error)) return new AwsUnavailableError(action, error);
  if (error.message === "Region is missing") return regionMissing(undefined, caller.profile);
  // A call may need more than its own right: RunTask, iam:PassRole.
  const [, named = action] = /not authorized to perform: ([\w-]+:\w+)/.exec(error.message) ?? [];
  if (isDenied(error) || named !== action) return new AwsRightMissingError(named, caller, error);
  const what = credentialProblem(error);
  if (what !== undefined) return new AwsCredentialsError(what, caller.profile, error);
  return new AwsUnavailableError(action, error);
}

/** Returns the error of a command that knows no region, or one that cannot be. */
export function regionMissing(value?: string, profile?: string): ConfigurationError {
  const other =
    profile === undefined
      ? "or a profile that has one (--profile)"
      : `or another profile: "${profile}" has none, or is not there`;
  const remedy = `name the region of the stack: --region, $AWS_REGION, ${other}`;
  return new ConfigurationError("The command line", [{ path: "--region", value, remedy }]);
}

/** Returns what is wrong with the credentials, or undefined if nothing is. */
function credentialProblem(error: Error): string | undefined {
  if (EXPIRED.test(error.name)) return `they have expired (${error.name})`;
  if (WRONG.test(error.name)) return `they are not valid (${error.name})`;
  if (!/^(CredentialsProviderError|TokenProviderError|ProviderError)$/.test(error.name)) return undefined;
  if (wasAnswered(error)) return undefined;
  // The SDK has no name for it. Its message names profiles and files, and no secrets.
  return /\bSSO session\b/i.test(error.message)
    ? "there is no session of its single sign-on, or it has expired"
    : `none were found (${error.message.slice(0, 200)})`;
}
