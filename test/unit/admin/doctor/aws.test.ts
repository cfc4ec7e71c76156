import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type CheckResult,
  type DoctorSubject,
  type ExamineOptions,
  examine,
} from "../../../../lib/admin/doctor/index.ts";
import type { PipelineResources } from "../../../../lib/admin/resources.ts";
import { definePipeline, postgres } from "../../../../lib/definition/pipeline.ts";
import { type Answer, FakeAws, refusal } from "./fake-aws.ts";

const ACCOUNT = "123456789012";
const TABLE = `arn:aws:dynamodb:eu-west-1:${ACCOUNT}:table/Shop-State`;
const STREAM = `arn:aws:kinesis:eu-west-1:${ACCOUNT}:stream/Shop-Changes`;
const KEY = `arn:aws:kms:eu-west-1:${ACCOUNT}:key/1`;
const QUEUES = `https://sqs.eu-west-1.amazonaws.com/${ACCOUNT}`;

const pipeline = definePipeline({
  name: "shop",
  source: postgres({ tables: ["public.orders"] }),
  consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*"] }],
});

const RESOURCES: PipelineResources = {
  pipeline: "shop",
  place: "stack Shop in eu-west-1",
  stack: "Shop",
  stateTable: "Shop-State",
  stream: "Shop-Changes",
  claimStore: "s3://shop-claims/changes",
  captureDeadLetters: `${QUEUES}/Shop-Capture`,
  captures: [{ slot: 1, cluster: "Shop-Cluster", service: "Shop-Service" }],
  consumers: {
    orders: {
      function: "Shop-Orders",
      mapping: "8b9c",
      redriveFunction: "Shop-RedriveOrders",
      verifyTask: undefined,
      entry: undefined,
      deadLetterQueue: `${QUEUES}/Shop-Orders`,
    },
  },
};

/** A pipeline on AWS with which nothing is wrong. */
const HEALTHY: Readonly<Record<string, unknown>> = {
  "sts:GetCallerIdentity": {
    Account: ACCOUNT,
    Arn: `arn:aws:sts::${ACCOUNT}:assumed-role/Admin/ada`,
    UserId: "a",
  },
  "kinesis:DescribeStreamSummary": {
    StreamDescriptionSummary: {
      StreamName: "Shop-Changes",
      StreamARN: STREAM,
      StreamStatus: "ACTIVE",
      RetentionPeriodHours: 168,
      OpenShardCount: 4,
      EncryptionType: "KMS",
      KeyId: KEY,
      StreamCreationTimestamp: 1,
      EnhancedMonitoring: [],
      StreamModeDetails: { StreamMode: "ON_DEMAND" },
    },
  },
  "dynamodb:DescribeTable": {
    Table: {
      TableName: "Shop-State",
      TableArn: TABLE,
      TableStatus: "ACTIVE",
      KeySchema: [
        { AttributeName: "pk", KeyType: "HASH" },
        { AttributeName: "sk", KeyType: "RANGE" },
      ],
      AttributeDefinitions: [
        { AttributeName: "pk", AttributeType: "S" },
        { AttributeName: "sk", AttributeType: "S" },
      ],
      SSEDescription: { KMSMasterKeyArn: KEY },
    },
  },
  "dynamodb:DescribeTimeToLive": {
    TimeToLiveDescription: { TimeToLiveStatus: "ENABLED", AttributeName: "expiresAt" },
  },
  "dynamodb:DescribeContinuousBackups": {
    ContinuousBackupsDescription: {
      ContinuousBackupsStatus: "ENABLED",
      PointInTimeRecoveryDescription: { PointInTimeRecoveryStatus: "ENABLED" },
    },
  },
  "dynamodb:GetItem": {},
  "dynamodb:Query": { Items: [], Count: 0 },
  "sqs:GetQueueAttributes": {
    Attributes: {
      MaximumMessageSize: "1048576",
      MessageRetentionPeriod: "1209600",
      ApproximateNumberOfMessages: "3",
    },
  },
  "s3:HEAD /shop-claims": "",
  "s3:HEAD /shop-claims/": "",
  "lambda:GetFunctionConfiguration": {
    State: "Active",
    LastUpdateStatus: "Successful",
    Timeout: 60,
    Role: `arn:aws:iam::${ACCOUNT}:role/Shop-Function`,
    Environment: { Variables: { TRIBUTARY_STATE_TABLE: "Shop-State" } },
  },
  "lambda:GetEventSourceMapping": {
    UUID: "8b9c",
    State: "Enabled",
    BatchSize: 1000,
    EventSourceArn: STREAM,
    FunctionResponseTypes: ["ReportBatchItemFailures"],
    MaximumRetryAttempts: -1,
    MaximumRecordAgeInSeconds: -1,
    LastProcessingResult: "OK",
  },
  "ecs:DescribeServices": {
    services: [
      {
        status: "ACTIVE",
        desiredCount: 1,
        runningCount: 1,
        pendingCount: 0,
        taskDefinition: `arn:aws:ecs:eu-west-1:${ACCOUNT}:task-definition/Shop:1`,
      },
    ],
  },
  "ecs:DescribeTaskDefinition": {
    taskDefinition: { taskRoleArn: `arn:aws:iam::${ACCOUNT}:role/Shop-Task` },
  },
  "ecs:ListTasks": { taskArns: ["arn:1"] },
  "ecs:DescribeTasks": {
    tasks: [
      {
        stoppedReason: "Essential container in task exited",
        stoppedAt: 1_700_000_000,
        containers: [{ exitCode: 1 }],
      },
    ],
  },
};

let aws: FakeAws;
beforeEach(async () => {
  aws = await FakeAws.start();
  for (const [action, body] of Object.entries(HEALTHY)) aws.answers.set(action, { body });
  aws.answers.set("iam:SimulatePrincipalPolicy", (input) => simulated(input, () => "allowed"));
});
afterEach(() => aws.stop());

function simulated(input: Record<string, unknown>, decide: (action: string) => string): Answer {
  return {
    body: {
      EvaluationResults: actionsOf(input).map((action) => ({
        EvalActionName: action,
        EvalDecision: decide(action),
      })),
    },
  };
}

function actionsOf(input: Record<string, unknown>): string[] {
  return Object.entries(input).flatMap(([name, action]) =>
    name.startsWith("ActionNames.member.") ? String(action) : [],
  );
}

/** Changes a part of a healthy answer. */
function change(action: string, part: string, change: Readonly<Record<string, unknown>>): void {
  const whole = structuredClone(HEALTHY[action]) as Record<string, unknown>;
  const inner = part === "" ? whole : ((whole[part] as unknown[])[0] ?? whole[part]);
  Object.assign(inner as object, change);
  aws.answers.set(action, { body: whole });
}

async function diagnose(more: Partial<DoctorSubject> = {}, options: ExamineOptions = {}) {
  const subject = {
    node: "24.1.0",
    environment: aws.environment,
    definition: { file: "tributary.config.ts", pipeline },
    database: undefined,
    resources: RESOURCES,
    handlers: undefined,
    ...more,
  };
  const diagnosis = await examine(subject, options);
  const check = (name: string): CheckResult => {
    const found = diagnosis.checks.find((one) => one.name === name);
    if (!found) throw new Error(`no check ${name} in ${diagnosis.checks.map((one) => one.name).join(", ")}`);
    return found;
  };
  return { ...diagnosis, check };
}

/** The problems of a check, as `CODE message | remedy`. */
function problems(check: CheckResult): string {
  if (check.status !== "problem") throw new Error(`${check.name} is ${JSON.stringify(check)}`);
  return check.problems.map(({ code, message, remedy }) => `${code} ${message} | ${remedy}`).join("\n");
}

const OF_AWS =
  /^(clock of AWS|AWS identity|stream|state table|queue|claim|function|redrive|mapping|capture service|rights)/;

describe("a pipeline on AWS", () => {
  test("with which nothing is wrong passes every check, and only reads are asked for", async () => {
    const { checks, healthy, place } = await diagnose();
    expect(checks.filter(({ name, status }) => OF_AWS.test(name) && status !== "ok")).toEqual([]);
    expect(healthy).toBe(true);
    expect(place).toBe("stack Shop in eu-west-1");
    expect(aws.asked.filter((action) => !/:(Describe|Get|List|Simulate|Query|HEAD)/.test(action))).toEqual(
      [],
    );
  });

  test("no region: one problem, and no check of AWS counts as passed", async () => {
    const { AWS_REGION: _, ...environment } = aws.environment;
    const { check, checks } = await diagnose({ environment });
    expect(problems(check("AWS identity"))).toMatch(
      /^CONFIGURATION The command line: --region is not set \| Name the region/,
    );
    const rest = checks.filter(({ name }) => OF_AWS.test(name) && name !== "AWS identity");
    expect(rest.filter(({ status }) => status !== "unchecked")).toEqual([]);
    expect(aws.asked).toEqual([]);
  });

  test.each([
    ["ExpiredToken", 403, /^AWS_CREDENTIALS .* they have expired \(ExpiredToken\) .*aws sso login/],
    ["InvalidClientTokenId", 403, /^AWS_CREDENTIALS .* they are not valid \(InvalidClientTokenId\)/],
  ])("credentials that AWS answers by %s: nothing else is asked", async (code, status, said) => {
    aws.answers.set("sts:GetCallerIdentity", refusal(code, status));
    const { check, checks, healthy } = await diagnose();
    expect(problems(check("AWS identity"))).toMatch(said);
    expect(healthy).toBe(false);
    expect(check("stream")).toMatchObject({
      status: "unchecked",
      why: expect.stringMatching(/AWS identity/),
    });
    expect(checks.filter(({ status }) => status === "problem")).toHaveLength(1);
    expect([...new Set(aws.asked)]).toEqual(["sts:GetCallerIdentity"]);
  });

  test("a clock two minutes off", async () => {
    const answer = { body: HEALTHY["sts:GetCallerIdentity"] };
    aws.answers.set("sts:GetCallerIdentity", () => ({
      ...answer,
      headers: { date: new Date(Date.now() - 120_000).toUTCString() },
    }));
    const { check } = await diagnose();
    expect(problems(check("clock of AWS"))).toMatch(
      /^CLOCK_SKEW AWS's clock is (119|120) s behind the clock of this machine \| .*NTP/,
    );
  });

  test("a right missing for one call: that check is unchecked and names it, the others look", async () => {
    aws.answers.set("kinesis:DescribeStreamSummary", refusal("AccessDeniedException"));
    const { check, healthy } = await diagnose();
    expect(check("stream")).toMatchObject({
      status: "unchecked",
      why: expect.stringMatching(/^kinesis:DescribeStreamSummary is refused: AccessDeniedException/),
    });
    expect(check("state table").status).toBe("ok");
    expect(healthy).toBe(true);
  });

  test("a right that a role lacks is named with role and resource", async () => {
    aws.answers.set("iam:SimulatePrincipalPolicy", (input) =>
      simulated(input, (action) => (action === "kinesis:PutRecords" ? "implicitDeny" : "allowed")),
    );
    const { check } = await diagnose();
    expect(problems(check("rights of capture"))).toBe(
      `ROLE_RIGHT_MISSING arn:aws:iam::${ACCOUNT}:role/Shop-Task may not kinesis:PutRecords on ${STREAM} (implicitDeny) | Allow kinesis:PutRecords on ${STREAM} in the policies of arn:aws:iam::${ACCOUNT}:role/Shop-Task; the construct grants it: deploy the stack again where it was taken away by hand.`,
    );
    expect(check("rights of orders").status).toBe("ok");
  });

  test("rights are asked as policies permit them: items by their partition keys, objects by their prefix", async () => {
    const asked: Record<string, unknown>[] = [];
    aws.answers.set("iam:SimulatePrincipalPolicy", (input) => {
      asked.push(input);
      return simulated(input, () => "allowed");
    });
    await diagnose();
    const of = (role: string, action: string) =>
      asked
        .filter(
          ({ PolicySourceArn, ...input }) =>
            String(PolicySourceArn).endsWith(role) && actionsOf(input).includes(action),
        )
        .map(
          (input) =>
            input["ContextEntries.member.1.ContextKeyValues.member.1"] ?? input["ResourceArns.member.1"],
        )
        .sort();
    expect(of("Shop-Task", "dynamodb:PutItem")).toEqual(["shop#capture"]);
    expect(of("Shop-Function", "dynamodb:PutItem")).toEqual([
      "shop#consumer#orders",
      "shop#consumer#orders#reset",
    ]);
    expect(of("Shop-Function", "dynamodb:GetItem")).toContain("shop#pauses");
    expect(of("Shop-Task", "s3:PutObject")).toEqual(["arn:aws:s3:::shop-claims/changes/shop/one"]);
    expect(of("Shop-Function", "s3:GetObject")).toEqual(["arn:aws:s3:::shop-claims/changes/shop/one"]);
    expect(of("Shop-Function", "s3:PutObject")).toEqual([
      "arn:aws:s3:::shop-claims/changes/shop/parked/orders/one",
    ]);
    for (const input of asked.filter((one) =>
      actionsOf(one).some((action) => action.startsWith("dynamodb:")),
    ))
      expect(input).toMatchObject({
        "ContextEntries.member.1.ContextKeyName": "dynamodb:LeadingKeys",
        "ContextEntries.member.1.ContextKeyType": "stringList",
      });
  });

  test("where simulation is not allowed rights are unchecked; without known roles our own are asked for", async () => {
    aws.answers.set("iam:SimulatePrincipalPolicy", refusal("AccessDenied", 403));
    const { check } = await diagnose();
    expect(check("rights of capture")).toMatchObject({
      status: "unchecked",
      why: expect.stringMatching(/^iam:SimulatePrincipalPolicy is refused/),
    });
    let asked: unknown;
    aws.answers.set("iam:SimulatePrincipalPolicy", (input) => {
      asked = input.PolicySourceArn;
      return simulated(input, () => "allowed");
    });
    const ours = await diagnose({ resources: { ...RESOURCES, captures: [], consumers: {} } });
    expect(ours.check("rights of ours").status).toBe("ok");
    expect(asked).toBe(`arn:aws:iam::${ACCOUNT}:role/Admin`);
    expect(ours.check("function orders")).toMatchObject({ status: "unchecked" });
  });

  test("a stream with a shorter retention than the definition's, and one that is not there", async () => {
    change("kinesis:DescribeStreamSummary", "StreamDescriptionSummary", { RetentionPeriodHours: 24 });
    expect(problems((await diagnose()).check("stream"))).toMatch(
      /^STREAM_SETTINGS the stream Shop-Changes keeps records for 24 hours, and the definition says 168 .*--retention-period-hours 168/,
    );
    aws.answers.set("kinesis:DescribeStreamSummary", refusal("ResourceNotFoundException"));
    expect(problems((await diagnose()).check("stream"))).toMatch(/^STREAM_SETTINGS .* does not exist/);
  });

  test("a state table with another key; without expiry and backup; of a newer version", async () => {
    change("dynamodb:DescribeTable", "Table", { KeySchema: [{ AttributeName: "id", KeyType: "HASH" }] });
    change("dynamodb:DescribeTimeToLive", "TimeToLiveDescription", { TimeToLiveStatus: "DISABLED" });
    change("dynamodb:DescribeContinuousBackups", "ContinuousBackupsDescription", {
      PointInTimeRecoveryDescription: {},
    });
    aws.answers.set("dynamodb:GetItem", { body: { Item: { slot: { S: '{"version":9}' } } } });
    const { check } = await diagnose();
    expect(problems(check("state table"))).toMatch(
      /^STATE_TABLE .* has the key id HASH undefined, and must have pk HASH S, sk RANGE S/,
    );
    expect(problems(check("state table, expiry"))).toMatch(/^STATE_TABLE .*update-time-to-live/);
    expect(problems(check("state table, backup"))).toMatch(/^STATE_TABLE .*update-continuous-backups/);
    expect(problems(check("state table, capture's record"))).toMatch(
      /^STATE_TABLE .* a newer version wrote it/,
    );
  });

  test("settings of a mapping under which Lambda would discard changes, each with the command that mends it", async () => {
    change("lambda:GetEventSourceMapping", "", {
      State: "Disabled",
      FunctionResponseTypes: [],
      MaximumRetryAttempts: 3,
      MaximumRecordAgeInSeconds: 3600,
      EventSourceArn: `${STREAM}-old`,
    });
    const { check } = await diagnose();
    const text = problems(check("mapping orders"));
    expect(text.split("\n")).toHaveLength(5);
    for (const part of [
      "--enabled",
      "ReportBatchItemFailures",
      "--maximum-retry-attempts -1",
      "--maximum-record-age-in-seconds -1",
      "reads arn",
    ])
      expect(text).toContain(part);
  });

  test("a mapping that is disabled since its consumer is paused is as it should be, and says who paused it", async () => {
    change("lambda:GetEventSourceMapping", "", { State: "Disabled" });
    const pause = { id: "1", by: "ada@laptop", since: 0, reason: "sink" };
    aws.answers.set("dynamodb:GetItem", (input) =>
      JSON.stringify(input).includes("consumer#orders")
        ? { body: { Item: { pause: { S: JSON.stringify(pause) } } } }
        : { body: {} },
    );
    const { check } = await diagnose();
    expect(check("mapping orders")).toMatchObject({
      status: "ok",
      notes: [expect.stringMatching(/^paused by ada@laptop .*tributary consumer resume --consumer orders/)],
    });
  });

  test("a capture task that has ended, or is silent, is a problem; one that reports is none, nor is a slot that was removed", async () => {
    const failure = {
      ...{ code: "SLOT_LOST", message: "the slot is lost", remedy: "tributary epoch new", retry: "stop" },
      at: 1,
    };
    const report = (state: string, ago: number) => {
      const at = Date.now() - ago;
      return { ...{ state, since: at, at, beat: 1, everyMs: 1_000 }, ...{ task: "a", startedAt: 1 } };
    };
    const item = (slot: number, state: string, ago: number) => ({
      pk: { S: "shop#capture-reports" },
      sk: { S: `slot#${slot}#holder` },
      report: { S: JSON.stringify(report(state, ago)) },
      ...(state === "FAILED" && { failure: { S: JSON.stringify(failure) } }),
    });
    const says = async (...Items: ReturnType<typeof item>[]) => {
      aws.answers.set("dynamodb:Query", { body: { Items, Count: Items.length } });
      return (await diagnose()).check("capture task");
    };
    expect((await diagnose()).check("capture task")).toMatchObject({ status: "unchecked" });
    expect(await says(item(1, "RUNNING", 0))).toMatchObject({
      status: "ok",
      detail: expect.stringMatching(/^RUNNING since 20/),
    });
    expect(problems(await says(item(1, "FAILED", 3_600_000)))).toBe(
      "SLOT_LOST the capture task ended: the slot is lost | tributary epoch new",
    );
    expect(problems(await says(item(1, "RUNNING", 3 * 86_400_000)))).toMatch(
      /^CAPTURE_SERVICE the capture task no longer reports since 20/,
    );
    expect(await says(item(1, "RUNNING", 0), item(2, "FAILED", 3_600_000))).toMatchObject({ status: "ok" });
  });

  test("a mapping whose last invocation failed is no mapping in order", async () => {
    change("lambda:GetEventSourceMapping", "", { LastProcessingResult: "PROBLEM: Function call failed" });
    expect(problems((await diagnose()).check("mapping orders"))).toMatch(
      /^CONSUMER_MAPPING the event source mapping of orders last said "PROBLEM: Function call failed".*\| .*aws logs tail \/aws\/lambda\/Shop-Orders/s,
    );
  });

  test("items of a newer format", async () => {
    aws.answers.set("dynamodb:GetItem", { body: { Item: { format: { N: "99" } } } });
    expect(problems((await diagnose()).check("state table, capture's record"))).toMatch(
      /^STATE_TABLE_NEWER .* in format 99/,
    );
  });

  test("a function with another state table, a queue that is gone, a capture task that does not stay up", async () => {
    change("lambda:GetFunctionConfiguration", "", {
      Environment: { Variables: { TRIBUTARY_STATE_TABLE: "Old" } },
    });
    aws.answers.set("sqs:GetQueueAttributes", refusal("com.amazonaws.sqs#QueueDoesNotExist"));
    change("ecs:DescribeServices", "services", { runningCount: 0, pendingCount: 1 });
    const { check } = await diagnose();
    expect(problems(check("function orders"))).toMatch(
      /^CONSUMER_FUNCTION .* uses the state table Old, and the pipeline Shop-State/,
    );
    expect(problems(check("queue orders"))).toMatch(/^DEAD_LETTER_QUEUE there is no queue https/);
    expect(problems(check("capture service"))).toMatch(
      /^CAPTURE_SERVICE .* runs 0 of 1 tasks \(1 are starting\); the last one ended: Essential container in task exited; exit code 1/,
    );
  });

  test("a check that gets no answer ends by itself, as unchecked; the order of the checks stays", async () => {
    const never = new Promise<never>(() => {});
    const handlers = { load: () => never, compare: () => ({ unmatched: [], notes: [] }) };
    const underWay: number[] = [];
    const { check, checks } = await diagnose(
      { database: () => never, handlers },
      { deadlineMs: 1_000, onProgress: (names) => underWay.push(names.length) },
    );
    expect(check("database")).toEqual({ name: "database", status: "unchecked", why: "no answer within 1 s" });
    expect(check("handler orders").status).toBe("unchecked");
    expect(check("stream").status).toBe("ok");
    expect(underWay).toEqual(checks.map((_, i) => checks.length - i).concat(0));
    expect(checks.map(({ name }) => name)).toEqual((await diagnose()).checks.map(({ name }) => name));
  });
});
