import { randomUUID } from "node:crypto";
import type { AttributeValue, UpdateItemCommandOutput } from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import { ConfigurationError } from "../change/tributary-error.ts";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import {
  type Backfill,
  type BackfillProgress,
  type BackfillRecord,
  type BackfillRequest,
  type BackfillStatus,
  ENDS,
  hasEnded,
  standsForWhole,
} from "../source/postgres/backfill/backfill-record.ts";
import type { CaptureState } from "./capture-state.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { BackfillActiveError, BackfillNotActiveError } from "./state-errors.ts";
import { backfillBellKey, backfillKey } from "./state-key.ts";
import type { StateItem, StateTable } from "./state-table.ts";

export {
  type Backfill,
  type BackfillProgress,
  type BackfillStatus,
  hasEnded,
} from "../source/postgres/backfill/backfill-record.ts";

/** A backfill as the operator asks for it. */
const request = z.object({
  /** SQL expression over the table's columns: only these rows. Undefined: all. */
  where: z.string().optional(),
  /** The one consumer the rows are for. Undefined: everyone. */
  consumer: z.string().optional(),
  /** True if consumers that keep keys remove, at the end, what was not seen. Never together with `where`. */
  sweep: z.boolean(),
  /** Milliseconds since 1970 UTC. */
  requestedAt: z.number(),
});

/** Bytes of what is asked for, as it is stored. An item holds 400 KB, and the progress and its reason must have room beside it. */
const MAX_REQUEST_BYTES = 256 * 1024;

/** Progress as the capture task knows it: written as a whole, after Kinesis acknowledged the rows it counts. */
const progress = z.object({
  /** Rows with a smaller position were not seen by this run: the bound of a sweep. */
  startPosition: z.string(),
  /** Milliseconds since 1970 UTC. */
  startedAt: z.number(),
  /** Texts of the page key of the last row that is done, as PostgreSQL prints them; null before the first chunk. */
  lastKey: z.array(z.string()).nullable(),
  /** Names of the columns of `lastKey`. */
  keyColumns: z.array(z.string()),
  /** The order of keys that `lastKey` counts in: with another one the table is read from its beginning. */
  keyOrder: z.string().optional(),
  /** Chunks, rows given, and bytes read that are done. */
  chunk: z.int(),
  rows: z.int(),
  bytes: z.int(),
  /** The server's own estimate of the table, for a per cent; undefined where it has none. */
  estimatedRows: z.number().optional(),
  /** Milliseconds since 1970 UTC of this write. */
  updatedAt: z.number(),
  finishedAt: z.number().optional(),
  /** Why it was refused, or what it waits for. */
  reason: z.string().optional(),
});

const wanted = z.enum(["run", "pause", "cancel"]);
const status = z.enum(["requested", "running", "paused", "done", "cancelled", "refused"]);

/** The operator's wish for a backfill. */
export type BackfillWanted = z.output<typeof wanted>;

/** An update that a capture task writes. Undefined members stay as they are. */
export interface BackfillUpdate {
  readonly status: BackfillStatus;
  readonly epoch: number;
  readonly progress: BackfillProgress | undefined;
  /** The table is not captured (any more). */
  readonly left?: boolean;
}

/** The latest backfill of each table, by name. @throws StateTableError, StateTableUnavailableError */
export async function readBackfills(place: StatePlace): Promise<readonly Backfill[]> {
  const key = backfillKey(place.pipeline);
  const found: Backfill[] = [];
  for await (const item of tableOf(place).query(key)) found.push(parse(item, key.sk));
  return found;
}

/** The latest backfill of one table, or undefined. @throws StateTableError, StateTableUnavailableError */
export async function readBackfill(place: StatePlace, table: string): Promise<Backfill | undefined> {
  const item = await readItem(place, table);
  return item && parse(item, backfillKey(place.pipeline).sk);
}

function readItem(place: StatePlace, table: string): Promise<StateItem | undefined> {
  return tableOf(place).get(backfillKey(place.pipeline, table));
}

/**
 * Asks for a backfill of a table. The capture task looks every few seconds.
 * @returns the number of the run.
 * @throws BackfillActiveError where one is under way; ConfigurationError where the filter is too long to be kept, or beside a sweep;
 * StateTableError, StateTableUnavailableError
 */
export async function requestBackfill(
  place: StatePlace,
  table: string,
  wish: BackfillRequest,
): Promise<number> {
  if (wish.sweep && wish.where !== undefined) {
    const remedy =
      "leave out the filter or the sweep: a sweep would remove the rows that the filter leaves out";
    throw new ConfigurationError("The backfill's filter", [{ path: "--where", value: wish.where, remedy }]);
  }
  const bytes = Buffer.byteLength(JSON.stringify(wish));
  if (bytes > MAX_REQUEST_BYTES) {
    const remedy = `write a filter of at most ${MAX_REQUEST_BYTES / 1024} KB: put a long list of keys into a table, and name it in a subquery (id IN (SELECT id FROM …))`;
    const problem = { path: "--where", value: `a request of ${bytes} bytes`, remedy };
    throw new ConfigurationError("The backfill's filter", [problem]);
  }
  const before = await readBackfill(place, table);
  if (before && !hasEnded(before)) throw new BackfillActiveError(table, before.status);
  const run = await begin(place, table, wish, before);
  await ring(place);
  return run;
}

/**
 * Begins a run anew in place of the one seen, whatever its status: the capture task's own act, where an epoch began
 * or its progress is worth nothing.
 * @throws BackfillActiveError where it is not the one seen any more; StateTableError, StateTableUnavailableError
 */
export async function restartBackfill(
  place: StatePlace,
  seen: Backfill,
  wish: BackfillRequest,
): Promise<number> {
  return await begin(place, seen.table, wish, seen);
}

/** A number that changes with every request and every wish of an operator. @throws StateTableError, StateTableUnavailableError */
export async function readBackfillBell(place: StatePlace): Promise<number> {
  const item = await tableOf(place).get(backfillBellKey(place.pipeline));
  return Number(item?.rung?.N ?? "0");
}

/** Should it fail after what it tells of was written, the capture task finds that within a minute. */
async function ring(place: StatePlace): Promise<void> {
  await tableOf(place).update(backfillBellKey(place.pipeline), {
    UpdateExpression: "ADD rung :one",
    ExpressionAttributeValues: { ":one": { N: "1" } },
  });
}

async function begin(
  place: StatePlace,
  table: string,
  wish: BackfillRequest,
  seen: Backfill | undefined,
): Promise<number> {
  const run = (seen?.run ?? 0) + 1;
  // Two may ask for the same, and at the same time: what tells one's own write is drawn.
  const asked = randomUUID();
  const begun = await update(place, table, {
    set: {
      run: { N: String(run) },
      wanted: { S: "run" },
      status: { S: "requested" },
      request: json(wish),
      asked: { S: asked },
    },
    remove: ["progress", "epoch"],
    condition: seen ? "#run = :seenRun AND #status = :seenStatus" : "attribute_not_exists(#run)",
    values: seen ? { ":seenRun": { N: String(seen.run) }, ":seenStatus": { S: seen.status } } : {},
  });
  if (begun) return run;
  // Our own first try may have succeeded, its answer lost.
  const now = await readItem(place, table);
  if (now?.run?.N === String(run) && now.asked?.S === asked) return run;
  throw new BackfillActiveError(table, now?.status?.S ?? "requested");
}

/**
 * Says what is wanted of a backfill that has not ended.
 * @throws BackfillNotActiveError where there is none; StateTableError, StateTableUnavailableError
 */
export async function wantBackfill(place: StatePlace, table: string, wanted: BackfillWanted): Promise<void> {
  const updated = await update(place, table, {
    set: { wanted: { S: wanted } },
    condition: "attribute_exists(#run) AND NOT #status IN (:e0, :e1, :e2)",
    values: Object.fromEntries(ENDS.map((end, i) => [`:e${i}`, { S: end }])),
    names: ["run", "status"],
  });
  if (!updated) throw new BackfillNotActiveError(table, (await readBackfill(place, table))?.status);
  await ring(place);
}

/**
 * Writes what the capture task knows: only where the run is still this one, and no later capture task has written.
 * @returns false where it is not: look again.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function writeBackfill(
  place: StatePlace,
  backfill: Pick<Backfill, "table" | "run" | "request" | "left">,
  generation: number,
  { status, epoch, progress: latest, left = false }: BackfillUpdate,
): Promise<boolean> {
  const { table, run } = backfill;
  const whole = !left && standsForWhole(status, backfill, epoch);
  const updated = await update(place, table, {
    set: {
      status: { S: status },
      epoch: { N: String(epoch) },
      generation: { N: String(generation) },
      ...(latest ? { progress: json(latest) } : {}),
      ...(whole ? { wholeEpoch: { N: String(epoch) } } : {}),
      ...(left ? { left: { BOOL: true } } : {}),
    },
    remove: left ? ["wholeEpoch"] : whole ? ["left"] : [],
    condition: "#run = :run AND (attribute_not_exists(#generation) OR #generation <= :generation)",
    values: { ":run": { N: String(run) } },
    names: ["run"],
  });
  return updated !== undefined;
}

/** The backfills of a pipeline as the capture task that holds the lease keeps them. */
export function backfillRecord(
  place: StatePlace,
  lease: Pick<CaptureState, "generation" | "confirm">,
): BackfillRecord {
  const { generation } = lease;
  return {
    generation,
    list: () => readBackfills(place),
    bell: () => readBackfillBell(place),
    request: async (table, wish) => {
      await requestBackfill(place, table, wish);
    },
    restart: async (seen, wish) => {
      await restartBackfill(place, seen, wish);
    },
    write: async (backfill, update) => {
      // A run that no later task has touched shows no generation. What was acknowledged before the lease was seen to be
      // ours stands before all that a later task writes; after that consumers may have dropped it.
      try {
        await lease.confirm();
      } catch (error) {
        if (error instanceof CaptureLeaseLostError) return false;
        throw error;
      }
      return await writeBackfill(place, backfill, generation, update);
    },
  };
}

/** An update of a backfill's item by names of attributes. */
interface AttributeUpdate {
  readonly set: Readonly<Record<string, AttributeValue>>;
  readonly remove?: readonly string[];
  readonly condition: string;
  readonly values: Readonly<Record<string, AttributeValue>>;
  readonly names?: readonly string[];
}

function update(
  place: StatePlace,
  table: string,
  { set, remove, condition, values, names }: AttributeUpdate,
): Promise<UpdateItemCommandOutput | undefined> {
  const attributes = [...Object.keys(set), ...(remove ?? []), ...(names ?? [])];
  const sets = Object.keys(set).map((attribute) => `#${attribute} = :${attribute}`);
  const removes = remove?.length ? ` REMOVE ${remove.map((attribute) => `#${attribute}`).join(", ")}` : "";
  return tableOf(place).update(backfillKey(place.pipeline, table), {
    UpdateExpression: `SET ${sets.join(", ")}${removes}`,
    ConditionExpression: condition,
    ExpressionAttributeNames: Object.fromEntries(attributes.map((a) => [`#${a}`, a])),
    ExpressionAttributeValues: {
      ...Object.fromEntries(Object.entries(set).map(([attribute, value]) => [`:${attribute}`, value])),
      ...values,
    },
  });
}

/** Returns the state table; every call here may be repeated without harm, and is cut by the signal. */
function tableOf(place: StatePlace): StateTable {
  return persistentTable(place, true);
}

function json(value: unknown): AttributeValue {
  return { S: JSON.stringify(value) };
}

function parse(item: StateItem, prefix: string): Backfill {
  const part = <T>(attribute: string, schema: z.ZodType<T>): T => {
    const text = item[attribute]?.S;
    return schema.parse(text === undefined ? undefined : JSON.parse(text));
  };
  return {
    table: (item.sk?.S ?? "").slice(prefix.length),
    run: Number(item.run?.N),
    wanted: wanted.parse(item.wanted?.S),
    status: status.parse(item.status?.S),
    request: part("request", request),
    epoch: item.epoch?.N === undefined ? undefined : Number(item.epoch.N),
    wholeEpoch: item.wholeEpoch?.N === undefined ? undefined : Number(item.wholeEpoch.N),
    ...(item.left?.BOOL ? { left: true } : {}),
    generation: Number(item.generation?.N ?? "0"),
    progress: part("progress", progress.optional()),
  };
}
