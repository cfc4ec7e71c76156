import * as z from "zod";
import { backoffMs } from "../../backoff.ts";
import type { QueuedRecord } from "./event.ts";
import type { EventSourceMappingOptions } from "./options.ts";
import { pause } from "./wait.ts";

/** The parts that deliveries of one shard share. */
export interface DeliveryContext {
  readonly functionHost: EventSourceMappingOptions["functionHost"];
  /** Aborted when the mapping stops: what is invoked ends, nothing is invoked again. */
  readonly signal: AbortSignal;
  /** Aborted when the mapping no longer waits: an outcome that comes later does not count. */
  readonly abandoned: AbortSignal;
  readonly onInvoked: (invoked: InvokedBatch) => void;
  /** These records need not come again. */
  readonly complete: (records: readonly QueuedRecord[]) => void;
}

/** One invocation and its outcome. */
export interface InvokedBatch {
  readonly records: number;
  readonly completed: number;
  readonly error?: string | undefined;
}

/** Between tries of a failing batch, in milliseconds. */
const RETRY = { baseMs: 50, capMs: 5_000 };

/**
 * Invokes the function on a batch until each of its records is completed, in order, or the mapping stops; what is not completed by
 * then comes again after the checkpoint. A batch that fails comes again for ever: the deployed mapping has no limit of retries or
 * age either, since only the library may give a change up (rule 13).
 */
export async function deliverBatch(batch: readonly QueuedRecord[], context: DeliveryContext): Promise<void> {
  const { signal, abandoned } = context;
  let failures = 0;
  for (let records = batch; records.length > 0; ) {
    if (failures > 0) await pause(backoffMs(failures, RETRY), signal);
    if (signal.aborted) return;
    const completed = await invoke(records, context);
    if (abandoned.aborted) return;
    context.complete(records.slice(0, completed));
    // A batch that got further starts a new count: its first record has failed once.
    failures = completed > 0 ? 1 : failures + 1;
    records = records.slice(completed);
  }
}

/** Invokes the function once; returns how many records from the front are done. */
async function invoke(
  records: readonly QueuedRecord[],
  { functionHost, onInvoked }: DeliveryContext,
): Promise<number> {
  const result = await functionHost.invoke({ Records: records.map((record) => record.event) });
  const sequenceNumbers = records.map((record) => record.event.kinesis.sequenceNumber);
  const completed = result.ok ? completedByReply(result.response, sequenceNumbers) : 0;
  const partial = completed < records.length ? "BatchItemFailures" : undefined;
  const error = result.ok ? partial : result.error.type;
  onInvoked({ records: records.length, completed, error });
  return completed;
}

const batchResponse = z.object({
  batchItemFailures: z.array(z.object({ itemIdentifier: z.string().min(1) })).nullish(),
});

/**
 * Counts the records from the front of the batch that a reply reports as done. The lowest reported sequence number is the
 * checkpoint; null, an empty reply and an empty list are complete success; anything unreadable (null or empty
 * identifier, wrong key, a sequence number that is not in the batch) is complete failure: 0.
 * https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html
 */
export function completedByReply(reply: unknown, sequenceNumbers: readonly string[]): number {
  if (reply === null || reply === undefined || reply === "") return sequenceNumbers.length;
  const parsed = batchResponse.safeParse(reply);
  if (!parsed.success) return 0;
  const places = new Map(sequenceNumbers.map((sequenceNumber, i) => [sequenceNumber, i]));
  let completed = sequenceNumbers.length;
  for (const { itemIdentifier } of parsed.data.batchItemFailures ?? []) {
    completed = Math.min(completed, places.get(itemIdentifier) ?? 0);
  }
  return completed;
}
