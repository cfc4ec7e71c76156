/** Who paused something, when and why. */
export interface Pause {
  /** Names this pause among all that ever were. */
  readonly id: string;
  /** The operator, as they are known where the command ran: `ada@laptop`. */
  readonly by: string;
  /** Milliseconds since 1970 UTC, by the operator's clock. */
  readonly since: number;
  /** In the operator's words. */
  readonly reason: string | undefined;
  /** Of a consumer: when the oldest change was written that it lacked then, where that was before; milliseconds since 1970 UTC. */
  readonly oldestAt?: number | undefined;
  /** UUID of the event source mapping that was disabled with it, on AWS. */
  readonly mapping?: string | undefined;
}

/** What is paused: capture, with all its slots or lanes, or one consumer. */
export type PauseTarget = "capture" | { readonly consumer: string };

/** Returns the target as messages name it. */
export function pausedName(target: PauseTarget): string {
  return target === "capture" ? "capture" : `consumer "${target.consumer}"`;
}

/** Returns who paused, when and why, as messages tell it. */
export function pausedBy({ by, since, reason }: Pause): string {
  return `by ${by} since ${new Date(since).toISOString()}${reason === undefined ? "" : ` ("${reason}")`}`;
}

/** Returns the command that ends a pause. */
export function resumeCommand(target: PauseTarget): string {
  return target === "capture"
    ? "tributary capture resume"
    : `tributary consumer resume --consumer ${target.consumer}`;
}
