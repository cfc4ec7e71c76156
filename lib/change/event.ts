import type { PositionText } from "./position.ts";

/** The operation, as one letter on the wire (Debezium's letters, and `m` for a logical message). */
export type OperationCode = "c" | "u" | "d" | "r" | "t" | "m";

/** A column's value on the wire: see "Value encodings" in docs. */
export type WireValue = null | boolean | number | string | WireValue[] | { [key: string]: WireValue };

/** A row on the wire: column name to value. */
export type WireRow = { [column: string]: WireValue };

/**
 * The place of a JSON null in a row: the column, or the column and the indexes of its array's element, from 0. A json column
 * can hold `null` as its value, which is not NULL, and both are null in an event.
 *
 * @example
 * const paths: JsonNullPath[] = ["settings", ["tags", 2]];
 */
export type JsonNullPath = string | readonly [column: string, ...indexes: number[]];

/** Origin and position of a change event. */
export interface EventSource {
  readonly connector: "postgresql" | "mysql";
  readonly name: string;
  readonly db: string;
  readonly schema: string;
  readonly table: string;
  readonly txId: string;
  /** The change's own WAL position, as PostgreSQL prints it. */
  readonly lsn: string;
  /** The transaction's commit LSN, as PostgreSQL prints it. */
  readonly commitLsn: string;
  readonly ordinal: number;
  readonly epoch: number;
  /** Commit time at the server, milliseconds since 1970 UTC. */
  readonly ts_ms: number;
  /** `true` for rows read by a backfill, `false` else. */
  readonly snapshot: string;
  /** Hash of the relation's content: names, types, key. */
  readonly schemaVersion: string;
  /** Names of the columns that make the key: they chose the partition. Empty for a table without a key. */
  readonly key: readonly string[];
  /** On both halves of a key change. */
  readonly keyChange?: { readonly from: WireRow; readonly to: WireRow };
  /** On what a backfill read, and on its control events: which of the table's runs, and the one consumer it is for, if so. */
  readonly backfill?: { readonly run: number; readonly consumer?: string };
  /** Left out for the log. */
  readonly mode?: "trigger" | "query" | "outbox";
  /** Position of the predecessor in this partition; null after a writer start (rule 7). */
  readonly after: PositionText | null;
}

/** One change event in the Debezium envelope, as it travels. Format: docs, "Formats on the wire". */
export interface ChangeEventJson {
  readonly op: OperationCode;
  readonly before: WireRow | null;
  readonly after: WireRow | null;
  /** Columns whose stored value did not travel (TOAST); left out when there are none. */
  readonly unchanged?: readonly string[];
  /** JSON nulls in `after`, or in `before` where there is no `after`; left out when there are none. */
  readonly jsonNull?: readonly JsonNullPath[];
  /** JSON nulls in `before` of an update. */
  readonly jsonNullBefore?: readonly JsonNullPath[];
  /** Columns left out because the change was too large for the stream (`stream.oversize: "omit"`). */
  readonly omitted?: readonly string[];
  readonly message?: {
    readonly prefix: string;
    /** Base64. */
    readonly content: string;
    readonly transactional: boolean;
    /** Why what an application published is no outbox event: it is on a topic of its own. */
    readonly problem?: string;
  };
  /** Time at which capture handled it, milliseconds since 1970 UTC. */
  readonly ts_ms: number;
  readonly source: EventSource;
}
