import type pg from "pg";
import { formatTable } from "../../change/table-pattern.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { member, rowTypeNames } from "../../init/row-type.ts";
import { sourceKind } from "../../source/index.ts";
import { ARRAY_TYPE, type CatalogTypes, JSON_TYPE, typeScriptOf } from "./column-type.ts";
import { type RowColumn, type RowTable, readRowTables } from "./tables.ts";

/** Tables whose types are generated, and the database that has them. */
export interface RowTypesOptions {
  readonly pipeline: Pipeline;
  readonly client: pg.Client;
  /** Patterns of tables: of those that the pipeline captures, these alone. */
  readonly tables?: readonly string[] | undefined;
}

/** Generated TypeScript, and the tables it has types of, as people write them. */
export interface RowTypes {
  readonly source: string;
  readonly tables: readonly string[];
}

/**
 * Returns a TypeScript file with a type of the rows of each captured table, as handlers see them. The same database gives the same text, always.
 *
 * @example
 * const { source } = await rowTypes({ pipeline, client });
 * await writeFile("src/rows.ts", source);
 *
 * @throws ConfigurationError where the pipeline has no rows, or no captured table is meant; PreflightError where the definition does not fit the
 * database.
 */
export async function rowTypes({ pipeline, client, tables: patterns }: RowTypesOptions): Promise<RowTypes> {
  const { kind, can } = sourceKind(pipeline.source);
  if (can.give === "events") {
    const remedy =
      "it gives the events that applications publish, and no rows: their types are the applications'";
    throw new ConfigurationError("The pipeline definition", [{ path: "source.kind", value: kind, remedy }]);
  }
  const { tables, types } = await readRowTables(client, pipeline, patterns);
  if (tables.length === 0) {
    const remedy = "no captured table is meant: name tables of the definition, such as public.orders";
    throw new ConfigurationError("The command line", [{ path: "--tables", value: patterns, remedy }]);
  }
  return { source: fileText(pipeline, tables, types), tables: tables.map(formatTable) };
}

function fileText({ name }: Pipeline, tables: readonly RowTable[], types: CatalogTypes): string {
  const names = rowTypeNames(tables);
  const bodies = tables.map((table) => tableText(table, names.get(table) as string, types));
  const uses = (type: string) => bodies.some((body) => body.includes(type));
  const parts = [
    `// Made by \`tributary generate types\` from the tables that the pipeline "${name}" captures. Do not edit it: run that again when they change.
//
// Values are as handlers see them: bigint, numeric, dates and times are text, exactly as PostgreSQL has them. A column with \`?\` is absent from an
// event that names it in \`unchanged\` (an update left a large value as it was) or in \`omitted\`. Events of before a column was added lack it too.
// \`Required<…Row>\` is the type of a whole row.`,
    ...(uses(JSON_TYPE) ? [`import type { ${JSON_TYPE} } from "tributary-cdc";`] : []),
    ...(uses(`${ARRAY_TYPE}<`)
      ? [
          `/** An array of PostgreSQL: its elements may be NULL, and its type does not say how deep it is. */
export type ${ARRAY_TYPE}<T> = readonly (T | null | ${ARRAY_TYPE}<T>)[];`,
        ]
      : []),
    ...bodies,
    `/** The type of the rows of each table, by the name that \`on\` takes: \`rowsOf<TableRows[${JSON.stringify(formatTable(tables[0] as RowTable))}]>()\`. */
export interface TableRows {
${tables.map((table) => `  readonly ${JSON.stringify(formatTable(table))}: ${names.get(table)};`).join("\n")}
}`,
  ];
  return `${parts.join("\n\n")}\n`;
}

function tableText(table: RowTable, name: string, types: CatalogTypes): string {
  const { columns, key, comment, leftOut } = table;
  const lines = [
    `A row of ${formatTable(table)}.`,
    ...(comment === undefined ? [] : ["", ...comment.split(/\r?\n/)]),
    ...(leftOut.length === 0
      ? []
      : ["", `Not in events: ${leftOut.map((column) => `${column.name} (${column.why})`).join(", ")}.`]),
  ];
  const members = columns.map((column) => columnText(column, key.includes(column.name), types));
  const row = `${docstring(lines, "")}\nexport interface ${name} {\n${members.join("\n")}\n}`;
  const known = key.filter((column) => columns.some((other) => other.name === column));
  if (known.length === 0) return row;
  const keyName = name.replace(/Row(\d*)$/, "Key$1");
  const picked = known.map((column) => JSON.stringify(column)).join(" | ");
  return `${row}\n\n/** The columns of ${escaped(formatTable(table))} that choose the partition: \`event.key\`. */\nexport type ${keyName} = Pick<${name}, ${picked}>;`;
}

function columnText(column: RowColumn, isKey: boolean, types: CatalogTypes): string {
  const { name, typeText, nullable, comment, mayBeAbsent } = column;
  const [first, ...more] = comment?.split(/\r?\n/) ?? [];
  const about = `${typeText}${isKey ? ", key" : ""}`;
  const lines = first === undefined ? [about] : [`${about}. ${first}`, ...more];
  const type = typeScriptOf(column.type, types);
  const isNullable = nullable && type !== JSON_TYPE;
  return `${docstring(lines, "  ")}\n  readonly ${member(name)}${mayBeAbsent ? "?" : ""}: ${type}${isNullable ? " | null" : ""};`;
}

function docstring(lines: readonly string[], indent: string): string {
  const safe = lines.map(escaped);
  if (safe.length === 1) return `${indent}/** ${safe[0]} */`;
  return [
    `${indent}/**`,
    ...safe.map((line) => `${indent} *${line === "" ? "" : ` ${line}`}`),
    `${indent} */`,
  ].join("\n");
}

/** A line that can stand in a comment, whatever an owner wrote: without its end, and without what an editor takes for one. */
function escaped(line: string): string {
  return line
    .replaceAll(/[\p{Cc}\u2028\u2029]/gu, " ")
    .replaceAll("*/", "*\\/")
    .trimEnd();
}
