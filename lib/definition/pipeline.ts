import * as z from "zod";
import { formatTable, type TableName, tablePattern } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { outboxTableName } from "./outbox-table.ts";
import { definitionProblems, remedyOf } from "./problems.ts";
import {
  columnNames,
  type OutboxSource,
  outboxSource,
  type PollingSource,
  type PostgresSource,
  pollingSource,
  postgresSource,
  type TriggersSource,
  tablePatternText,
  triggersSource,
} from "./source.ts";
import { MAX_TOPICS_BYTES, topicBytes } from "./topic-variables.ts";

/*
 * The one definition that `cdk deploy` and `npm start` both read. Values that differ by place (hosts, secrets,
 * endpoints) are not here: they come from the environment.
 */

const name = z.string().regex(/^[a-z][a-z0-9-]{0,39}$/, {
  error: "write a name of lower-case letters, digits and hyphens, at most 40, starting with a letter",
});

const topics = z.strictObject({
  /** First part of every topic name; default the pipeline's name. */
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,40}$/, { error: "write letters, digits, hyphens and underscores, at most 40" })
    .optional(),
  /** Renames by regular expression over `schema.table`; the first match counts; several tables may share a topic. */
  routes: z
    .array(
      z.strictObject({
        match: z.string().superRefine((text, context) => {
          try {
            new RegExp(text, "u");
          } catch (error) {
            context.addIssue({
              code: "custom",
              message: `write a regular expression: ${(error as Error).message}`,
            });
          }
        }),
        to: z.string().regex(/^[^,\s]+$/, { error: "write a topic name without commas and blanks" }),
      }),
    )
    .default([]),
  /** Key columns by table pattern, where the order of something else than the row's own key counts. */
  keys: z.record(tablePatternText, columnNames).default({}),
  /** Logical partitions of each topic: the unit of order. Stored at first start, never changed after. */
  partitions: z.int().min(1).max(4096).default(64),
});

const stream = z
  .strictObject({
    mode: z.enum(["on-demand", "provisioned"]).default("on-demand"),
    /** Shards of a provisioned stream. */
    shards: z.int().min(1).max(10_000).optional(),
    retentionHours: z.int().min(24).max(8760).default(168),
    /**
     * `batch`: many events of a partition in a record. `gzip`: the same, compressed where that saves, for readers that
     * are consumers of this library. `none`: one event a record, for Flink and Firehose.
     */
    packing: z.enum(["batch", "gzip", "none"]).default("batch"),
    /** Largest Kinesis record the stream takes, in bytes; above 1 MiB the stream must be set so. */
    maxRecordBytes: z
      .int()
      .min(16 * 1024)
      .max(4 * 1024 * 1024)
      .default(1024 * 1024),
    /**
     * What becomes of a change above that. `claim`: it is stored where `TRIBUTARY_CLAIM_BUCKET` says, and a pointer
     * travels; without a bucket the pipeline stops there. `omit`: its largest columns are left out, and listed.
     */
    oversize: z.enum(["claim", "omit"]).default("claim"),
  })
  .superRefine((value, context) => {
    if (value.mode === "provisioned" && value.shards === undefined) {
      context.addIssue({
        code: "custom",
        path: ["shards"],
        message: "say how many shards a provisioned stream has",
      });
    }
    if (value.mode === "on-demand" && value.shards !== undefined) {
      context.addIssue({
        code: "custom",
        path: ["shards"],
        message: "leave it out, or set mode to provisioned",
      });
    }
  });

const consumer = z.strictObject({
  name,
  /** File whose export `handler` is the Lambda handler, relative to the project. */
  entry: z.string().min(1),
  /** Topics it reads; `*` stands for any characters: `*.public.orders`. */
  topics: z
    .array(
      // The patterns travel to the handler in one variable, apart by commas.
      z.string().regex(/^[^,\s]+$/, {
        error: 'write a topic pattern without commas and blanks, such as "*.public.orders"',
      }),
    )
    .min(1, { error: 'name at least one topic, such as "*.public.orders"' })
    .refine((patterns) => topicBytes(patterns) <= MAX_TOPICS_BYTES, {
      error:
        'write fewer patterns, such as "shop.public.*" for many topics, or split the consumer: Lambda takes 4 KB of environment, and these do not fit even compressed',
    }),
  /** Records in an invocation at most; 6 MB bound it too. Many cost no time: Lambda does not wait for them without a window. */
  batchSize: z.int().min(1).max(10_000).default(1000),
  /** How long an invocation waits for more records, in seconds. */
  batchWindowSeconds: z.int().min(0).max(300).default(0),
  /** Lanes a shard, by partition. */
  parallelization: z.int().min(1).max(10).default(1),
  timeoutSeconds: z.int().min(1).max(900).default(60),
  memoryMB: z.int().min(128).max(10_240).default(512),
  /** Tries of one change before it is given up. */
  attempts: z.int().min(1).max(100).default(3),
  /**
   * What follows a change that failed for good: under `park` later changes of its key wait behind it and all else goes
   * on; `skip` lets them go on too; `stop` holds its partition.
   */
  poison: z.enum(["park", "skip", "stop"]).default("park"),
});

const pipeline = z
  .strictObject({
    name,
    source: z.discriminatedUnion("kind", [postgresSource, triggersSource, pollingSource, outboxSource], {
      error: "write postgres({…}), triggers({…}), polling({…}) or outbox({…})",
    }),
    topics: topics.prefault({}),
    stream: stream.prefault({}),
    consumers: z.array(consumer).default([]),
  })
  .superRefine((value, context) => {
    const seen = new Set<string>();
    value.consumers.forEach((c, i) => {
      if (seen.has(c.name)) {
        context.addIssue({
          code: "custom",
          path: ["consumers", i, "name"],
          message: "give each consumer a name of its own: the fence stands under it",
        });
      }
      seen.add(c.name);
    });
    const { source } = value;
    if (source.kind === "postgres" && source.slots > 1 && source.outbox && value.topics.routes.length > 0) {
      context.addIssue({
        code: "custom",
        path: ["source", "slots"],
        message:
          "leave it at 1, or remove topics.routes or source.outbox: a topic has one slot, and routes could send events of the outbox to the topic of a table that another slot has",
      });
    }
  });

/** What a user writes: everything with a default may be left out. */
export type PipelineInput = z.input<typeof pipeline>;
/** The sources that a definition may name, with their defaults filled in. */
export type SourceDefinition = LogSource | TriggersSource | PollingSource | OutboxSource;
/** The log of a PostgreSQL database, with the names of what is made there. */
export type LogSource = PostgresSource & { readonly slot: string; readonly publication: string };
/** A validated definition with its defaults filled in. */
export type Pipeline = Omit<z.output<typeof pipeline>, "source"> & {
  readonly source: SourceDefinition;
  readonly topics: { readonly prefix: string };
};
/** A pipeline whose source is of this kind. */
export type PipelineOf<Source extends SourceDefinition> = Omit<Pipeline, "source"> & {
  readonly source: Source;
};
/** A pipeline that reads PostgreSQL's log: it alone has a slot and a publication. */
export type LogPipeline = PipelineOf<LogSource>;
/** A consumer of a validated definition. */
export type ConsumerDefinition = Pipeline["consumers"][number];

/** A PostgreSQL source read through logical replication. */
export function postgres(
  source: Omit<z.input<typeof postgresSource>, "kind">,
): z.input<typeof postgresSource> {
  return { kind: "postgres", ...source };
}

/** A PostgreSQL source whose changes triggers write into an audit table: `tributary triggers install` makes them. */
export function triggers(
  source: Omit<z.input<typeof triggersSource>, "kind">,
): z.input<typeof triggersSource> {
  return { kind: "triggers", ...source };
}

/** A PostgreSQL source whose tables are asked for rows with a newer `updated_at` or version. */
export function polling(source: Omit<z.input<typeof pollingSource>, "kind">): z.input<typeof pollingSource> {
  return { kind: "polling", ...source };
}

/** An outbox table that relays read, where nobody may replicate: `tributary outbox install` makes it. */
export function outbox(
  source: Omit<z.input<typeof outboxSource>, "kind"> = {},
): z.input<typeof outboxSource> {
  return { kind: "outbox", ...source };
}

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
export function definePipeline(
  input: PipelineInput & { readonly source: z.input<typeof postgresSource> },
): LogPipeline;
export function definePipeline(input: PipelineInput): Pipeline;
export function definePipeline(input: PipelineInput): Pipeline {
  const definition = completeDefinition(input);
  const { source } = definition;
  if (source.kind !== "postgres") return definition;
  const problems = (["slot", "publication"] as const)
    .filter((field) => isTailsOwn(source[field]))
    .map((field) => ({
      path: `source.${field}`,
      value: source[field],
      remedy: `write another: names that begin with ${TAIL_NAME} are for \`tributary tail\`, which drops what is named so`,
    }));
  if (problems.length > 0) throw new ConfigurationError("The pipeline definition", problems);
  return definition;
}

/** The slot and the publication that `tributary tail` makes where it is given no name; with `_…` behind it, further slots of its own. */
export const TAIL_NAME = "tributary_tail";

/** Whether a slot or publication of that name is for `tributary tail` alone. */
export function isTailsOwn(name: string): boolean {
  return name === TAIL_NAME || name.startsWith(`${TAIL_NAME}_`);
}

/** `definePipeline` for `tributary tail`, which alone may use the names of `isTailsOwn`. @throws ConfigurationError */
export function completeDefinition(
  input: PipelineInput & { readonly source: z.input<typeof postgresSource> },
): LogPipeline;
export function completeDefinition(input: PipelineInput): Pipeline;
export function completeDefinition(input: PipelineInput): Pipeline {
  const parsed = pipeline.safeParse(input, { error: remedyOf });
  if (!parsed.success)
    throw new ConfigurationError("The pipeline definition", definitionProblems(parsed.error, input));
  const definition = parsed.data;
  const underscored = `tributary_${definition.name.replaceAll("-", "_")}`;
  return {
    ...definition,
    source: named(definition.source, underscored),
    topics: { ...definition.topics, prefix: definition.topics.prefix ?? definition.name },
  };
}

function named(source: z.output<typeof pipeline>["source"], name: string): SourceDefinition {
  if (source.kind !== "postgres") return source;
  const { outbox, tables, slot = name, publication = name } = source;
  const table = outbox?.table === undefined ? undefined : outboxTableName(outbox.table);
  const more = table && !captures(source, table) ? [formatTable(table)] : [];
  return { ...source, tables: [...tables, ...more], slot, publication };
}

/**
 * The pipeline, for what has to do with a slot.
 * @throws ConfigurationError when the pipeline does not read the log.
 */
export function requireLog(pipeline: Pipeline, what: string): LogPipeline {
  const { source } = pipeline;
  if (source.kind === "postgres") return { ...pipeline, source };
  const remedy = `${what} is for pipelines that read the log: source: postgres({…})`;
  throw new ConfigurationError("The pipeline definition", [
    { path: "source.kind", value: source.kind, remedy },
  ]);
}

/** Whether the definition captures a table. */
export function captures(source: Pick<SourceDefinition, "tables" | "exclude">, table: TableName): boolean {
  return (
    source.tables.some((pattern) => tablePattern(pattern)(table)) &&
    !source.exclude.some((pattern) => tablePattern(pattern)(table))
  );
}
