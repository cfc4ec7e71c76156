import type { LogPipeline, Pipeline } from "../../definition/pipeline.ts";
import { postgresSource } from "../../definition/source.ts";

/** The pipeline as the decoder of the log knows it: the same tables, and no slot. */
export function logPipeline(pipeline: Pipeline): LogPipeline {
  const { tables, exclude } = pipeline.source;
  const source = postgresSource.parse({ kind: "postgres", tables, exclude });
  return { ...pipeline, source: { ...source, slot: "", publication: "" } };
}
