import type { PositionText } from "../../../change/position.ts";

/** A row whose create came without a large value that its change had left as it was: it is read again by its key. */
export interface AskedRow {
  /** Its key as PostgreSQL prints it, by column. */
  readonly key: Readonly<Record<string, string>>;
  /** Of the create. */
  readonly at: PositionText;
}

/** The rows of one table that are to be read again. */
export interface AskedTable {
  /** As `formatTable` writes it. */
  readonly table: string;
  readonly rows: readonly AskedRow[];
  /** Set where there were too many rows to name: the whole table is to be read, as it stands behind this position. */
  readonly whole?: PositionText | undefined;
}

/**
 * Keeps what is to be read again. A request is in it before the slot is confirmed beyond its change (rule 42). Writes are made
 * under the capture lease: one of an older generation is refused.
 * @throws CaptureLeaseLostError, StateTableError, StateTableUnavailableError
 */
export interface RereadRecord {
  /** All tables of the pipeline of which something is to be read. */
  list(): Promise<readonly AskedTable[]>;
  /** One of them; undefined: nothing is. */
  read(table: string): Promise<AskedTable | undefined>;
  /** Replaces what is kept of a table; without rows and `whole`, nothing of it is. */
  write(asked: AskedTable): Promise<void>;
}
