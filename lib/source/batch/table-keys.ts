import * as z from "zod";
import { shellWord } from "../../change/printed-command.ts";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import type { RouteTable } from "../../definition/route.ts";
import type { Log } from "../../log.ts";

/** Columns of the primary keys of tables, by name as `formatTable` writes it: what a reader stores with its place. */
export const storedKeys = z.record(z.string(), z.array(z.string()).readonly());

/** Columns of the primary keys of tables, by name. */
export type StoredKeys = Readonly<z.output<typeof storedKeys>>;

/** Keys of tables as they are stored: their columns and, where a reader gives them, the columns' types. */
export interface StoredTableKeys {
  readonly keys: StoredKeys;
  readonly types: StoredKeys;
}

/** Warns where a table has another primary key than before: its rows go to other partitions from there on. */
export class TableKeys {
  readonly #keys: Map<string, readonly string[]>;
  readonly #types: Map<string, readonly string[]>;
  readonly #route: RouteTable;
  readonly #log: Log;
  /** Something is known that is not stored. */
  changed = false;

  /** `stored`: the keys as they were when the place was stored. */
  constructor(stored: StoredTableKeys, route: RouteTable, log: Log) {
    this.#keys = new Map(Object.entries(stored.keys));
    this.#types = new Map(Object.entries(stored.types));
    this.#route = route;
    this.#log = log;
  }

  /** The keys as they are known now, to be stored. */
  get stored(): StoredTableKeys {
    return { keys: Object.fromEntries(this.#keys), types: Object.fromEntries(this.#types) };
  }

  /**
   * Compares a table's key with the one before, and warns of a difference; `since` says from where on. Returns whether it differs.
   * If `topics.keys` names the columns that choose the partition, there is nothing to warn of. With `types` a column of
   * another type is another key too, whatever its name.
   */
  see(
    name: TableName,
    key: readonly string[],
    since: string,
    { harm = "", types }: { readonly harm?: string; readonly types?: readonly string[] } = {},
  ): boolean {
    const table = formatTable(name);
    const before = this.#keys.get(table);
    const typesBefore = types && this.#types.get(table);
    const sameNames = before !== undefined && same(before, key);
    const sameTypes = typesBefore === undefined || same(typesBefore, types);
    if (!sameNames || (types && (typesBefore === undefined || !sameTypes))) this.changed = true;
    this.#keys.set(table, key);
    if (types) this.#types.set(table, types);
    if (before === undefined || (sameNames && sameTypes)) return false;
    if (this.#route(name).key !== undefined && harm === "") return true;
    const [was, is] = sameNames
      ? [typed(before, typesBefore), typed(key, types)]
      : [before.join(", "), key.join(", ")];
    this.#log.warn(
      `the key of ${table} was (${was}) and is (${is}) from ${since} on: unless a column was only renamed, rows go to other partitions, and a consumer may see the changes of one row in another order there${harm}`,
      {
        code: "TABLE_KEY",
        remedy: `When consumers have passed that change, compare the sinks: tributary verify --table ${shellWord(table)} --consumer <consumer>. Columns named in topics.keys choose the partition whatever the key is.`,
      },
    );
    return true;
  }
}

function same(a: readonly string[], b: readonly string[] = []): boolean {
  return a.join("\0") === b.join("\0");
}

function typed(key: readonly string[], types: readonly string[] = []): string {
  return key.map((name, i) => `${name}: ${types[i]}`).join("; ");
}
