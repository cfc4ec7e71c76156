import { definePipeline, postgres } from "../../definition/pipeline.ts";

/** Variable that says what becomes of changes that cannot become events: `stop`, else they are put aside. */
export const UNDECODABLE_VARIABLE = "TRIBUTARY_CHECKER_UNDECODABLE";

const entry = (name: string) => new URL(`handlers/${name}.ts`, import.meta.url).pathname;

/*
 * Consumers of the checker give nothing up: what fails comes again until it has taken effect. Timeouts are short, since
 * what a killed invocation held is free when it cannot be alive any more.
 */
const patient = { attempts: 100, poison: "stop", timeoutSeconds: 10 } as const;

/** The pipeline that the checker watches. */
export default definePipeline({
  name: "checked",
  source: postgres({
    tables: ["public.*", "archive.*"],
    acceptUnboundedWal: true,
    // Faults ask for backfills, of small chunks, so that a kill meets many of them.
    snapshot: "never",
    backfill: { rowsPerSecond: 150 },
    undecodable: process.env[UNDECODABLE_VARIABLE] === "stop" ? "stop" : "dead-letter",
  }),
  topics: { partitions: 8, keys: { "public.orders": ["customer_id"] } },
  stream: { mode: "provisioned", shards: 2 },
  consumers: [
    { name: "positions", entry: entry("positions"), topics: ["checked.*"], batchSize: 10, ...patient },
    { name: "append", entry: entry("append"), topics: ["checked.*"], batchSize: 10, ...patient },
    // Two calls of the state table an event: one topic is enough.
    { name: "once", entry: entry("once"), topics: ["checked.archive.accounts"], batchSize: 10, ...patient },
    // Some changes fail for good here.
    {
      name: "dead-letters",
      entry: entry("dead-letters"),
      topics: ["checked.public.parts"],
      batchSize: 10,
      // A handler that throws at random must not fail so often on one change.
      attempts: 4,
      poison: "skip",
      timeoutSeconds: 10,
    },
    // Some fail here until the handler is mended, and are redriven. A table that is never truncated: that would supersede them.
    {
      name: "parked",
      entry: entry("parked"),
      topics: ["checked.public.parts"],
      batchSize: 10,
      attempts: 2,
      poison: "park",
      timeoutSeconds: 10,
    },
  ],
});
