import { type AwsRefusal, utf8Bytes } from "./refusal.ts";

const PAGE = "https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html";
/** Size limit of all variables of a function together. */
export const MAX_ENVIRONMENT_BYTES = 4 * 1024;

/** Returns why Lambda refuses the variables of a function, or undefined; it measures them as JSON. */
export function lambdaEnvironmentRefusal(
  variables: Readonly<Record<string, string>>,
): AwsRefusal | undefined {
  const bytes = environmentBytes(variables);
  if (bytes <= MAX_ENVIRONMENT_BYTES) return undefined;
  return {
    code: "InvalidParameterValueException",
    message: `Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. String measured: ${bytes} bytes`,
    page: PAGE,
  };
}

/** Size of a function's variables as Lambda measures it. */
export function environmentBytes(variables: Readonly<Record<string, string>>): number {
  return utf8Bytes(JSON.stringify(variables));
}
