import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, expect, test } from "vitest";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { deployedKey } from "../../lib/state/state-key.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { emulatedS3 } from "../aws/emulated-s3.ts";
import {
  type Call,
  dynamodbCall,
  kinesisCall,
  policyGuards,
  refusedOf,
  s3Call,
  sqsCallTo,
  unusedOf,
} from "../aws/policy-guard.ts";
import { rolesOf, type Statement } from "../cdk/policies.ts";
import { basics, definition, synthesize } from "../cdk/stacks.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

/*
 * The capture program under the policy of its task's role, as the stack has it: every call to AWS passes an evaluator of IAM's rules, and
 * is refused where the role may not. A right that is missing ends the run, one that nothing uses is listed.
 */

const aws = emulatedAws();
const s3 = emulatedS3();
const guard = policyGuards();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const roles = rolesOf(synthesize((stack) => ({ definition: definition(), ...basics(stack) })).template);
const taskRole = roles.get("PipelineCaptureTaskTaskRole") as Statement[];
const markRole = roles.get("AWS679f53fac002430cb0da5b7982bd2287ServiceRole") as Statement[];

const CALLED = /^(dynamodb|kinesis|s3|sqs):/;

/** The environment in which programs have a role's rights, and the calls that they make. */
async function under(role: readonly Statement[]) {
  const calls: Call[] = [];
  const endpoint = (service: string) =>
    aws().environment[`AWS_ENDPOINT_URL_${service}`] ?? aws().environment.AWS_ENDPOINT_URL ?? "";
  const queue = await aws().freshQueue({ MaximumMessageSize: String(1024 * 1024) });
  const sqs = await guard(endpoint("SQS"), role, calls, sqsCallTo("PipelineCaptureDeadLettersQueue"));
  const environment = {
    ...(s3().environment as Record<string, string>),
    AWS_ENDPOINT_URL_DYNAMODB: await guard(endpoint("DYNAMODB"), role, calls, dynamodbCall),
    AWS_ENDPOINT_URL_KINESIS: await guard(endpoint("KINESIS"), role, calls, kinesisCall),
    AWS_ENDPOINT_URL_SQS: sqs,
    AWS_ENDPOINT_URL_S3: await guard(s3().endpoint, role, calls, s3Call),
    TRIBUTARY_CLAIM_BUCKET: `s3://${s3().bucket}/changes`,
    TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL: new URL(new URL(queue).pathname, sqs).toString(),
    TRIBUTARY_AWAIT_DEPLOYMENT: "true",
    TRIBUTARY_LEASE_MS: "3000",
    TRIBUTARY_OPERATE: "true",
  };
  return { environment, calls };
}

withPostgres((server) => {
  test("capture of a log does all that it does with the rights of its task", async () => {
    const { environment, calls } = await under(taskRole);
    const url = await freshDatabase(server(), { encoding: "SQL_ASCII" });
    const bench = await CaptureBench.create(aws(), url, {
      source: { sqlAsciiEncoding: "utf-8", snapshot: "initial" },
    });
    cleanups.push(() => bench.end());
    await bench.client.query("SET client_encoding = 'SQL_ASCII'");
    await bench.insert(1, 2);
    // A claim's record has no events.
    const reached = (id: number) =>
      eventually(
        async () =>
          (await bench.records()).some(({ kinesis }) =>
            Buffer.from(kinesis.data, "base64").toString().includes(`"after":{"id":${id},`),
          ),
        { what: `row ${id} in the stream`, deadlineMs: 30_000 },
      );
    const first = bench.capture(environment);
    await first.printed("deploy");
    // Alarms of a dead task stand by now.
    await first.printed('"SlotActive":1');
    await mark(bench.consumer.table, "shop");
    // The snapshot, a change above the record limit, and one that holds its topic, with what comes behind it.
    await reached(2);
    await bench.client.query(
      "INSERT INTO orders SELECT 3, string_agg(md5(i::text), '') FROM generate_series(1, 40000) i",
    );
    await bench.insert(4, 4);
    await reached(4);
    await bench.client.query(`INSERT INTO orders VALUES (5, repeat('x', 1000000) || chr(233))`);
    await bench.insert(6, 6);
    await first.printed("is held");
    const operate = async (...args: string[]) => {
      const program = bench.run(environment, ...args);
      const code = await program.ended;
      return { code, text: program.lines.join("\n") };
    };
    const [, position] = await eventually(
      async () =>
        /dead-letter --at ([0-9A-F]{34})/.exec((await operate("capture", "status")).text) ?? undefined,
      { what: "the hold in the status", deadlineMs: 30_000 },
    );
    first.signal("SIGKILL");
    await first.ended;

    // The next task reads what the dead one left in the stream, and drains the hold; an operator's verbs have the task's rights.
    const second = bench.capture(environment);
    await second.printed("streaming from slot");
    // It has waited for nothing: a task that comes and goes must not look alive.
    expect(second.lines.filter((line) => line.includes("capture-deploying"))).toEqual([]);
    expect(await operate("capture", "dead-letter", "--at", position ?? "")).toMatchObject({ code: 0 });
    await reached(6);
    second.signal("SIGTERM");
    expect(await second.ended).toBe(0);
    expect(await operate("teardown", "--confirm", "shop")).toMatchObject({ code: 0 });
    expect(refusedOf(calls)).toEqual([]);
    // Doctor with --remote looks at what it may, and finds no fault in what it may not.
    const looked = await operate("doctor");
    expect(looked.text).toMatch(/^unchecked +state table;.*\n +dynamodb:DescribeTable is refused/m);
    // The emulator's stream keeps records for a day.
    expect(looked.text.match(/^problem.*/gm)).toEqual([expect.stringMatching(/ stream$/)]);
    expect(new Set(refusedOf(calls).map(({ action }) => action))).toEqual(
      new Set(["dynamodb:DescribeTable", "sqs:GetQueueAttributes"]),
    );
    expect(unusedOf(taskRole, calls, CALLED)).toEqual([]);
  });
});

/** Writes the item of the deployment as its provider does, with that one's rights. */
async function mark(table: string, pipeline: string): Promise<void> {
  const { pk, sk } = deployedKey(pipeline);
  const calls: Call[] = [];
  const target = aws().environment.AWS_ENDPOINT_URL_DYNAMODB ?? aws().environment.AWS_ENDPOINT_URL ?? "";
  const client = dynamodbClient({
    ...aws().environment,
    AWS_ENDPOINT_URL_DYNAMODB: await guard(target, markRole, calls, dynamodbCall),
  });
  await client.send(new PutItemCommand({ TableName: table, Item: { pk: { S: pk }, sk: { S: sk } } }));
  client.destroy();
  expect(unusedOf(markRole, calls, CALLED)).toEqual([]);
}
