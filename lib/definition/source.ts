import * as z from "zod";
import { formatTable, tablePattern } from "../change/table-pattern.ts";
import type { ConfigurationError } from "../change/tributary-error.ts";
import { OUTBOX_PREFIX } from "./outbox-prefix.ts";
import { outboxTableName } from "./outbox-table.ts";

/*
 * What a pipeline definition says of its source, by kind. Hosts and passwords are not here: they come from the
 * environment.
 */

/** More walsenders than that would wear out the server for nothing: each decodes the whole log. */
export const MAX_SLOTS = 16;

/** A pattern of tables, checked. */
export const tablePatternText = z.string().superRefine((text, context) => {
  try {
    tablePattern(text);
  } catch {
    context.addIssue({
      code: "custom",
      message: 'write schema.table, such as public.orders, public.* or public."Odd.Name"',
    });
  }
});

/** Names of columns, at least one. */
export const columnNames = z.array(z.string().min(1)).min(1, { error: "name at least one column" });

const tables = {
  /** Tables to capture, as patterns: `public.orders`, `public.*`. */
  tables: z.array(tablePatternText).min(1, { error: 'name at least one table, such as "public.*"' }),
  /** Patterns of tables to leave out, stronger than `tables`. */
  exclude: z.array(tablePatternText).default([]),
};

/** A table by its own name, written as everywhere else: `public.outbox`. */
const tableName = z.string().transform((text, context) => {
  try {
    return formatTable(outboxTableName(text));
  } catch (error) {
    const [problem] = (error as ConfigurationError).problems;
    context.addIssue({ code: "custom", message: problem?.remedy ?? "write schema.table" });
    return z.NEVER;
  }
});

const outboxEvents = {
  /** Events travel as CloudEvents: `source` is that attribute of theirs. https://cloudevents.io */
  cloudEvents: z.strictObject({ source: z.string().min(1) }).optional(),
};

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
    /** What becomes of what is no event: the task stops there, or it goes whole to the topic `$outbox-malformed`. */
    malformed: z.enum(["stop", "quarantine"]).default("stop"),
    ...outboxEvents,
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
    ...tables,
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
     * How many slots the tables are spread over, each with a publication and a capture task of its own. Each decodes the
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
    /** How text of an SQL_ASCII database is to be read; such a database is refused without it. */
    sqlAsciiEncoding: z.enum(["utf-8", "latin1"]).optional(),
    /**
     * When existing rows are read into the stream. `when-needed`: tables never backfilled in this pipeline, and all again
     * after a new epoch. `initial`: the former only. `always`: at each start. `never`: what operators ask for.
     */
    snapshot: z.enum(["when-needed", "initial", "always", "never"]).default("when-needed"),
    /** What becomes of partitions of captured tables. */
    partitions: z
      .strictObject({
        /** The rows of one that is detached, dropped or truncated: they stay in the sinks, or the table is read again with a sweep. */
        removed: z.enum(["keep", "sweep"]).default("keep"),
      })
      .prefault({}),
    /**
     * What becomes of a change that cannot become an event. `stop`: its topic is held (without a claim store, the task stops there).
     * `dead-letter`: it goes whole to the dead-letter queue of capture, its table is read again, and the stream goes on.
     */
    undecodable: z.enum(["stop", "dead-letter"]).default("stop"),
    /** How existing rows are read. */
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

/** What the names of a slot and its publication end in: nothing for the first. */
export function slotSuffix(number: number): string {
  return number === 1 ? "" : `_slot${number}`;
}

/** How often a source of tables looks for changes when there were none, in milliseconds. */
const intervalMs = z.int().min(50).max(3_600_000);

/** An audit table that triggers fill: for those who may not replicate. */
export const triggersSource = z.strictObject({
  kind: z.literal("triggers"),
  ...tables,
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

/** Tables that are asked for what is newer: for those who may only read. */
export const pollingSource = z.strictObject({
  kind: z.literal("polling"),
  ...tables,
  /** The column that grows with every change of a row: a time, or a number from a sequence. */
  column: z.string().min(1).default("updated_at"),
  /** Where it is another one, by table. */
  columns: z.record(tablePatternText, z.string().min(1)).default({}),
  intervalMs: intervalMs.default(1000),
  /** Rows read at once. */
  batchRows: z.int().min(1).max(100_000).default(1000),
  /**
   * Finds deletes by comparing the keys of the tables with those that were given, this often. Off without it. `tables`: patterns of
   * those to compare; default all.
   */
  deletes: z
    .strictObject({
      everySeconds: z.int().min(1).max(604_800),
      tables: z.array(tablePatternText).min(1).optional(),
    })
    .optional(),
  /** How much older a value may be than its transaction's begin, where applications write it by clocks of their own. */
  skewSeconds: z.int().min(0).max(86_400).default(10),
  /**
   * The longest that a transaction lasts. Said where it cannot be seen: on a replica, and where the role is no member of
   * `pg_read_all_stats`. What a longer one changed may be missed.
   */
  longestTransactionSeconds: z.int().min(1).max(604_800).optional(),
  /** Where the clocks stand that write columns of type `timestamp` (without time zone). */
  timeZone: z
    .string()
    .regex(/^[A-Za-z0-9_+\-/]{1,64}$/, { error: 'write the name of a time zone, such as "UTC"' })
    .default("UTC"),
});

/** An outbox table that relays read: for those who may not replicate. */
export const outboxSource = z.strictObject({
  kind: z.literal("outbox"),
  /** It captures no tables but that of the outbox. */
  tables: z.array(z.never()).default([]),
  exclude: z.array(z.never()).default([]),
  /** The table that `tributary outbox install` makes. */
  table: tableName.default("public.outbox"),
  intervalMs: z.int().min(20).max(3_600_000).default(200),
  /** Rows of a lane published at once. */
  batchRows: z.int().min(1).max(10_000).default(500),
  /** How long published rows stay in the table; 0: they are deleted when the stream has them. */
  keepHours: z
    .int()
    .min(0)
    .max(24 * 366)
    .default(0),
  /** What becomes of a row that is no event: the relay stops there, or it goes whole to the topic `$outbox-malformed`. */
  malformed: z.enum(["stop", "quarantine"]).default("stop"),
  ...outboxEvents,
});

/** A validated `postgres({…})`. */
export type PostgresSource = z.output<typeof postgresSource>;
/** A validated `triggers({…})`. */
export type TriggersSource = z.output<typeof triggersSource>;
/** A validated `polling({…})`. */
export type PollingSource = z.output<typeof pollingSource>;
/** A validated `outbox({…})`. */
export type OutboxSource = z.output<typeof outboxSource>;
