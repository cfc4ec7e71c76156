import { definePipeline, type PipelineInput, polling, triggers } from "../../../definition/pipeline.ts";

/** The sources that are checked here: their positions are their own, so that what they give is held against tables and counts. */
export type BatchesKind = "triggers" | "polling" | "pollingDeletes";

/** Names the kind for the capture task's process. */
export const BATCHES_KIND_VARIABLE = "CHECKER_BATCHES_KIND";

const entry = (name: string) => new URL(`../handlers/${name}.ts`, import.meta.url).pathname;
const patient = { attempts: 100, poison: "stop", timeoutSeconds: 10, batchSize: 10 } as const;

/** The checker's tables behind another kind of source, with the sinks that say most. */
export function batchesPipeline(kind: BatchesKind) {
  const read = { tables: ["public.*", "archive.*"], intervalMs: 100, batchRows: 300 };
  const sources: Record<BatchesKind, PipelineInput["source"]> = {
    triggers: triggers(read),
    polling: polling(read),
    pollingDeletes: polling({ ...read, deletes: { everySeconds: 1 } }),
  };
  return definePipeline({
    name: "checked",
    source: sources[kind],
    // Where deletes are looked for, each one's partition must be known from the primary key.
    topics: { partitions: 8, keys: kind === "pollingDeletes" ? {} : { "public.orders": ["customer_id"] } },
    stream: { mode: "provisioned", shards: 2 },
    consumers: [
      { name: "positions", entry: entry("positions"), topics: ["checked.*"], ...patient },
      { name: "append", entry: entry("append"), topics: ["checked.*"], ...patient },
    ],
  });
}

export default batchesPipeline((process.env[BATCHES_KIND_VARIABLE] ?? "triggers") as BatchesKind);
