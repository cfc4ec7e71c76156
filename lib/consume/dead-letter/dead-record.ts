import type { RecordRange } from "../../change/record.ts";
import { errorFacts, jsonLogger } from "../api/context.ts";
import type { PartitionName } from "../consume-errors.ts";
import type { BatchRecord, UnreadableEvents, UnreadableRecord } from "../run/batch-record.ts";
import { type Invocation, type Partition, type Stop, stopAt } from "../run/partition.ts";
import { deadLetterError } from "./dead-letter.ts";
import { DeadLetterTooLargeError } from "./dead-letter-errors.ts";

/** The parts of an invocation that send a record to the dead letters. */
export type RecordGiver = Pick<
  Invocation,
  | "consumer"
  | "configuration"
  | "deadline"
  | "counts"
  | "deadLetters"
  | "claims"
  | "parking"
  | "token"
  | "write"
>;

/** The record, and what is known of what it held. */
type DeadRecord = Pick<UnreadableRecord, "shardId" | "sequenceNumber" | "partitionKey" | "data" | "error"> & {
  readonly held?: PartitionName & RecordRange;
};

/**
 * Sends a record of which nothing is known to the dead letters, once: without a position no fence stops a second dead letter.
 * @throws the record's own error under the policy `stop`; what the queue and the state table throw.
 */
export async function giveUpRecord(invocation: RecordGiver, record: UnreadableRecord): Promise<void> {
  const { claims, deadline, token } = invocation;
  refuseUnderStop(invocation, record);
  const name = `record/${record.shardId}/${record.sequenceNumber}`;
  if (!(await claims.claim(name, token, deadline.untilEndMs(), deadline.work))) return;
  await send(invocation, record);
  await claims.done(name, token, deadline.end);
}

/**
 * Gives up the events of a record that cannot be read. They take no effect, and nobody knows their keys: a redrive would
 * put old states over newer ones. What follows their last one goes on. Gives why the partition stops instead.
 */
export async function giveUpEvents(
  partition: Partition,
  record: BatchRecord,
  { first, last, after, partitionKey, data, error }: UnreadableEvents,
): Promise<Stop | undefined> {
  const { topic, partition: number } = partition.lane;
  const { shardId, sequenceNumber } = record;
  const held = { topic, partition: number, first, last, after };
  try {
    const whole = { shardId, sequenceNumber, partitionKey, data, error, held };
    refuseUnderStop(partition.invocation, whole);
    await send(partition.invocation, whole);
    await partition.noteMissing("unreadable", record, after ?? partition.checkpoint.position, last);
  } catch (refusal) {
    return stopAt(record, refusal, undefined, refusal === error);
  }
  partition.checkpoint.explain(last, record.writer);
  return undefined;
}

function refuseUnderStop({ configuration, deadLetters, counts }: RecordGiver, { error }: DeadRecord): void {
  if (configuration.poison !== "stop" && deadLetters) return;
  counts.held++;
  throw error;
}

async function send(invocation: RecordGiver, record: DeadRecord): Promise<void> {
  const { consumer, deadLetters, counts, deadline, parking, write } = invocation;
  const { shardId, sequenceNumber, partitionKey, data, error, held } = record;
  const at = new Date().toISOString();
  const times = { attempts: 1, firstFailedAt: at, lastFailedAt: at } as const;
  const facts = { consumer, ...held, partitionKey, shardId, sequenceNumber, ...times };
  const deadLetter = { ...facts, error: deadLetterError(error) };
  try {
    await deadLetters?.send({ ...deadLetter, record: data }, deadline.end);
  } catch (refusal) {
    if (!(refusal instanceof DeadLetterTooLargeError)) throw refusal;
    // A record may be larger than a message, the more so in base64.
    const bytes = Buffer.from(data, "base64");
    const recordItems = await parking.putRecord(record, bytes, deadline.end);
    await deadLetters?.send({ ...deadLetter, recordItems }, deadline.end);
  }
  counts.deadLettered++;
  const place = { topic: held?.topic, partition: held?.partition, partitionKey, shardId, sequenceNumber };
  jsonLogger(write, { consumer, ...place, ...errorFacts(error) }).warn(
    "a record that cannot be read went to the dead letters",
  );
}
