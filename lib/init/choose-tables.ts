import { formatTable, tablePattern } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Table } from "./database-tables.ts";

/** Asks a person a question; gives the answer, which may be empty. */
export type Ask = (question: string) => Promise<string>;

/** The handler has a type for each: more make a file that nobody reads. */
const AT_ONCE = 20;

/** Returns the tables that patterns name. @throws ConfigurationError where one names none, or one that cannot be captured. */
export function tablesByPattern(tables: readonly Table[], patterns: readonly string[]): Table[] {
  const wrong = (value: string, remedy: string) =>
    new ConfigurationError("The command line", [{ path: "--tables", value, remedy }]);
  const chosen = new Set<Table>();
  for (const pattern of patterns) {
    const matches = asPattern(pattern, wrong);
    const matched = tables.filter(matches);
    if (matched.length === 0) {
      const there = tables.map(formatTable);
      const more = there.length > AT_ONCE ? ", …" : "";
      throw wrong(pattern, `no table matches; there is ${there.slice(0, AT_ONCE).join(", ")}${more}`);
    }
    const usable = matched.filter(({ obstacle }) => obstacle === undefined);
    const [first] = matched;
    if (usable.length === 0 && first)
      throw wrong(pattern, `${formatTable(first)} cannot be captured: ${first.obstacle}`);
    for (const table of usable) chosen.add(table);
  }
  return tables.filter((table) => chosen.has(table));
}

function asPattern(text: string, wrong: (value: string, remedy: string) => ConfigurationError) {
  try {
    return tablePattern(text.includes(".") ? text : `public.${text}`);
  } catch {
    throw wrong(text, 'write schema.table, such as public.orders, public.* or public."Odd.Name"');
  }
}

/** Returns what is captured where nobody says: all tables that can be, up to a bound. `left` of them are left out. */
export function tablesByDefault(tables: readonly Table[]): { chosen: Table[]; left: number } {
  const usable = tables.filter(({ obstacle }) => obstacle === undefined);
  return { chosen: usable.slice(0, AT_ONCE), left: Math.max(0, usable.length - AT_ONCE) };
}

/** Shows the tables and asks for numbers until the answer makes sense. */
export async function askForTables(
  tables: readonly Table[],
  ask: Ask,
  say: (line: string) => void,
): Promise<Table[]> {
  for (const line of tableList(tables)) say(line);
  for (;;) {
    const answer = (await ask("Which tables? Numbers with commas (Enter: all that can be captured) ")).trim();
    if (answer === "") return tablesByDefault(tables).chosen;
    const numbers = answer.split(/[\s,]+/).map(Number);
    const chosen = numbers.map((number) => tables[number - 1]);
    const wrong = numbers.findIndex((_, i) => chosen[i] === undefined || chosen[i].obstacle !== undefined);
    if (wrong < 0) return tables.filter((table) => chosen.includes(table));
    const table = chosen[wrong];
    say(
      table
        ? `${formatTable(table)} cannot be captured: ${table.obstacle}`
        : `Write numbers from 1 to ${tables.length}, with commas between them.`,
    );
  }
}

/** A line for each table: its number, name, key and size, or why it cannot be captured. */
export function tableList(tables: readonly Table[]): string[] {
  const width = Math.max(0, ...tables.map((table) => formatTable(table).length));
  return tables.map((table, i) => {
    const key =
      table.key.length > 0 ? `key ${table.key.join(", ")}` : "no key: replica identity is the whole row";
    const rows = table.rows === undefined ? "" : `, about ${table.rows.toLocaleString("en")} rows`;
    const what = table.obstacle ?? `${key}; ${size(table.bytes)}${rows}`;
    return `${String(i + 1).padStart(4)}  ${formatTable(table).padEnd(width)}  ${what}`;
  });
}

function size(bytes: number): string {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${Math.round(bytes / 1024 ** power)} ${units[power]}`;
}
