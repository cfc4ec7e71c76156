import { type Consumer, consumer } from "../consume/api/consumer.ts";
import type { Sink } from "./sink.ts";

export type { Sink, SinkIdentity } from "./sink.ts";

/**
 * Makes a consumer of a sink: what the sink takes goes to it, truncates too, and each table's sweeps.
 *
 * @example
 * export const handler = sinkConsumer("search", search).handler();
 *
 * @throws ConfigurationError when the name, a pattern of `tables` or `maxEvents` is none.
 */
export function sinkConsumer(name: string, sink: Sink): Consumer {
  const { tables, maxEvents } = sink;
  const made = consumer(name);
  for (const pattern of tables) {
    made.onBatch(pattern, maxEvents === undefined ? {} : { maxEvents }, async (events, context) => {
      // Without a value: what a sink returns must not count as indexes of failed events.
      await sink.apply(events, context);
    });
    made.onSweep(pattern, (sweep, context) => sink.sweep(sweep, context));
  }
  return made;
}
