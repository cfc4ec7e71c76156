import { CONSUMER_WAITS, type ErrorSection, errorSection } from "./entry.ts";

/** Consumers. */
export const CONSUMER_ERRORS: ErrorSection = errorSection("Consumers", CONSUMER_WAITS, {
  GAP_EXPIRED: {
    retry: "retry",
    meaning:
      "a capture task started, and the consumer had read nothing of the shard for as long as the stream keeps records: changes before may have expired unread; the partition is held",
    why: "The function was disabled, failed, or was too slow for longer than the stream's retention.",
    remedy:
      "see why the function did not read for so long; then `tributary consumer accept-gap --consumer <consumer> --topic <topic>` ([a gap](04-consumers.md#a-gap))",
    ifNothing:
      "The partitions stay held: their changes are stored up to 256 MiB, then the shard waits and expires further. All else goes on.",
  },
  GAP: {
    retry: "retry",
    meaning: "changes before this one never came; the partition is held",
    why: "The event source mapping gave a record up, a record expired unread, or the consumer's state is from an older backup.",
    remedy:
      "find the discarded or expired record: what comes again is applied in its place. If it is gone, `tributary consumer accept-gap --consumer <consumer> --topic <topic>` ([a gap](04-consumers.md#a-gap))",
    ifNothing:
      "The partition stays held: its changes are stored up to 256 MiB, then its shard waits until the retention is over. All else goes on.",
  },
  CONSUMER_NOT_REGISTERED: {
    retry: "retry",
    meaning: "the capture task has not written its start position",
    why: "The consumer was deployed before the capture task that knows it, or its name or topics differ from the definition.",
    remedy: "start the capture task with the definition that has this consumer",
  },
  OWNERSHIP_LOST: {
    retry: "retry",
    meaning: "another invocation has the partition",
    why: "A second invocation began while the first was slow; the fence lets one write.",
    remedy: "nothing: the batch comes again, and what took effect is skipped",
    ifNothing: "The batch comes again, and what took effect is skipped.",
  },
  FENCE_UNAVAILABLE: {
    retry: "retry",
    meaning: "the state table did not answer in time",
    why: "Throttling, no way to DynamoDB, or rights missing on the table.",
    remedy: "look at the state table's throttles, the function's permissions, and the way to DynamoDB",
  },
  RECORD_FORMAT: {
    retry: "stop",
    meaning: "a record that is not ours, or damaged",
    why: "Another producer writes to the stream, or consumer and capture task are of versions that do not fit.",
    remedy: "let nothing but the capture task write to the stream; deploy the consumer's newer version first",
    ifNothing:
      "Under `poison: stop` the partition waits; else the record becomes a dead letter, and its rows are missing in the sink.",
  },
  RECORD_NOT_SUPPORTED: {
    retry: "stop",
    meaning: "written by a newer capture task",
    why: "The capture task was upgraded before the consumer.",
    remedy: "deploy the consumer with the library version of the capture task",
    ifNothing: "The partition waits, up to the stream's retention.",
  },
  HANDLER_DIED: {
    retry: "stop",
    meaning: "the handler's process never came back",
    why: "Out of memory, a native crash, an endless loop without await, or process.exit in the handler.",
    remedy:
      "look at the function's log: more `memoryMB`, no endless loop, no `process.exit`; then `tributary redrive --consumer <consumer>`",
  },
  HANDLER_STILL_RUNNING: {
    retry: "retry",
    meaning: "a handler that an earlier invocation called has not ended",
    why: "A promise was not awaited, or a call ignores the signal.",
    remedy: "hand `ctx.signal` to every call, and await every promise; on Lambda it passes by itself",
  },
  HANDLER_TIMEOUT: {
    retry: "retry",
    meaning: "the handler ran when time was over",
    why: "A sink that answers slowly, too many changes in a batch, or a promise that is never resolved.",
    remedy: "hand `ctx.signal` to every call; raise `timeoutSeconds`, or lower `batchSize`",
  },
  MIDDLEWARE: {
    retry: "stop",
    meaning: "a middleware called `next` twice, or after it had ended",
    why: "A promise of next() is not awaited, or it is called in a loop.",
    remedy: "`await next()` once, in each middleware",
  },
  ROW_SCHEMA: {
    retry: "stop",
    meaning: "a row does not satisfy the handler's schema",
    why: "The schema is newer than rows that were written before, or a column's type changed.",
    remedy: "give defaults for columns that older rows lack; then `tributary redrive --consumer <consumer>`",
  },
  SINK_UNAVAILABLE: {
    retry: "retry",
    meaning: "the handler says that its sink is away",
    why: "The handler threw SinkUnavailableError: the target is down or throttles.",
    remedy: "bring the sink back before the stream's retention is over",
    ifNothing:
      "The batch comes again, without an attempt being counted, until the stream's retention is over.",
  },
  CLAIM_HELD: {
    retry: "retry",
    meaning: "another invocation works on this event (`once`)",
    why: "Two invocations were given the same change.",
    remedy: "nothing: the batch comes again",
    ifNothing: "The batch comes again.",
  },
  CLAIM_MISSING: {
    retry: "stop",
    meaning: "the object of an oversize change is gone",
    why: "A lifecycle rule or somebody deleted the object before it was read. Objects must outlive the stream's retention, dead letters and holds.",
    remedy:
      "restore the object and `tributary redrive --consumer <consumer>`; gone for good, `tributary consumer accept-gap --consumer <consumer> --topic <topic>` where it holds a partition, else `tributary backfill start --table <table>`",
    ifNothing: "The partition waits, or the change stays in the dead letters.",
  },
  CLAIM_MISMATCH: {
    retry: "stop",
    meaning: "the object is not the one that was written",
    why: "Something else writes to the bucket, or the object was restored in part.",
    remedy:
      "find out who writes to the bucket; restore the object's right version and `tributary redrive --consumer <consumer>`",
    ifNothing: "The partition waits, or the change stays in the dead letters.",
  },
  CLAIM_STORE_NOT_NAMED: {
    retry: "stop",
    meaning: "the consumer knows no claim store",
    why: "The function's environment lacks TRIBUTARY_CLAIM_BUCKET, which the CDK construct sets.",
    remedy: "set `TRIBUTARY_CLAIM_BUCKET` to the capture task's value, and permit the function to read there",
    ifNothing: "The partition waits, up to the stream's retention.",
  },
});

/** Dead letters and redrive. */
export const DEAD_LETTER_ERRORS: ErrorSection = errorSection("Dead letters and redrive", CONSUMER_WAITS, {
  DEAD_LETTER_REFUSED: {
    retry: "retry",
    meaning: "the queue did not take a letter; the change is not done",
    why: "The queue was deleted, its policy or key forbids it, or SQS does not answer.",
    remedy: "see that the queue exists, and what its policy, its key and the function's role permit",
  },
  DEAD_LETTER_TOO_LARGE: {
    retry: "stop",
    meaning: "a letter does not fit",
    why: "A queue that was made by hand takes less than 1 MiB a message.",
    remedy: "set the queue's `MaximumMessageSize` to 1 MiB",
    ifNothing: "The partition waits, up to the stream's retention.",
  },
  DEAD_LETTER_QUEUE_UNREAD: {
    retry: "retry",
    meaning: "a command could not read a dead-letter queue, or delete a message of it",
    why: "The queue is gone or of another account or region, the rights of who runs the command do not suffice, or SQS does not answer.",
    remedy:
      "permit `sqs:GetQueueAttributes`, `ReceiveMessage`, `ChangeMessageVisibility` and `DeleteMessage` on the queue, and `kms:Decrypt` with its key; then repeat the command",
    ifNothing:
      "What is parked is not touched by it. Messages that were being read show again within a minute; the alarm on the queue rings on.",
  },
  DEAD_LETTER_QUEUE_MOVES: {
    retry: "stop",
    meaning: "a dead-letter queue has a redrive policy of its own, so a command does not read it",
    why: "SQS moves a message elsewhere that was received a few times; a command can only look by receiving.",
    remedy: "remove the queue's redrive policy (ours has none), or look at it in the console of SQS",
    ifNothing: "What is parked is listed all the same; what stands in the queue alone is not.",
  },
  PARKED_KEYS_MISSING: {
    retry: "retry",
    meaning: "the list of a partition's parked keys is not in the state table",
    why: "Items of the state table were deleted, or restored in part.",
    remedy: "restore the state table to a time before; the partition waits, the others go on",
    ifNothing: "The partition waits; without the list, later changes could overtake parked ones.",
  },
  PARKING_FULL: {
    retry: "retry",
    meaning: "as much is parked in a partition as may be; it is held",
    why: "A handler fails for many keys: at most 256 MiB, and a bounded number of keys and changes, are parked in a partition.",
    remedy:
      "correct the handler, deploy it, and `tributary redrive --consumer <consumer>`; what can never be applied is given up: `tributary redrive --consumer <consumer> --key <key> --discard`",
    ifNothing:
      "The partition is held; when its hold is full too, its shard waits until the stream's retention is over.",
  },
  POISON_WITHOUT_KEY: {
    retry: "retry",
    meaning: "a truncate or a change without key failed for good; the partition is held",
    why: "Without a key there is nothing behind which only the changes of one row could wait.",
    remedy: "correct the handler and deploy it: the change is tried again by itself",
    ifNothing: "The partition is held; its changes are stored, and all else goes on.",
  },
  HELD_FULL: {
    retry: "retry",
    meaning: "as much is held of a partition as may be; its shard waits",
    why: "The partition was held until 256 MiB of its changes were stored.",
    remedy:
      "correct what it waits for (`tributary redrive --consumer <consumer> --dry-run`), then `tributary redrive --consumer <consumer>`",
    ifNothing:
      "Its shard waits, with all tables in it, until the stream's retention is over; then changes expire.",
  },
  HELD_AT_WORK: {
    retry: "retry",
    meaning: "an invocation or a redrive applies what the partition holds",
    why: "Two would apply the same changes.",
    remedy:
      "nothing in the stream; repeat a redrive: of one that died, the lease ends 30 s after its last sign of life",
    ifNothing: "It passes by itself within 30 s of the other's end.",
  },
  HELD_INCOMPLETE: {
    retry: "stop",
    meaning: "records that a partition holds are gone from the state table",
    why: "Items of the state table were deleted, or restored in part.",
    remedy:
      "restore the state table's items of the hold (point-in-time recovery), or `tributary consumer accept-gap --consumer <consumer> --topic <topic>`, which has the rows read again",
    ifNothing: "The partition stays held.",
  },
  PARKED_TOO_LARGE: {
    retry: "stop",
    meaning: "a change to be parked is too large for the table",
    why: "An item of DynamoDB holds 400 KB; larger changes are parked in the claim bucket, which the function does not know.",
    remedy:
      "set `TRIBUTARY_CLAIM_BUCKET` to the capture task's value, and permit the function to write and read there",
    ifNothing: "The partition waits, up to the stream's retention.",
  },
  HANDLER_MISSING: {
    retry: "stop",
    meaning: "no handler is registered for a parked change: it stays parked",
    why: "The handler was removed, or the redrive is run by another function's code.",
    remedy:
      "redrive by the function whose code has it; where there is none any more, register one that does nothing, or `tributary redrive --consumer <consumer> --key <key> --discard`",
    ifNothing: "The change stays parked, and later changes of its key wait behind it.",
  },
  STATE_ITEM: {
    retry: "stop",
    meaning:
      "a letter, a parked change or a partition's part of the fence is of a newer version, or was altered (the message names item and attribute): what it stands for waits, the others go on",
    why: "A newer version of the library ran before a rollback, or somebody edited the table.",
    remedy: "deploy the version that wrote it, or restore the item from a backup",
    ifNothing: "What the item stands for waits; all else goes on.",
  },
  DEAD_LETTER_FORMAT: {
    retry: "stop",
    meaning:
      "a message in the redrive queue is no change's dead letter (one of a record that could not be read, or none of ours): it goes back to the dead letters",
    why: "The queue is shared with something else, or the letter is of a record that could not be read.",
    remedy: "read the record's rows again: `tributary backfill start --table <table>`",
    ifNothing: "The message stays in the dead letters.",
  },
  REDRIVE_UNDER_WAY: {
    retry: "retry",
    meaning: "a redrive is at work in the partition",
    why: "An operator runs a redrive, and order is kept.",
    remedy: "nothing: the change comes again when the redrive has ended",
    ifNothing: "The change comes again when the redrive has ended.",
  },
  CONSUMER_PAUSED: {
    retry: "stop",
    meaning: "a redrive of a consumer that somebody has paused; the message tells who, when and why",
    why: "A paused consumer applies nothing, and a redrive would.",
    remedy: "nothing is lost: `tributary consumer resume --consumer <consumer>`, then again",
    ifNothing: "What was to be redriven stays where it is.",
  },
  REDRIVE_ELSEWHERE: {
    retry: "stop",
    meaning: "a consumer's function was asked to redrive: only its redrive function has the code for it",
    why: "The code of redrive is left out of a deployed consumer's bundle, so that it starts faster.",
    remedy: "invoke that one: `tributary redrive --consumer <consumer>` finds it",
    ifNothing: "What was to be redriven stays where it is.",
  },
  REDRIVE_FAILED: {
    retry: "retry",
    meaning:
      "the function that was to redrive failed, or could not be called: the message says by which call, and where nobody answered",
    why: "The function timed out, has no right, or is not the consumer's.",
    remedy:
      "look at the function's log; see that its name, region and endpoint are right, then repeat the redrive",
    ifNothing: "What took effect is on record; the rest stays parked or in the dead letters.",
  },
});
