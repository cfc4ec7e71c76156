import { z } from "zod";
import { tablePattern } from "../change/table-pattern.ts";

/*
 * What a pipeline definition says of its source, by kind. Hosts and passwords are not here: they come from the
 * environment.
 */

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

/** PostgreSQL's log, read through logical replication. */
export const postgresSource = z.strictObject({
  kind: z.literal("postgres"),
  ...tables,
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
  /** Prefixes of logical messages to deliver, each exact or with a trailing `*`. */
  messages: z.array(z.string().min(1)).default([]),
  /**
   * PostgreSQL keeps WAL for a slot without a bound when `max_slot_wal_keep_size` is -1: a stopped pipeline can
   * fill the disk. `true` accepts that.
   */
  acceptUnboundedWal: z.boolean().default(false),
  /** How text of an SQL_ASCII database is to be read; such a database is refused without it. */
  sqlAsciiEncoding: z.enum(["utf-8", "latin1"]).optional(),
});

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
});

/** A validated `postgres({…})`. */
export type PostgresSource = z.output<typeof postgresSource>;
/** A validated `triggers({…})`. */
export type TriggersSource = z.output<typeof triggersSource>;
/** A validated `polling({…})`. */
export type PollingSource = z.output<typeof pollingSource>;
