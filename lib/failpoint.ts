/*
 * Failpoints: named places where a test ends or breaks the process. The names are armed by one environment
 * variable read once when the process starts; without it `failpoint` is an empty function.
 */

/** The places, in the order a change passes them. */
export const FAILPOINTS = [
  /** Capture from tables: a batch's bounds are recorded, nothing of it was given. */
  "batch-recorded",
  /** Capture: a table has moved to this task's slot, and nothing of it was given. */
  "table-moved",
  /** Capture: a change of a transaction was read, its commit was not. */
  "inside-transaction",
  /** Capture: a change too large for the stream is stored, its pointer is not. */
  "claim-stored",
  /** Capture: Kinesis has stored a request's records, nothing of ours knows yet. */
  "put-records-answered",
  /** Capture: acknowledged by Kinesis, the slot record not yet written. */
  "before-slot-record",
  /** Capture: the slot record is written, the server has not been told. */
  "before-feedback",
  /** Consumer: the partitions are taken, no handler was called. */
  "fence-taken",
  /** Consumer: before a handler is called. */
  "before-effect",
  /** Consumer: the handler has returned, nothing is recorded. */
  "after-effect",
  /** Consumer: before the fence moves on. */
  "before-fence-close",
  /** Consumer: the fence has moved on, the invocation has not answered. */
  "fence-closed",
  /** Reset: what a partition leaves out is noted, the partition has not moved. */
  "reset-noted",
  /** Reset: all partitions have moved, nothing is asked for. */
  "reset-moved",
] as const;

/** The name of a place. */
export type Failpoint = (typeof FAILPOINTS)[number];

/** Action of a failpoint: `kill` is SIGKILL, `hang` stops the event loop for ever, `throw` throws. */
const ACTIONS = ["kill", "hang", "throw"] as const;

/** Set to `name=action@n`, several of them apart by commas: at the n-th time (default 1) the place is reached. */
export const FAILPOINTS_VARIABLE = "TRIBUTARY_FAILPOINTS";

/** Does nothing, unless the process was started with the place armed. */
export const failpoint: (name: Failpoint) => void = arm(process.env[FAILPOINTS_VARIABLE]);

/** The function for a value of the variable. Throws `RangeError` for a name or an action that is none. */
export function arm(armed: string | undefined): (name: Failpoint) => void {
  if (!armed) return () => {};
  const left = new Map<string, { action: string; hits: number }>();
  for (const part of armed.split(",")) {
    const match = /^([a-z-]+)=([a-z]+)(?:@(\d+))?$/.exec(part);
    const [, name, action, hits = "1"] = match ?? [];
    if (!FAILPOINTS.some((known) => known === name) || !ACTIONS.some((known) => known === action)) {
      throw new RangeError(
        `not a failpoint: "${part}" (expected name=action@n; names: ${FAILPOINTS.join(", ")})`,
      );
    }
    left.set(name as string, { action: action as string, hits: Number(hits) });
  }
  return (name) => {
    const place = left.get(name);
    if (place && --place.hits === 0) act(name, place.action);
  };
}

function act(name: Failpoint, action: string): void {
  if (action === "throw") throw new Error(`failpoint ${name}`);
  if (action === "kill") process.kill(process.pid, "SIGKILL");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
