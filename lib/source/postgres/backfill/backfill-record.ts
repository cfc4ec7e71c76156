/*
 * What the engine keeps outside the database: the contract with the state table. Progress is written only after
 * the rows it counts were acknowledged downstream, and is keyed by epoch (rule 26).
 */

/** What is asked for. */
export interface BackfillRequest {
  /** SQL expression over the table's columns: only these rows. Undefined: all. */
  readonly where?: string | undefined;
  /** The one consumer the rows are for. Undefined: everyone. */
  readonly consumer?: string | undefined;
  /** Whether consumers that keep keys remove, at the end, what was not seen. Never together with `where`. */
  readonly sweep: boolean;
  /** Milliseconds since 1970 UTC. */
  readonly requestedAt: number;
}

/** How far a run is. */
export interface BackfillProgress {
  /** Position text: rows with a smaller one were not seen by this run. */
  readonly startPosition: string;
  readonly startedAt: number;
  /** Texts of the page key of the last row that is done; null before the first chunk. */
  readonly lastKey: string[] | null;
  /** Names of the columns of `lastKey`. */
  readonly keyColumns: string[];
  /** The order of keys that `lastKey` counts in: with another one the table is read from its beginning. */
  readonly keyOrder?: string | undefined;
  readonly chunk: number;
  readonly rows: number;
  readonly bytes: number;
  readonly estimatedRows?: number | undefined;
  readonly updatedAt: number;
  readonly finishedAt?: number | undefined;
  readonly reason?: string | undefined;
}

/** How far it is: `done`, `cancelled` and `refused` are its ends. */
export type BackfillStatus = "requested" | "running" | "paused" | "done" | "cancelled" | "refused";

/** The statuses in which it has come to an end. */
export const ENDS: readonly BackfillStatus[] = ["done", "cancelled", "refused"];

/** Whether a backfill has come to an end, good or bad. */
export function hasEnded({ status }: Pick<Backfill, "status">): boolean {
  return ENDS.includes(status);
}

/** The latest backfill of one table. */
export interface Backfill {
  /** As `formatTable` writes it. */
  readonly table: string;
  /** Counts the backfills of this table, from 1. */
  readonly run: number;
  readonly wanted: "run" | "pause" | "cancel";
  readonly status: BackfillStatus;
  readonly request: BackfillRequest;
  /** The epoch it was begun in (rule 26); undefined before. */
  readonly epoch: number | undefined;
  /** Epoch of the last run of the whole table that was done or cancelled, whatever runs of some rows came after; undefined: none did. */
  readonly wholeEpoch?: number | undefined;
  /** A capture task ran without the table since it was last read as a whole: what changed then, and went, is missing. */
  readonly left?: boolean | undefined;
  /** Generation of the capture task that wrote last; 0 before one did. */
  readonly generation: number;
  readonly progress: BackfillProgress | undefined;
}

/** Where backfills are kept. Every call may fail and be made again. */
export interface BackfillRecord {
  /** Generation of the capture lease that this task writes under. */
  readonly generation: number;
  /** The latest backfill of each table. */
  list(): Promise<readonly Backfill[]>;
  /** Changes with every wish of an operator: cheap to ask for, so that `list` need not be. */
  bell(): Promise<number>;
  /** Begins a run where none is under way. @throws where one is. */
  request(table: string, request: BackfillRequest): Promise<void>;
  /** Begins anew in place of the one seen: its progress is worth nothing. @throws where it changed meanwhile. */
  restart(seen: Backfill, request: BackfillRequest): Promise<void>;
  /** @returns false where the run is another by now, or a later task has written. */
  write(
    backfill: Pick<Backfill, "table" | "run" | "request" | "left">,
    update: {
      /** The table is not captured (any more): whatever was read of it before stands for nothing when it comes back. */
      readonly left?: boolean;
      readonly status: BackfillStatus;
      readonly epoch: number;
      readonly progress: BackfillProgress | undefined;
    },
  ): Promise<boolean>;
}
