import { failpoint } from "../failpoint.ts";
import { type HandlerContext, jsonLogger, type WriteLine } from "./context.ts";
import type { Deadline } from "./deadline.ts";
import { FailedEvents, SinkUnavailableError } from "./errors.ts";
import type { HandledEvent } from "./event.ts";
import type { Registration } from "./registry.ts";
import type { Sweep } from "./sweep.ts";

/** How a handler's call ended. */
export type CallResult =
  | { readonly kind: "done" }
  /** It threw. */
  | { readonly kind: "failed"; readonly error: unknown }
  /** These of its events failed, the others took effect. */
  | { readonly kind: "some-failed"; readonly indexes: readonly number[]; readonly error: unknown }
  /** The invocation's time was over; `fair` says whether it had its share of it, `running` whether it still runs. */
  | { readonly kind: "cut-short"; readonly fair: boolean; readonly running: boolean; readonly error: unknown }
  /** Not the change's fault: no attempt. */
  | { readonly kind: "unavailable"; readonly error: unknown };

/** Makes one call of a user's handler. Never throws. */
export async function callHandler(
  registration: Registration,
  events: readonly HandledEvent[],
  attempt: number,
  invocation: { readonly consumer: string; readonly deadline: Deadline; readonly write: WriteLine },
): Promise<CallResult> {
  const { consumer, deadline, write } = invocation;
  const [first] = events as [HandledEvent];
  const { topic, partition, position } = first;
  const context: HandlerContext = {
    signal: deadline.work,
    remainingMs: () => deadline.remainingMs(),
    logger: jsonLogger(write, { consumer, topic, partition, position }),
    attempt,
    consumer,
  };
  const fair = deadline.isFair();
  let settled = false;
  try {
    const result = await deadline.bound(async () => {
      try {
        failpoint("before-effect");
        const returned = await given(registration, events, context);
        failpoint("after-effect");
        return returned;
      } finally {
        settled = true;
      }
    });
    return registration.kind === "batch" && Array.isArray(result)
      ? someFailed(result, events.length, new FailedEvents(result))
      : { kind: "done" };
  } catch (error) {
    if (error instanceof SinkUnavailableError) return { kind: "unavailable", error };
    if (deadline.work.aborted) return { kind: "cut-short", fair, running: !settled, error };
    return error instanceof FailedEvents && registration.kind === "batch"
      ? someFailed(error.indexes, events.length, error.cause ?? error)
      : { kind: "failed", error };
  }
}

function given(
  registration: Registration,
  events: readonly HandledEvent[],
  context: HandlerContext,
): unknown {
  const [first] = events as [HandledEvent];
  switch (registration.kind) {
    case "single":
      return registration.handle(first, context);
    case "batch":
      return registration.handle(events, context);
    case "sweep":
      // The registry chose it because the event is one.
      return registration.handle(first.sweep as Sweep, context);
  }
}

/** Indexes that make no sense are the handler's error as a whole: nothing may count as done by mistake. */
function someFailed(indexes: readonly unknown[], length: number, error: unknown): CallResult {
  const valid = indexes.every((i) => Number.isInteger(i) && (i as number) >= 0 && (i as number) < length);
  if (!valid) return { kind: "failed", error };
  if (indexes.length === 0) return { kind: "done" };
  return { kind: "some-failed", indexes: [...new Set(indexes as number[])].sort((a, b) => a - b), error };
}
