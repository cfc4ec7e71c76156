import type pg from "pg";
import type { RowChange } from "./row-messages.ts";
import type { TableKeys } from "./table-keys.ts";

/** The content of the next batch. Both members are JSON, kept in the state table. */
export interface BatchPlan {
  /** Tells the batch's changes apart from all others, now and after a crash. */
  readonly bounds: unknown;
  /** Start of the batch after it. */
  readonly after: unknown;
}

/** Progress of a reader, as it is stored. */
export interface Stored {
  readonly after: unknown;
  readonly batch: BatchPlan | undefined;
}

/**
 * One way to read changes out of tables, in batches. The bounds of a batch are durable before its first change goes out
 * (rule 27): read again after a crash, it gives the same changes at the same positions, or fewer where rows have
 * changed again since; never others.
 */
export interface BatchReader {
  /** As the definition names it. */
  readonly kind: string;
  /** `source.mode` of its events. */
  readonly mode: string;
  /**
   * A task goes on from what is stored: the place, and the batch that was not acknowledged, if there is one. Returns from where on
   * to read, which is the same unless the tables have changed in a way that makes the batch another one.
   */
  resume?(stored: Stored, keys: TableKeys): Promise<Stored>;
  /** A session was opened, or opened anew. */
  connected?(): void;
  /** Plans a batch of the changes behind `after` (null at the very first); undefined: there are none, look again after the interval. */
  plan(query: Query, after: unknown): Promise<BatchPlan | undefined>;
  /** The batch's changes in order, in pages of bounded bytes; their `commitLsn` grows, from `first` on. */
  read(query: Query, bounds: unknown, first: bigint): AsyncIterable<readonly RowChange[]>;
  /** All of a batch was acknowledged, and the record does not say so yet: it may come once more. */
  acknowledged?(bounds: unknown): Promise<void>;
  /** Everything before `after` was acknowledged, and the record says so: what is kept for it may go. */
  recorded?(query: Query, after: unknown): Promise<void>;
}

/** Runs one statement on the source's session, with a deadline. */
export type Query = <Row extends pg.QueryResultRow>(
  sql: string,
  values?: readonly unknown[],
) => Promise<readonly Row[]>;
