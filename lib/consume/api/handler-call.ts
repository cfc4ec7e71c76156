import { failpoint } from "#failpoint";
import type { Deadline } from "../run/deadline.ts";
import type { HandledEvent } from "../run/event.ts";
import type { RunningCalls } from "../run/running-calls.ts";
import type { Sweep } from "../run/sweep.ts";
import { isA, propertyOf } from "../run/thrown.ts";
import { type HandlerContext, jsonLogger, type Logger, type WriteLine } from "./context.ts";
import { FailedEvents } from "./handler-errors.ts";
import type { Registration } from "./registry.ts";
import { timeOver, type Unfinished, unfinished } from "./unfinished.ts";

/** The outcome of a handler's call. */
export type CallResult =
  | { readonly kind: "done" }
  /** These of its events failed, the others took effect. */
  | { readonly kind: "some-failed"; readonly indexes: readonly number[]; readonly error: unknown }
  /** Where indexes are given, the other events took effect. */
  | (Unfinished & { readonly indexes?: readonly number[] });

/** The parts of an invocation that a call of a handler needs. */
interface CallInvocation {
  readonly consumer: string;
  readonly deadline: Deadline;
  readonly running: RunningCalls;
  readonly write: WriteLine;
}

/**
 * Makes one call of a user's handler. Never throws. Gives a promise only where the handler does: most events need none.
 */
export function callHandler(
  registration: Registration,
  events: readonly HandledEvent[],
  attempt: number,
  invocation: CallInvocation,
): CallResult | Promise<CallResult> {
  const { deadline } = invocation;
  const share = deadline.share();
  // What begins now would be bound by nothing.
  if (share === "none") return timeOver();
  const fair = share === "fair";
  const context = new CallContext(invocation, events[0] as HandledEvent, attempt);
  try {
    failpoint("before-effect");
    const returned = given(registration, events, context);
    if (isPromise(returned)) return settled(registration, events, returned, fair, invocation);
    failpoint("after-effect");
    return ended(registration, events, returned);
  } catch (error) {
    return broken(registration, events, error, fair, deadline);
  }
}

async function settled(
  registration: Registration,
  events: readonly HandledEvent[],
  returned: PromiseLike<unknown>,
  fair: boolean,
  { deadline, running: calls }: CallInvocation,
): Promise<CallResult> {
  let running = true;
  let call: Promise<unknown> | undefined;
  try {
    call = Promise.resolve(returned).finally(() => {
      running = false;
    });
    const value = await deadline.bound(call);
    failpoint("after-effect");
    return ended(registration, events, value);
  } catch (error) {
    if (call && running) {
      const [first] = events as [HandledEvent];
      const succeeded = call.then((value) => ended(registration, events, value).kind === "done");
      calls.add(first, succeeded, events.length === 1 ? first.position : undefined);
    }
    return broken(registration, events, error, fair, deadline);
  }
}

function ended(registration: Registration, events: readonly HandledEvent[], returned: unknown): CallResult {
  if (registration.kind !== "batch" || !Array.isArray(returned)) return DONE;
  const indexes = indexesOf(returned);
  return indexes.length > 0
    ? someFailed(indexes, events.length, new FailedEvents(indexes as number[]))
    : DONE;
}

function broken(
  registration: Registration,
  events: readonly HandledEvent[],
  error: unknown,
  fair: boolean,
  deadline: Deadline,
): CallResult {
  const result = unfinished(error, fair, deadline);
  if (result.kind === "cut-short" || registration.kind !== "batch" || !isA(error, FailedEvents))
    return result;
  const { kind, error: unavailable } = result;
  const cause = kind === "unavailable" ? unavailable : (propertyOf(error, "cause") ?? error);
  const failed = someFailed(propertyOf(error, "indexes"), events.length, cause);
  if (kind === "failed") return failed;
  return failed.kind === "some-failed" ? { ...result, indexes: failed.indexes } : result;
}

const DONE: CallResult = { kind: "done" };

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function"
  );
}

/** The logger is made when it is asked for: few calls write a line. */
class CallContext implements HandlerContext {
  readonly signal: AbortSignal;
  readonly remainingMs: () => number;
  readonly attempt: number;
  readonly consumer: string;
  readonly #write: WriteLine;
  readonly #event: HandledEvent;
  #logger: Logger | undefined;

  constructor({ consumer, deadline, write }: CallInvocation, event: HandledEvent, attempt: number) {
    this.signal = deadline.callSignal();
    this.remainingMs = deadline.remainingMs;
    this.attempt = attempt;
    this.consumer = consumer;
    this.#write = write;
    this.#event = event;
  }

  get logger(): Logger {
    const { topic, partition, position } = this.#event;
    this.#logger ??= jsonLogger(this.#write, { consumer: this.consumer, topic, partition, position });
    return this.#logger;
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

/**
 * Returns the failed events that an array which a handler returned names. Nothing, where it holds no number: `Promise.all` over the
 * events gives their answers. Where some of it is a number, what is undefined or null beside is not: each event's own
 * index or nothing.
 */
function indexesOf(returned: readonly unknown[]): unknown[] {
  const isNumber = (value: unknown) => typeof value === "number" || typeof value === "bigint";
  return returned.some(isNumber) ? returned.filter((value) => value !== undefined && value !== null) : [];
}

/** Indexes that make no sense are the handler's error as a whole: nothing may count as done by mistake. */
function someFailed(indexes: unknown, length: number, error: unknown): CallResult {
  let failed: unknown[];
  try {
    failed = [...new Set(indexes as Iterable<unknown>)];
  } catch {
    return { kind: "failed", error };
  }
  const isIndex = (i: unknown): i is number =>
    Number.isInteger(i) && (i as number) >= 0 && (i as number) < length;
  if (!failed.every(isIndex)) return { kind: "failed", error };
  if (failed.length === 0) return DONE;
  return { kind: "some-failed", indexes: failed.sort((a, b) => a - b), error };
}
