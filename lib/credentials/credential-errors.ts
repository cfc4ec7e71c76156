import { awsFailure } from "../aws/failure.ts";
import { defineError, type RetryDirective, TributaryError } from "../change/tributary-error.ts";

/** The database's secret could not be read: `retry` tells whether that may pass. */
export class SecretUnavailableError extends TributaryError {
  readonly code = "SECRET_UNAVAILABLE";
  readonly retry: RetryDirective;

  constructor(secretArn: string, awsCode: string, retry: RetryDirective, cause: unknown) {
    super({
      message: `the database's secret ${secretArn} cannot be read: ${awsCode}`,
      remedy:
        retry === "stop"
          ? "Correct TRIBUTARY_DATABASE_SECRET_ARN, or let the task's role read it: secretsmanager:GetSecretValue on the secret, and kms:Decrypt where its key is a customer's."
          : "Nothing to do when it passes. Otherwise: is there a way to Secrets Manager (an interface endpoint in isolated subnets)?",
      cause,
    });
    this.retry = retry;
  }
}

/** The secret holds something else than the JSON that RDS writes. */
export class SecretFormatError extends defineError("SECRET_FORMAT", "stop").from(
  (secretArn: string, problem: string) => ({
    message: `the secret ${secretArn} is not a database's: ${problem}`,
    remedy:
      'Store JSON as RDS does: {"username":"…","password":"…","host":"…","port":5432,"dbname":"…"}; host, port and dbname may come from PGHOST, PGPORT and PGDATABASE instead.',
  }),
) {}

/** Rotation changed the secret's user or server: a task that starts anew goes by it. */
export class SecretChangedError extends defineError("SECRET_CHANGED", "restart").from(
  (secretArn: string, what: string) => ({
    message: `the secret ${secretArn} names another ${what} than when the task started`,
    remedy: "Nothing to do: the task starts anew with it.",
  }),
) {}

/** No RDS IAM token could be made: there are no credentials to sign it with. */
export class TokenUnavailableError extends defineError("IAM_TOKEN_UNAVAILABLE", "retry").from(
  (user: string, cause: unknown) => ({
    message: `no IAM token could be made for the database user "${user}": ${awsFailure(cause)}`,
    remedy: "Give the task a role that may rds-db:connect as this user, and AWS_REGION.",
    cause,
  }),
) {}
