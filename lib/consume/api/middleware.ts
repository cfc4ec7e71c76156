import type { AnyEvent, ChangeEvent } from "../run/event.ts";
import { isA } from "../run/thrown.ts";
import type { HandlerContext } from "./context.ts";
import { MiddlewareError } from "./handler-errors.ts";
import type { Registration } from "./registry.ts";

/**
 * Calls what is further in: the next middleware, or the handler. Rejects when that failed. To be called once, before the
 * middleware ends.
 */
export type Next = () => Promise<void>;

/**
 * Runs around each call of a handler for one event. Where it throws, the change failed, as if the handler had thrown;
 * where it ends without `next`, the handler is not called and the change counts as handled.
 *
 * @example
 * const timed: Middleware = async (event, ctx, next) => {
 *   const began = performance.now();
 *   await next();
 *   ctx.logger.info("handled", { table: event.table, ms: performance.now() - began });
 * };
 */
export type Middleware = (event: ChangeEvent, context: HandlerContext, next: Next) => unknown;

/**
 * Runs around each call of an `onBatch` handler, with all events of that call. A call that failed is repeated for fewer
 * events, and the middleware with it.
 *
 * @example
 * const timed: BatchMiddleware = async (events, ctx, next) => {
 *   const began = performance.now();
 *   await next();
 *   ctx.logger.info("written", { events: events.length, ms: performance.now() - began });
 * };
 */
export type BatchMiddleware = (
  events: readonly ChangeEvent[],
  context: HandlerContext,
  next: Next,
) => unknown;

/** The middleware of a consumer, outermost first. */
export interface Middlewares {
  readonly single: readonly Middleware[];
  readonly batch: readonly BatchMiddleware[];
}

/** The registration with the middleware around its handler; itself where there is none for it. */
export function withMiddleware(registration: Registration, { single, batch }: Middlewares): Registration {
  switch (registration.kind) {
    case "single":
      return {
        ...registration,
        handle: around<AnyEvent>(single as readonly Layer<AnyEvent>[], registration.handle),
      };
    case "batch":
      return {
        ...registration,
        handle: around<readonly AnyEvent[]>(
          batch as readonly Layer<readonly AnyEvent[]>[],
          registration.handle,
        ),
      };
    case "sweep":
      return registration;
  }
}

type Handle<E> = (events: E, context: HandlerContext) => unknown;
type Layer<E> = (events: E, context: HandlerContext, next: Next) => unknown;

function around<E>(layers: readonly Layer<E>[], handle: Handle<E>): Handle<E> {
  return layers.reduceRight<Handle<E>>((inner, layer) => wrap(layer, inner), handle);
}

/** Returns what the handler returned: of `onBatch` that may be indexes. */
function wrap<E>(layer: Layer<E>, inner: Handle<E>): Handle<E> {
  return async (events, context) => {
    let call: Promise<unknown> | undefined;
    let next: WatchedPromise | undefined;
    /** Set where the library refused a call of `next`: catching that does not help. */
    let refused: unknown;
    let hasEnded = false;
    let endedLast = false;
    const settled = () => {
      endedLast = !hasEnded;
    };
    const refuse = (error: unknown): Promise<never> => {
      refused = error;
      const rejected = Promise.reject(error);
      // Thrown below, whether the middleware waits for it or not; after its end nobody else would say it.
      if (!hasEnded) rejected.catch(() => {});
      return rejected;
    };
    try {
      await layer(events, context, () => {
        if (hasEnded) return refuse(new MiddlewareError("called next after it had ended"));
        if (call) return refuse(new MiddlewareError("called next twice"));
        // As with a handler: what begins when time is over would be bound by nothing.
        if (context.signal.aborted) return refuse(context.signal.reason);
        call = (async () => inner(events, context))();
        call.then(settled, settled);
        next = new WatchedPromise(call);
        return next;
      });
    } finally {
      hasEnded = true;
      // Not waited for, the handler could still act when the next change begins.
      await call?.catch(() => {});
    }
    if (refused !== undefined) throw refused;
    try {
      return await call;
    } catch (error) {
      // Else the middleware has seen the handler's own error, and ended without it: behind it, not before as in a race with a timer.
      const wasCaught =
        endedLast && next?.isWatched && !context.signal.aborted && !isA(error, MiddlewareError);
      if (!wasCaught) throw error;
      return undefined;
    }
  };
}

/** Knows whether anybody waits for it: an error that nobody saw was not caught on purpose. */
class WatchedPromise extends Promise<void> {
  static override readonly [Symbol.species] = Promise;
  isWatched = false;

  constructor(call: Promise<unknown>) {
    super((resolve, reject) => void call.then(() => resolve(), reject));
    // Not by the `then` below: it keeps the process alive, and watches nothing.
    super.then(undefined, () => {});
  }

  // biome-ignore lint/suspicious/noThenProperty: a promise's own
  override then<A = void, B = never>(
    // biome-ignore lint/suspicious/noConfusingVoidType: as Promise<void> has it
    fulfilled?: ((value: void) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.isWatched = true;
    return super.then(fulfilled, rejected);
  }
}
