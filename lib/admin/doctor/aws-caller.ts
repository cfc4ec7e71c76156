import { type Environment, stsClient } from "../../aws/clients.ts";
import { awsFailure, REACH_AWS, wasAnswered } from "../../aws/failure.ts";
import { AwsUnavailableError, awsAccessError } from "../aws-access.ts";
import type { PipelineResources } from "../resources.ts";
import { NotChecked } from "./check.ts";

/** Who we are for AWS, and what time it is there. */
export interface AwsCaller {
  readonly account: string;
  readonly arn: string;
  /** AWS's clock less ours, in milliseconds, to about a second; undefined where its answer has no date. */
  readonly skewMs: number | undefined;
}

const LOOPBACK = /^https?:\/\/(localhost|127\.\d+\.\d+\.\d+|\[::1\])([:/]|$)/;

/** Returns true if emulators on this machine stand in for AWS, and none of them knows of identities. */
export function isEmulated(environment: Environment): boolean {
  if (environment.AWS_ENDPOINT_URL || environment.AWS_ENDPOINT_URL_STS) return false;
  return Object.entries(environment).some(
    ([name, value]) => name.startsWith("AWS_ENDPOINT_URL_") && LOOPBACK.test(value ?? ""),
  );
}

/** Asks AWS who we are. @throws NotChecked, AwsCredentialsError, ConfigurationError where there is no region */
export async function readCaller(
  environment: Environment,
  resources: PipelineResources | undefined,
  signal: AbortSignal,
): Promise<AwsCaller> {
  if (isEmulated(environment)) throw new NotChecked("emulators stand in for AWS here");
  const { AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ROLE_ARN } = environment;
  if (!resources && !AWS_ACCESS_KEY_ID && !AWS_PROFILE && !AWS_ROLE_ARN)
    throw new NotChecked("nothing here names AWS: give --stack, or set AWS_PROFILE and AWS_REGION");
  const { GetCallerIdentityCommand } = await import("@aws-sdk/client-sts");
  const client = await stsClient(environment);
  let skewMs: number | undefined;
  client.middlewareStack.add(
    (next) => async (args) => {
      const asked = Date.now();
      const result = await next(args);
      const { headers = {} } = (result.response ?? {}) as { headers?: Record<string, string> };
      // The header has whole seconds: half of one is what it is off by.
      const theirs = Date.parse(headers.date ?? "") + 500;
      if (!Number.isNaN(theirs)) skewMs = theirs - (asked + Date.now()) / 2;
      return result;
    },
    { step: "deserialize", priority: "low", name: "tributaryDate" },
  );
  try {
    const { Account = "", Arn = "" } = await client.send(new GetCallerIdentityCommand({}), {
      abortSignal: signal,
    });
    return { account: Account, arn: Arn, skewMs };
  } catch (error) {
    throw identityError(error, environment);
  } finally {
    client.destroy();
  }
}

/** That the service gives no answer says nothing of who asks. */
function identityError(
  error: unknown,
  { AWS_PROFILE: profile, AWS_REGION: region = "" }: Environment,
): Error {
  const found = awsAccessError(error, "sts:GetCallerIdentity", {
    ...{ account: undefined, identity: undefined },
    ...{ profile: profile || undefined, region },
  });
  if (!(found instanceof AwsUnavailableError)) return found;
  if (wasAnswered(error)) return new NotChecked(`sts:GetCallerIdentity failed: ${awsFailure(error)}`);
  return new NotChecked(`sts:GetCallerIdentity gave no answer: ${awsFailure(error)}; ${REACH_AWS}`);
}
