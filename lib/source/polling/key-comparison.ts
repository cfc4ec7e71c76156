import { formatTable } from "../../change/table-pattern.ts";
import type { Query } from "../batch/batch-reader.ts";
import { parseRecord } from "../batch/record-text.ts";
import { parseSnapshot } from "../batch/snapshot.ts";
import type { RowKey } from "../known-keys.ts";
import { type KnownKeys, keyOf, textOf } from "./known-keys.ts";
import type { PolledTable } from "./polled-table.ts";
import { behindKey, list, tuple } from "./row-conditions.ts";

/** Rows that are gone: their table and keys. */
export interface GoneRows {
  readonly table: string;
  readonly keys: readonly RowKey[];
}

const PAGE_KEYS = 10_000;
/** Of one batch, which stands in the state table: keys, and bytes of their texts. */
const GONE_KEYS = 1000;
const GONE_BYTES = 64 * 1024;

/**
 * Finds deletes: compares the keys of tables with those that are known, every so often, and gives those that are gone.
 *
 * It asks last, in one statement, right before a delete is recorded, that the row is gone. What that statement does not
 * see has not ended, so a row that is inserted again comes with a later look, behind its delete; and what was given before
 * had ended, so it is seen there as long as it is there.
 */
export class KeyComparison {
  readonly #known: KnownKeys;
  readonly #tables: readonly PolledTable[];
  readonly #everyMs: number;
  #dueAt = Number.NEGATIVE_INFINITY;
  /** By table, the keys that the last comparison missed and whose delete has not been acknowledged. */
  readonly #missed = new Map<string, Set<string>>();

  constructor(known: KnownKeys, tables: readonly PolledTable[], everySeconds: number) {
    this.#known = known;
    this.#tables = tables;
    this.#everyMs = everySeconds * 1000;
  }

  /**
   * The next rows that are gone; undefined: none, or it is not time.
   * @param from Transactions below have been given: a replica that has not got there sees too little.
   */
  async next(query: Query, from: string): Promise<GoneRows | undefined> {
    if (this.#missed.size === 0 && performance.now() >= this.#dueAt) {
      const [now] = await query<{ snapshot: string }>("SELECT pg_current_snapshot()::text AS snapshot");
      if (parseSnapshot(now?.snapshot ?? "").xmin < BigInt(from)) return undefined;
      for (const table of this.#tables) await this.#compare(query, table);
      this.#dueAt = performance.now() + this.#everyMs;
    }
    for (const table of this.#tables) {
      const name = formatTable(table.name);
      const missed = this.#missed.get(name) ?? new Set();
      while (missed.size > 0) {
        const asked = some(missed);
        const keys = await gone(query, table, asked.map(keyOf));
        // Those that are gone stay until their delete was acknowledged: what comes between may fail.
        const stay = new Set(keys.map(textOf));
        for (const key of asked) if (!stay.has(key)) missed.delete(key);
        if (keys.length > 0) return { table: name, keys };
      }
      this.#missed.delete(name);
    }
    return undefined;
  }

  /** Their deletes were acknowledged. */
  async given({ table, keys }: GoneRows): Promise<void> {
    await this.#known.load(false);
    await this.#known.remove(table, keys);
    for (const key of keys) this.#missed.get(table)?.delete(textOf(key));
  }

  /** Learns what is there and was not known: rows that were given before deletes were looked for. */
  async #compare(query: Query, table: PolledTable): Promise<void> {
    const name = formatTable(table.name);
    const missed = new Set(this.#known.of(name));
    let last: RowKey | undefined;
    for (;;) {
      const rows: readonly { key: string }[] = await query(
        `SELECT ROW(${list(table.key)})::text AS key FROM ${table.quoted}
          ${last ? `WHERE ${behindKey(table, last)}` : ""} ORDER BY ${list(table.key)} LIMIT ${PAGE_KEYS}`,
      );
      const keys = rows.map(({ key }) => rowKey(key));
      const unknown = keys.filter((key) => !missed.delete(textOf(key)));
      if (unknown.length > 0) await this.#known.add(name, unknown);
      last = keys.at(-1);
      if (keys.length < PAGE_KEYS) break;
    }
    if (missed.size > 0) this.#missed.set(name, missed);
  }
}

/** The fields of `ROW(…)::text` over a key, none of them null. */
export function rowKey(text: string): RowKey {
  return parseRecord(text).map((value) => value ?? "");
}

/** As many as a batch holds. */
function some(texts: Iterable<string>): string[] {
  const taken: string[] = [];
  let bytes = 0;
  for (const text of texts) {
    taken.push(text);
    bytes += text.length;
    if (taken.length >= GONE_KEYS || bytes >= GONE_BYTES) break;
  }
  return taken;
}

/** Of these keys, those without a row. */
async function gone(query: Query, table: PolledTable, keys: readonly RowKey[]): Promise<readonly RowKey[]> {
  const columns = table.key.map((_, i) => `k${i}`);
  const rows = await query<{ n: number }>(
    `SELECT p.n FROM (VALUES ${keys.map((key, n) => `(${n}, ${tuple(table.key, key).slice(1)}`).join(", ")}) AS p (n, ${columns.join(", ")})
      WHERE NOT EXISTS (SELECT FROM ${table.quoted} AS t WHERE ${table.key.map(({ quoted }, i) => `t.${quoted} = p.k${i}`).join(" AND ")})
      ORDER BY p.n`,
  );
  return rows.map(({ n }) => keys[n] as RowKey);
}
