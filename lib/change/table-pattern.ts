import { quoteIdentifier } from "./sql-identifier.ts";
/** A table of the source: schema and name as the catalog holds them, unquoted. */
export interface TableName {
  readonly schema: string;
  readonly table: string;
}

/** Tells whether a table matches a pattern. */
export type TablePattern = (name: TableName) => boolean;

/** Patterns are few and come from definitions; they are asked for each of a database's tables. */
const compiled = new Map<string, TablePattern>();

/**
 * A pattern such as `public.*`, `public.order_*`, `*.orders` or `public."Odd.Name"`: schema, dot, table;
 * `*` stands for any characters, double quotes take what is inside to the letter (two of them for one).
 * Throws `RangeError` naming the pattern when it is not of that form.
 */
export function tablePattern(pattern: string): TablePattern {
  let matches = compiled.get(pattern);
  if (matches === undefined) {
    matches = compile(pattern);
    compiled.set(pattern, matches);
  }
  return matches;
}

function compile(pattern: string): TablePattern {
  const [schema, table, ...rest] = splitQuoted(pattern);
  if (schema === undefined || table === undefined || rest.length > 0) {
    throw new RangeError(
      `not a table pattern: "${pattern}" (expected schema.table, such as public.orders or public.*)`,
    );
  }
  return (name) => schema.test(name.schema) && table.test(name.table);
}

/** The entry of a record keyed by table pattern that a table matches first, or undefined. */
export function forTable<T>(byPattern: Readonly<Record<string, T>>, table: TableName): T | undefined {
  return Object.entries(byPattern).find(([pattern]) => tablePattern(pattern)(table))?.[1];
}

/** A table as people write it: `public.orders`, quoted where the name needs it. */
export function formatTable(name: TableName): string {
  return `${quoteWhereNeeded(name.schema)}.${quoteWhereNeeded(name.table)}`;
}

const ONE_TABLE = /^(?:"((?:[^"]|"")+)"|([^".*\s]+))\.(?:"((?:[^"]|"")+)"|([^".*\s]+))$/u;

/**
 * The one table that a text names, as `formatTable` writes it. Throws `RangeError` naming the text when it is not of
 * that form.
 */
export function parseTable(text: string): TableName {
  const [, quotedSchema, schema, quotedTable, table] = ONE_TABLE.exec(text) ?? [];
  const name = (quoted: string | undefined, plain: string | undefined) =>
    quoted?.replaceAll('""', '"') ?? plain;
  const [first, second] = [name(quotedSchema, schema), name(quotedTable, table)];
  if (first === undefined || second === undefined)
    throw new RangeError(`not a table: "${text}" (expected schema.table, such as public.orders)`);
  return { schema: first, table: second };
}

function quoteWhereNeeded(identifier: string): string {
  return /^[\p{L}_][\p{L}\p{N}_$]*$/u.test(identifier) ? identifier : quoteIdentifier(identifier);
}

function splitQuoted(pattern: string): RegExp[] {
  const parts: RegExp[] = [];
  let source = "";
  let seen = false;
  const close = () => {
    if (!seen) throw new RangeError(`not a table pattern: "${pattern}" (a part of it is empty)`);
    parts.push(new RegExp(`^${source}$`, "su"));
    source = "";
    seen = false;
  };
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === ".") close();
    else if (c === '"') {
      seen = true;
      for (i++; pattern[i] !== '"' || pattern[i + 1] === '"'; i++) {
        if (i >= pattern.length)
          throw new RangeError(`not a table pattern: "${pattern}" (a double quote is open)`);
        if (pattern[i] === '"') i++;
        source += literal(pattern[i] as string);
      }
    } else {
      seen = true;
      source += c === "*" ? ".*" : literal(c);
    }
  }
  close();
  return parts;
}

function literal(character: string): string {
  return character.replace(/[\\^$.*+?()[\]{}|/]/, "\\$&");
}
