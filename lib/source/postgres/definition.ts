import * as z from "zod";
import { formatTable, tablePattern } from "../../change/table-pattern.ts";
import { ConfigurationError, type ConfigurationProblem } from "../../change/tributary-error.ts";
import { captures, type Pipeline, type PipelineOf } from "../../definition/definition.ts";
import { OUTBOX_PREFIX } from "../../definition/outbox-prefix.ts";
import { outboxTableName } from "../../definition/outbox-table.ts";
import {
  columnNames,
  eventFields,
  tableFields,
  tableName,
  tablePatternText,
} from "../../definition/source-fields.ts";

/*
 * PostgreSQL's log in a pipeline definition. Hosts and passwords are not here: they come from the environment.
 */

/** More walsenders than that would wear out the server for nothing: each decodes the whole log. */
export const MAX_SLOTS = 16;

/** Events that applications publish, caught from the log. */
const logOutbox = z
  .strictObject({
    /** The table they insert into, `public.outbox`; it need not be named in `tables`. */
    table: tableName.optional(),
    /** Logical messages of this prefix; `true`: `outbox`. */
    messages: z
      .union([z.boolean(), z.string().min(1)], { error: 'write true, or a prefix such as "outbox"' })
      .transform((given) => (given === true ? OUTBOX_PREFIX : given || undefined))
      .optional(),
    /** Fate of content that is no event: the task stops there, or it goes whole to the topic `$outbox-malformed`. */
    malformed: z.enum(["stop", "quarantine"]).default("stop"),
    ...eventFields,
  })
  .superRefine(({ table, messages }, context) => {
    if (table === undefined && messages === undefined) {
      context.addIssue({ code: "custom", message: "name the outbox's table, or set messages to true" });
    }
    if (messages?.startsWith("tributary.")) {
      const message = 'write a prefix of your own, such as "outbox": "tributary." is taken';
      context.addIssue({ code: "custom", path: ["messages"], message });
    }
  });

/** PostgreSQL's log, read through logical replication. */
export const postgresSource = z
  .strictObject({
    kind: z.literal("postgres"),
    ...tableFields,
    /** Tables to capture, as patterns; may be empty where there is an outbox. */
    tables: z.array(tablePatternText).default([]),
    /** Events that applications publish in their own transactions: docs, "The outbox". */
    outbox: logOutbox.optional(),
    /** Columns left out, by table: they never leave the database. PostgreSQL 15 or newer. */
    excludeColumns: z.record(tablePatternText, columnNames).default({}),
    /** Row filter by table, an SQL expression over its columns. PostgreSQL 15 or newer. */
    where: z.record(tablePatternText, z.string().min(1)).default({}),
    /** Name of the publication; default `tributary_<pipeline>`. Stored at first start, never changed after. */
    publication: z
      .string()
      .min(1)
      .refine((text) => Buffer.byteLength(text) <= 63, {
        error: "write at most 63 bytes: PostgreSQL cuts longer names",
      })
      .optional(),
    /** Name of the replication slot; default `tributary_<pipeline>`. */
    slot: z
      .string()
      .regex(/^[a-z0-9_]{1,63}$/, { error: "write lower-case letters, digits and underscores, at most 63" })
      .optional(),
    /**
     * Number of slots that the tables are spread over, each with a publication and a capture task of its own. Each decodes the
     * whole log: docs, "More than one slot". It may grow, never shrink.
     */
    slots: z.int().min(1).max(MAX_SLOTS).default(1),
    /** Prefixes of logical messages to deliver, each exact or with a trailing `*`. */
    messages: z.array(z.string().min(1)).default([]),
    /**
     * PostgreSQL keeps WAL for a slot without a bound when `max_slot_wal_keep_size` is -1: a stopped pipeline can
     * fill the disk. `true` accepts that.
     */
    acceptUnboundedWal: z.boolean().default(false),
    /** Encoding of the text of an SQL_ASCII database; such a database is refused without it. */
    sqlAsciiEncoding: z.enum(["utf-8", "latin1"]).optional(),
    /**
     * Starts at which existing rows are read into the stream. `when-needed`: tables never backfilled in this pipeline, and all again
     * after a new epoch. `initial`: the former only. `always`: at each start. `never`: what operators ask for.
     */
    snapshot: z.enum(["when-needed", "initial", "always", "never"]).default("when-needed"),
    /** Treatment of partitions of captured tables. */
    partitions: z
      .strictObject({
        /** The rows of one that is detached, dropped or truncated: they stay in the sinks, or the table is read again with a sweep. */
        removed: z.enum(["keep", "sweep"]).default("keep"),
      })
      .prefault({}),
    /**
     * Fate of a change that cannot become an event. `stop`: its topic is held (without a claim store, the task stops there).
     * `dead-letter`: it goes whole to the dead-letter queue of capture, its table is read again, and the stream goes on.
     */
    undecodable: z.enum(["stop", "dead-letter"]).default("stop"),
    /** Options of reading existing rows. */
    backfill: z
      .strictObject({
        /** Tables side by side. */
        tablesAtOnce: z.int().min(1).max(16).default(2),
        /** Rows read in a second at most, over all tables; left out: as fast as the stream takes them. */
        rowsPerSecond: z.int().min(1).optional(),
      })
      .prefault({}),
  })
  .superRefine(({ tables: patterns, exclude, outbox, slots, slot = "", publication = "" }, context) => {
    const longest = 63 - slotSuffix(slots).length;
    for (const [field, text] of Object.entries({ slot, publication })) {
      if (Buffer.byteLength(text) <= longest) continue;
      const message = `write at most ${longest} bytes: the names of ${slots} slots are made of it`;
      context.addIssue({ code: "custom", path: [field], message });
    }
    if (patterns.length === 0 && !outbox) {
      context.addIssue({
        code: "custom",
        path: ["tables"],
        message: 'name at least one table, such as "public.*"',
      });
    }
    const table = outbox?.table;
    if (table !== undefined && exclude.some((pattern) => tablePattern(pattern)(outboxTableName(table)))) {
      context.addIssue({ code: "custom", path: ["exclude"], message: "let the outbox's table in" });
    }
  });

/** The argument of `postgres({…})`. */
export type PostgresInput = z.input<typeof postgresSource>;
/** The log of a PostgreSQL database, with the names of what is made there. */
export type LogSource = z.output<typeof postgresSource> & {
  readonly slot: string;
  readonly publication: string;
};
/** A pipeline that reads PostgreSQL's log: it alone has a slot and a publication. */
export type LogPipeline = PipelineOf<LogSource>;

/** A PostgreSQL source read through logical replication. */
export function postgres(source: Omit<PostgresInput, "kind">): PostgresInput {
  return { kind: "postgres", ...source };
}

/** The end of the names of a slot and its publication: nothing for the first. */
export function slotSuffix(number: number): string {
  return number === 1 ? "" : `_slot${number}`;
}

/** Fills in what follows from the rest: names after the pipeline, and the outbox's table. */
export function completeLog(source: z.output<typeof postgresSource>, pipeline: string): LogSource {
  const name = `tributary_${pipeline.replaceAll("-", "_")}`;
  const { outbox, tables, slot = name, publication = name } = source;
  const table = outbox?.table === undefined ? undefined : outboxTableName(outbox.table);
  const more = table && !captures(source, table) ? [formatTable(table)] : [];
  return { ...source, tables: [...tables, ...more], slot, publication };
}

/** Returns a conflict with the topics of the pipeline, or undefined. */
export function conflictOfLog(
  { slots, outbox }: z.output<typeof postgresSource>,
  { routes }: Pick<Pipeline["topics"], "routes">,
): { readonly field: string; readonly message: string } | undefined {
  if (slots === 1 || !outbox || routes.length === 0) return undefined;
  const message =
    "leave it at 1, or remove topics.routes or source.outbox: a topic has one slot, and routes could send events of the outbox to the topic of a table that another slot has";
  return { field: "slots", message };
}

/** The slot and the publication that `tributary tail` makes where it is given no name; with `_…` behind it, further slots of its own. */
export const TAIL_NAME = "tributary_tail";

/** Returns true if a slot or publication of that name is for `tributary tail` alone. */
export function isTailsOwn(name: string): boolean {
  return name === TAIL_NAME || name.startsWith(`${TAIL_NAME}_`);
}

/** Names that are not free for a pipeline. */
export function takenNames(source: LogSource): readonly ConfigurationProblem[] {
  return (["slot", "publication"] as const)
    .filter((field) => isTailsOwn(source[field]))
    .map((field) => ({
      path: `source.${field}`,
      value: source[field],
      remedy: `write another: names that begin with ${TAIL_NAME} are for \`tributary tail\`, which drops what is named so`,
    }));
}

/**
 * The pipeline, for what has to do with a slot.
 * @throws ConfigurationError when the pipeline does not read the log.
 */
export function requireLog(pipeline: Pipeline, what: string): LogPipeline {
  if (readsLog(pipeline)) return pipeline;
  const remedy = `${what} is for pipelines that read the log: source: postgres({…})`;
  throw new ConfigurationError("The pipeline definition", [
    { path: "source.kind", value: pipeline.source.kind, remedy },
  ]);
}

function readsLog(pipeline: Pipeline): pipeline is LogPipeline {
  return pipeline.source.kind === "postgres";
}
