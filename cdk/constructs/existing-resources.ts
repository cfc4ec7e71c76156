import { Arn, ArnFormat, Stack, Token } from "aws-cdk-lib";
import * as dynamodb from "aws-cdk-lib/aws-dynamodb";
import * as kinesis from "aws-cdk-lib/aws-kinesis";
import * as s3 from "aws-cdk-lib/aws-s3";
import type { Construct, IConstruct } from "constructs";
import { ConfigurationError, type ConfigurationProblem } from "../../lib/change/tributary-error.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { CLAIM_PREFIX, lifetimeDays } from "./claim-bucket.ts";
import { STATE_TABLE } from "./state-table.ts";

/**
 * Existing resources that a pipeline uses instead of making its own. The pipeline does not change their removal policy, encryption or
 * retention. Its roles may use a resource's own key if CDK knows that key (`encryptionKey` of an imported resource). Choose them at the
 * first deploy: a pipeline that gets another state table later has lost its record of what was applied.
 */
export interface ExistingResources {
  /** Stream for this pipeline alone. Its mode must be the definition's; retention and record limit must be at least the definition's. */
  readonly stream?: kinesis.IStream;
  /** Table with string keys `pk` and `sk`, and time to live on `expiresAt`. Pipelines with different names can share it. */
  readonly stateTable?: dynamodb.ITable;
  /** Bucket whose lifecycle rules keep objects below `changes/` as long as something points to them. Pipelines with different names can share it. */
  readonly claimBucket?: s3.IBucket;
}

/** The path of the pipeline that uses a resource, by app and resource. */
const taken = new WeakMap<IConstruct, Map<string, string>>();

/**
 * Checks what CDK can know of resources that exist; of imported ones that is their place only, and `tributary doctor --stack` looks at the rest.
 * @throws ConfigurationError naming the prop, what it has and what it needs.
 */
export function checkExisting(scope: Construct, definition: Pipeline, existing: ExistingResources): void {
  const { stream, stateTable, claimBucket } = existing;
  const problems = [
    ...(stream ? [...elsewhere(scope, "stream", stream.streamArn), ...ofStream(stream, definition)] : []),
    ...(stateTable ? [...elsewhere(scope, "stateTable", stateTable.tableArn), ...ofTable(stateTable)] : []),
    ...(claimBucket
      ? [...elsewhere(scope, "claimBucket", claimBucket.bucketArn), ...ofBucket(claimBucket, definition)]
      : []),
  ];
  if (problems.length === 0) {
    const { name } = definition;
    if (stream) problems.push(...take(scope, "stream", stream, stream.streamArn));
    if (stateTable) problems.push(...take(scope, "stateTable", stateTable, stateTable.tableArn, name));
    if (claimBucket) problems.push(...take(scope, "claimBucket", claimBucket, claimBucket.bucketArn, name));
  }
  if (problems.length > 0) throw new ConfigurationError("CdcPipeline", problems);
}

/** Roles, event source mappings and the image work in the stack's account and region. A bucket's ARN has neither. */
function elsewhere(scope: Construct, prop: keyof ExistingResources, arn: string): ConfigurationProblem[] {
  if (Token.isUnresolved(arn)) return [];
  const stack = Stack.of(scope);
  const { account, region } = Arn.split(arn, ArnFormat.SLASH_RESOURCE_NAME);
  const differs = (given: string | undefined, own: string) =>
    given && !Token.isUnresolved(own) && given !== own;
  if (!differs(account, stack.account) && !differs(region, stack.region)) return [];
  const remedy = `give one of the stack's account and region (${stack.account}, ${stack.region})`;
  return [{ path: `existing.${prop}`, value: arn, remedy }];
}

function ofStream(stream: kinesis.IStream, { stream: wanted }: Pipeline): ConfigurationProblem[] {
  const made = stream.node.defaultChild;
  if (!(made instanceof kinesis.CfnStream)) return [];
  const hours = made.retentionPeriodHours ?? 24;
  const mode = streamMode(made);
  const kib = made.maxRecordSizeInKiB ?? 1024;
  const neededKib = Math.ceil(wanted.maxRecordBytes / 1024);
  return [
    ...(!Token.isUnresolved(hours) && hours < wanted.retentionHours
      ? [
          problem("stream", `${hours} hours of retention`, {
            needs: `stream.retentionHours of the definition is ${wanted.retentionHours}`,
            remedy: "raise the stream's retentionPeriod, or lower the definition's",
          }),
        ]
      : []),
    ...(mode !== undefined && mode !== wanted.mode
      ? [
          problem("stream", mode, {
            needs: `stream.mode of the definition is ${wanted.mode}`,
            remedy: "write the stream's mode into the definition, which bounds and costs are reckoned from",
          }),
        ]
      : []),
    ...(!Token.isUnresolved(kib) && kib < neededKib
      ? [
          problem("stream", `records of ${kib} KiB`, {
            needs: `stream.maxRecordBytes of the definition is ${wanted.maxRecordBytes}`,
            remedy: `set maxRecordSizeInKiB of its CfnStream to ${neededKib}, or lower the definition's`,
          }),
        ]
      : []),
  ];
}

function streamMode({ streamModeDetails: details }: kinesis.CfnStream): string | undefined {
  if (details === undefined) return "provisioned";
  if (Token.isUnresolved(details)) return undefined;
  const { streamMode } = details as kinesis.CfnStream.StreamModeDetailsProperty;
  return Token.isUnresolved(streamMode) ? undefined : streamMode.toLowerCase().replace("_", "-");
}

function ofTable(table: dynamodb.ITable): ConfigurationProblem[] {
  const made = table.node.defaultChild;
  if (!(made instanceof dynamodb.CfnTable || made instanceof dynamodb.CfnGlobalTable)) return [];
  const {
    keySchema = [],
    attributeDefinitions = [],
    timeToLiveSpecification: ttl,
  } = Stack.of(made).resolve({
    keySchema: made.keySchema,
    attributeDefinitions: made.attributeDefinitions,
    timeToLiveSpecification: made.timeToLiveSpecification,
  }) as {
    readonly keySchema?: readonly { readonly attributeName: string; readonly keyType: string }[];
    readonly attributeDefinitions?: readonly {
      readonly attributeName: string;
      readonly attributeType: string;
    }[];
    readonly timeToLiveSpecification?: { readonly attributeName?: string; readonly enabled: unknown };
  };
  const typeOf = (name: string) =>
    attributeDefinitions.find(({ attributeName }) => attributeName === name)?.attributeType;
  const keys = keySchema.map(({ attributeName: name, keyType }) => `${name} ${typeOf(name)} ${keyType}`);
  const needed = [`${STATE_TABLE.partitionKey} S HASH`, `${STATE_TABLE.sortKey} S RANGE`];
  const expires = ttl?.enabled === true ? ttl.attributeName : undefined;
  return [
    ...(keys.toSorted().join() === needed.join()
      ? []
      : [
          problem("stateTable", keys.join(", "), {
            needs: `its keys are ${needed.join(", ")}`,
            remedy: "give a table with these keys, or leave it out for one that is made",
          }),
        ]),
    ...(expires === STATE_TABLE.timeToLive
      ? []
      : [
          problem("stateTable", expires ?? "no time to live", {
            needs: "what is done with is to be removed",
            remedy: `set its timeToLiveAttribute to "${STATE_TABLE.timeToLive}"`,
          }),
        ]),
  ];
}

interface LifecycleRule {
  readonly id?: string;
  readonly status?: string;
  readonly prefix?: string;
  readonly expirationInDays?: unknown;
  /** A `Date`, or a text. */
  readonly expirationDate?: unknown;
}

/** A rule for tagged objects, or for large ones alone, may meet ours too: only a prefix apart from ours cannot. */
function ofBucket(bucket: s3.IBucket, { stream }: Pipeline): ConfigurationProblem[] {
  const made = bucket.node.defaultChild;
  if (!(made instanceof s3.CfnBucket)) return [];
  const { rules = [] } = (Stack.of(made).resolve(made.lifecycleConfiguration) ?? {}) as {
    readonly rules?: readonly LifecycleRule[];
  };
  const needed = lifetimeDays(stream.retentionHours);
  return rules
    .filter(({ status, prefix = "", expirationInDays: days, expirationDate: date }) => {
      const meets = prefix.startsWith(CLAIM_PREFIX) || CLAIM_PREFIX.startsWith(prefix);
      const early = date !== undefined || (typeof days === "number" && days < needed);
      return status !== "Disabled" && meets && early;
    })
    .map(({ id = "without id", expirationInDays: days, expirationDate: date }) =>
      problem(
        "claimBucket",
        `rule ${id}: ${days === undefined ? JSON.stringify(date) : `${String(days)} days`}`,
        {
          needs: `pointers to objects below ${CLAIM_PREFIX} live for ${needed} days`,
          remedy: `keep objects below ${CLAIM_PREFIX} for ${needed} days or longer, or give the rule another prefix`,
        },
      ),
    );
}

function problem(
  prop: keyof ExistingResources,
  value: string,
  { needs, remedy }: { readonly needs: string; readonly remedy: string },
): ConfigurationProblem {
  return { path: `existing.${prop}`, value, remedy: `${needs}: ${remedy}` };
}

/** `pipeline`: the name that its items and objects stand under; a stream has nothing of the kind, so that it carries one pipeline. */
function take(
  scope: Construct,
  prop: keyof ExistingResources,
  resource: IConstruct,
  arn: string,
  pipeline = "",
): ConfigurationProblem[] {
  const { root } = scope.node;
  const known = taken.get(root) ?? new Map<string, string>();
  taken.set(root, known);
  // What the app makes is told by its place, what it imports by its ARN.
  const identity = resource.node.defaultChild
    ? resource.node.path
    : JSON.stringify(Stack.of(resource).resolve(arn));
  const key = `${prop} ${identity} ${pipeline}`;
  const owner = known.get(key);
  known.set(key, scope.node.path);
  if (owner === undefined) return [];
  const remedy =
    pipeline === ""
      ? `${owner} uses this stream: give each pipeline a stream of its own`
      : `${owner}, a pipeline of the same name, uses it: give each its own, or another name`;
  return [{ path: `existing.${prop}`, value: resource.node.path, remedy }];
}
