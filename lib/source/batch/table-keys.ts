import * as z from "zod";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import type { RouteTable } from "../../definition/route.ts";
import type { Log } from "../../log.ts";

/** Columns of the primary keys of tables, by name as `formatTable` writes it: what a reader stores with its place. */
export const storedKeys = z.record(z.string(), z.array(z.string()).readonly());

/** Columns of the primary keys of tables, by name. */
export type StoredKeys = Readonly<z.output<typeof storedKeys>>;

/** Warns where a table has another primary key than before: its rows go to other partitions from there on. */
export class TableKeys {
  readonly #keys: Map<string, readonly string[]>;
  readonly #route: RouteTable;
  readonly #log: Log;

  /** `stored`: the keys as they were when the place was stored. */
  constructor(stored: StoredKeys, route: RouteTable, log: Log) {
    this.#keys = new Map(Object.entries(stored));
    this.#route = route;
    this.#log = log;
  }

  /** The keys as they are known now, to be stored. */
  get stored(): StoredKeys {
    return Object.fromEntries(this.#keys);
  }

  /**
   * Compares a table's key with the one before, and warns of a difference; `since` says from where on. Returns whether it differs.
   * Where `topics.keys` names the columns that choose the partition, there is nothing to warn of.
   */
  see(name: TableName, key: readonly string[], since: string, harm = ""): boolean {
    const table = formatTable(name);
    const before = this.#keys.get(table);
    this.#keys.set(table, key);
    if (before === undefined || before.join("\0") === key.join("\0")) return false;
    if (this.#route(name).key !== undefined && harm === "") return true;
    this.#log.warn(
      `the key of ${table} was (${before.join(", ")}) and is (${key.join(", ")}) from ${since} on: unless a column was only renamed, rows go to other partitions, and a consumer may see the changes of one row in another order there${harm}`,
      {
        code: "TABLE_KEY",
        remedy: `When consumers have passed that change, compare the sinks of ${table}: tributary verify. Columns named in topics.keys choose the partition whatever the key is.`,
      },
    );
    return true;
  }
}
