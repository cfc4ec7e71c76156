import { type Backfill, type BackfillRequest, type BackfillStatus, hasEnded } from "./backfill-record.ts";

/**
 * What the capture task begins by itself when it starts. `when-needed`: tables never backfilled in this pipeline, refused the last time, or back after they had left, and all
 * again after a new epoch, whose consumers may lack changes and hold rows that are gone. `initial`: the former only.
 * `always`: all tables at each start. `never`: what operators ask for. A run of an earlier epoch is begun anew in each:
 * its progress is worth nothing (rule 26).
 */
export type SnapshotMode = "when-needed" | "initial" | "always" | "never";

/** What is to be done about a table. */
export type StartStep =
  | { readonly kind: "leave" }
  | { readonly kind: "request"; readonly request: BackfillRequest }
  | { readonly kind: "restart"; readonly request: BackfillRequest };

/**
 * Whether a run brings everything that its epoch needs: all rows, to everyone, and in a later epoch, or where the table had
 * left, what is gone, too.
 */
export function isWhole({ where, consumer, sweep }: BackfillRequest, epoch: number, left = false): boolean {
  return where === undefined && consumer === undefined && (sweep || (epoch === 1 && !left));
}

/** Whether a run with this status has brought what its epoch needs, or an operator has said that it need not. A refused one has not. */
export function standsForWhole(
  status: BackfillStatus,
  { request, left }: Pick<Backfill, "request" | "left">,
  epoch: number,
): boolean {
  return (status === "done" || status === "cancelled") && isWhole(request, epoch, left);
}

/** What a start does about a table whose latest backfill is `latest`. */
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
