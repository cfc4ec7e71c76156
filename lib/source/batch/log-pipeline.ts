import type { Pipeline } from "../../definition/definition.ts";
import type { LogPipeline } from "../postgres/definition.ts";
import { postgresSource } from "../postgres/definition.ts";

/** The pipeline as the decoder of the log knows it: the same tables, and no slot. */
export function logPipeline(pipeline: Pipeline): LogPipeline {
  const { tables, exclude } = pipeline.source;
  const source = postgresSource.parse({ kind: "postgres", tables, exclude });
  return { ...pipeline, source: { ...source, slot: "", publication: "" } };
}
