import type pg from "pg";
import { quoteIdentifier, quoteTable } from "../../change/sql-identifier.ts";
import { formatTable, forTable, type TableName, tablePattern } from "../../change/table-pattern.ts";
import type { PreflightProblem } from "../postgres/postgres-errors.ts";
import type { TableFacts } from "../postgres/preflight/table-facts.ts";
import type { PollingSource } from "./definition.ts";

/** A table as it is asked for what is newer. */
export interface PolledTable {
  readonly name: TableName;
  readonly oid: number;
  /** For SQL. */
  readonly quoted: string;
  readonly column: PolledColumn;
  /** The primary key, in its order. */
  readonly key: readonly PolledColumn[];
  /** `time`: compared with clocks. `number`: from a sequence. */
  readonly grows: "time" | "number";
}

/** A column that pages are ordered by. */
export interface PolledColumn {
  readonly name: string;
  readonly quoted: string;
  /** Its type for a cast. */
  readonly type: string;
  /** Its number in the table, which stays when it is renamed. */
  readonly number: number;
}

/** Those whose deletes are looked for. */
export function comparedTables(
  { deletes }: PollingSource,
  tables: readonly PolledTable[],
): readonly PolledTable[] {
  if (!deletes) return [];
  const wanted = deletes.tables?.map(tablePattern);
  return tables.filter(({ name }) => wanted?.some((fits) => fits(name)) ?? true);
}

const TIMES = ["timestamp with time zone", "timestamp without time zone"];
const NUMBERS = ["bigint", "integer", "smallint"];

/** Returns the captured tables with the columns to poll them by, and the problems of that. */
export async function polledTables(
  client: pg.ClientBase,
  source: PollingSource,
  tables: readonly TableFacts[],
): Promise<{
  readonly tables: readonly PolledTable[];
  readonly problems: readonly PreflightProblem[];
  readonly warnings: readonly PreflightProblem[];
}> {
  const problems: PreflightProblem[] = [];
  const warnings: PreflightProblem[] = [];
  const polled: PolledTable[] = [];
  const details = await readDetails(client, tables);
  for (const table of tables) {
    const name = formatTable(table);
    const wanted = forTable(source.columns, table) ?? source.column;
    const facts = table.columns.find((column) => column.name === wanted);
    const { types, numbers, indexed } = details.get(table.oid) ?? { types: {}, numbers: {}, indexed: [] };
    const type = types[wanted] ?? "";
    const plainType = type.replace(/\(\d+\)/, "");
    const problem = (message: string, remedy: string) =>
      problems.push({ code: "POLLING_COLUMN", message, remedy });
    if (!facts) {
      problem(
        `${name} has no column "${wanted}" to be asked for what is newer`,
        `Name its column in source.columns, leave the table out with source.exclude, or: ALTER TABLE ${quoteTable(table)} ADD COLUMN ${quoteIdentifier(wanted)} timestamptz NOT NULL DEFAULT now(); with a trigger or an application that sets it at each change.`,
      );
    } else if (![...TIMES, ...NUMBERS].includes(plainType)) {
      problem(
        `column "${wanted}" of ${name} is of type ${type}`,
        "Name a column of a time stamp or integer type in source.columns.",
      );
    } else if (!facts.notNull) {
      problem(
        `column "${wanted}" of ${name} may be null: a row without it would never be seen`,
        `ALTER TABLE ${quoteTable(table)} ALTER COLUMN ${quoteIdentifier(wanted)} SET NOT NULL;`,
      );
    }
    if (table.primaryKey.length === 0) {
      problems.push({
        code: "POLLING_KEY",
        message: `${name} has no primary key: pages of equal times could not be told apart`,
        remedy: `ALTER TABLE ${quoteTable(table)} ADD PRIMARY KEY (…); or leave it out with source.exclude.`,
      });
    }
    if (!table.readable || !table.schemaUsable) {
      problems.push({
        code: "SELECT",
        message: `the role may not read ${name}`,
        remedy: `GRANT USAGE ON SCHEMA ${quoteIdentifier(table.schema)} TO …; GRANT SELECT ON ${quoteTable(table)} TO …;`,
      });
    }
    if (facts && !indexed.includes(wanted)) {
      warnings.push({
        code: "POLLING_INDEX",
        message: `${name} has no index that begins with "${wanted}": each look reads the whole table`,
        remedy: `CREATE INDEX CONCURRENTLY ON ${quoteTable(table)} (${[wanted, ...table.primaryKey].map(quoteIdentifier).join(", ")});`,
      });
    }
    const columnOf = (column: string): PolledColumn => ({
      name: column,
      quoted: quoteIdentifier(column),
      type: types[column] ?? "text",
      number: numbers[column] ?? 0,
    });
    polled.push({
      name: { schema: table.schema, table: table.table },
      oid: table.oid,
      quoted: quoteTable(table),
      column: columnOf(wanted),
      key: table.primaryKey.map(columnOf),
      grows: TIMES.includes(plainType) ? "time" : "number",
    });
  }
  return { tables: polled, problems, warnings };
}

interface Details {
  /** Types of the columns, by name, as SQL writes them. */
  readonly types: Readonly<Record<string, string>>;
  readonly numbers: Readonly<Record<string, number>>;
  /** First columns of its indexes. */
  readonly indexed: readonly string[];
}

async function readDetails(
  client: pg.ClientBase,
  tables: readonly TableFacts[],
): Promise<ReadonlyMap<number, Details>> {
  const { rows } = await client.query<Details & { oid: number }>(
    `SELECT c.oid::int8::float8 AS oid,
            (SELECT json_object_agg(a.attname, format_type(a.atttypid, a.atttypmod)) FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS types,
            (SELECT json_object_agg(a.attname, a.attnum) FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS numbers,
            ARRAY(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL) AS indexed
       FROM pg_class c WHERE c.oid = ANY ($1::oid[])`,
    [tables.map(({ oid }) => oid)],
  );
  return new Map(rows.map((row) => [row.oid, row]));
}
