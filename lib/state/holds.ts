import * as z from "zod";
import type { Hold, HoldRecord } from "../source/postgres/hold/hold-record.ts";
import { LeasedTable } from "./leased-table.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { TopicNotHeldError } from "./state-errors.ts";
import { holdKey, holdSegmentKey } from "./state-key.ts";

/** A hold as it stands in the table, and whether somebody asked for its release. */
export type StoredHold = Hold & { readonly released: boolean };

const position = z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/);

const stored = z.object({
  reason: z.object({
    code: z.string(),
    message: z.string(),
    remedy: z.string(),
    table: z.string(),
    position,
  }),
  since: z.number(),
  from: position,
  last: position,
  by: z.int().optional(),
  drained: position,
  first: z.int(),
  next: z.int(),
  changes: z.int(),
  bytes: z.int(),
});

const segment = z.object({
  claim: z.object({ bucket: z.string(), key: z.string(), bytes: z.int(), sha256: z.string() }),
  changes: z.int(),
  last: position,
});

/** Returns all held topics of a pipeline. @throws StateTableError, StateTableUnavailableError */
export async function readHolds(place: StatePlace): Promise<StoredHold[]> {
  return (await readItems(place)).map(({ hold }) => hold);
}

/** Returns the held topics that the capture task of one generation wrote last. @throws StateTableError, StateTableUnavailableError */
export async function readHoldsOf(place: StatePlace, writer: number): Promise<StoredHold[]> {
  return (await readItems(place)).flatMap(({ hold, generation }) => (generation === writer ? hold : []));
}

async function readItems(place: StatePlace): Promise<{ hold: StoredHold; generation: number }[]> {
  const key = holdKey(place.pipeline);
  const found: { hold: StoredHold; generation: number }[] = [];
  for await (const item of persistentTable(place).query(key)) {
    if (item.held === undefined) continue;
    const topic = (item.sk?.S ?? "").slice(key.sk.length);
    const hold = stored.parse(JSON.parse(item.held.S ?? "null"));
    const generation = Number(item.generation?.N ?? "0");
    found.push({ hold: { topic, ...hold, released: item.wanted?.S === "release" }, generation });
  }
  return found;
}

/**
 * Asks the capture task to release a topic; it looks every few seconds.
 * @throws TopicNotHeldError, StateTableError, StateTableUnavailableError
 */
export async function wantRelease(place: StatePlace, topic: string): Promise<void> {
  const updated = await persistentTable(place).update(holdKey(place.pipeline, topic), {
    UpdateExpression: "SET wanted = :release",
    ConditionExpression: "attribute_exists(held)",
    ExpressionAttributeValues: { ":release": { S: "release" } },
  });
  if (updated) return;
  const held = (await readHolds(place)).map((hold) => hold.topic);
  throw new TopicNotHeldError(place.pipeline, topic, held);
}

/** The holds of a pipeline as the capture task that holds the lease keeps them. */
export function holdRecord(place: StatePlace, generation: number): HoldRecord {
  const { pipeline } = place;
  const table = new LeasedTable(place, generation);
  return {
    list: () => readHolds(place),
    writeSegment: (topic, index, written) =>
      table.put(holdSegmentKey(pipeline, topic, index), { segment: { S: JSON.stringify(written) } }),
    readSegment: async (topic, index) => {
      const item = await persistentTable(place).get(holdSegmentKey(pipeline, topic, index));
      return segment.parse(JSON.parse(item?.segment?.S ?? "null"));
    },
    write: ({ topic, ...hold }, refused = false) =>
      table.update(holdKey(pipeline, topic), `, held = :hold${refused ? " REMOVE wanted" : ""}`, {
        ":hold": { S: JSON.stringify(hold) },
      }),
    end: async ({ topic, next }) => {
      // The hold first: without it the segments count for nothing. The generation stays: an older task begins no hold here.
      await table.update(holdKey(pipeline, topic), " REMOVE held, wanted");
      for (let index = 0; index < next; index++) await table.delete(holdSegmentKey(pipeline, topic, index));
    },
  };
}
