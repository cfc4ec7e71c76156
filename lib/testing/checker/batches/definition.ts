import type { Pipeline } from "../../../definition/definition.ts";
import { definePipeline, type PipelineInput } from "../../../definition/pipeline.ts";

const entry = (name: string) => new URL(`../handlers/${name}.ts`, import.meta.url).pathname;
const patient = { attempts: 100, poison: "stop", timeoutSeconds: 10, batchSize: 10 } as const;

/** The checker's tables behind another kind of source, with the sinks that say most. */
export function batchesPipeline(
  source: PipelineInput["source"],
  keys: NonNullable<PipelineInput["topics"]>["keys"] = { "public.orders": ["customer_id"] },
): Pipeline {
  return definePipeline({
    name: "checked",
    source,
    topics: { partitions: 8, keys },
    stream: { mode: "provisioned", shards: 2 },
    consumers: [
      { name: "positions", entry: entry("positions"), topics: ["checked.*"], ...patient },
      { name: "append", entry: entry("append"), topics: ["checked.*"], ...patient },
    ],
  });
}
