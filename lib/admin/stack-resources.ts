import type { CloudFormationClient, Stack, StackStatus } from "@aws-sdk/client-cloudformation";
import { cloudformationClient, type Environment, stsClient } from "../aws/clients.ts";
import { editDistance } from "../definition/edit-distance.ts";
import { parseOutput } from "../definition/stack-outputs.ts";
import { type AwsCaller, awsAccessError, regionMissing } from "./aws-access.ts";
import type { CaptureResources, ConsumerResources, PipelineResources } from "./resources.ts";
import { StackNotFoundError, StackOfOtherAccountError, StackPipelineError } from "./stack-errors.ts";

/** Settings of `readStack`. */
export interface StackOptions {
  /** Region, credentials and endpoints of AWS, as every SDK reads them. Default: `process.env`. */
  readonly environment?: Environment;
  readonly signal?: AbortSignal;
}

/** A deployed stack, with the pipelines in it. */
export interface DeployedStack {
  readonly name: string;
  readonly region: string;
  /** CloudFormation's word for its state. */
  readonly status: string;
  /** True where its outputs are those of a version whose outputs had no stable names. */
  readonly isOld: boolean;
  readonly pipelines: readonly PipelineResources[];
}

/** A stack's ARN, as CloudFormation writes its id. */
const ARN = /^arn:aws[\w-]*:cloudformation:([\w-]+):(\d{12}):stack\/([^/]+)\//;
/** https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html */
const STACK_NAME = /^[A-Za-z][A-Za-z0-9-]{0,127}$/;
/** Keys of outputs of versions up to 0.2.0: a path of constructs, and its hash. */
const OLD_OUTPUT = /StateTableName[0-9A-F]{8}$/;
const DEADLINE_MS = 30_000;
/** Stacks that are looked at for near names: some pages of 100. */
const MAX_PAGES = 10;
const MAX_NEAR = 5;

/**
 * Reads a stack and the pipelines that its outputs name. `stack` is its name or its ARN.
 *
 * @example
 * const { stateTable, consumers } = pipelineOfStack(await readStack("Shop"), "shop");
 *
 * @throws StackNotFoundError, StackOfOtherAccountError, AwsCredentialsError, AwsRightMissingError, AwsUnavailableError;
 * ConfigurationError where no region is known.
 */
export async function readStack(stack: string, options: StackOptions = {}): Promise<DeployedStack> {
  const { environment = process.env, signal } = options;
  const [, arnRegion, arnAccount, arnName = stack] = ARN.exec(stack) ?? [];
  const client = await cloudformationClient(environment, arnRegion);
  try {
    const region = await regionOf(client, environment);
    const found = await describeStack(client, stack, signal);
    if (found !== undefined && !("error" in found)) return deployedStack(found, region);
    const caller = await callerOf(environment, region, signal);
    if (arnAccount !== undefined && caller.account !== undefined && arnAccount !== caller.account)
      throw new StackOfOtherAccountError(arnName, arnAccount, caller);
    if (found !== undefined) throw awsAccessError(found.error, "cloudformation:DescribeStacks", caller);
    throw new StackNotFoundError(stack, caller, await nearNames(client, arnName, signal));
  } finally {
    client.destroy();
  }
}

/** Returns the stack, undefined where there is none of that name, or why it cannot be told. */
async function describeStack(
  client: CloudFormationClient,
  stack: string,
  signal: AbortSignal | undefined,
): Promise<Stack | { readonly error: unknown } | undefined> {
  const { DescribeStacksCommand } = await import("@aws-sdk/client-cloudformation");
  try {
    const { Stacks } = await client.send(new DescribeStacksCommand({ StackName: stack }), {
      abortSignal: deadline(signal),
    });
    return Stacks?.[0];
  } catch (error) {
    return isNoStack(error, stack) ? undefined : { error };
  }
}

/**
 * Returns one pipeline of a stack: the one of that name, or the only one.
 * @throws StackPipelineError where the stack does not have it, or has several and none is named.
 */
export function pipelineOfStack(
  { name, region, status, isOld, pipelines }: DeployedStack,
  pipeline: string | undefined,
): PipelineResources {
  const stack = `the stack "${name}" in ${region}`;
  const [first, ...others] = pipelines;
  if (first === undefined) {
    throw new StackPipelineError(
      isOld
        ? {
            message: `${stack} was deployed by an older version of tributary-cdc, whose outputs cannot be told apart`,
            remedy:
              "Deploy it again with this version (npx cdk deploy), whose outputs have stable names. Until then name the state table with --state-table, and the redrive function with --function.",
          }
        : {
            message: `${stack} (${status}) has no pipeline of Tributary among its outputs`,
            remedy: /_IN_PROGRESS$/.test(status)
              ? "Wait until its deploy has ended: outputs are there from then on."
              : "Name the stack that the CdcPipeline is in. A nested stack has outputs of its own: name that one.",
          },
    );
  }
  const names = pipelines.map((one) => one.pipeline).join(", ");
  if (pipeline === undefined) {
    if (others.length === 0) return first;
    throw new StackPipelineError({
      message: `${stack} has several pipelines: ${names}`,
      remedy: "Name the definition of one with --pipeline <file>.",
    });
  }
  const found = pipelines.find((one) => one.pipeline === pipeline);
  if (found) return found;
  throw new StackPipelineError({
    message: `${stack} has no pipeline "${pipeline}", but ${names}`,
    remedy: `The definition's name chooses the pipeline: name the definition of ${names} with --pipeline <file>, or the stack of "${pipeline}" with --stack.`,
  });
}

/** Asks AWS who calls. Every identity may. */
export async function callerOf(
  environment: Environment,
  region: string,
  signal?: AbortSignal,
): Promise<AwsCaller> {
  const profile = environment.AWS_PROFILE || undefined;
  try {
    const { GetCallerIdentityCommand } = await import("@aws-sdk/client-sts");
    const client = await stsClient(environment);
    const { Account: account, Arn: identity } = await client.send(new GetCallerIdentityCommand({}), {
      abortSignal: deadline(signal),
    });
    return { account, identity, profile, region };
  } catch {
    // Of an error that is told already it is only a detail.
    return { account: undefined, identity: undefined, profile, region };
  }
}

function deployedStack(stack: Stack, region: string): DeployedStack {
  const outputs = (stack.Outputs ?? []).flatMap(({ Description = "", OutputValue: value }) => {
    const output = parseOutput(Description);
    return output && value ? [{ output, value }] : [];
  });
  const name = stack.StackName ?? "";
  const names = [...new Set(outputs.map(({ output }) => output.pipeline))];
  const pipelines = names.flatMap((pipeline) => {
    const values = new Map<string, string>();
    const services = new Map<number, string>();
    const consumers = new Map<string, Map<string, string>>();
    for (const { output, value } of outputs) {
      if (output.pipeline !== pipeline) continue;
      if ("slot" in output) services.set(output.slot, value);
      else if ("consumer" in output) {
        const of = consumers.get(output.consumer) ?? new Map<string, string>();
        consumers.set(output.consumer, of.set(output.resource, value));
      } else values.set(output.resource, value);
    }
    const stateTable = values.get("stateTable");
    const cluster = values.get("cluster");
    if (stateTable === undefined) return [];
    const captures: CaptureResources[] = [...services]
      .toSorted(([a], [b]) => a - b)
      .flatMap(([slot, service]) => (cluster === undefined ? [] : [{ slot, cluster, service }]));
    return [
      {
        ...{ pipeline, stack: name, stateTable, captures },
        place: `stack ${name} in ${region}`,
        stream: values.get("stream"),
        claimStore: values.get("claimStore"),
        captureDeadLetters: values.get("captureDeadLetters"),
        consumers: Object.fromEntries(
          [...consumers].map(([consumer, of]) => [consumer, consumerResources(of)]),
        ),
      },
    ];
  });
  const isOld = (stack.Outputs ?? []).some(({ OutputKey = "" }) => OLD_OUTPUT.test(OutputKey));
  return { name, region, status: stack.StackStatus ?? "unknown", isOld, pipelines };
}

function consumerResources(values: ReadonlyMap<string, string>): ConsumerResources {
  return {
    function: values.get("function"),
    mapping: values.get("mapping"),
    redriveFunction: values.get("redriveFunction"),
    verifyTask: values.get("verifyTask"),
    entry: undefined,
    deadLetterQueue: values.get("deadLetterQueue"),
  };
}

/** CloudFormation has no name of its own for it: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html */
function isNoStack(error: unknown, stack: string): boolean {
  if (!(error instanceof Error) || error.name !== "ValidationError") return false;
  return /does not exist/.test(error.message) || !(STACK_NAME.test(stack) || ARN.test(stack));
}

/** States of stacks that are there. */
const THERE: readonly StackStatus[] = [
  ...(["CREATE_COMPLETE", "CREATE_IN_PROGRESS", "UPDATE_COMPLETE", "UPDATE_IN_PROGRESS"] as const),
  ...(["UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED"] as const),
  ...(["UPDATE_ROLLBACK_FAILED", "IMPORT_COMPLETE", "DELETE_FAILED"] as const),
];

/** Returns names like the one that is not there, or all where there are few; undefined where they cannot be listed. */
async function nearNames(
  client: CloudFormationClient,
  wanted: string,
  signal: AbortSignal | undefined,
): Promise<readonly string[] | undefined> {
  const { ListStacksCommand } = await import("@aws-sdk/client-cloudformation");
  const names: string[] = [];
  try {
    let next: string | undefined;
    for (let page = 0; page < MAX_PAGES; page++) {
      const answer = await client.send(
        new ListStacksCommand({ StackStatusFilter: [...THERE], ...(next && { NextToken: next }) }),
        { abortSignal: deadline(signal) },
      );
      for (const { StackName } of answer.StackSummaries ?? []) if (StackName) names.push(StackName);
      next = answer.NextToken;
      if (next === undefined) break;
    }
  } catch {
    return undefined;
  }
  const sorted = names
    .map((name) => ({ name, distance: editDistance(name.toLowerCase(), wanted.toLowerCase()) }))
    .toSorted((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1));
  return sorted.slice(0, MAX_NEAR).map(({ name }) => name);
}

/** @throws ConfigurationError where none is known, or one that cannot be */
async function regionOf({ config }: CloudFormationClient, { AWS_PROFILE }: Environment): Promise<string> {
  try {
    return await config.region();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    // The SDK has no name for either.
    if (/region is missing/i.test(error.message)) throw regionMissing(undefined, AWS_PROFILE || undefined);
    const [, region] = /^Region not accepted: region="(.*)" is not/s.exec(error.message) ?? [];
    throw region === undefined ? error : regionMissing(region);
  }
}

function deadline(signal: AbortSignal | undefined): AbortSignal {
  const late = AbortSignal.timeout(DEADLINE_MS);
  return signal === undefined ? late : AbortSignal.any([signal, late]);
}
