import { beforeAll, expect, test } from "vitest";
import { dynamodbClient, sqsClient } from "../../../lib/aws/clients.ts";
import { claimOf } from "../../../lib/change/claim-store.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { claimRecord } from "../../../lib/change/record.ts";
import { claimStoreFromEnvironment } from "../../../lib/claim-check/open-claim-store.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { rolesOf, type Statement } from "../../cdk/policies.ts";
import { basics, definition, synthesize } from "../../cdk/stacks.ts";
import { at, type Change, kinesisRecord, packed, recordJson, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { emulatedS3 } from "../emulated-s3.ts";
import {
  type Call,
  dynamodbCall,
  policyGuards,
  refusedOf,
  s3Call,
  sqsCallTo,
  unusedOf,
} from "../policy-guard.ts";
import { DONE, invoke, redrive } from "./consumer-bench.ts";

/*
 * A consumer and its redrive under the policies of their roles, as the stack has them: a proxy before the emulators asks an evaluator of
 * IAM's rules for each call and refuses what is not permitted. Rights that no call has used are listed: one too many is red, too.
 */

const aws = emulatedAws();
const s3 = emulatedS3();
const guard = policyGuards();
const NAME = "customer-view";

const roles = rolesOf(synthesize((stack) => ({ definition: definition(), ...basics(stack) })).template);
const handlerRole = roles.get("PipelineConsumercustomerviewHandlerRole") as Statement[];
const redriveRole = roles.get("PipelineConsumercustomerviewRedriveHandlerRole") as Statement[];

const sqsCall = sqsCallTo("PipelineConsumercustomerviewDeadLettersQueue");

let table = "";
let queue = "";
beforeAll(async () => {
  table = await aws().freshTable();
  queue = await aws().freshQueue({ MaximumMessageSize: String(1024 * 1024) });
  // As capture does, with its own rights.
  await registerConsumers(
    aws().dynamodb,
    table,
    "shop",
    [{ name: NAME, topics: ["shop.*"] }],
    START_OF_HISTORY,
  );
});

/** The consumer's code under a role; `calls` are those that it has made. */
async function under(role: readonly Statement[], name = NAME) {
  const calls: Call[] = [];
  const endpoint = (service: string) =>
    aws().environment[`AWS_ENDPOINT_URL_${service}`] ?? aws().environment.AWS_ENDPOINT_URL ?? "";
  const sqs = await guard(endpoint("SQS"), role, calls, sqsCall);
  const environment = {
    ...aws().environment,
    ...s3().environment,
    AWS_ENDPOINT_URL_DYNAMODB: await guard(endpoint("DYNAMODB"), role, calls, dynamodbCall),
    AWS_ENDPOINT_URL_SQS: sqs,
    AWS_ENDPOINT_URL_S3: await guard(s3().endpoint, role, calls, s3Call),
    TRIBUTARY_STATE_TABLE: table,
    TRIBUTARY_PIPELINE_NAME: "shop",
    TRIBUTARY_DEAD_LETTER_QUEUE_URL: new URL(new URL(queue).pathname, sqs).toString(),
    TRIBUTARY_CLAIM_BUCKET: `s3://${s3().bucket}/changes`,
    TRIBUTARY_ATTEMPTS: "1",
  };
  const handler = consumer(name)
    .on("public.orders", ALL_OPERATIONS, { once: "claim" }, (event) => {
      if (bad.has(String(event.row?.id))) throw new Error("poison");
      effects.push(event.id);
    })
    .handler({
      environment,
      dynamodb: dynamodbClient(environment),
      sqs: sqsClient(environment),
      write: () => {},
    });
  return { handler, calls };
}

const bad = new Set(["small", "large"]);
const effects: string[] = [];

function changes(from: number, ...rows: Change["row"][]): Change[] {
  return rows.map((row, i) => ({
    at: from + i,
    after: from + i === 1 ? null : from + i - 1,
    op: "u",
    ...(row && { row }),
  }));
}

/** A change above the record limit, as capture stores it. */
async function claimed(change: Change) {
  const store = await claimStoreFromEnvironment({
    ...s3().environment,
    TRIBUTARY_CLAIM_BUCKET: `s3://${s3().bucket}/changes`,
  });
  if (!store) throw new Error("a claim store expected");
  const bytes = Buffer.from(recordJson([change]));
  const position = at(change.at);
  const claim = claimOf(store, `shop/${TOPIC}/0/${position}`, bytes);
  await store.put(claim, bytes, AbortSignal.timeout(10_000));
  return kinesisRecord(
    claimRecord({ topic: TOPIC, partition: 0, writer: 1 }, claim, position, at(change.at - 1)),
  );
}

/** What Lambda does with the role: https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-create.html */
const BY_LAMBDA = ["s3:PutObject on PipelineClaimsBucket/aws/lambda/*"];
/** It is asked of S3 by nobody: with it, an object that is missing is told from one that is forbidden. */
const NOT_CALLED = ["s3:ListBucket on PipelineClaimsBucket"];

/** A consumer's pages of held records and missing changes, which this history does not reach; its redrive's are read here. */
const PAGED = ["dynamodb:Query on PipelineStateTable"];

/** A redrive that replays held records parks what fails of them and sends its letters (lib/consume/hold): not in this history. */
const REPLAYED = [
  "s3:PutObject on PipelineClaimsBucket/changes/shop/parked/customer-view/*",
  "sqs:SendMessage on PipelineConsumercustomerviewDeadLettersQueue",
];

test("a consumer and its redrive do all that they do with the rights of their roles", async () => {
  const streaming = await under(handlerRole);
  const large = "x".repeat(300_000);
  // Applied, parked with a dead letter, parked as an object, behind a parked key, and read by its claim.
  const first = changes(1, { id: "a" }, { id: "small" }, { id: "large", text: large }, { id: "small" });
  expect(await invoke(streaming.handler, [packed(first)])).toEqual(DONE);
  expect(refusedOf(streaming.calls)).toEqual([]);
  expect(
    await invoke(streaming.handler, [await claimed({ at: 5, after: 4, op: "u", row: { id: "b" } })]),
  ).toEqual(DONE);
  // A gap is held, with its records.
  const gap = packed([{ at: 20, after: 19, op: "u", row: { id: "c" } }], { partition: 1 });
  await invoke(streaming.handler, [gap]);
  expect(refusedOf(streaming.calls)).toEqual([]);
  expect(effects).toHaveLength(2);

  bad.clear();
  const redriving = await under(redriveRole);
  expect(await redrive(redriving.handler)).toMatchObject({ done: 2, open: 0 });
  expect(refusedOf(redriving.calls)).toEqual([]);
  expect(effects).toHaveLength(5);

  // Of the rights to items, queue and objects all but these were used.
  expect(unusedOf(handlerRole, streaming.calls)).toEqual([...PAGED, ...NOT_CALLED, ...BY_LAMBDA]);
  expect(unusedOf(redriveRole, redriving.calls)).toEqual([...NOT_CALLED, ...REPLAYED]);
});

test("another consumer's items are out of its reach, whatever its code does", async () => {
  const astray = await under(handlerRole, "notifications");
  await invoke(astray.handler, [packed(changes(1, { id: "a" }))]).catch(() => {});
  expect(astray.calls.length).toBeGreaterThan(0);
  for (const { allowed, context } of astray.calls)
    expect(allowed).toBe(context?.["dynamodb:LeadingKeys"]?.[0] === "shop#pauses");
});
