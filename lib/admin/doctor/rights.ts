import type { ContextEntry } from "@aws-sdk/client-iam";
import { ecsClient, iamClient } from "../../aws/clients.ts";
import { parkedPath } from "../../change/claim-store.ts";
import { claimLocation } from "../../claim-check/open-claim-store.ts";
import { captureKey, pauseKey, resetKey, startPositionKey } from "../../state/state-key.ts";
import { askAws } from "./ask-aws.ts";
import { isEmulated } from "./aws-caller.ts";
import { readService } from "./capture-service.ts";
import { type Check, NotChecked, outcomeOf } from "./check.ts";
import { readFunction } from "./consumers.ts";
import { RoleRightMissingError } from "./doctor-errors.ts";
import { type Examination, needed } from "./examination.ts";
import { counted } from "./project.ts";

/** Actions that a role needs on one resource. */
export interface NeededActions {
  readonly resource: string;
  readonly actions: readonly string[];
  /** Partition key of an item that is asked for: policies of the construct permit items by it. */
  readonly leadingKey?: string;
}

const RIGHTS_MS = 25_000;
const ITEMS = ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"].map((name) => `dynamodb:${name}`);

/**
 * Asks IAM whether the roles of capture and consumers have the rights that the construct gives them; where their roles are not known, whether
 * we have those of an operator. Policies of resources and of the organisation IAM does not count in.
 */
export function rightsChecks(examination: Examination): readonly Check[] {
  const { resources } = examination.subject;
  const captures = resources?.captures.slice(0, 1) ?? [];
  const consumers = (examination.pipeline?.consumers ?? []).filter(
    ({ name }) => resources?.consumers[name]?.function !== undefined,
  );
  const ofRole = (
    name: string,
    roleOf: (signal: AbortSignal) => Promise<string | undefined>,
    needs: () => Promise<readonly NeededActions[]>,
  ): Check => ({
    name,
    deadlineMs: RIGHTS_MS,
    async look(signal) {
      examination.requireResources();
      if (isEmulated(examination.subject.environment))
        throw new NotChecked("emulators stand in for AWS here, and know no rights");
      await needed(examination.caller(), "needs credentials that AWS takes: see AWS identity");
      const role = await roleOf(signal);
      if (role === undefined) throw new NotChecked("its role is not known");
      const wanted = await needs();
      const errors = await simulate(examination, role, wanted, signal);
      const count = wanted.reduce((sum, { actions }) => sum + actions.length, 0);
      return outcomeOf(errors, `${counted(count, "action")} of ${role}, as its own policies say`);
    },
  });
  if (captures.length === 0 && consumers.length === 0)
    return [
      ofRole(
        "rights of ours",
        async () => roleOfCaller((await examination.caller()).arn),
        () => operatorNeeds(examination),
      ),
    ];
  return [
    ...captures.map((capture) =>
      ofRole(
        "rights of capture",
        async (signal) => {
          const { taskDefinition } = await readService(examination, capture, signal);
          const { DescribeTaskDefinitionCommand } = await import("@aws-sdk/client-ecs");
          const client = await ecsClient(examination.subject.environment);
          const { taskDefinition: found } = await askAws("ecs:DescribeTaskDefinition", () =>
            client.send(new DescribeTaskDefinitionCommand({ taskDefinition }), { abortSignal: signal }),
          ).finally(() => client.destroy());
          return found?.taskRoleArn;
        },
        () => captureNeeds(examination),
      ),
    ),
    ...consumers.map(({ name }) =>
      ofRole(
        `rights of ${name}`,
        async (signal) => {
          const { function: functionName = "" } = resources?.consumers[name] ?? {};
          return (await readFunction(examination, functionName, signal)).Role;
        },
        () => consumerNeeds(examination, name),
      ),
    ),
  ];
}

async function simulate(
  { subject }: Examination,
  role: string,
  wanted: readonly NeededActions[],
  signal: AbortSignal,
): Promise<RoleRightMissingError[]> {
  const { SimulatePrincipalPolicyCommand } = await import("@aws-sdk/client-iam");
  const client = await iamClient(subject.environment);
  try {
    const answers = await Promise.all(
      wanted.map(async ({ resource, actions, leadingKey }) => {
        const command = new SimulatePrincipalPolicyCommand({
          PolicySourceArn: role,
          ActionNames: [...actions],
          ResourceArns: [resource],
          ...(leadingKey !== undefined && { ContextEntries: [leadingKeys(leadingKey)] }),
        });
        const { EvaluationResults = [] } = await askAws("iam:SimulatePrincipalPolicy", () =>
          client.send(command, { abortSignal: signal }),
        );
        return EvaluationResults.flatMap(({ EvalActionName: action = "", EvalDecision: decision = "" }) =>
          decision === "allowed" ? [] : [new RoleRightMissingError(role, action, resource, decision)],
        );
      }),
    );
    return answers.flat();
  } finally {
    client.destroy();
  }
}

/**
 * The simulator knows of a request only what it is told: without the key a condition on it does not hold.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_testing-policies.html
 */
function leadingKeys(key: string): ContextEntry {
  return {
    ContextKeyName: "dynamodb:LeadingKeys",
    ContextKeyType: "stringList",
    ContextKeyValues: [key],
  };
}

/** Rights to items with these partition keys, by the actions on each. */
async function stateNeeds(
  examination: Examination,
  items: readonly { readonly pk: string; readonly actions: readonly string[] }[],
): Promise<NeededActions[]> {
  const { TableArn, SSEDescription } = await needed(
    examination.table(),
    "needs the table's ARN: see state table",
  );
  const key = SSEDescription?.KMSMasterKeyArn;
  return [
    ...(TableArn ? items.map(({ pk, actions }) => ({ resource: TableArn, actions, leadingKey: pk })) : []),
    ...(key ? [{ resource: key, actions: ["kms:Decrypt", "kms:GenerateDataKey"] }] : []),
  ];
}

async function streamNeeds(examination: Examination, actions: readonly string[]): Promise<NeededActions[]> {
  const { StreamARN, KeyId } = await needed(examination.stream(), "needs the stream's ARN: see stream");
  return [
    ...(StreamARN ? [{ resource: StreamARN, actions }] : []),
    ...(KeyId?.startsWith("arn:") ? [{ resource: KeyId, actions: ["kms:Decrypt"] }] : []),
  ];
}

/** Rights to read the objects of the pipeline, and to write those below `written`. */
function claimNeeds(
  { subject: { resources } }: Examination,
  pipeline: string,
  written: string,
): NeededActions[] {
  const location = resources?.claimStore === undefined ? undefined : claimLocation(resources.claimStore);
  if (location?.kind !== "s3") return [];
  const bucket = `arn:aws:s3:::${location.bucket}`;
  return [
    { resource: `${bucket}/${location.prefix}${pipeline}/one`, actions: ["s3:GetObject"] },
    { resource: `${bucket}/${location.prefix}${written}/one`, actions: ["s3:PutObject"] },
    { resource: bucket, actions: ["s3:ListBucket"] },
  ];
}

function queueNeeds(url: string | undefined, actions: readonly string[]): NeededActions[] {
  const [, region, account, name] =
    /^https:\/\/sqs\.([^.]+)\.amazonaws\.com(?:\.cn)?\/(\d+)\/([^/]+)$/.exec(url ?? "") ?? [];
  return region ? [{ resource: `arn:aws:sqs:${region}:${account}:${name}`, actions }] : [];
}

async function captureNeeds(examination: Examination): Promise<NeededActions[]> {
  const { pipeline } = examination.requireResources();
  return [
    ...(await stateNeeds(examination, [{ pk: captureKey(pipeline).pk, actions: ITEMS }])),
    ...(await streamNeeds(examination, [
      "kinesis:PutRecords",
      "kinesis:DescribeStreamSummary",
      "kinesis:ListShards",
      "kinesis:GetShardIterator",
      "kinesis:GetRecords",
    ])),
    ...queueNeeds(examination.subject.resources?.captureDeadLetters, ["sqs:SendMessage"]),
    ...claimNeeds(examination, pipeline, pipeline),
  ];
}

async function consumerNeeds(examination: Examination, name: string): Promise<NeededActions[]> {
  const { pipeline } = examination.requireResources();
  return [
    ...(await stateNeeds(examination, [
      { pk: startPositionKey({ pipeline, consumer: name }).pk, actions: ITEMS },
      { pk: resetKey({ pipeline, consumer: name }).pk, actions: ITEMS },
      { pk: pauseKey(pipeline).pk, actions: ["dynamodb:GetItem"] },
    ])),
    ...(await streamNeeds(examination, [
      "kinesis:DescribeStreamSummary",
      "kinesis:ListShards",
      "kinesis:GetShardIterator",
      "kinesis:GetRecords",
    ])),
    ...queueNeeds(examination.subject.resources?.consumers[name]?.deadLetterQueue, ["sqs:SendMessage"]),
    ...claimNeeds(examination, pipeline, parkedPath(pipeline, name)),
  ];
}

async function operatorNeeds(examination: Examination): Promise<NeededActions[]> {
  const { pipeline, captureDeadLetters, consumers } = examination.requireResources();
  const queues = [
    captureDeadLetters,
    ...Object.values(consumers).map(({ deadLetterQueue }) => deadLetterQueue),
  ];
  return [
    ...(await stateNeeds(examination, [{ pk: captureKey(pipeline).pk, actions: ITEMS }])),
    ...queues.flatMap((url) =>
      queueNeeds(url, ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]),
    ),
  ];
}

/** `arn:aws:sts::1:assumed-role/Admin/ada` is a session of `arn:aws:iam::1:role/Admin`; a role's path it does not tell. */
function roleOfCaller(arn: string): string | undefined {
  const [, partition, account, role] = /^arn:([^:]+):sts::(\d+):assumed-role\/([^/]+)\//.exec(arn) ?? [];
  if (role) return `arn:${partition}:iam::${account}:role/${role}`;
  return /:iam::\d+:user\//.test(arn) ? arn : undefined;
}
