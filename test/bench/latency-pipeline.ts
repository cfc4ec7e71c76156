import { definePipeline, postgres } from "../../lib/definition/pipeline.ts";

/** One table, one handler that does nothing but look at the clock. */
export default definePipeline({
  name: "latency",
  source: postgres({ tables: ["public.ticks"], snapshot: "never" }),
  consumers: [{ name: "latency", entry: "test/bench/latency-handler.ts", topics: ["latency.public.ticks"] }],
});
