import type * as z from "zod/mini";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { HandlerContext } from "../consume/api/context.ts";
import type { VerifiableSink } from "../consume/api/verifiable-sink.ts";
import type { ChangeEvent } from "../consume/run/event.ts";
import type { Sweep } from "../consume/run/sweep.ts";

/**
 * A target system that follows tables: what a ready-made consumer is made of. Order, the fence, retries, parking and the call of
 * sweeps are the library's; a sink writes, and can be asked what it holds.
 *
 * @example
 * const search: Sink = {
 *   tables: ["public.products"],
 *   apply: (events, ctx) => bulkIndex(events.map(asDocument), ctx.signal),
 *   sweep: ({ partition, before }, ctx) => deleteBelow(partition, before, ctx.signal),
 *   identity: async () => ({ id: await indexUuid() }),
 *   verify: { table: ({ table }) => (table === "products" ? heldProducts : undefined) },
 * };
 * export const handler = sinkConsumer("search", search).handler();
 * export const sink = search.verify;
 */
export interface Sink {
  /** Patterns of the tables or topics that it takes, as `on` takes them. */
  readonly tables: readonly string[];
  /** Events in a call of `apply` at most; default 500. With 1 a change is tried again without its neighbours. */
  readonly maxEvents?: number;
  /**
   * Writes consecutive events of one partition, which one pattern of `tables` matches, in their order. Writes each only where nothing
   * newer stands (`event.position`), or all in one transaction. All of them failed if it throws, unless it throws `FailedEvents`.
   */
  apply(events: readonly ChangeEvent[], context: HandlerContext): Promise<void>;
  /** Removes the rows of a table in a partition that stand below a position, and keeps out what comes late from below it. */
  sweep(sweep: Sweep, context: HandlerContext): Promise<void>;
  /** Returns which store this is. */
  identity(): Promise<SinkIdentity>;
  /** The rows that `tributary verify` compares with the source. */
  readonly verify: VerifiableSink;
}

/**
 * Tells a store from one that has taken its place: a table, index or database that was made anew has another `id`, though its name
 * is the same.
 *
 * @example
 * const identity: SinkIdentity = { id: "7301452398120034567/16384/24601" };
 */
export interface SinkIdentity {
  readonly id: string;
}

/** A kind of ready-made sink: all that the rest of the system asks of one. `index.ts` lists them. */
export interface SinkKind {
  /** Its name in configurations. */
  readonly kind: string;
  /**
   * Makes a sink. Connects when it is first used.
   * @throws ConfigurationError naming everything that is wrong with the configuration.
   */
  open(configuration: unknown): Sink;
}

/**
 * Declares a kind of sink, whose configuration a schema checks.
 *
 * @example
 * export const redisKind = sinkKind("redis", z.object({ url: z.string(), tables: z.array(z.string()) }), openRedis);
 */
export function sinkKind<C>(
  kind: string,
  schema: z.ZodMiniType<C>,
  open: (configuration: C) => Sink,
): SinkKind {
  return {
    kind,
    open(configuration) {
      const { success, data, error } = schema.safeParse(configuration);
      if (success) return open(data);
      const problems = error.issues.map(({ path, message }) => ({
        path: path.map(String).join("."),
        value: valueAt(configuration, path),
        remedy: message,
      }));
      throw new ConfigurationError(`The sink "${kind}"`, problems);
    },
  };
}

function valueAt(configuration: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (at, name) => (at as Record<PropertyKey, unknown> | undefined)?.[name],
    configuration,
  );
}
