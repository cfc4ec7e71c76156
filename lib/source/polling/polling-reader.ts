import type pg from "pg";
import { formatTable } from "../../change/table-pattern.ts";
import type { BatchPlan, BatchReader, Query, Stored } from "../batch/batch-reader.ts";
import type { RowChange } from "../batch/row-messages.ts";
import type { TableKeys } from "../batch/table-keys.ts";
import type { KeyRecord } from "../known-keys.ts";
import type { PollingSource } from "./definition.ts";
import { type GoneRows, KeyComparison, rowKey } from "./key-comparison.ts";
import { KnownKeys } from "./known-keys.ts";
import { FIRST_LOOK, Looks, type LookUnderWay } from "./looks.ts";
import {
  type BatchBounds,
  batchBounds,
  type DeleteBounds,
  deleteBounds,
  type Look,
  type LookStart,
  look,
} from "./place.ts";
import { PolledShapes } from "./polled-shape.ts";
import { comparedTables, type PolledTable } from "./polled-table.ts";
import { ended, list, newer, range, texts } from "./row-conditions.ts";
import { RowPages } from "./row-pages.ts";
import { byPlace, distinct, placeOf } from "./row-places.ts";

/**
 * Asks tables for rows that are newer. Which rows those are, the transaction id of each row's version says: of transactions
 * that had not ended at the last look and have ended now, all of them (never beyond the oldest that runs). The column
 * only says where in its index to look: from the oldest transaction's begin, since a value may be as old as that.
 *
 * A batch is a page of one table, in the order of (column, key). Its changes stand at (batch, hash of the key): read again
 * after a crash, a row that has not changed stands where it stood; one that has is left to the next look.
 */
export class PollingReader implements BatchReader {
  readonly kind = "polling";
  readonly mode = "query";
  readonly #source: PollingSource;
  readonly #tables: ReadonlyMap<string, PolledTable>;
  readonly #shapes: PolledShapes;
  readonly #pages: RowPages;
  readonly #looks: Looks;
  readonly #compared: ReadonlySet<string>;
  readonly #keys: KeyRecord | undefined;
  readonly #known: KnownKeys | undefined;
  readonly #comparison: KeyComparison | undefined;
  /** A look that found nothing needs no record. */
  #idle: { readonly after: unknown; readonly start: LookStart } | undefined;

  /**
   * @param version `server_version_num`.
   * @param keys Where the keys are kept of tables whose deletes are looked for.
   */
  constructor(source: PollingSource, tables: readonly PolledTable[], version: number, keys?: KeyRecord) {
    this.#source = source;
    this.#shapes = new PolledShapes(version);
    this.#pages = new RowPages(source, this.#shapes);
    this.#tables = new Map(tables.map((table) => [formatTable(table.name), table]));
    this.#looks = new Looks(source, this.#tables);
    const compared = comparedTables(source, tables);
    this.#compared = new Set(compared.map(({ name }) => formatTable(name)));
    this.#keys = keys;
    if (!source.deletes || !keys) return;
    this.#known = new KnownKeys(keys);
    this.#comparison = new KeyComparison(this.#known, compared, source.deletes.everySeconds);
  }

  /**
   * If a table has another key by now, it warns, and reads on by the new one. Positions come from keys, and a look goes in
   * their order: a batch of that table is not read again but left to the next one, and its look begins anew in that table. Of
   * its known keys none can be compared any more.
   */
  async resume(stored: Stored, keys: TableKeys): Promise<Stored> {
    const after = stored.after === null ? undefined : look.parse(stored.after);
    const planned = stored.batch && look.parse(stored.batch.after);
    const others = new Set<string>();
    for (const [name, table] of this.#tables) {
      const harm = this.#compared.has(name) ? "; deletes of rows that are gone by now may be missing" : "";
      const key = table.key.map((column) => column.name);
      const types = table.key.map(({ type, number }) => `${orderOf(type)}, column ${number}`);
      if (keys.see(table.name, key, "this start", { harm, types })) others.add(name);
    }
    const pending = stored.batch && boundsOf(stored.batch.bounds);
    // Stored by a version that kept no keys.
    if (pending && (this.#tables.get(pending.table)?.key.length ?? pending.columns) !== pending.columns)
      others.add(pending.table);
    const anew = after === undefined && !planned;
    if (others.size === 0 && !anew) return stored;
    // Also while no deletes are looked for: they may be again.
    const known = this.#known ?? (this.#keys && new KnownKeys(this.#keys));
    await known?.load(anew);
    for (const name of others) await known?.forget(name);
    if (others.size === 0) return stored;
    const { number, ...start } = after ?? { ...FIRST_LOOK, under: null };
    const first = start.under?.tables[0];
    const under =
      start.under && first !== undefined && others.has(first) ? { ...start.under, last: null } : start.under;
    if (pending && !others.has(pending.table))
      return after ? { after: { ...after, under } satisfies Look, batch: stored.batch } : stored;
    const next: Look = { ...start, under, number: planned?.number ?? number };
    return { after: next, batch: undefined };
  }

  /** The server's clock may have been set meanwhile, and what was not recorded may have been undone by a crash. */
  connected(): void {
    this.#looks.forgetClocks();
    this.#idle = undefined;
  }

  async plan(query: Query, after: unknown): Promise<BatchPlan | undefined> {
    const idle = this.#idle && this.#idle.after === after ? this.#idle.start : undefined;
    const stored = after === null || idle ? undefined : look.parse(after);
    await this.#known?.load(after === null);
    let now: LookUnderWay | undefined;
    if (stored?.under) now = { ...stored, under: stored.under };
    else {
      const start = idle ?? stored ?? FIRST_LOOK;
      const deletes = await this.#deletes(query, start);
      if (deletes) return deletes;
      now = await this.#looks.begin(query, start);
    }
    if (!now) return undefined;
    for (;;) {
      const [name] = now.under.tables;
      if (name === undefined) break;
      const table = this.#tables.get(name);
      const page = table && (await this.#page(query, table, now));
      if (page && page.length > 0) return await this.#batch(now, name, page);
      now = { ...now, under: { ...now.under, tables: now.under.tables.slice(1), last: null } };
    }
    this.#idle = { after, start: { ...now.under.next, number: now.number } };
    // A look that gave something is followed by the next at once.
    return stored?.under ? await this.plan(query, after) : undefined;
  }

  async *read(query: Query, bounds: unknown): AsyncGenerator<readonly RowChange[]> {
    const deletes = deleteBounds.safeParse(bounds);
    if (deletes.success) yield await this.#gone(query, deletes.data);
    else {
      const batch = batchBounds.parse(bounds);
      const table = this.#tables.get(batch.table);
      if (table) yield* this.#pages.read(query, table, batch);
    }
  }

  async acknowledged(bounds: unknown): Promise<void> {
    const deletes = deleteBounds.safeParse(bounds);
    if (deletes.success) await this.#comparison?.given(deletes.data.gone);
  }

  /** Deletes of rows of which the key alone is known. */
  async #gone(query: Query, { number, gone, atUs }: DeleteBounds): Promise<readonly RowChange[]> {
    const table = this.#tables.get(gone.table);
    if (!table) return [];
    const shape = await this.#shapes.of(query, table);
    return gone.keys
      .map((key): RowChange => {
        const values = new Map(table.key.map(({ name }, i) => [name, key[i] ?? null]));
        const old = shape.table.columns.map(({ name }) => values.get(name) ?? null);
        const place = placeOf(number, key);
        return {
          ...{ commitLsn: place, lsn: place, xid: 0, timeUs: BigInt(atUs) },
          ...{ table: shape.table, change: { op: "delete", old } },
        };
      })
      .sort(byPlace);
  }

  /** The next batch of deletes. Not before the first look: what has not been given cannot be gone. */
  async #deletes(query: Query, start: LookStart): Promise<BatchPlan | undefined> {
    const found = start.from === null ? undefined : await this.#comparison?.next(query, start.from);
    if (!found) return undefined;
    const number = start.number + 1;
    const gone: GoneRows = { table: found.table, keys: distinct(found.keys, (key) => key) };
    const bounds: DeleteBounds = { number, gone, atUs: microseconds() };
    return { bounds, after: { ...start, number, under: null } satisfies Look };
  }

  async #page(query: Query, table: PolledTable, now: LookUnderWay): Promise<readonly PageRow[]> {
    const { to, full, last } = now.under;
    const lowValue = now.lowValues[formatTable(table.name)] ?? null;
    const where = [
      ...newer(table, { ...now, full, lowValue }, this.#source),
      ...ended(now.from, to),
      ...range(table, last, null),
    ];
    return await query<PageRow>(
      `SELECT ${texts([table.column, ...table.key])} AS place, ROW(${list(table.key)})::text AS key FROM ${table.quoted} AS tributary_t
        ${where.length > 0 ? `WHERE ${where.join(" AND ")}` : ""}
        ORDER BY ${list([table.column, ...table.key])} LIMIT ${this.#source.batchRows}`,
    );
  }

  /** As many rows of the page as have places of their own. */
  async #batch(now: LookUnderWay, table: string, page: readonly PageRow[]): Promise<BatchPlan> {
    const { under } = now;
    const rows = distinct(page, ({ place }) => place.slice(1));
    const upTo = (rows.at(-1) as PageRow).place;
    if (this.#compared.has(table)) {
      await this.#known?.add(
        table,
        rows.map(({ key }) => rowKey(key)),
      );
    }
    const number = now.number + 1;
    const bounds: BatchBounds = {
      ...{ number, table, from: now.from, to: under.to, last: under.last, upTo },
      ...{ full: under.full, low: now.low, lowValue: now.lowValues[table] ?? null },
      atUs: microseconds(),
    };
    const after: Look = { ...now, number, under: { ...under, last: upTo } };
    return { bounds, after };
  }
}

/** A row of a page: column and key as texts that can be cast back, and the key as the row's text has it. */
interface PageRow extends pg.QueryResultRow {
  readonly place: string[];
  readonly key: string;
}

/** Returns the table that a batch is of, and of how many columns its key was. */
function boundsOf(bounds: unknown): { readonly table: string; readonly columns: number } {
  const deletes = deleteBounds.safeParse(bounds);
  if (!deletes.success) {
    const { table, upTo } = batchBounds.parse(bounds);
    return { table, columns: upTo.length - 1 };
  }
  const { table, keys } = deletes.data.gone;
  return { table, columns: keys[0]?.length ?? 0 };
}

/** Types whose values have the same texts in the same order have one name. */
function orderOf(type: string): string {
  const plain = type.replace(/\([\d,]+\)/, "");
  if (["smallint", "integer", "bigint"].includes(plain)) return "integer";
  return plain === "character varying" ? "text" : plain;
}

/** Now, since 1970. */
function microseconds(): string {
  return BigInt(Math.trunc(Date.now() * 1000)).toString();
}
