import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";

export default definePipeline({
  name: "own",
  source: postgres({ tables: ["public.items"], acceptUnboundedWal: true, snapshot: "never" }),
  topics: { partitions: 4 },
  consumers: [
    {
      name: "lines",
      entry: new URL("handler.ts", import.meta.url).pathname,
      topics: ["own.public.items"],
      attempts: 100,
      poison: "stop",
    },
  ],
});
