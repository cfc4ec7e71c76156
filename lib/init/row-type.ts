import { formatTable, type TableName } from "../change/table-pattern.ts";
import type { Column, Table } from "./database-tables.ts";

/*
 * The TypeScript of a table's rows: how each type of PostgreSQL arrives is in docs, "Values".
 */

/** The types that do not arrive as text, with a value of each. */
const NOT_TEXT: Readonly<Record<string, readonly [type: string, sample: string]>> = {
  bool: ["boolean", "true"],
  int2: ["number", "1"],
  int4: ["number", "1"],
  oid: ["number", "1"],
  // NaN and the infinities are text.
  float4: ["number | string", "1.5"],
  float8: ["number | string", "1.5"],
  json: ["ColumnValue", "{}"],
  jsonb: ["ColumnValue", "{}"],
  hstore: ["{ readonly [key: string]: string | null }", "{}"],
  int2vector: ["readonly number[]", "[]"],
  oidvector: ["readonly number[]", "[]"],
};

const TEXT_SAMPLES: Readonly<Record<string, string>> = {
  int8: "17",
  numeric: "19.90",
  money: "$19.90",
  date: "2026-11-23",
  time: "10:15:30",
  timestamp: "2026-11-23T10:15:30",
  timestamptz: "2026-11-23T10:15:30Z",
  uuid: "6f1c7a52-9c1e-4f0f-8a53-3c2b1d0e9f11",
  bytea: "AP8=",
  interval: "PT5M",
  inet: "10.1.2.3",
};

/** Tells whether the row's type needs the library's `ColumnValue`. */
export function needsColumnValue({ columns }: Table): boolean {
  return columns.some((column) => typeOf(column).includes("ColumnValue"));
}

/**
 * Returns the name of each row's type: `OrdersRow`; with the schema where that is not `public`, and a number where another table has the
 * name (`order_items` and `OrderItems`).
 */
export function rowTypeNames<T extends TableName>(tables: readonly T[]): ReadonlyMap<T, string> {
  const names = new Map<T, string>();
  const taken = new Set<string>();
  for (const table of tables) {
    const wanted = rowTypeName(table);
    let name = `${wanted}Row`;
    for (let number = 2; taken.has(name); number++) name = `${wanted}Row${number}`;
    taken.add(name);
    names.set(table, name);
  }
  return names;
}

function rowTypeName({ schema, table }: TableName): string {
  const words = (schema === "public" ? table : `${schema} ${table}`)
    .split(/[^\p{ID_Continue}]+|_+/u)
    .filter(Boolean);
  const name = words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
  return /^\p{ID_Start}/u.test(name) ? name : `Table${name}`;
}

/** Returns the members of the type of a row, each with PostgreSQL's type behind it. */
export function rowTypeMembers({ columns, key }: Table): string {
  return columns
    .map((column) => {
      const type = column.nullable ? `${typeOf(column)} | null` : typeOf(column);
      const isKey = key.includes(column.name) ? ", key" : "";
      return `  readonly ${member(column.name)}: ${type}; // ${commentText(column.type)}${isKey}`;
    })
    .join("\n");
}

/** Returns the members of a row for a test: null where the column may be. */
export function sampleMembers({ columns }: Table): string {
  return columns
    .map((column) => `  ${member(column.name)}: ${column.nullable ? "null" : sampleOf(column)},`)
    .join("\n");
}

/** Returns a text that can stand in a comment, whatever names are in it. */
export function commentText(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll("*/", "* /");
}

/** Returns the table's name for a comment. */
export function tableText(table: TableName): string {
  return commentText(formatTable(table));
}

function typeOf({ base, kind }: Column): string {
  // PostgreSQL does not say how deep an array is.
  if (kind === "array") return "readonly ColumnValue[]";
  return NOT_TEXT[base]?.[0] ?? "string";
}

function sampleOf({ base, kind, name }: Column): string {
  if (kind === "array") return "[]";
  return NOT_TEXT[base]?.[1] ?? JSON.stringify(TEXT_SAMPLES[base] ?? name);
}

/** Quoted where it is no identifier: ² and ½ may stand in one of PostgreSQL, and not in one of TypeScript. */
export function member(name: string): string {
  // In an object literal that would be its prototype.
  if (name === "__proto__") return '["__proto__"]';
  return /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u.test(name) ? name : JSON.stringify(name);
}
