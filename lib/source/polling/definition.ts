import * as z from "zod";
import { intervalMs, tableFields, tablePatternText } from "../../definition/source-fields.ts";

/** Tables that are asked for what is newer: for those who may only read. */
export const pollingSource = z.strictObject({
  kind: z.literal("polling"),
  ...tableFields,
  /** The column that grows with every change of a row: a time, or a number from a sequence. */
  column: z.string().min(1).default("updated_at"),
  /** Columns of tables that have another one, by table. */
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
  /** The most that a value may be older than its transaction's begin, where applications write it by clocks of their own. */
  skewSeconds: z.int().min(0).max(86_400).default(10),
  /**
   * The longest that a transaction lasts. Said where it cannot be seen: on a replica, and where the role is no member of
   * `pg_read_all_stats`. What a longer one changed may be missed.
   */
  longestTransactionSeconds: z.int().min(1).max(604_800).optional(),
  /** Time zone of the clocks that write columns of type `timestamp` (without time zone). */
  timeZone: z
    .string()
    .regex(/^[A-Za-z0-9_+\-/]{1,64}$/, { error: 'write the name of a time zone, such as "UTC"' })
    .default("UTC"),
});

/** The argument of `polling({…})`. */
export type PollingInput = z.input<typeof pollingSource>;
/** A validated `polling({…})`. */
export type PollingSource = z.output<typeof pollingSource>;

/** A PostgreSQL source whose tables are asked for rows with a newer `updated_at` or version. */
export function polling(source: Omit<PollingInput, "kind">): PollingInput {
  return { kind: "polling", ...source };
}
