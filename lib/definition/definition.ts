import * as z from "zod";
import { type TableName, tablePattern } from "../change/table-pattern.ts";
import { PIPELINE_NAME, PIPELINE_NAME_RULE } from "./pipeline-name.ts";
import { columnNames, tablePatternText } from "./source-fields.ts";
import { MAX_TOPICS_BYTES, topicBytes } from "./topic-variables.ts";

/*
 * The part of a definition that is the same for every kind of source. Values that differ by place (hosts, secrets, endpoints) are not here: they
 * come from the environment.
 */

const name = z.string().regex(PIPELINE_NAME, { error: PIPELINE_NAME_RULE });

const START_AT_RULE = 'write "now", "oldest", or a time with its offset, such as "2026-11-30T21:00:00Z"';
const TIME = z.iso.datetime({ offset: true });

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
     * The fate of a change above that. `claim`: it is stored where `TRIBUTARY_CLAIM_BUCKET` says, and a pointer
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
  /**
   * Where a consumer begins whose name is new: with what is committed from now on, with what is still in the stream, or with what was
   * committed since a time (ISO 8601, with offset). One that has begun keeps its place.
   */
  startAt: z
    .string({ error: START_AT_RULE })
    .refine((text) => text === "now" || text === "oldest" || TIME.safeParse(text).success, {
      error: START_AT_RULE,
    })
    .refine((text) => !(Date.parse(text) > Date.now()), {
      error: "write a time that has passed, or leave it out: a consumer begins now",
    })
    .optional(),
  /** Records in an invocation at most; 6 MB bound it too. Many cost no time: Lambda does not wait for them without a window. */
  batchSize: z.int().min(1).max(10_000).default(1000),
  /** Seconds that an invocation waits for more records. */
  batchWindowSeconds: z.int().min(0).max(300).default(0),
  /** Lanes a shard, by partition. */
  parallelization: z.int().min(1).max(10).default(1),
  timeoutSeconds: z.int().min(1).max(900).default(60),
  memoryMB: z.int().min(128).max(10_240).default(512),
  /** Tries of one change before it is given up. */
  attempts: z.int().min(1).max(100).default(3),
  /**
   * The consequence of a change that failed for good: under `park` later changes of its key wait behind it and all else goes
   * on; `skip` lets them go on too; `stop` holds its partition.
   */
  poison: z.enum(["park", "skip", "stop"]).default("park"),
  /** Writes message and stack of what a handler throws to its log. They may hold values of rows. */
  logErrors: z.boolean().default(false),
});

/** The parts of a definition beside its source. */
export const pipelineFields = {
  name,
  topics: topics.prefault({}),
  stream: stream.prefault({}),
  consumers: z.array(consumer).default([]),
};

type Fields = z.output<z.ZodObject<typeof pipelineFields>>;

/** The fields that every kind of source has; each kind has more. */
export type SourceDefinition = {
  readonly kind: string;
  /** Tables that are captured, as patterns. */
  readonly tables: readonly string[];
  /** Patterns of tables that are left out, stronger than `tables`. */
  readonly exclude: readonly string[];
};
/** A validated definition with its defaults filled in. */
export type Pipeline = PipelineOf<SourceDefinition>;
/** A pipeline whose source is of this kind. */
export type PipelineOf<Source extends SourceDefinition> = Fields & {
  readonly source: Source;
  readonly topics: { readonly prefix: string };
};
/** A consumer of a validated definition. */
export type ConsumerDefinition = Pipeline["consumers"][number];

/** Tells whether the definition captures a table. */
export function captures(source: Pick<SourceDefinition, "tables" | "exclude">, table: TableName): boolean {
  return (
    source.tables.some((pattern) => tablePattern(pattern)(table)) &&
    !source.exclude.some((pattern) => tablePattern(pattern)(table))
  );
}
