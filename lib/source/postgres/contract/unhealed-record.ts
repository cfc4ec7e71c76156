import type { PositionText } from "../../../change/position.ts";

/** A place of the log, and when that was. */
export interface UnhealedPlace {
  readonly position: PositionText;
  /** Milliseconds since 1970 UTC. */
  readonly atMs: number;
}

/** A table whose changes between two places of the log may be missing in the stream, until its rows are read again or somebody accepts it. */
export interface UnhealedTable {
  /** As `formatTable` writes it. */
  readonly table: string;
  /** Sentences about what may be missing, and why; they hold no values. */
  readonly reasons: readonly string[];
  /** The last moment at which all was well. */
  readonly since: UnhealedPlace;
  /** The moment at which the loss was seen: a backfill that begins behind it brings everything. */
  readonly until: UnhealedPlace;
  /** True if the capture task asks for the backfill by itself. */
  readonly asks: boolean;
}

/** Keeps the tables that are not healed. Writes are made under the capture lease; an operator may take an entry out. */
export interface UnhealedRecord {
  /** @throws StateTableError, StateTableUnavailableError */
  list(): Promise<readonly UnhealedTable[]>;
  /** @throws CaptureLeaseLostError, and as above */
  write(entry: UnhealedTable): Promise<void>;
  /** @throws CaptureLeaseLostError, and as above */
  end(table: string): Promise<void>;
}
