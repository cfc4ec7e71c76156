import * as z from "zod";
import { ConfigurationError } from "../change/tributary-error.ts";
import { sourceKind, sourceKinds } from "../source/index.ts";
import type { LogPipeline, PostgresInput } from "../source/postgres/definition.ts";
import { type Pipeline, pipelineFields, type SourceDefinition } from "./definition.ts";
import { definitionProblems, remedyOf } from "./problems.ts";

export { outbox } from "../source/outbox/definition.ts";
export { polling } from "../source/polling/definition.ts";
export type { LogPipeline, LogSource } from "../source/postgres/definition.ts";
export { postgres } from "../source/postgres/definition.ts";
export { triggers } from "../source/triggers/definition.ts";
export type { ConsumerDefinition, Pipeline, PipelineOf, SourceDefinition } from "./definition.ts";

/*
 * The one definition that `cdk deploy` and `npm start` both read: what every pipeline says, and what its kind of source does.
 */

/** A definition as a user writes it: everything with a default may be left out. */
export type PipelineInput = z.input<z.ZodObject<typeof pipelineFields>> & {
  /** The result of `postgres({…})`, or of another kind's function. */
  readonly source: { readonly kind: string; readonly [option: string]: unknown };
};

/** The settings of `postgres({…})`, as a user writes them. */
type LogInput = PipelineInput & { readonly source: PostgresInput };

/**
 * Validates a pipeline definition and fills in its defaults.
 *
 * @example
 * export default definePipeline({
 *   name: "shop",
 *   source: postgres({ tables: ["public.*"] }),
 *   consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*.public.orders"] }],
 * });
 *
 * @throws ConfigurationError naming every wrong field: its path, its value and the remedy.
 */
export function definePipeline(input: LogInput): LogPipeline;
export function definePipeline(input: PipelineInput): Pipeline;
export function definePipeline(input: PipelineInput): Pipeline {
  const definition = completeDefinition(input);
  const { source } = definition;
  const problems = sourceKind(source).definition.taken?.(source) ?? [];
  if (problems.length > 0) throw new ConfigurationError("The pipeline definition", problems);
  return definition;
}

/** `definePipeline` for `tributary tail`, which alone may use the names that are kept for it. @throws ConfigurationError */
export function completeDefinition(input: LogInput): LogPipeline;
export function completeDefinition(input: PipelineInput): Pipeline;
export function completeDefinition(input: PipelineInput): Pipeline {
  const parsed = pipelineSchema().safeParse(input, { error: remedyOf });
  if (!parsed.success)
    throw new ConfigurationError("The pipeline definition", definitionProblems(parsed.error, input));
  const { source, topics, ...rest } = parsed.data;
  return {
    ...rest,
    source: sourceKind(source).definition.complete?.(source, rest.name) ?? source,
    topics: { ...topics, prefix: topics.prefix ?? rest.name },
  };
}

/** The schema over the kinds that there are now. */
function pipelineSchema() {
  return z
    .strictObject({ ...pipelineFields, source: sourceSchema() })
    .superRefine(({ consumers, source, topics }, context) => {
      const seen = new Set<string>();
      consumers.forEach(({ name, startAt }, i) => {
        if (seen.has(name)) {
          context.addIssue({
            code: "custom",
            path: ["consumers", i, "name"],
            message: "give each consumer a name of its own: the fence stands under it",
          });
        }
        seen.add(name);
        // Positions of the log alone follow commits (rule 65).
        if (startAt !== undefined && startAt !== "now" && !sourceKind(source).throughSlots) {
          context.addIssue({
            code: "custom",
            path: ["consumers", i, "startAt"],
            message: `leave it out: a new consumer of a ${source.kind} source begins now`,
          });
        }
      });
      const conflict = sourceKind(source).definition.conflict?.(source, topics);
      if (conflict) {
        const { field, message } = conflict;
        context.addIssue({ code: "custom", path: ["source", field], message });
      }
    });
}

function sourceSchema(): z.ZodType<SourceDefinition> {
  const kinds = sourceKinds();
  const names = kinds.map(({ kind }) => `${kind}({…})`);
  const [first, ...others] = kinds.map(({ definition }) => definition.schema);
  return z.discriminatedUnion("kind", [first as z.ZodObject, ...others], {
    error: `write ${names.slice(0, -1).join(", ")} or ${names.at(-1)}`,
  }) as z.ZodType<unknown> as z.ZodType<SourceDefinition>;
}
