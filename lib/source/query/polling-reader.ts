import { createHash } from "node:crypto";
import type pg from "pg";
import { formatTable } from "../../change/table-pattern.ts";
import type { BatchPlan, BatchReader, Query } from "../batches/batch-reader.ts";
import { TablesReadError } from "../batches/errors.ts";
import { parseRecord } from "../batches/record-text.ts";
import type { RowChange, TableShape } from "../batches/row-messages.ts";
import type { PollingSource } from "../definition.ts";
import type { KeyRecord } from "../known-keys.ts";
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
import { comparedTables, type PolledTable } from "./polled-table.ts";
import { age, ended, list, newer, range, texts } from "./row-conditions.ts";

const UNDER = 1n << 32n;

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
  /** `server_version_num`. */
  readonly #version: number;
  readonly #shapes = new Map<string, Shape>();
  readonly #looks: Looks;
  readonly #compared: ReadonlySet<string>;
  readonly #known: KnownKeys | undefined;
  readonly #comparison: KeyComparison | undefined;
  /** A look that found nothing needs no record. */
  #idle: { readonly after: unknown; readonly start: LookStart } | undefined;

  /** @param keys Where the keys are kept of tables whose deletes are looked for. */
  constructor(source: PollingSource, tables: readonly PolledTable[], version: number, keys?: KeyRecord) {
    this.#source = source;
    this.#version = version;
    this.#tables = new Map(tables.map((table) => [formatTable(table.name), table]));
    this.#looks = new Looks(source, this.#tables);
    const compared = comparedTables(source, tables);
    this.#compared = new Set(compared.map(({ name }) => formatTable(name)));
    if (!source.deletes || !keys) return;
    this.#known = new KnownKeys(keys);
    this.#comparison = new KeyComparison(this.#known, compared, source.deletes.everySeconds);
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
    else yield await this.#rows(query, batchBounds.parse(bounds));
  }

  async acknowledged(bounds: unknown): Promise<void> {
    const deletes = deleteBounds.safeParse(bounds);
    if (deletes.success) await this.#comparison?.given(deletes.data.gone);
  }

  /** The rows of a page that have not changed since. */
  async #rows(query: Query, batch: BatchBounds): Promise<readonly RowChange[]> {
    const table = this.#tables.get(batch.table);
    if (!table) return [];
    // The table cannot change between its shape and its rows.
    await query(`BEGIN; SET LOCAL lock_timeout = '10s'; LOCK TABLE ${table.quoted} IN ACCESS SHARE MODE`);
    let rows: readonly { row: string; xid: string; keys: string[] }[];
    let shape: Shape;
    try {
      shape = await this.#shape(query, table);
      rows = await query(
        `SELECT (tributary_t.*)::text AS row, xmin::text AS xid, ${texts(table.key)} AS keys
           FROM ${table.quoted} AS tributary_t
          WHERE ${[...newer(table, batch, this.#source), ...range(table, batch.last, batch.upTo), ...ended(batch.from, batch.to)].join(" AND ")}
          ORDER BY ${age(batch.to)} DESC`,
      );
    } finally {
      await query("COMMIT");
    }
    return (
      rows
        .map(({ row, xid, keys }): RowChange => {
          const values = parseRecord(row);
          const place = placeOf(batch.number, keys);
          if (values.length !== shape.fields) throw changedMeanwhile(batch.table);
          return {
            commitLsn: place,
            lsn: place,
            xid: Number(xid),
            timeUs: BigInt(batch.atUs),
            table: shape.table,
            change: { op: "update", old: undefined, row: shape.kept.map((i) => values[i] ?? null) },
          };
        })
        // Of two at one place the older is given: the other was not there when the page was chosen, and comes later.
        .sort(byPlace)
        .filter((change, i, all) => change.commitLsn !== all[i - 1]?.commitLsn)
    );
  }

  /** Deletes of rows of which the key alone is known. */
  async #gone(query: Query, { number, gone, atUs }: DeleteBounds): Promise<readonly RowChange[]> {
    const table = this.#tables.get(gone.table);
    if (!table) return [];
    const shape = await this.#shape(query, table);
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

  async #shape(query: Query, table: PolledTable): Promise<Shape> {
    const rows = await query<{ name: string; type: number; modifier: number; generated: string }>(
      `SELECT attname::text AS name, atttypid::int8::float8 AS type, atttypmod AS modifier, attgenerated::text AS generated
         FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
      [table.oid],
    );
    const text = `${table.oid} ${JSON.stringify(rows)}`;
    const known = this.#shapes.get(text);
    if (known) return known;
    const kept = rows.flatMap(({ generated }, i) =>
      generated === "" || (generated === "s" && this.#version >= 180_000) ? [i] : [],
    );
    const shape = {
      ...{ fields: rows.length, kept },
      table: {
        // A key that is chosen need not be in its replica identity here, and of an old row only the key is known.
        ...{ oid: table.oid, ...table.name, identity: "full" as const, wholeOldRows: false },
        primaryKey: table.key.map((column) => column.name),
        columns: kept.map((i) => {
          const { name, type, modifier } = rows[i] as (typeof rows)[number];
          return { name, type, modifier, key: true };
        }),
      },
    };
    this.#shapes.set(text, shape);
    return shape;
  }
}

/** A table's shape, and which of the fields of a printed row travel: as in the log. */
interface Shape {
  readonly table: TableShape;
  readonly fields: number;
  readonly kept: readonly number[];
}

/** A row of a page: column and key as texts that can be cast back, and the key as the row's text has it. */
interface PageRow extends pg.QueryResultRow {
  readonly place: string[];
  readonly key: string;
}

/** As many from the beginning as have places of their own in a batch. */
function distinct<Row>(rows: readonly Row[], keyOf: (row: Row) => readonly string[]): readonly Row[] {
  const places = new Set<bigint>();
  const end = rows.findIndex((row) => places.size === places.add(hash(keyOf(row))).size);
  return end === -1 ? rows : rows.slice(0, end);
}

function placeOf(number: number, key: readonly string[]): bigint {
  return (BigInt(number) * UNDER) | hash(key);
}

function byPlace(a: RowChange, b: RowChange): number {
  return a.commitLsn < b.commitLsn ? -1 : a.commitLsn > b.commitLsn ? 1 : 0;
}

/** Now, since 1970. */
function microseconds(): string {
  return BigInt(Math.trunc(Date.now() * 1000)).toString();
}

/** 32 bits of the key. */
function hash(key: readonly string[]): bigint {
  return BigInt(createHash("sha256").update(JSON.stringify(key)).digest().readUInt32BE(0));
}

function changedMeanwhile(table: string): TablesReadError {
  return new TablesReadError({
    message: `${table} has another number of columns than its catalog says`,
    remedy: "Start again; when it repeats, report it with the table's definition.",
  });
}
