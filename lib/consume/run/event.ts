import type {
  ChangeEventJson,
  EventSource,
  JsonNullPath,
  OperationCode,
  WireValue,
} from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import { type Operation, operationOf } from "../api/operation.ts";
import type { PartitionName } from "../consume-errors.ts";
import { type Sweep, sweepOf } from "./sweep.ts";

/**
 * A column's value: as on the wire, but integers beyond 2^53 inside json and jsonb are `bigint`, and other numbers
 * that a double cannot hold are strings.
 *
 * @example
 * const total = (value: ColumnValue) => (typeof value === "bigint" ? value : BigInt(String(value)));
 */
export type ColumnValue =
  | Exclude<WireValue, object>
  | bigint
  | ColumnValue[]
  | { readonly [key: string]: ColumnValue };

/**
 * A row as it comes without a schema: column name to value.
 *
 * @example
 * const status = (row: Row) => row.status ?? "unknown";
 */
export type Row = { readonly [column: string]: ColumnValue };

/**
 * A logical message of the application, written with `pg_logical_emit_message`.
 *
 * @example
 * consumer("audit").on("*.$messages", Operation.Message, ({ message }) => {
 *   console.log(message.prefix, Buffer.from(message.content).toString());
 * })
 */
export interface LogicalMessage {
  readonly prefix: string;
  readonly content: Uint8Array;
  readonly transactional: boolean;
  /** On the topic `$outbox-malformed` alone: why what an application published is no event. */
  readonly problem?: string;
}

/**
 * One change, as handlers see it. `O` is the operation, `R` the type of the row.
 *
 * @example
 * async (event: ChangeEvent<typeof Operation.Update>) => {
 *   if (event.changed.includes("status")) await notify(event.after.id, event.after.status);
 * }
 */
export type ChangeEvent<O extends Operation = Operation, R = Row> = O extends Operation
  ? EventFacts & EventRows<O, R>
  : never;

/**
 * Fields of every event.
 *
 * @example
 * const trace = (event: EventFacts) => `${event.topic}/${event.partition} at ${event.position}`;
 */
export interface EventFacts {
  /** The position as text: unique in its topic partition, and usable as an idempotency key. Same as `position`. */
  readonly id: PositionText;
  /** The position as text: a greater text is a later change. For sinks that compare. */
  readonly position: PositionText;
  /** The letter on the wire. */
  readonly op: OperationCode;
  readonly topic: string;
  readonly partition: number;
  readonly schema: string;
  readonly table: string;
  /** Time of the transaction's commit at the source. */
  readonly committedAt: Date;
  /** Values of the columns that chose the partition. Empty without a key, and for truncate and message. */
  readonly key: Row;
  /** On both halves (delete and create) of a change of key. They may arrive in either order. */
  readonly keyChange: { readonly from: Row; readonly to: Row } | undefined;
  /** Columns whose stored value did not travel (large values the change did not touch): absent from `after`. */
  readonly unchanged: readonly string[];
  /**
   * Places in `row` that hold a JSON null, the value `null` of a json or jsonb column, and not NULL: the column's name, or for an element
   * of an array `[column, index]`. In the row itself both are null.
   */
  readonly jsonNull: readonly JsonNullPath[];
  /** The same of `before` of an update. */
  readonly jsonNullBefore: readonly JsonNullPath[];
  /**
   * Columns left out of `before` and `after` because the change was too large for the stream
   * (`stream.oversize: "omit"`): they may have changed, read them from the source where they matter.
   */
  readonly omitted: readonly string[];
  /**
   * Columns that may have changed. Update: those of `after` but the key's, and but those whose value in
   * `before` is equal. Create and read: all of `after`. Delete: all of `before`. And always the `omitted` ones.
   */
  readonly changed: readonly string[];
  readonly source: EventSource;
}

/** Fields that depend on the operation. `row` is `after`, or `before` for deletes. */
export type EventRows<O extends Operation, R> = O extends "create" | "read"
  ? {
      readonly operation: O;
      readonly before: null;
      readonly after: R;
      readonly row: R;
      readonly message: undefined;
    }
  : O extends "update"
    ? {
        readonly operation: O;
        /** The whole old row under replica identity full, else null. */
        readonly before: R | null;
        readonly after: R;
        readonly row: R;
        readonly message: undefined;
      }
    : O extends "delete"
      ? {
          readonly operation: O;
          /** The whole old row under replica identity full, else its key columns; as on the wire, without schema. */
          readonly before: Row;
          readonly after: null;
          readonly row: Row;
          readonly message: undefined;
        }
      : O extends "truncate"
        ? {
            readonly operation: O;
            readonly before: null;
            readonly after: null;
            readonly row: null;
            readonly message: undefined;
          }
        : {
            readonly operation: O;
            readonly before: null;
            readonly after: null;
            readonly row: null;
            readonly message: LogicalMessage;
          };

/** An event without knowledge of its operation and row type: what the library handles. */
export type AnyEvent = EventFacts & {
  readonly operation: Operation;
  readonly before: unknown;
  readonly after: unknown;
  readonly row: unknown;
  readonly message: LogicalMessage | undefined;
};

/** Rows of an event after the handler's schema. */
export interface Rows {
  readonly before: unknown;
  readonly after: unknown;
}

/**
 * The event that a handler is given. All its facts are fields of its own: a copy (`{ ...event }`, `structuredClone`) has
 * them too.
 */
export class HandledEvent implements AnyEvent {
  readonly id: PositionText;
  readonly position: PositionText;
  readonly op: OperationCode;
  readonly operation: Operation;
  readonly topic: string;
  readonly partition: number;
  readonly schema: string;
  readonly table: string;
  readonly committedAt: Date;
  readonly key: Row;
  readonly keyChange: { readonly from: Row; readonly to: Row } | undefined;
  readonly before: unknown;
  readonly after: unknown;
  readonly row: unknown;
  readonly unchanged: readonly string[];
  readonly jsonNull: readonly JsonNullPath[];
  readonly jsonNullBefore: readonly JsonNullPath[];
  readonly omitted: readonly string[];
  readonly changed: readonly string[];
  readonly message: LogicalMessage | undefined;
  readonly source: EventSource;
  readonly #wire: ChangeEventJson;

  constructor(wire: ChangeEventJson, place: PartitionName, position: PositionText, rows: Rows) {
    const { source, message } = wire;
    this.#wire = wire;
    this.id = position;
    this.position = position;
    this.op = wire.op;
    this.operation = operationOf(wire.op);
    this.topic = place.topic;
    this.partition = place.partition;
    this.schema = source.schema;
    this.table = source.table;
    this.committedAt = new Date(source.ts_ms);
    this.key = keyOf(wire);
    this.keyChange = source.keyChange;
    this.before = rows.before;
    this.after = rows.after;
    this.row = rows.after ?? rows.before;
    this.unchanged = wire.unchanged ?? NONE;
    this.jsonNull = wire.jsonNull ?? NO_PATHS;
    this.jsonNullBefore = wire.jsonNullBefore ?? NO_PATHS;
    this.omitted = wire.omitted ?? NONE;
    this.changed = changedColumns(wire);
    this.message = message && { ...message, content: Buffer.from(message.content, "base64") };
    this.source = source;
  }

  /** The sweep that its handler is given instead. */
  get sweep(): Sweep | undefined {
    return sweepOf(this.#wire, this, this.id);
  }
  /** Returns the envelope's fields, for logs and queues. */
  toJSON(): object {
    const { id, operation, topic, partition, before, after, source } = this;
    return { id, operation, topic, partition, before, after, source };
  }
}

const NONE: readonly string[] = Object.freeze([]);
const NO_PATHS: readonly JsonNullPath[] = [];

/** Returns the rows as they came, for a handler without a schema; of an update `before` only when it is whole. */
export function wireRows(wire: ChangeEventJson): Rows {
  const before = wire.before ?? null;
  const after = wire.after ?? null;
  return { before: wire.op === "u" && !isWholeBefore(wire) ? null : before, after };
}

/** Returns whether `before` of an update holds every column of the row, not only those of the replica identity. */
export function isWholeBefore({ before, after, unchanged = [] }: ChangeEventJson): boolean {
  if (!before || !after) return false;
  return (
    Object.keys(after).every((column) => Object.hasOwn(before, column)) &&
    unchanged.every((column) => Object.hasOwn(before, column))
  );
}

/** See `EventFacts.key`. */
export function keyOf(wire: ChangeEventJson): Row {
  const row = wire.after ?? wire.before ?? {};
  const columns = wire.source.key ?? NONE;
  const [column] = columns;
  // Nearly always one: this is done for each event.
  if (columns.length === 1 && column !== undefined) {
    return Object.hasOwn(row, column) ? { [column]: row[column] as ColumnValue } : {};
  }
  const present = columns.filter((each) => Object.hasOwn(row, each));
  return Object.fromEntries(present.map((each) => [each, row[each] as ColumnValue]));
}

/** See `EventFacts.changed`. */
function changedColumns(wire: ChangeEventJson): string[] {
  const { before, after, omitted } = wire;
  const row = after ?? before;
  let changed = row ? Object.keys(row) : [];
  const isUpdate = wire.op === "u";
  if (!isUpdate && !omitted) return changed;
  const key = wire.source.key ?? NONE;
  if (isUpdate && after) {
    changed = changed.filter(
      (column) =>
        !key.includes(column) &&
        !(
          before &&
          Object.hasOwn(before, column) &&
          equal(before[column], after[column]) &&
          sameJsonNulls(wire, column)
        ),
    );
  }
  // Nobody knows: they did not travel.
  if (omitted)
    changed.push(
      ...omitted.filter((column) => !(isUpdate && key.includes(column)) && !changed.includes(column)),
    );
  return changed;
}

/** Returns whether the column's nulls are of one kind in both rows. */
function sameJsonNulls(
  { jsonNull = NO_PATHS, jsonNullBefore = NO_PATHS }: ChangeEventJson,
  column: string,
): boolean {
  const of = (paths: readonly JsonNullPath[]) =>
    paths.filter((path) => (typeof path === "string" ? path : path[0]) === column).map(String);
  return (jsonNull.length === 0 && jsonNullBefore.length === 0) || equal(of(jsonNull), of(jsonNullBefore));
}

/** Without recursion: json columns may be nested to any depth. */
function equal(left: ColumnValue | undefined, right: ColumnValue | undefined): boolean {
  const open: [unknown, unknown][] = [[left, right]];
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [a, b] = pair;
    if (a === b) continue;
    if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
    if (Array.isArray(a) !== Array.isArray(b)) return false;
    const names = Object.keys(a);
    if (names.length !== Object.keys(b).length) return false;
    for (const name of names) {
      if (!Object.hasOwn(b, name)) return false;
      open.push([(a as Record<string, unknown>)[name], (b as Record<string, unknown>)[name]]);
    }
  }
  return true;
}
