import { GetSecretValueCommand, type SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import * as z from "zod";
import { awsFailure } from "../aws/failure.ts";
import { SecretFormatError, SecretUnavailableError } from "./credential-errors.ts";

const secretJson = z.object({
  username: z.string().min(1),
  password: z.string().min(1),
  host: z.string().min(1).optional(),
  port: z.coerce.number().int().min(1).max(65_535).optional(),
  dbname: z.string().min(1).optional(),
});

/** The secret that RDS writes for a database; host, port and name are missing where RDS manages the master user's. */
export type DatabaseSecret = z.output<typeof secretJson>;

/** Codes of Secrets Manager that do not pass by themselves. */
const FOR_GOOD = new Set([
  "ResourceNotFoundException",
  "AccessDeniedException",
  "InvalidParameterException",
  "ValidationException",
  "DecryptionFailure",
  "UnrecognizedClientException",
]);

/**
 * Reads a database's secret as it is now.
 * https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
 *
 * @throws SecretUnavailableError, SecretFormatError; neither says what the secret holds.
 */
export async function readSecret(
  secrets: SecretsManagerClient,
  arn: string,
  signal?: AbortSignal,
): Promise<DatabaseSecret> {
  let text: string | undefined;
  try {
    const answer = await secrets.send(
      new GetSecretValueCommand({ SecretId: arn }),
      signal ? { abortSignal: signal } : {},
    );
    text = answer.SecretString;
  } catch (error) {
    signal?.throwIfAborted();
    const { name } = error as Error;
    throw new SecretUnavailableError(arn, awsFailure(error), FOR_GOOD.has(name) ? "stop" : "retry", error);
  }
  if (text === undefined) throw new SecretFormatError(arn, "it is binary");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new SecretFormatError(arn, "it is not JSON");
  }
  const parsed = secretJson.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = [...new Set(parsed.error.issues.map(({ path }) => path.join(".") || "it"))];
  throw new SecretFormatError(arn, `${fields.join(", ")} missing or wrong`);
}
