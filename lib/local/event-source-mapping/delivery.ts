import { backoffMs } from "../../backoff.ts";
import { type DiscardCondition, type FailureDestination, invocationRecord } from "./destination.ts";
import type { EventOrigin, QueuedRecord } from "./event.ts";
import { afterInvocation, completedByReply, expiredRecords } from "./failure.ts";
import type { EventSourceMappingOptions, MappingSettings } from "./options.ts";
import { pause } from "./wait.ts";

/** What deliveries of one shard share. */
export interface DeliveryContext {
  readonly shardId: string;
  readonly origin: EventOrigin;
  readonly functionHost: EventSourceMappingOptions["functionHost"];
  readonly settings: MappingSettings;
  readonly onFailure: FailureDestination | undefined;
  /** Aborted when the mapping stops: what is invoked ends, nothing is invoked again. */
  readonly signal: AbortSignal;
  /** Aborted when the mapping no longer waits: an outcome that comes later does not count. */
  readonly abandoned: AbortSignal;
  readonly onInvoked: (invoked: InvokedPart) => void;
  readonly onDiscarded: (condition: DiscardCondition, records: number) => void;
  readonly onTrouble: (call: string, error: unknown) => void;
  /** These records need not come again. */
  readonly complete: (records: readonly QueuedRecord[]) => void;
}

/** One invocation and its outcome. */
export interface InvokedPart {
  readonly records: number;
  readonly completed: number;
  readonly retries: number;
  readonly durationMs: number;
  readonly error?: string | undefined;
}

/** Consecutive records that are invoked together, and their history. */
interface Part {
  readonly records: readonly QueuedRecord[];
  readonly retries: number;
  readonly invocations: number;
  readonly last?: { readonly requestId: string; readonly ok: boolean };
}

/** Between tries of a failing batch, in milliseconds. */
const RETRY = { baseMs: 50, capMs: 5_000 };

/**
 * Invokes the function on a batch until each of its records is completed or discarded, in order, or the mapping
 * stops; what is not completed by then comes again after the checkpoint.
 */
export async function deliverBatch(batch: readonly QueuedRecord[], context: DeliveryContext): Promise<void> {
  const { settings, signal, abandoned } = context;
  const parts: Part[] = [{ records: batch, retries: 0, invocations: 0 }];
  let failures = 0;
  for (let next = parts.shift(); next; next = parts.shift()) {
    if (failures > 0) await pause(backoffMs(failures, RETRY), signal);
    if (signal.aborted) return;
    const expired = expiredRecords(next.records, settings.maximumRecordAgeInSeconds, Date.now());
    if (expired > 0) {
      await discard({ ...next, records: next.records.slice(0, expired) }, "RecordAgeExceeded", context);
    }
    const part = { ...next, records: next.records.slice(expired) };
    if (part.records.length === 0) continue;

    const { completed, ...invoked } = await invoke(part, context);
    if (abandoned.aborted) return;
    const { records } = part;
    const decision = afterInvocation({ size: records.length, retries: part.retries, completed }, settings);
    context.complete(records.slice(0, decision.completed));
    const done = decision.completed === records.length;
    failures = done ? 0 : decision.completed > 0 ? 1 : failures + 1;
    const history = { invocations: part.invocations + 1, last: invoked };
    if (decision.discard) {
      const rest = { ...part, ...history, records: records.slice(decision.completed) };
      await discard(rest, "RetryAttemptsExhausted", context);
      failures = 0;
    }
    parts.unshift(
      ...decision.retry.map(({ from, to, retries }) => ({
        records: records.slice(from, to),
        retries,
        ...history,
      })),
    );
  }
}

async function invoke(
  { records, retries }: Part,
  { functionHost, settings, onInvoked }: DeliveryContext,
): Promise<{ completed: number; requestId: string; ok: boolean }> {
  const started = performance.now();
  const result = await functionHost.invoke({ Records: records.map((record) => record.event) });
  const completed = !result.ok
    ? 0
    : settings.reportBatchItemFailures
      ? completedByReply(
          result.response,
          records.map((record) => record.event.kinesis.sequenceNumber),
        )
      : records.length;
  const error = result.ok
    ? completed < records.length
      ? "BatchItemFailures"
      : undefined
    : result.error.type;
  onInvoked({ records: records.length, completed, retries, durationMs: performance.now() - started, error });
  return { completed, requestId: result.requestId, ok: result.ok };
}

/** Sends the part to the on-failure destination, as often as it takes; only then are its records done with. */
async function discard(part: Part, condition: DiscardCondition, context: DeliveryContext): Promise<void> {
  const { shardId, origin, functionHost, onFailure, signal } = context;
  const { records, invocations, last } = part;
  const discarded = { shardId, functionArn: functionHost.arn, condition, records, invocations, last };
  const record = invocationRecord(origin, discarded);
  for (let failures = 1; onFailure; failures++) {
    try {
      await onFailure.send(record, { Records: records.map(({ event }) => event) });
      break;
    } catch (error) {
      context.onTrouble("on-failure destination", error);
      await pause(backoffMs(failures, RETRY), signal);
      if (signal.aborted) return;
    }
  }
  context.onDiscarded(condition, records.length);
  context.complete(records);
}
