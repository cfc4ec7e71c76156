import * as z from "zod";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { Pipeline, PipelineOf } from "../../definition/definition.ts";
import { intervalMs, tableFields } from "../../definition/source-fields.ts";

/** An audit table that triggers fill: for those who may not replicate. */
export const triggersSource = z.strictObject({
  kind: z.literal("triggers"),
  ...tableFields,
  /** Schema of the audit table and its functions; made by `tributary triggers install`. */
  schema: z
    .string()
    .regex(/^[a-z_][a-z0-9_]{0,62}$/, {
      error: "write lower-case letters, digits and underscores, at most 63",
    })
    .default("tributary"),
  intervalMs: intervalMs.default(500),
  /** Audit rows read at once. */
  batchRows: z.int().min(1).max(100_000).default(2000),
});

/** The argument of `triggers({…})`. */
export type TriggersInput = z.input<typeof triggersSource>;
/** A validated `triggers({…})`. */
export type TriggersSource = z.output<typeof triggersSource>;

/** A PostgreSQL source whose changes triggers write into an audit table: `tributary triggers install` makes them. */
export function triggers(source: Omit<TriggersInput, "kind">): TriggersInput {
  return { kind: "triggers", ...source };
}

/**
 * The pipeline, for what has to do with triggers.
 * @throws ConfigurationError when the pipeline does not read them.
 */
export function requireTriggers(pipeline: Pipeline): PipelineOf<TriggersSource> {
  if (hasTriggers(pipeline)) return pipeline;
  throw new ConfigurationError("The pipeline definition", [
    {
      path: "source.kind",
      value: pipeline.source.kind,
      remedy: "this is for pipelines with source: triggers({…})",
    },
  ]);
}

function hasTriggers(pipeline: Pipeline): pipeline is PipelineOf<TriggersSource> {
  return pipeline.source.kind === "triggers";
}
