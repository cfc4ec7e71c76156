import { definePipeline, postgres } from "../../lib/definition/pipeline.ts";

/** One table, one handler that does nothing. */
export default definePipeline({
  name: "memory",
  source: postgres({ tables: ["public.items"], acceptUnboundedWal: true, snapshot: "never" }),
  consumers: [{ name: "memory", entry: "test/bench/memory-handler.ts", topics: ["memory.public.items"] }],
});
