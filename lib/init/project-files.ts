import { readFileSync } from "node:fs";
import { formatTable } from "../change/table-pattern.ts";
import { PIPELINE_NAME } from "../definition/pipeline-name.ts";
import { routeTables } from "../definition/route.ts";
import type { Table } from "./database-tables.ts";
import { needsColumnValue, rowTypeMembers, rowTypeNames, sampleMembers, tableText } from "./row-type.ts";

/** The choices that a new project is made from. */
export interface Project {
  /** Name of the pipeline and of the package. */
  readonly name: string;
  /** At least one. The first gives its name to consumer and handler. */
  readonly tables: readonly [Table, ...Table[]];
  /** The user's own database; undefined: the embedded server with an example. */
  readonly database: { readonly url: string; readonly name: string } | undefined;
}

/** The table of the example that runs on the embedded server; a test holds it against schema.sql. */
export const EXAMPLE_TABLE: Table = {
  ...{ schema: "public", table: "orders", key: ["id"], bytes: 0, rows: undefined, obstacle: undefined },
  columns: [
    column("id", "bigint", "int8"),
    column("customer", "text", "text"),
    column("status", "text", "text"),
    column("total", "numeric(12,2)", "numeric"),
    column("note", "text", "text", true),
    column("placed_at", "timestamp with time zone", "timestamptz"),
  ],
};

/** Files that are lengthened where they are there: line by line, nothing of theirs is changed. */
export const LINE_FILES = [".gitignore", ".env"];

/** Returns the text of each file of a project but package.json, by its path. Only `.env` holds the database's password. */
export function projectFiles(project: Project): Map<string, string> {
  const { name, tables, database } = project;
  const [first] = tables;
  const types = rowTypeNames(tables);
  const file = fileName(first);
  const all = {
    name,
    file,
    consumer: consumerName(first),
    table: JSON.stringify(formatTable(first)),
    type: types.get(first) ?? "",
  };
  const topic = routeTables({ topics: { prefix: "*", partitions: 1, routes: [], keys: {} } });
  const files = new Map<string, string>();
  const add = (path: string, template: string, more: Readonly<Record<string, string>> = {}) =>
    void files.set(path, render(template, { ...all, ...more }));
  add("tributary.config.ts", "tributary.config.ts", {
    tables: list(tables.map(formatTable), "      "),
    topics: list(
      tables.map((table) => topic(table).topic.name),
      "        ",
    ),
  });
  add(`src/${file}.ts`, "handler.ts", handlerParts(types, all));
  add(`src/${file}.test.ts`, "handler.test.ts", {
    sample: sampleMembers(first),
    key: first.key.map((part) => JSON.stringify(part)).join(", "),
  });
  add("cdk/app.ts", "app.ts", { stack: `tributary-${name}` });
  add("cdk.json", "cdk.json", { databaseName: JSON.stringify(database?.name ?? name) });
  add("tsconfig.json", "tsconfig.json");
  add(".gitignore", "gitignore");
  add("README.md", "README.md", {
    tableList: tables.map(tableText).join(", "),
    devDoes: database
      ? "the whole pipeline on this machine, on the database of .env"
      : "the whole pipeline on this machine, on a PostgreSQL of its own with schema.sql",
  });
  if (database) files.set(".env", `DATABASE_URL='${database.url.replaceAll("'", "%27")}'\n`);
  else add("schema.sql", "schema.sql");
  return files;
}

function handlerParts(
  types: ReadonlyMap<Table, string>,
  all: Readonly<Record<string, string>>,
): Record<string, string> {
  const tables = [...types];
  const names = ["consumer", "Operation", "rowsOf"];
  if (tables.some(([table]) => needsColumnValue(table))) names.unshift("type ColumnValue");
  return {
    imports: names.join(", "),
    types: tables
      .map(
        ([table, type]) =>
          `/** A row of ${tableText(table)} as it arrives: what may not fit into a number is text. Large values that an update did not touch are absent. */\n` +
          `export type ${type} = {\n${rowTypeMembers(table)}\n};\n`,
      )
      .join("\n"),
    handlers: tables
      .map(([table, type]) =>
        render("on.ts", {
          ...all,
          table: JSON.stringify(formatTable(table)),
          type,
        }).trimEnd(),
      )
      .join("\n"),
  };
}

/** Fills in a template. It is read where it lies: beside this file, or beside the program that this was bundled into. */
function render(template: string, values: Readonly<Record<string, string>>): string {
  const text = readFileSync(new URL(`./templates/${template}.template`, import.meta.url), "utf8");
  return text.replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`the template ${template} asks for ${name}`);
    return value;
  });
}

function fileName({ table }: Table): string {
  return table.replaceAll(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^-+/, "") || "changes";
}

function consumerName({ table }: Table): string {
  const name = table
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replace(/^[^a-z]+|-+$/g, "")
    .slice(0, 40);
  return PIPELINE_NAME.test(name) ? name : "changes";
}

/** An array's members: in one line where they are few. */
function list(texts: readonly string[], indent: string): string {
  const quoted = texts.map((text) => JSON.stringify(text));
  const line = quoted.join(", ");
  if (line.length <= 80) return line;
  return `\n${quoted.map((text) => `${indent}${text},\n`).join("")}${indent.slice(2)}`;
}

function column(name: string, type: string, base: string, nullable = false) {
  return { name, type, base, kind: "value" as const, nullable };
}
