import { awsFailure, REACH_AWS } from "../aws/failure.ts";
import type { PositionText } from "../change/position.ts";
import { defineError } from "../change/tributary-error.ts";

/** Which topic partition an error is about. */
export interface PartitionName {
  readonly topic: string;
  readonly partition: number;
}

function nameOf({ topic, partition }: PartitionName): string {
  return `${topic}/${partition}`;
}

/**
 * Changes between the fence's mark and this event never came: a record was discarded, expired or skipped. The
 * partition stops; the other ones go on.
 */
export class GapError extends defineError("GAP", "retry").from(
  (
    consumer: string,
    where: PartitionName,
    mark: PositionText,
    position: PositionText,
    after: PositionText,
  ) => ({
    message: `${nameOf(where)}: the change at ${position} follows ${after}, but the last one that took effect stands at ${mark}: changes between them are missing`,
    remedy: `Look for records that were discarded (the event source mapping must not give up), expired or skipped. If they are gone: tributary consumer accept-gap --consumer ${consumer} --topic '${where.topic}' --partition ${where.partition}, which has the rows read again and lets the partition go on.`,
    mark,
    after,
  }),
) {}

/**
 * A writer starts in a partition at a change that may follow others which expired before they were read: the consumer had
 * finished nothing of the shard for about as long as the stream keeps records. The partition stops; the other ones go on.
 */
export class ExpiredGapError extends defineError("GAP_EXPIRED", "retry").from(
  (consumer: string, where: PartitionName, mark: PositionText, position: PositionText, until: number) => ({
    message: `${nameOf(where)}: a writer starts at ${position}, the last change that took effect stands at ${mark}, and records that arrived before ${new Date(until).toISOString()} may have expired unread: changes between them may be missing`,
    remedy: `See why the consumer did not read for so long. Then: tributary consumer accept-gap --consumer ${consumer} --topic '${where.topic}', which has the rows read again and lets the partitions go on.`,
  }),
) {}

/** The capture program has not written this consumer's floor yet; nothing is lost, the batch comes again. */
export class ConsumerNotRegisteredError extends defineError("CONSUMER_NOT_REGISTERED", "retry").from(
  (pipeline: string, consumer: string, topic: string) => ({
    message: `consumer "${consumer}" has no floor for topic "${topic}" in pipeline "${pipeline}"`,
    remedy:
      "The capture task writes it at its start for every consumer of the pipeline definition: see that it runs with the same definition, and that the consumer's name and topics stand there.",
  }),
) {}

/** The event of a partition whose fence another invocation has taken. */
export class OwnershipLostError extends defineError("OWNERSHIP_LOST", "retry").from(
  (where: PartitionName) => ({
    message: `${nameOf(where)}: another invocation has taken this partition over`,
    remedy: "Nothing to do: the batch comes again, and what took effect is skipped.",
  }),
) {}

/** Somebody else applies what a partition holds. */
export class HoldAtWorkError extends defineError("HELD_AT_WORK", "retry").from(
  (where: PartitionName, until: number) => ({
    message: `${nameOf(where)}: an invocation or a redrive applies what is held, until ${new Date(until).toISOString()} or longer`,
    remedy:
      "Nothing to do in the stream: the records come again. Repeat a redrive; where the other one has died, its lease ends within 30 s.",
  }),
) {}

/** The fence could not be read or written in the time there was. */
export class FenceUnavailableError extends defineError("FENCE_UNAVAILABLE", "retry").from(
  (what: string, cause: unknown) => ({
    message: `the state table did not answer (${what}): DynamoDB: ${awsFailure(cause)}`,
    remedy: `What was under way comes again. If it lasts, look at the table's throttling and at the function's permissions, and ${REACH_AWS}.`,
    cause,
  }),
) {}

/** As much is held of a partition as may be: its shard waits, nothing is dropped. */
export class HoldFullError extends defineError("HELD_FULL", "retry").from(
  (where: PartitionName, bytes: number, cause: string) => ({
    message: `${nameOf(where)}: no more records can be held (at most ${bytes / 1024 / 1024} MiB a partition); it is held because of ${cause}`,
    remedy:
      "Correct what it is held for (its letter says what: `tributary redrive --dry-run`), then run `tributary redrive`. Until then its shard waits, with all tables in it; that must end before the stream's retention is over.",
  }),
) {}

/** Records that a partition holds are gone from the state table: it goes no further. */
export class HoldIncompleteError extends defineError("HELD_INCOMPLETE", "stop").from(
  (where: PartitionName, mark: PositionText, intake: PositionText) => ({
    message: `${nameOf(where)}: what is held ends at ${mark}, but was stored up to ${intake}: records are missing in the state table`,
    remedy:
      "Restore the state table's items of this hold (point-in-time recovery), or read the table anew with a swept backfill once the gap is accepted.",
  }),
) {}

/** A record is of a format that this version of the library cannot read; it waits for a newer one. */
export class RecordNotSupportedError extends defineError("RECORD_NOT_SUPPORTED", "stop").from(
  (what: string, which: string) => ({
    message: `the record is ${what}, which this version of the consumer library cannot read (${which})`,
    remedy:
      "Deploy the consumer with the library version of the capture task. Until then its partition is held.",
  }),
) {}

/** A change stands in a claim store, and the consumer does not know of one; the record waits. */
export class ClaimStoreNotNamedError extends defineError("CLAIM_STORE_NOT_NAMED", "stop").from(
  (bucket: string) => ({
    message: `a change that was too large for the stream stands in ${bucket}, and this consumer's environment names no claim store`,
    remedy: "Set TRIBUTARY_CLAIM_BUCKET to the capture task's value, and permit the function to read there.",
  }),
) {}

/** A handler did not come back: its process ended or was ended while it ran. */
export class HandlerDiedError extends defineError("HANDLER_DIED", "stop").from((calls: number) => ({
  message: `the handler was called ${calls} times for this change and never came back: the process ended or timed out`,
  remedy: "Run the handler on this change locally; look for memory, endless loops and process.exit.",
})) {}

/** A handler was still running when the invocation's time was over. */
export class HandlerTimeoutError extends defineError("HANDLER_TIMEOUT", "retry").from(() => ({
  message: "the handler was still running when the invocation's time was over",
  remedy: "Heed ctx.signal, raise the consumer's timeoutSeconds, or lower its batchSize.",
})) {}

/** A handler that an earlier invocation called still runs; what is behind its change waits for it. */
export class HandlerStillRunningError extends defineError("HANDLER_STILL_RUNNING", "retry").from(
  (where: PartitionName) => ({
    message: `${nameOf(where)}: a handler that was called by an earlier invocation has not ended, or is not known to have; what follows its change waits`,
    remedy:
      "Heed ctx.signal: a handler that ends when it aborts holds nothing up. On Lambda the process is replaced and the partition goes on by itself within seconds; elsewhere start the process anew if the handler never ends.",
  }),
) {}

/** A row does not satisfy the schema the handler was registered with. The message names columns, never values. */
export class RowSchemaError extends defineError("ROW_SCHEMA", "stop").from(
  (table: string, columns: readonly string[], unchanged: readonly string[], cause: unknown) => {
    const missing = unchanged.length > 0 ? ` (did not travel, being unchanged: ${unchanged.join(", ")})` : "";
    return {
      message: `a row of ${table} does not satisfy the handler's schema: ${columns.join(", ")}${missing}`,
      remedy:
        "Give columns that older rows lack a default, make columns that may be unchanged (TOAST) optional, or set REPLICA IDENTITY FULL.",
      cause,
    };
  },
) {}

/** The dead-letter queue did not take a letter: the change is not done, its partition waits. */
export class DeadLetterRefusedError extends defineError("DEAD_LETTER_REFUSED", "retry").from(
  (cause: unknown) => ({
    message: `the dead-letter queue did not take a letter: SQS: ${awsFailure(cause)}`,
    remedy: "Look at the queue's existence, its policy and key, and the function's permissions.",
    cause,
  }),
) {}

/** A dead letter does not fit into the queue: the change is not done, its partition waits. */
export class DeadLetterTooLargeError extends defineError("DEAD_LETTER_TOO_LARGE", "stop").from(
  (bytes: number) => ({
    message: `a dead letter has ${bytes} bytes, more than the queue takes`,
    remedy:
      "Set the queue's MaximumMessageSize to 1 MiB. A change larger than that must be handled: correct the handler.",
  }),
) {}

/** As much is parked in a partition as may be: it stops, nothing is dropped. */
export class ParkingFullError extends defineError("PARKING_FULL", "retry").from(
  (
    where: PartitionName,
    limits: { readonly keys: number; readonly items: number; readonly kib: number },
  ) => ({
    message: `${nameOf(where)}: no more changes can be parked (at most ${limits.keys} keys, ${limits.items} changes, ${limits.kib / 1024} MiB)`,
    remedy:
      "Correct the handler, deploy it, and run `tributary redrive`; what can never be applied is given up with --discard. The partition then goes on by itself. It must do so before the stream's retention is over.",
  }),
) {}

/** The fence names a list of parked keys that is not there: the partition must not go on as if nothing were parked. */
export class ParkedKeysMissingError extends defineError("PARKED_KEYS_MISSING", "retry").from(
  (where: PartitionName, version: string) => ({
    message: `${nameOf(where)}: the list of its parked keys (version ${version}) is not in the state table`,
    remedy:
      "Restore the state table to a time before. Until then the partition waits: without the list, changes would overtake parked ones of their key.",
  }),
) {}

/** A change failed for good that has no key behind which others could wait: its partition stops (rule 17). */
export class PoisonWithoutKeyError extends defineError("POISON_WITHOUT_KEY", "retry").from(
  (where: PartitionName, position: PositionText, cause: unknown) => ({
    message: `${nameOf(where)}: the change at ${position} failed for good, and it has no key that is known (a truncate, a logical message, a table without key, a change that cannot be read): everything behind it may depend on it`,
    remedy:
      "Correct the handler and deploy it (or restore the object of the claim check): the change comes again by itself, until the stream's retention is over.",
    cause,
  }),
) {}

/** A redrive is at work on what a change would overtake; it comes again. */
export class RedriveUnderWayError extends defineError("REDRIVE_UNDER_WAY", "retry").from(
  (where: PartitionName) => ({
    message: `${nameOf(where)}: a redrive is at work in this partition, and the next change would overtake it`,
    remedy: "Nothing to do: the change comes again when the redrive has ended.",
  }),
) {}

/** The function that was to redrive failed, or is none of ours. */
export class RedriveFailedError extends defineError("REDRIVE_FAILED", "retry").from(
  (
    functionName: string,
    what: string,
    facts: { readonly remedy?: string; readonly cause?: unknown } = {},
  ) => ({
    message: `the redrive by the function ${functionName} failed: ${what}`,
    remedy:
      facts.remedy ??
      "Look at the function's log. What took effect is on record, and a redrive may be repeated: a change whose handler ends the process is tried last the next time; --key leaves it out.",
    cause: facts.cause,
  }),
) {}

/** A change to be parked is too large for the state table, and there is no claim store. */
export class ParkedTooLargeError extends defineError("PARKED_TOO_LARGE", "stop").from((bytes: number) => ({
  message: `a change of ${bytes} bytes is to be parked, and this consumer's environment names no claim store for what is too large for the state table`,
  remedy:
    "Set TRIBUTARY_CLAIM_BUCKET to the capture task's value, and permit the function to write and read there. Until then the partition waits.",
})) {}

/**
 * An item of the state table is not as this version of the library writes it. `item` is its sort key, `problem` an attribute's
 * name and what was expected there; never a value.
 */
export class StateItemError extends defineError("STATE_ITEM", "stop").from(
  (consumer: string, item: string, problem: string) => {
    const [, topic = "", partition = ""] = /^(?:letter|change)#(.+)\/(\d+)#/.exec(item) ?? [];
    return {
      message: `consumer "${consumer}": the item ${item} of the state table cannot be read: ${problem}`,
      remedy:
        "It is of a newer version, or was altered. Deploy that version of the consumer, or restore the item from a backup of the table; what it stands for waits.",
      /** The topic partition that the item is about, where its key says so. */
      place: topic === "" ? undefined : { topic, partition: Number(partition) },
    };
  },
) {}

/** A parked change is of an operation or table that no handler is registered for any more. */
export class HandlerMissingError extends defineError("HANDLER_MISSING", "stop").from(
  (where: PartitionName, position: PositionText) => ({
    message: `${nameOf(where)}: no handler is registered for the parked change at ${position}`,
    remedy:
      "It stays parked. Redrive by the function whose code has its handler; where there is none any more, register one that does nothing, or give the change up with --discard.",
  }),
) {}

/** A message in the redrive queue is no dead letter of a change. `where` names what of consumer, topic, partition and sequence number it says. */
export class DeadLetterFormatError extends defineError("DEAD_LETTER_FORMAT", "stop").from(
  (message: string, where: string, problem: string) => ({
    message: `the message ${message} cannot be redriven: ${problem}${where ? ` (${where})` : ""}`,
    remedy:
      "It goes back to the dead letters. A record that could not be read is no change that a handler takes: read its rows again with a backfill; a message that is none of ours belongs elsewhere.",
  }),
) {}

/** Another invocation is at work on this event under `once: "claim"`; it is no failure of the change. */
export class ClaimHeldError extends defineError("CLAIM_HELD", "retry").from(() => ({
  message: "the event is claimed by another invocation that has not ended yet",
  remedy: "Nothing to do: it comes again, after the claim's end or its lease's.",
})) {}

/**
 * For handlers to throw: the sink cannot be reached, it is not this change's fault. The partition stops and the
 * change comes again; no attempt is counted, nothing becomes a dead letter.
 *
 * @example
 * consumer("search").on("public.orders", Operation.Create, async (event) => {
 *   if (!(await search.ping())) throw new SinkUnavailableError("search");
 *   …
 * })
 */
export class SinkUnavailableError extends defineError("SINK_UNAVAILABLE", "retry").from(
  (sink: string, cause?: unknown) => ({
    message: `the sink "${sink}" cannot be reached`,
    remedy: "Nothing is lost while it is down, as long as the stream's retention lasts: bring it back.",
    cause,
  }),
) {}

/**
 * For `onBatch` handlers to throw: these events failed, all others took effect. Only the failed ones are tried
 * again, so a later change of the same key may have taken effect before: use it with a sink that compares
 * positions, and else throw any other error.
 *
 * @example
 * consumer("search").onBatch("public.orders", {}, async (events) => {
 *   const failed = await bulkIndex(events);
 *   if (failed.length > 0) throw new FailedEvents(failed.map((f) => f.index));
 * })
 */
export class FailedEvents extends Error {
  /** Places in the array that the handler was given, from 0. */
  readonly indexes: readonly number[];

  constructor(indexes: readonly number[], options?: { cause?: unknown }) {
    super(`${indexes.length} events failed`, options);
    this.name = "FailedEvents";
    this.indexes = indexes;
  }
}
