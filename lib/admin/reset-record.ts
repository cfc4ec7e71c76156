import { randomUUID } from "node:crypto";
import * as z from "zod";
import type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
import { persistentTable } from "../state/persistent-table.ts";
import { resetKey } from "../state/state-key.ts";

const resetRecord = z.object({
  id: z.string(),
  by: z.string(),
  /** ISO 8601. */
  at: z.string(),
  /** `partitions`: they are being moved. `backfills`: all were, and the tables are read again. */
  phase: z.enum(["partitions", "backfills"]),
  topics: z.array(z.object({ topic: z.string(), partitions: z.int(), tables: z.array(z.string()) })),
  /**
   * Until when an invocation from before may run, in milliseconds since 1970 UTC: no backfill is asked for until then. Of all resets
   * of the consumer the latest, since a partition shows only to the first one who had it before.
   */
  drainUntil: z.number(),
  /** The one topic that was asked for. */
  only: z.string().optional(),
});

/** The last reset of a consumer, as the state table has it: whoever repeats the command goes on with it. */
export type ResetRecord = z.output<typeof resetRecord>;

/** A topic that a consumer begins anew with, and the tables whose rows it is given again. */
export type ResetTopic = ResetRecord["topics"][number];

/** The last reset of a consumer, ended or not. @throws StateTableError, StateTableUnavailableError */
export async function readReset(place: ConsumerPlace, signal: AbortSignal): Promise<ResetRecord | undefined> {
  const item = await persistentTable({ ...place, signal }, true).get(resetKey(place));
  const text = item?.reset?.S;
  if (text === undefined) return undefined;
  const record = resetRecord.parse(JSON.parse(text));
  return { ...record, drainUntil: Math.max(record.drainUntil, Number(item?.drain?.N ?? "0")) };
}

/**
 * Stores until when an invocation may run from which a partition is taken: it only grows, whoever writes it and in whatever order.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function noteDrain(place: ConsumerPlace, until: number, signal: AbortSignal): Promise<void> {
  await persistentTable({ ...place, signal }, true).update(resetKey(place), {
    UpdateExpression: "SET #drain=:drain",
    ConditionExpression: "attribute_not_exists(#drain) OR #drain<:drain",
    ExpressionAttributeNames: { "#drain": "drain" },
    ExpressionAttributeValues: { ":drain": { N: String(Math.ceil(until)) } },
  });
}

/**
 * Begins a reset in place of the one seen. Where somebody else has begun one since, gives that one.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function beginReset(
  place: ConsumerPlace,
  seen: ResetRecord | undefined,
  wish: Pick<ResetRecord, "by" | "topics" | "only">,
  signal: AbortSignal,
): Promise<ResetRecord> {
  const at = new Date().toISOString();
  const begun: ResetRecord = { id: randomUUID(), at, phase: "partitions", drainUntil: 0, ...wish };
  await write(place, begun, seen, signal);
  // Refused, or carried out and the answer lost.
  return (await readReset(place, signal)) ?? begun;
}

/** All its partitions are moved: from now on the reset is about backfills. @throws StateTableError, StateTableUnavailableError */
export async function endPartitions(
  place: ConsumerPlace,
  record: ResetRecord,
  signal: AbortSignal,
): Promise<ResetRecord> {
  const moved: ResetRecord = { ...record, phase: "backfills" };
  await write(place, moved, record, signal);
  return (await readReset(place, signal)) ?? moved;
}

/** Only in place of the one seen, in its phase. */
async function write(
  place: ConsumerPlace,
  record: ResetRecord,
  seen: ResetRecord | undefined,
  signal: AbortSignal,
): Promise<void> {
  await persistentTable({ ...place, signal }, true).update(resetKey(place), {
    UpdateExpression: "SET #id=:id,#phase=:phase,#reset=:reset",
    ConditionExpression: seen ? "#id=:wasId AND #phase=:wasPhase" : "attribute_not_exists(#id)",
    ExpressionAttributeNames: { "#id": "id", "#phase": "phase", "#reset": "reset" },
    ExpressionAttributeValues: {
      ":id": { S: record.id },
      ":phase": { S: record.phase },
      ":reset": { S: JSON.stringify(record) },
      ...(seen ? { ":wasId": { S: seen.id }, ":wasPhase": { S: seen.phase } } : {}),
    },
  });
}
