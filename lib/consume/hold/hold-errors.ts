import { remedyText } from "#remedy";
import type { PositionText } from "../../change/position.ts";
import { defineError } from "../../change/tributary-error.ts";
import { nameOf, type PartitionName } from "../consume-errors.ts";

/** Somebody else applies what a partition holds. */
export class HoldAtWorkError extends defineError("HELD_AT_WORK", "retry").saying(
  (where: PartitionName, until: number) =>
    `${nameOf(where)}: an invocation or a redrive applies what is held, until ${new Date(until).toISOString()} or longer`,
  remedyText("Nothing to do: the records come again. A redrive may be repeated after 30 s."),
) {}

/** As much is held of a partition as may be: its shard waits, nothing is dropped. */
export class HoldFullError extends defineError("HELD_FULL", "retry").saying(
  (where: PartitionName, bytes: number, cause: string) =>
    `${nameOf(where)}: no more records can be held (at most ${bytes / 1024 / 1024} MiB a partition); it is held because of ${cause}`,
  remedyText("Correct what it is held for, deploy, then: tributary redrive --consumer <consumer>"),
) {}

/** Records that a partition holds are gone from the state table: it goes no further. */
export class HoldIncompleteError extends defineError("HELD_INCOMPLETE", "stop").saying(
  (where: PartitionName, checkpoint: PositionText, intake: PositionText) =>
    `${nameOf(where)}: what is held ends at ${checkpoint}, but was stored up to ${intake}: records are missing in the state table`,
  remedyText(
    "Restore the state table's items of this hold (point-in-time recovery), or accept the gap: tributary consumer accept-gap --consumer <consumer> --topic '<topic>' --partition <partition>",
  ),
) {}

/** As much is parked in a partition as may be: it stops, nothing is dropped. */
export class ParkingFullError extends defineError("PARKING_FULL", "retry").saying(
  (where: PartitionName, limits: { readonly keys: number; readonly items: number; readonly kib: number }) =>
    `${nameOf(where)}: no more changes can be parked (at most ${limits.keys} keys, ${limits.items} changes, ${limits.kib / 1024} MiB)`,
  remedyText("Correct the handler, deploy it, then: tributary redrive --consumer <consumer>"),
) {}

/** The fence names a list of parked keys that is not there: the partition must not go on as if nothing were parked. */
export class ParkedKeysMissingError extends defineError("PARKED_KEYS_MISSING", "retry").saying(
  (where: PartitionName, version: string) =>
    `${nameOf(where)}: the list of its parked keys (version ${version}) is not in the state table`,
  remedyText("Restore the state table to a time before (point-in-time recovery)."),
) {}

/** A change to be parked is too large for the state table, and there is no claim store. */
export class ParkedTooLargeError extends defineError("PARKED_TOO_LARGE", "stop").saying(
  (bytes: number) =>
    `a change of ${bytes} bytes is to be parked, and this consumer's environment names no claim store for what is too large for the state table`,
  remedyText(
    "Set TRIBUTARY_CLAIM_BUCKET to the capture task's value, and permit the function to write and read there. Until then the partition waits.",
  ),
) {}

/** A change failed for good that has no key behind which others could wait: its partition stops (rule 17). */
export class PoisonWithoutKeyError extends defineError("POISON_WITHOUT_KEY", "retry").from(
  (where: PartitionName, position: PositionText, cause: unknown) => ({
    message: `${nameOf(where)}: the change at ${position} failed for good, and it has no key that is known (a truncate, a logical message, a table without key, a change that cannot be read): everything behind it may depend on it`,
    remedy: remedyText(
      "Correct the handler and deploy it (or restore the claim's object): the change comes again by itself.",
    ),
    cause,
  }),
) {}
