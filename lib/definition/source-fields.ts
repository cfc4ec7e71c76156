import * as z from "zod";
import { formatTable, tablePattern } from "../change/table-pattern.ts";
import type { ConfigurationError } from "../change/tributary-error.ts";
import { outboxTableName } from "./outbox-table.ts";

/*
 * Fields that the definitions of several kinds of source have. Each kind's own are in its folder.
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

/** The tables that a source captures. */
export const tableFields = {
  /** Tables to capture, as patterns: `public.orders`, `public.*`. */
  tables: z.array(tablePatternText).min(1, { error: 'name at least one table, such as "public.*"' }),
  /** Patterns of tables to leave out, stronger than `tables`. */
  exclude: z.array(tablePatternText).default([]),
};

/** A table by its own name, written as everywhere else: `public.outbox`. */
export const tableName = z.string().transform((text, context) => {
  try {
    return formatTable(outboxTableName(text));
  } catch (error) {
    const [problem] = (error as ConfigurationError).problems;
    context.addIssue({ code: "custom", message: problem?.remedy ?? "write schema.table" });
    return z.NEVER;
  }
});

/** The form of published events. */
export const eventFields = {
  /** Events travel as CloudEvents: `source` is that attribute of theirs. https://cloudevents.io */
  cloudEvents: z.strictObject({ source: z.string().min(1) }).optional(),
};

/** Pause of a source of tables between two looks for changes when there were none, in milliseconds. */
export const intervalMs = z.int().min(50).max(3_600_000);
