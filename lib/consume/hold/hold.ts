import * as z from "zod/mini";
import { backoffMs } from "../../backoff.ts";
import { isPosition } from "../../change/position.ts";
import {
  ClaimStoreNotNamedError,
  ExpiredGapError,
  GapError,
  RecordNotSupportedError,
} from "../consume-errors.ts";
import { DeadLetterTooLargeError } from "../dead-letter/dead-letter-errors.ts";
import type { Attempts, CheckpointValue } from "../fence/checkpoint.ts";
import { ParkedTooLargeError, ParkingFullError, PoisonWithoutKeyError } from "./hold-errors.ts";
import type { Hole, PartitionHold } from "./hold-state.ts";

/*
 * The hold of a partition (rule 31). What waits for somebody (a gap, a change that failed and has no key, the policy
 * `stop`, a full parking place, a record of a newer version) must not keep the checkpoint of its shard back. So its
 * records are stored in the order of the stream (hold-table.ts), and the shard goes on. Such a partition has two places:
 * up to the intake everything is durable, up to its checkpoint everything took effect. Attribute `h<p>` of the fence
 * item is this value with the checkpoint; `m<p>` and `w<p>` are the intake's.
 */

/** How many bytes of records a partition may hold: beyond, its shard waits. */
export const HOLD_BYTES = 256 * 1024 * 1024;

/** Gaps between held records that are told apart: beyond, the last one grows. */
const HOLES = 8;

const position = z.string().check(z.refine(isPosition));

/** What newer libraries write beside these stays there. */
const attempts = z.looseObject({
  ...{ from: position, to: position, count: z.number(), calls: z.number(), since: z.string() },
  running: z.optional(z.looseObject({ process: z.string(), until: z.number() })),
});

const stored = z.object({
  v: z.literal(1),
  ...{ id: z.string(), mark: position, writer: z.number() },
  ...{ attempts: z.optional(attempts), explained: z.optional(position) },
  ...{ cause: z.string(), since: z.string(), last: z.string(), bytes: z.number() },
  holes: z.array(z.tuple([z.string(), z.string(), position])),
  ...{ tries: z.number(), next: z.number(), expired: z.optional(z.array(z.number())) },
});

/** As the fence holds it, with the partition's checkpoint. */
export function formatHold(hold: PartitionHold, checkpoint: CheckpointValue): string {
  const { id, cause, since, last, bytes, holes, tries, nextTry, expired } = hold;
  const { position: mark, writer, attempts, explained } = checkpoint;
  const text: Omit<z.output<typeof stored>, "attempts"> & Pick<CheckpointValue, "attempts"> = {
    ...{ v: 1, id, mark, writer, attempts, explained },
    ...{
      cause,
      since,
      last,
      bytes,
      holes: holes.map(([from, to, before]) => [from, to, before]),
      tries,
      next: nextTry,
      ...(expired ? { expired: [...expired] } : {}),
    },
  };
  return JSON.stringify(text);
}

/** Reads what `formatHold` wrote; undefined where it is not of the format. */
export function parseHold(
  text: string,
  intake: PartitionHold["intake"],
): { hold: PartitionHold; checkpoint: CheckpointValue } | undefined {
  let parsed: z.output<typeof stored>;
  try {
    parsed = stored.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
  const { v, mark, writer, attempts, explained, next, ...rest } = parsed;
  return {
    hold: { ...rest, intake, nextTry: next },
    checkpoint: { position: mark, writer, attempts: attempts as Attempts | undefined, explained },
  };
}

/** Whether an error is one that passes only when somebody acts. Under the policy `stop` a handler's own are, too. */
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

/** How long a hold waits after so many tries without progress: 1 s, doubled up to a minute. */
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
