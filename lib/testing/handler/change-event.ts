import { BACKFILL_END, type BackfillEnd } from "../../change/control-event.ts";
import type {
  ChangeEventJson,
  EventSource,
  JsonNullPath,
  OperationCode,
  WireRow,
} from "../../change/event.ts";
import { formatLsn } from "../../change/lsn.ts";
import type { Position, PositionText } from "../../change/position.ts";
import { positionOf } from "../../change/record.ts";
import { formatTable, parseTable } from "../../change/table-pattern.ts";
import { partitionOf } from "../../change/topic.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { type ChangeEvent, HandledEvent, type Row, wireRows } from "../../consume/run/event.ts";
import { routeTables } from "../../definition/route.ts";

/** Partitions of a topic, unless a pipeline says otherwise. */
const PARTITIONS = 64;
/** Distance between the positions of a test. */
const COMMIT_BYTES = 0x100n;
const FIRST_COMMIT = 0x1000000n;

/** The operation that a letter on the wire stands for. */
export type OperationOf<L extends OperationCode> = {
  c: "create";
  u: "update";
  d: "delete";
  r: "read";
  t: "truncate";
  m: "message";
}[L];

/**
 * A change to make an event of. Only `table`, `op` and the rows matter to most tests.
 *
 * @example
 * const paid: Change<"u"> = { table: "public.orders", op: "u", before: { id: "17", status: "placed" }, after: { id: "17", status: "paid" } };
 */
export interface Change<L extends OperationCode = OperationCode, R extends object = Row> {
  /** `public.orders`; a name alone is one of the schema `public`. Not needed for a message. */
  readonly table?: string;
  /** `c` create, `u` update, `d` delete, `r` read by a backfill, `t` truncate, `m` message. */
  readonly op: L;
  /** The old row: of an update the whole row, or left out; of a delete the whole row or its key columns. */
  readonly before?: L extends "d" ? object : R | null;
  readonly after?: R | null;
  /** Columns that make the key; default `["id"]`. They choose the partition. */
  readonly key?: readonly string[];
  /** Both halves of a change of key. */
  readonly keyChange?: { readonly from: object; readonly to: object };
  /** Large columns whose value did not travel: leave them out of `after`. */
  readonly unchanged?: readonly string[];
  /** Columns left out since the change was too large. */
  readonly omitted?: readonly string[];
  readonly jsonNull?: readonly JsonNullPath[];
  readonly jsonNullBefore?: readonly JsonNullPath[];
  /** Of a message. */
  readonly message?: {
    readonly prefix: string;
    readonly content: string | Uint8Array;
    readonly transactional?: boolean;
  };
  /** Default: behind all events made so far. */
  readonly position?: Partial<Position>;
  /** Default `test.<schema>.<table>`. */
  readonly topic?: string;
  /** Default: that of the key, among 64; of a truncate or a message 0. */
  readonly partition?: number;
  /** Default: now. */
  readonly committedAt?: Date;
  /** Other members of the envelope's `source`. */
  readonly source?: Partial<EventSource>;
}

let commits = 0n;

/**
 * Returns an event as a handler gets it: whole, at a position behind all events made before it, in the partition of its key.
 *
 * @example
 * const placed = changeEvent({ table: "public.orders", op: "c", after: { id: "17", status: "placed" } });
 * await ship(placed, context);
 *
 * @throws ConfigurationError where the operation needs a row that is not given.
 */
export function changeEvent<L extends OperationCode, R extends object = Row>(
  change: Change<L, R>,
): ChangeEvent<OperationOf<L>, R> {
  check(change);
  const table =
    change.op === "m" && change.table === undefined
      ? { schema: "", table: "" }
      : parseTable(qualified(change.table ?? ""));
  const wire: ChangeEventJson = {
    op: change.op,
    before: asRow(change.before),
    after: asRow(change.after),
    ...(change.unchanged ? { unchanged: change.unchanged } : {}),
    ...(change.omitted ? { omitted: change.omitted } : {}),
    ...(change.jsonNull ? { jsonNull: change.jsonNull } : {}),
    ...(change.jsonNullBefore ? { jsonNullBefore: change.jsonNullBefore } : {}),
    ...(change.message ? { message: wireMessage(change.message) } : {}),
    ts_ms: Date.now(),
    source: sourceOf(change, table),
  };
  const place = { topic: change.topic ?? topicOf(change, table), partition: partition(change, wire) };
  const event = new HandledEvent(wire, place, positionOf(wire), wireRows(wire));
  // The class knows operation and rows only at run time.
  return event as unknown as ChangeEvent<OperationOf<L>, R>;
}

/** The end of a backfill, for handlers of sweeps. */
export interface SweepOptions extends Pick<Change, "topic" | "partition" | "position"> {
  readonly table: string;
  /** Rows of the partition below this position go. */
  readonly before: PositionText;
  /** Counts the table's backfills; default 1. */
  readonly run?: number;
}

/**
 * Returns the control event that ends a backfill: in a `kinesisEvent` it calls the handler of `onSweep`.
 *
 * @example
 * const sweep = sweepEvent({ table: "public.orders", partition: placed.partition, before: read.position });
 */
export function sweepEvent({ table, before, run = 1, ...place }: SweepOptions): ChangeEvent<"message"> {
  const name = formatTable(parseTable(qualified(table)));
  const end: BackfillEnd = { table: name, run, startPosition: before, sweep: true };
  const message = { prefix: BACKFILL_END, content: JSON.stringify(end) };
  return changeEvent({ table, op: "m", message, ...place });
}

function check({ op, table, before, after, message, key = ["id"] }: Change<OperationCode, object>): void {
  const problem = (path: string, value: unknown, remedy: string) => {
    throw new ConfigurationError("The event", [{ path, value, remedy }]);
  };
  const row = op === "d" ? before : after;
  switch (op) {
    case "m":
      if (!message) problem("message", undefined, "give the message of an event with op m");
      return;
    case "t":
      if (before || after) problem("after", undefined, "leave the rows of a truncate out");
      break;
    default: {
      if (!row) problem(op === "d" ? "before" : "after", row, `give the row of an event with op ${op}`);
      const missing = key.find((column) => !Object.hasOwn(row ?? {}, column));
      if (missing !== undefined)
        problem("key", missing, "name the columns that make the row's key, or none with key: []");
    }
  }
  if (table === undefined) problem("table", undefined, "write a table such as public.orders");
}

function sourceOf(
  change: Change<OperationCode, object>,
  { schema, table }: { schema: string; table: string },
): EventSource {
  commits++;
  const { epoch = 1, commitLsn = FIRST_COMMIT + commits * COMMIT_BYTES, ordinal = 1 } = change.position ?? {};
  const hasKey = change.op !== "m";
  return {
    connector: "postgresql",
    name: "test",
    db: "test",
    schema,
    table,
    txId: String(commits),
    lsn: formatLsn(commitLsn),
    commitLsn: formatLsn(commitLsn),
    ordinal,
    epoch,
    ts_ms: (change.committedAt ?? new Date()).getTime(),
    snapshot: change.op === "r" ? "true" : "false",
    schemaVersion: "1",
    key: hasKey ? (change.key ?? ["id"]) : [],
    ...(change.keyChange
      ? { keyChange: { from: change.keyChange.from as WireRow, to: change.keyChange.to as WireRow } }
      : {}),
    after: null,
    ...change.source,
  };
}

function topicOf({ op }: Pick<Change, "op">, table: { schema: string; table: string }): string {
  const topics = { prefix: "test", partitions: PARTITIONS, keys: {}, routes: [] };
  return op === "m" && table.table === "" ? "test.$messages" : routeTables({ topics })(table).topic.name;
}

/** As capture chooses it for keys of integers and texts. */
function partition({ partition, op }: Change<OperationCode, object>, wire: ChangeEventJson): number {
  if (partition !== undefined) return partition;
  if (op === "t" || op === "m") return 0;
  const row = wire.after ?? wire.before ?? {};
  const key = wire.source.key.map((column) => String(row[column]));
  return partitionOf(key.join("\0"), PARTITIONS);
}

function qualified(table: string): string {
  return table.includes(".") ? table : `public.${table}`;
}

/** Integers beyond 2^53 inside of json are `bigint`, which the wire's type does not know. */
function asRow(row: object | null | undefined): WireRow | null {
  return (row ?? null) as WireRow | null;
}

function wireMessage({ prefix, content, transactional = true }: NonNullable<Change["message"]>) {
  return { prefix, content: Buffer.from(content).toString("base64"), transactional };
}
