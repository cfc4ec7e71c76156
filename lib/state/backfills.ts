import { randomUUID } from "node:crypto";
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import { ConfigurationError } from "../change/tributary-error.ts";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import {
  type Backfill,
  type BackfillRecord,
  type BackfillStatus,
  ENDS,
  hasEnded,
} from "../source/postgres/backfill/backfill-record.ts";
import { standsForWhole } from "../source/postgres/backfill/wanted-backfills.ts";
import type { CaptureState } from "./capture-state.ts";
import { itemsOf } from "./items.ts";
import { BackfillActiveError, BackfillNotActiveError } from "./state-errors.ts";
import { backfillBellKey, backfillKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";

export { type Backfill, type BackfillStatus, hasEnded } from "../source/postgres/backfill/backfill-record.ts";

/** What the operator asks for. */
const request = z.object({
  /** SQL expression over the table's columns: only these rows. Undefined: all. */
  where: z.string().optional(),
  /** The one consumer the rows are for. Undefined: everyone. */
  consumer: z.string().optional(),
  /** Whether consumers that keep keys remove, at the end, what was not seen. Never together with `where`. */
  sweep: z.boolean(),
  /** Milliseconds since 1970 UTC. */
  requestedAt: z.number(),
});

/** Bytes of what is asked for, as it is stored. An item holds 400 KB, and the progress and its reason must have room beside it. */
const MAX_REQUEST_BYTES = 256 * 1024;

/** What the capture task knows: written as a whole, after Kinesis acknowledged the rows it counts. */
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

/** What the operator wants of a backfill. */
export type BackfillWanted = z.output<typeof wanted>;
/** What the operator asks for. */
export type BackfillRequest = z.output<typeof request>;
/** What the capture task knows of a backfill. */
export type BackfillProgress = z.output<typeof progress>;

/** How the backfills of a pipeline are reached. */
export interface BackfillStore {
  readonly dynamodb: DynamoDBClient;
  readonly table: string;
  readonly pipeline: string;
  readonly signal: AbortSignal;
}

/** What a capture task writes, in one update. Undefined members stay as they are. */
export interface BackfillUpdate {
  readonly status: BackfillStatus;
  readonly epoch: number;
  readonly progress: BackfillProgress | undefined;
  /** The table is not captured (any more). */
  readonly left?: boolean;
}

/** The latest backfill of each table, by name. @throws StateTableError, StateTableUnavailableError */
export async function readBackfills(store: BackfillStore): Promise<readonly Backfill[]> {
  const key = backfillKey(store.pipeline);
  return (await itemsOf({ ...store, cut: true }, key)).map((item) => parse(item, key.sk));
}

/** The latest backfill of one table, or undefined. @throws StateTableError, StateTableUnavailableError */
export async function readBackfill(store: BackfillStore, table: string): Promise<Backfill | undefined> {
  const item = await readItem(store, table);
  return item && parse(item, backfillKey(store.pipeline).sk);
}

async function readItem(store: BackfillStore, table: string) {
  const { Item } = await call(store, (until) =>
    store.dynamodb.send(
      new GetItemCommand({ TableName: store.table, Key: itemKey(store, table), ConsistentRead: true }),
      until,
    ),
  );
  return Item;
}

/**
 * Asks for a backfill of a table. The capture task looks every few seconds.
 * @returns the number of the run.
 * @throws BackfillActiveError where one is under way; ConfigurationError where the filter is too long to be kept;
 * StateTableError, StateTableUnavailableError
 */
export async function requestBackfill(
  store: BackfillStore,
  table: string,
  wish: BackfillRequest,
): Promise<number> {
  const bytes = Buffer.byteLength(JSON.stringify(wish));
  if (bytes > MAX_REQUEST_BYTES) {
    const remedy = `write a filter of at most ${MAX_REQUEST_BYTES / 1024} KB: put a long list of keys into a table, and name it in a subquery (id IN (SELECT id FROM …))`;
    const problem = { path: "--where", value: `a request of ${bytes} bytes`, remedy };
    throw new ConfigurationError("The backfill's filter", [problem]);
  }
  const before = await readBackfill(store, table);
  if (before && !hasEnded(before)) throw new BackfillActiveError(table, before.status);
  const run = await begin(store, table, wish, before);
  await ring(store);
  return run;
}

/**
 * Begins a run anew in place of the one seen, whatever its status: the capture task's own act, where an epoch began
 * or its progress is worth nothing.
 * @throws BackfillActiveError where it is not the one seen any more; StateTableError, StateTableUnavailableError
 */
export async function restartBackfill(
  store: BackfillStore,
  seen: Backfill,
  wish: BackfillRequest,
): Promise<number> {
  return await begin(store, seen.table, wish, seen);
}

/** A number that changes with every request and every wish of an operator. @throws StateTableError, StateTableUnavailableError */
export async function readBackfillBell(store: BackfillStore): Promise<number> {
  const { pk, sk } = backfillBellKey(store.pipeline);
  const { Item } = await call(store, (until) =>
    store.dynamodb.send(
      new GetItemCommand({
        TableName: store.table,
        Key: { pk: { S: pk }, sk: { S: sk } },
        ConsistentRead: true,
      }),
      until,
    ),
  );
  return Number(Item?.rung?.N ?? "0");
}

/** Should it fail after what it tells of was written, the capture task finds that within a minute. */
async function ring(store: BackfillStore): Promise<void> {
  const { pk, sk } = backfillBellKey(store.pipeline);
  await call(store, (until) =>
    store.dynamodb.send(
      new UpdateItemCommand({
        TableName: store.table,
        Key: { pk: { S: pk }, sk: { S: sk } },
        UpdateExpression: "ADD rung :one",
        ExpressionAttributeValues: { ":one": { N: "1" } },
      }),
      until,
    ),
  );
}

async function begin(
  store: BackfillStore,
  table: string,
  wish: BackfillRequest,
  seen: Backfill | undefined,
): Promise<number> {
  const run = (seen?.run ?? 0) + 1;
  // Two may ask for the same, and at the same time: what tells one's own write is drawn.
  const asked = randomUUID();
  try {
    await update(store, table, {
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
  } catch (error) {
    if (!(error instanceof ConditionalCheckFailedException)) throw error;
    // Our own first try may have succeeded, its answer lost.
    const now = await readItem(store, table);
    if (now?.run?.N === String(run) && now.asked?.S === asked) return run;
    throw new BackfillActiveError(table, now?.status?.S ?? "requested");
  }
  return run;
}

/**
 * Says what is wanted of a backfill that has not ended.
 * @throws BackfillNotActiveError where there is none; StateTableError, StateTableUnavailableError
 */
export async function wantBackfill(
  store: BackfillStore,
  table: string,
  wanted: BackfillWanted,
): Promise<void> {
  try {
    await update(store, table, {
      set: { wanted: { S: wanted } },
      condition: "attribute_exists(#run) AND NOT #status IN (:e0, :e1, :e2)",
      values: Object.fromEntries(ENDS.map((end, i) => [`:e${i}`, { S: end }])),
      names: ["run", "status"],
    });
  } catch (error) {
    if (!(error instanceof ConditionalCheckFailedException)) throw error;
    throw new BackfillNotActiveError(table, (await readBackfill(store, table))?.status);
  }
  await ring(store);
}

/**
 * Writes what the capture task knows: only where the run is still this one, and no later capture task has written.
 * @returns false where it is not: look again.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function writeBackfill(
  store: BackfillStore,
  backfill: Pick<Backfill, "table" | "run" | "request" | "left">,
  generation: number,
  { status, epoch, progress: latest, left = false }: BackfillUpdate,
): Promise<boolean> {
  const { table, run } = backfill;
  const whole = !left && standsForWhole(status, backfill, epoch);
  try {
    await update(store, table, {
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
    return true;
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) return false;
    throw error;
  }
}

/** The backfills of a pipeline as the capture task that holds the lease keeps them. */
export function backfillRecord(
  store: BackfillStore,
  lease: Pick<CaptureState, "generation" | "confirm">,
): BackfillRecord {
  const { generation } = lease;
  return {
    generation,
    list: () => readBackfills(store),
    bell: () => readBackfillBell(store),
    request: async (table, wish) => {
      await requestBackfill(store, table, wish);
    },
    restart: async (seen, wish) => {
      await restartBackfill(store, seen, wish);
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
      return await writeBackfill(store, backfill, generation, update);
    },
  };
}

interface Update {
  readonly set: Readonly<Record<string, AttributeValue>>;
  readonly remove?: readonly string[];
  readonly condition: string;
  readonly values: Readonly<Record<string, AttributeValue>>;
  readonly names?: readonly string[];
}

function update(store: BackfillStore, table: string, { set, remove, condition, values, names }: Update) {
  const attributes = [...Object.keys(set), ...(remove ?? []), ...(names ?? [])];
  const sets = Object.keys(set).map((attribute) => `#${attribute} = :${attribute}`);
  const removes = remove?.length ? ` REMOVE ${remove.map((attribute) => `#${attribute}`).join(", ")}` : "";
  return call(store, (until) =>
    store.dynamodb.send(
      new UpdateItemCommand({
        TableName: store.table,
        Key: itemKey(store, table),
        UpdateExpression: `SET ${sets.join(", ")}${removes}`,
        ConditionExpression: condition,
        ExpressionAttributeNames: Object.fromEntries(attributes.map((a) => [`#${a}`, a])),
        ExpressionAttributeValues: {
          ...Object.fromEntries(Object.entries(set).map(([attribute, value]) => [`:${attribute}`, value])),
          ...values,
        },
      }),
      until,
    ),
  );
}

/** Every call here may be repeated without harm, and is cut by the signal. */
function call<T>({ table, signal }: BackfillStore, send: Parameters<typeof persistently<T>>[1]): Promise<T> {
  return persistently({ table, signal, cut: true }, send);
}

function itemKey(store: BackfillStore, table: string): Record<string, AttributeValue> {
  const { pk, sk } = backfillKey(store.pipeline, table);
  return { pk: { S: pk }, sk: { S: sk } };
}

function json(value: unknown): AttributeValue {
  return { S: JSON.stringify(value) };
}

function parse(item: Record<string, AttributeValue>, prefix: string): Backfill {
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
