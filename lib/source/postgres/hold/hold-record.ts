import type { ClaimCheck } from "../../../change/claim-check.ts";
import {
  formatPosition,
  type PositionText,
  parsePosition,
  START_OF_HISTORY,
} from "../../../change/position.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";

/** Why a topic is held: of the error that began it, or at which its release stopped. Names only, never values. */
export interface HoldReason {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
  /** The table of the change: `public.orders`. */
  readonly table: string;
  readonly position: PositionText;
}

/** The reason that an error at a change gives. */
export function reasonOf(
  { code, message, remedy }: TributaryError,
  { table, position }: Pick<HoldReason, "table" | "position">,
): HoldReason {
  return { code, message, remedy, table, position };
}

/** A topic whose changes are stored in order until somebody releases it (rule 32). */
export interface Hold {
  readonly topic: string;
  readonly reason: HoldReason;
  /** Time at which it began, milliseconds since 1970 UTC. */
  readonly since: number;
  /** The first change that is held. */
  readonly from: PositionText;
  /** The last one that is stored. */
  readonly last: PositionText;
  /** Generation of the task that stored it; undefined in records of before it was kept. */
  readonly by?: number | undefined;
  /** Held changes up to here went into the stream, and Kinesis has acknowledged them. */
  readonly drained: PositionText;
  /** Segments `[first, next)` hold the changes between. */
  readonly first: number;
  readonly next: number;
  /** In these segments. */
  readonly changes: number;
  readonly bytes: number;
}

/** The first position that a release of a hold gives. */
export function firstHeld({ from, drained }: Pick<Hold, "from" | "drained">): PositionText {
  if (drained === START_OF_HISTORY) return from;
  const { ordinal, ...place } = parsePosition(drained);
  return formatPosition({ ...place, ordinal: ordinal + 1 });
}

/** Returns the position whose passing, in a partition, proves that all before a hold was passed. */
export function barrierOf(hold: Pick<Hold, "from" | "drained">): PositionText {
  const { ordinal, ...place } = parsePosition(firstHeld(hold));
  return formatPosition({ ...place, ordinal: ordinal - 1 });
}

/** Some of a hold's changes: one object of the claim store. */
export interface HoldSegment {
  readonly claim: ClaimCheck;
  readonly changes: number;
  /** Position of the last one. */
  readonly last: PositionText;
}

/**
 * Keeps which topics are held. All writes are made under the capture lease: one of an older generation is refused.
 * @throws CaptureLeaseLostError, StateTableError, StateTableUnavailableError
 */
export interface HoldRecord {
  /** All holds of the pipeline, and whether somebody wants them released. */
  list(): Promise<readonly (Hold & { readonly released: boolean })[]>;
  /** The segment counts once the hold that names it is written. */
  writeSegment(topic: string, index: number, segment: HoldSegment): Promise<void>;
  readSegment(topic: string, index: number): Promise<HoldSegment>;
  /** `refused`: its release stopped at a change; whoever wants it has to ask again. */
  write(hold: Hold, refused?: boolean): Promise<void>;
  /** All its changes are in the stream. */
  end(hold: Hold): Promise<void>;
}
