import type pg from "pg";
import { TablesReadError } from "../batch/batch-errors.ts";
import type { Query } from "../batch/batch-reader.ts";
import { inPages, PAGE_BYTES } from "../batch/pages.ts";
import { parseRecord } from "../batch/record-text.ts";
import type { RowChange } from "../batch/row-messages.ts";
import type { PollingSource } from "./definition.ts";
import type { BatchBounds } from "./place.ts";
import type { PolledShape, PolledShapes } from "./polled-shape.ts";
import type { PolledTable } from "./polled-table.ts";
import { age, ended, newer, range, texts, withKeys } from "./row-conditions.ts";
import { byPlace, placeOf } from "./row-places.ts";

/** Size of a row, and its key as texts. */
interface RowSize extends pg.QueryResultRow {
  readonly keys: string[];
  readonly bytes: number;
}

/** Reads the rows of a batch. */
export class RowPages {
  readonly #source: PollingSource;
  readonly #shapes: PolledShapes;

  constructor(source: PollingSource, shapes: PolledShapes) {
    this.#source = source;
    this.#shapes = shapes;
  }

  /**
   * The rows of a batch that have not changed since, in pages of bounded bytes: first which they are and how large, then
   * the rows themselves. Between two pages no lock is held.
   */
  async *read(query: Query, table: PolledTable, batch: BatchBounds): AsyncGenerator<readonly RowChange[]> {
    const found = await this.#locked(query, table, async (shape) => {
      const sizes = await this.#sizes(query, table, batch, shape);
      const small = sizes.reduce((sum, { bytes }) => sum + bytes, 0) <= PAGE_BYTES;
      return small
        ? { rows: await this.#rows(query, table, batch, shape), pages: [] }
        : { rows: [], pages: [...inPages(sizes)] };
    });
    if (found.rows.length > 0) yield found.rows;
    for (const page of found.pages) {
      const keys = page.map(({ keys: key }) => key);
      yield await this.#locked(query, table, (shape) => this.#rows(query, table, batch, shape, keys));
    }
  }

  /** The table cannot change between its shape and its rows. */
  async #locked<Found>(
    query: Query,
    table: PolledTable,
    work: (shape: PolledShape) => Promise<Found>,
  ): Promise<Found> {
    await query(`BEGIN; SET LOCAL lock_timeout = '10s'; LOCK TABLE ${table.quoted} IN ACCESS SHARE MODE`);
    try {
      return await work(await this.#shapes.of(query, table));
    } finally {
      await query("COMMIT");
    }
  }

  /** The rows of a batch by their places: keys, and about how many bytes each has as text. */
  async #sizes(
    query: Query,
    table: PolledTable,
    batch: BatchBounds,
    { bytes }: PolledShape,
  ): Promise<readonly RowSize[]> {
    const rows = await query<RowSize>(
      `SELECT ${texts(table.key)} AS keys, (${bytes})::float8 AS bytes
         FROM ${table.quoted} AS tributary_t WHERE ${this.#of(table, batch)} ORDER BY ${age(batch.to)} DESC`,
    );
    const places = new Map<bigint, RowSize>();
    // Of two at one place the older is given: the other was not there when the page was chosen, and comes later.
    for (const row of rows) {
      const place = placeOf(batch.number, row.keys);
      if (!places.has(place)) places.set(place, row);
    }
    return [...places].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
  }

  /** The rows of a batch, all or those of these keys, by their places. */
  async #rows(
    query: Query,
    table: PolledTable,
    batch: BatchBounds,
    shape: PolledShape,
    only?: readonly (readonly string[])[],
  ): Promise<readonly RowChange[]> {
    const rows = await query<{ row: string; xid: string; keys: string[] }>(
      `SELECT (tributary_t.*)::text AS row, xmin::text AS xid, ${texts(table.key)} AS keys
         FROM ${table.quoted} AS tributary_t
        WHERE ${this.#of(table, batch)}${only ? ` AND ${withKeys(table, only)}` : ""}
        ORDER BY ${age(batch.to)} DESC`,
    );
    return rows
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
      .sort(byPlace)
      .filter((change, i, all) => change.commitLsn !== all[i - 1]?.commitLsn);
  }

  /** Conditions that the rows of a batch meet. */
  #of(table: PolledTable, batch: BatchBounds): string {
    return [
      ...newer(table, batch, this.#source),
      ...range(table, batch.last, batch.upTo),
      ...ended(batch.from, batch.to),
    ].join(" AND ");
  }
}

function changedMeanwhile(table: string): TablesReadError {
  return new TablesReadError({
    message: `${table} has another number of columns than its catalog says`,
    remedy: "Start again; when it repeats, report it with the table's definition.",
  });
}
