import { backoffMs } from "../../backoff.ts";
import {
  listOf,
  number,
  objectOf,
  oneOf,
  optional,
  position,
  type ShapeOf,
  shape,
  text,
  tryFittingJson,
} from "../../change/shape.ts";
import {
  ClaimStoreNotNamedError,
  ExpiredGapError,
  GapError,
  RecordNotSupportedError,
} from "../consume-errors.ts";
import { DeadLetterTooLargeError } from "../dead-letter/dead-letter-errors.ts";
import { type CheckpointValue, storedAttempts } from "../fence/checkpoint.ts";
import { ParkedTooLargeError, ParkingFullError, PoisonWithoutKeyError } from "./hold-errors.ts";
import type { Hole, PartitionHold } from "./hold-state.ts";

/*
 * The hold of a partition (rule 31). What waits for somebody (a gap, a change that failed and has no key, the policy
 * `stop`, a full parking place, a record of a newer version) must not keep the checkpoint of its shard back. So its
 * records are stored in the order of the stream (hold-table.ts), and the shard goes on. Such a partition has two places:
 * up to the intake everything is durable, up to its checkpoint everything took effect. Attribute `h<p>` of the fence
 * item is this value with the checkpoint; `m<p>` and `w<p>` are the intake's.
 */

/** Bytes of records that a partition may hold: beyond, its shard waits. */
export const HOLD_BYTES = 256 * 1024 * 1024;

/** Gaps between held records that are told apart: beyond, the last one grows. */
const HOLES = 8;

const hole = shape<Hole>(
  (value) =>
    Array.isArray(value) &&
    value.length === 3 &&
    [text, text, position].every((of, i) => of(value[i]).length === 0),
  "expected a hole",
);
const stored = objectOf({
  ...{ v: oneOf([1]), id: text, mark: position, writer: number },
  ...{ attempts: optional(storedAttempts), explained: optional(position) },
  ...{ cause: text, since: text, last: text, bytes: number, holes: listOf(hole) },
  ...{ tries: number, next: number, expired: optional(listOf(number)) },
});

/** As the fence holds it, with the partition's checkpoint. */
export function formatHold(hold: PartitionHold, checkpoint: CheckpointValue): string {
  const { id, cause, since, last, bytes, holes, tries, nextTry, expired } = hold;
  const { position: mark, writer, attempts, explained } = checkpoint;
  const facts: ShapeOf<typeof stored> = {
    ...{ v: 1, id, mark, writer, attempts, explained },
    ...{ cause, since, last, bytes, holes, tries, next: nextTry, expired },
  };
  return JSON.stringify(facts);
}

/** Reads what `formatHold` wrote; undefined where it is not of the format. */
export function parseHold(
  json: string,
  intake: PartitionHold["intake"],
): { hold: PartitionHold; checkpoint: CheckpointValue } | undefined {
  const parsed = tryFittingJson(stored, json);
  if (!parsed) return undefined;
  const { v, mark, writer, attempts, explained, next, ...rest } = parsed;
  return {
    hold: { ...rest, intake, nextTry: next },
    checkpoint: { position: mark, writer, attempts, explained },
  };
}

/** Returns whether an error is one that passes only when somebody acts. Under the policy `stop` a handler's own are, too. */
export function waitsForSomebody(error: unknown): boolean {
  return (
    error instanceof GapError ||
    error instanceof ExpiredGapError ||
    error instanceof PoisonWithoutKeyError ||
    error instanceof ParkingFullError ||
    error instanceof RecordNotSupportedError ||
    error instanceof ParkedTooLargeError ||
    error instanceof DeadLetterTooLargeError ||
    error instanceof ClaimStoreNotNamedError
  );
}

/** Returns the milliseconds that a hold waits after so many tries without progress: 1 s, doubled up to a minute. */
export function holdDelay(tries: number): number {
  return backoffMs(tries + 1, { baseMs: 1_000, capMs: 60_000, jitter: 0 });
}

/** A sequence number as text that sorts: the order of the records of one partition, whatever shards they came through. */
export function sequenceKey(sequenceNumber: string): string {
  return String(sequenceNumber.length).padStart(3, "0") + sequenceNumber;
}

/** The chain of a hold's dead letter: no key has one that begins so. */
export function holdChain(id: string): string {
  return `*${id}`;
}

/** The hold that a dead letter is about, if it is about one. */
export function heldBy(chain: string): string | undefined {
  return chain.startsWith("*") ? chain.slice(1) : undefined;
}

/** One more time that the shard was left unread. */
export function withExpired(hold: PartitionHold, until: number): PartitionHold {
  const known = hold.expired ?? [];
  if (known.some((one) => one >= until)) return hold;
  return { ...hold, expired: [...known.slice(0, HOLES - 1), until] };
}

/** One more hole behind the others. */
export function withHole(holes: readonly Hole[], hole: Hole): readonly Hole[] {
  const last = holes.at(-1);
  if (holes.length < HOLES || !last) return [...holes, hole];
  return [...holes.slice(0, -1), [last[0], hole[1], last[2]]];
}

/** A record has come into a hole: what is left of it, in two where something is missing before the record too. */
export function fillHole(holes: readonly Hole[], hole: Hole, left: readonly Hole[]): readonly Hole[] {
  // Without room it stays whole: what has come is stored once more should it come again.
  if (holes.length - 1 + left.length > HOLES) return holes;
  return holes.flatMap((one) => (one === hole ? left : [one]));
}
