import { remedyText } from "#remedy";
import { defineError } from "../../change/tributary-error.ts";
import { nameOf, type PartitionName } from "../consume-errors.ts";

/** A handler did not come back: its process ended or was ended while it ran. */
export class HandlerDiedError extends defineError("HANDLER_DIED", "stop").saying(
  (calls: number) =>
    `the handler was called ${calls} times for this change and never came back: the process ended or timed out`,
  remedyText(
    "Look for memory, endless loops and process.exit; then: tributary redrive --consumer <consumer>",
  ),
) {}

/** A handler was still running when the invocation's time was over. */
export class HandlerTimeoutError extends defineError("HANDLER_TIMEOUT", "retry").saying(
  () => "the handler was still running when the invocation's time was over",
  remedyText("Heed ctx.signal, raise the consumer's timeoutSeconds, or lower its batchSize."),
) {}

/** A handler that an earlier invocation called still runs; what is behind its change waits for it. */
export class HandlerStillRunningError extends defineError("HANDLER_STILL_RUNNING", "retry").saying(
  (where: PartitionName) =>
    `${nameOf(where)}: a handler that was called by an earlier invocation has not ended, or is not known to have; what follows its change waits`,
  remedyText(
    "Heed ctx.signal. On Lambda it passes by itself within seconds; elsewhere start the process anew.",
  ),
) {}

/** A row does not satisfy the schema the handler was registered with. The message names columns, never values. */
export class RowSchemaError extends defineError("ROW_SCHEMA", "stop").from(
  (table: string, columns: readonly string[], unchanged: readonly string[], cause: unknown) => {
    const missing = unchanged.length > 0 ? ` (did not travel, being unchanged: ${unchanged.join(", ")})` : "";
    return {
      message: `a row of ${table} does not satisfy the handler's schema: ${columns.join(", ")}${missing}`,
      remedy: remedyText(
        "Give columns that older rows lack a default, make columns that may be unchanged (TOAST) optional, or set REPLICA IDENTITY FULL.",
      ),
      cause,
    };
  },
) {}

/** A middleware of `use` or `useBatch` called `next` twice, or after its end. */
export class MiddlewareError extends defineError("MIDDLEWARE", "stop").saying(
  (what: string) => `a middleware ${what}`,
  remedyText("Call next once and wait for it: await next()."),
) {}

/** Another invocation is at work on this event under `once: "claim"`; it is no failure of the change. */
export class ClaimHeldError extends defineError("CLAIM_HELD", "retry").saying(
  () => "the event is claimed by another invocation that has not ended yet",
  remedyText("Nothing to do: it comes again."),
) {}

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
    remedy: remedyText("Bring it back before the stream's retention is over."),
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
