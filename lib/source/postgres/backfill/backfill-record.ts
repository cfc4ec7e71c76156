/*
 * The engine's state outside the database: the contract with the state table. Progress is written only after
 * the rows it counts were acknowledged downstream, and is keyed by epoch (rule 26).
 */

/** A backfill as it is asked for. */
export interface BackfillRequest {
  /** SQL expression over the table's columns: only these rows. Undefined: all. */
  readonly where?: string | undefined;
  /** The one consumer the rows are for. Undefined: everyone. */
  readonly consumer?: string | undefined;
  /** True if consumers that keep keys remove, at the end, what was not seen. Never together with `where`. */
  readonly sweep: boolean;
  /** Milliseconds since 1970 UTC. */
  readonly requestedAt: number;
}

/** Progress of a run. */
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

/** State of a backfill: `done`, `cancelled` and `refused` are its ends. */
export type BackfillStatus = "requested" | "running" | "paused" | "done" | "cancelled" | "refused";

/** The statuses in which it has come to an end. */
export const ENDS: readonly BackfillStatus[] = ["done", "cancelled", "refused"];

/** Returns true if a backfill has come to an end, good or bad. */
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

/** Keeps backfills. Every call may fail and be made again. */
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

/**
 * The backfills that the capture task begins by itself when it starts. `when-needed`: tables never backfilled in this pipeline, refused the last time, or back after they had left, and all
 * again after a new epoch, whose consumers may lack changes and hold rows that are gone. `initial`: the former only.
 * `always`: all tables at each start. `never`: what operators ask for. A run of an earlier epoch is begun anew in each:
 * its progress is worth nothing (rule 26).
 */
export type SnapshotMode = "when-needed" | "initial" | "always" | "never";

/** A start's decision about a table. */
export type StartStep =
  | { readonly kind: "leave" }
  | { readonly kind: "request"; readonly request: BackfillRequest }
  | { readonly kind: "restart"; readonly request: BackfillRequest };

/**
 * Returns true if a run brings everything that its epoch needs: all rows, to everyone, and in a later epoch, or where the table had
 * left, what is gone, too.
 */
export function isWhole({ where, consumer, sweep }: BackfillRequest, epoch: number, left = false): boolean {
  return where === undefined && consumer === undefined && (sweep || (epoch === 1 && !left));
}

/** Returns true if a run with this status has brought what its epoch needs, or an operator has said that it need not. A refused one has not. */
export function standsForWhole(
  status: BackfillStatus,
  { request, left }: Pick<Backfill, "request" | "left">,
  epoch: number,
): boolean {
  return (status === "done" || status === "cancelled") && isWhole(request, epoch, left);
}

/** Decides what a start does about a table whose latest backfill is `latest`. */
export function startStep(
  mode: SnapshotMode,
  latest: Pick<Backfill, "status" | "epoch" | "request" | "wholeEpoch" | "left"> | undefined,
  epoch: number,
  nowMs: number,
): StartStep {
  // Earlier versions noted a refused run as whole.
  const refused = latest?.status === "refused" && isWhole(latest.request, latest.epoch ?? epoch);
  // In a later epoch consumers may hold rows that were deleted in between; so they may of a table that was not captured.
  const whole = { sweep: epoch > 1 || refused || latest?.left === true, requestedAt: nowMs };
  const request: StartStep = { kind: "request", request: whole };
  if (latest === undefined) return mode === "never" ? { kind: "leave" } : request;
  const old = latest.epoch !== undefined && latest.epoch < epoch;
  const missing =
    mode === "when-needed"
      ? refused || (latest.wholeEpoch ?? 0) < epoch
      : mode === "initial" && (refused || latest.wholeEpoch === undefined);
  if (hasEnded(latest)) return mode === "always" || missing ? request : { kind: "leave" };
  // What an operator asked for some rows of must not stand for what is needed of all.
  if (missing && (old || !isWhole(latest.request, epoch, latest.left)))
    return { kind: "restart", request: whole };
  if (!old) return { kind: "leave" };
  return {
    kind: "restart",
    request: mode === "always" ? whole : { ...latest.request, requestedAt: nowMs },
  };
}

/** A start's decision about one table, and the backfill that it saw of it. */
export interface TableStartStep {
  readonly table: string;
  readonly seen: Backfill | undefined;
  readonly step: StartStep;
}

/** Decides what a start does about each of its tables; the outbox has no rows that anybody should get again. */
export function startSteps(
  source: {
    readonly snapshot: SnapshotMode;
    readonly outbox?: { readonly table?: string | undefined } | undefined;
  },
  tables: readonly string[],
  latest: ReadonlyMap<string, Backfill>,
  epoch: number,
  nowMs: number,
): readonly TableStartStep[] {
  return tables
    .filter((table) => table !== source.outbox?.table)
    .map((table) => {
      const seen = latest.get(table);
      return { table, seen, step: startStep(source.snapshot, seen, epoch, nowMs) };
    });
}
