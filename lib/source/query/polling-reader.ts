import { createHash } from "node:crypto";
import { formatTable } from "../../change/table-pattern.ts";
import type { BatchPlan, BatchReader, Query } from "../batches/batch-reader.ts";
import { serverBehind, TablesReadError } from "../batches/errors.ts";
import { parseRecord } from "../batches/record-text.ts";
import type { RowChange, TableShape } from "../batches/row-messages.ts";
import { parseSnapshot } from "../batches/snapshot.ts";
import type { PollingSource } from "../definition.ts";
import type { TypeCatalog } from "../postgres/type-catalog.ts";
import {
  type BatchBounds,
  batchBounds,
  type Look,
  type LookStart,
  look,
  valuesBefore,
  withMark,
} from "./place.ts";
import type { PolledColumn, PolledTable } from "./polled-table.ts";

/** What the server says of now. */
interface Now {
  /** Clock, milliseconds since 1970, taken before the rest. */
  readonly clock: number;
  /** When the oldest transaction began, as far as the role may see. */
  readonly oldest: number | null;
  readonly prepared: boolean;
  readonly standby: boolean;
  readonly snapshot: string;
}

/** The server's clock against ours: when it goes back by more than this, the column is not trusted for one look. */
const CLOCK_JUMP_MS = 1000;

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
  /** Of the last look: the server's clock and ours. */
  #clocks: { readonly server: number; readonly own: number } | undefined;
  /** A look that found nothing needs no record. */
  #idle: { readonly after: unknown; readonly start: LookStart } | undefined;

  constructor(source: PollingSource, tables: readonly PolledTable[], version: number) {
    this.#source = source;
    this.#version = version;
    this.#tables = new Map(tables.map((table) => [formatTable(table.name), table]));
  }

  /** What the decoder asks of a table: a key that is chosen need not be in its replica identity here. */
  catalog(under: TypeCatalog): TypeCatalog {
    const keys = new Map(
      [...this.#tables.values()].map(({ oid, key }) => [oid, key.map(({ name }) => name)]),
    );
    return {
      resolve: (oids) => under.resolve(oids),
      relation: async (oid) => ({ primaryKey: keys.get(oid) ?? [], ancestors: [], wholeOldRows: true }),
    };
  }

  /** The server's clock may have been set meanwhile, and what was not recorded may have been undone by a crash. */
  connected(): void {
    this.#clocks = undefined;
    this.#idle = undefined;
  }

  async plan(query: Query, after: unknown): Promise<BatchPlan | undefined> {
    const idle = this.#idle && this.#idle.after === after ? this.#idle.start : undefined;
    const stored = after === null || idle ? undefined : look.parse(after);
    let now = stored?.under
      ? { ...stored, under: stored.under }
      : await this.#begin(query, idle ?? stored ?? FIRST);
    if (!now) return undefined;
    for (;;) {
      const [name] = now.under.tables;
      if (name === undefined) break;
      const table = this.#tables.get(name);
      const page = table && (await this.#page(query, table, now));
      if (page && page.length > 0) return this.#batch(now, name, page);
      now = { ...now, under: { ...now.under, tables: now.under.tables.slice(1), last: null } };
    }
    this.#idle = { after, start: { ...now.under.next, number: now.number } };
    // A look that gave something is followed by the next at once.
    return stored?.under ? await this.plan(query, after) : undefined;
  }

  async *read(query: Query, bounds: unknown): AsyncGenerator<readonly RowChange[]> {
    const batch = batchBounds.parse(bounds);
    const table = this.#tables.get(batch.table);
    if (!table) return;
    // The table cannot change between its shape and its rows.
    await query(`BEGIN; SET LOCAL lock_timeout = '10s'; LOCK TABLE ${table.quoted} IN ACCESS SHARE MODE`);
    let rows: readonly { row: string; xid: string; keys: string[] }[];
    let shape: Shape;
    try {
      shape = await this.#shape(query, table);
      rows = await query(
        `SELECT (tributary_t.*)::text AS row, xmin::text AS xid, ${texts(table.key)} AS keys
           FROM ${table.quoted} AS tributary_t
          WHERE ${[...this.#newer(table, batch), ...range(table, batch.last, batch.upTo), ...ended(batch.from, batch.to)].join(" AND ")}
          ORDER BY (xmin::text::int8 - ${BigInt(batch.to) % UNDER} + ${UNDER}) % ${UNDER} DESC`,
      );
    } finally {
      await query("COMMIT");
    }
    yield rows
      .map(({ row, xid, keys }): RowChange => {
        const values = parseRecord(row);
        const place = (BigInt(batch.number) * UNDER) | hash(keys);
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
      .sort((a, b) => (a.commitLsn < b.commitLsn ? -1 : a.commitLsn > b.commitLsn ? 1 : 0))
      .filter((change, i, all) => change.commitLsn !== all[i - 1]?.commitLsn);
  }

  /**
   * Begins a look: up to which transaction, from which value on, in which tables there is something. None on a replica that is
   * behind the one that was asked before: it would give older states.
   * @throws ServerBehindError on a primary that has lost what was seen there.
   */
  async #begin(query: Query, start: LookStart): Promise<LookUnderWay | undefined> {
    const asked = performance.now();
    const now = await this.#now(query);
    const { xmin: to, xmax } = parseSnapshot(now.snapshot);
    if (start.from !== null && to < BigInt(start.from)) {
      if (now.standby) return undefined;
      throw serverBehind(to, start.from);
    }
    const fullUntil = start.fullUntil === "" ? xmax.toString() : start.fullUntil;
    const unsure = start.from !== null && fullUntil !== null && BigInt(start.from) < BigInt(fullUntil);
    const full = this.#full(start, now) || unsure;
    const tables = [...this.#tables.keys()];
    const [found] = await query<{ there: boolean[]; highest: (string | null)[] }>(
      `SELECT ARRAY[${tables.map((name) => this.#exists(name, start, to, full)).join(", ")}]::bool[] AS there,
              ARRAY[${tables.map((name) => this.#highest(name)).join(", ")}]::text[] AS highest`,
    );
    const values = Object.fromEntries(
      tables.flatMap((name, i) => {
        const highest = found?.highest[i];
        return typeof highest === "string" ? [[name, highest]] : [];
      }),
    );
    // What begins after this has not been assigned what was seen: the clock was read before.
    const marks = withMark(start.marks, { at: now.clock + (performance.now() - asked) + 1, values });
    const begin = this.#oldestBegin(start, now);
    const next = {
      ...{ from: to.toString(), low: begin, marks },
      fullUntil: start.from === null ? "" : unsure ? fullUntil : null,
      lowValues: begin === null ? {} : { ...valuesBefore(marks, begin - this.#source.skewSeconds * 1000) },
    };
    return {
      ...start,
      under: {
        ...{ to: to.toString(), full, last: null, next },
        tables: tables.filter((_, i) => found?.there[i]),
      },
    };
  }

  async #now(query: Query): Promise<Now> {
    // In this order: a transaction that the snapshot does not see as ended is among those that were seen to run, or began later.
    const [clock] = await query<Omit<Now, "snapshot">>(
      `WITH c AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS clock)
       SELECT c.clock, (SELECT (extract(epoch FROM min(xact_start)) * 1000)::float8 FROM pg_stat_activity
                WHERE coalesce(backend_type, '') NOT IN ('autovacuum worker', 'walsender')) AS oldest,
              EXISTS (SELECT FROM pg_prepared_xacts) AS prepared, pg_is_in_recovery() AS standby FROM c`,
    );
    const [seen] = await query<{ snapshot: string }>("SELECT pg_current_snapshot()::text AS snapshot");
    return { ...(clock as Omit<Now, "snapshot">), snapshot: seen?.snapshot ?? "" };
  }

  /** No value of a transaction that has not ended is older than this; null: nobody can say. */
  #oldestBegin({ low }: LookStart, { clock, oldest, prepared }: Now): number | null {
    const { longestTransactionSeconds } = this.#source;
    if (longestTransactionSeconds !== undefined) return clock - longestTransactionSeconds * 1000;
    const begin = Math.min(clock, oldest ?? clock);
    // Nobody says when a prepared transaction began: it ran at the last look, or began later.
    if (!prepared) return begin;
    return low === null ? null : Math.min(begin, low);
  }

  /** At a start and after a jump of the clock: by transaction ids alone, whatever the column says. */
  #full({ from }: LookStart, { clock }: Now): boolean {
    const own = performance.now();
    const before = this.#clocks;
    this.#clocks = { server: clock, own };
    const back = before !== undefined && own - before.own - (clock - before.server) > CLOCK_JUMP_MS;
    return from === null || !before || back;
  }

  #exists(name: string, start: LookStart, to: bigint, full: boolean): string {
    const table = this.#tables.get(name) as PolledTable;
    const where = [
      ...this.#newer(table, { ...start, full, lowValue: start.lowValues[name] ?? null }),
      ...ended(start.from, to.toString()),
    ];
    return `EXISTS (SELECT FROM ${table.quoted} AS tributary_t${where.length > 0 ? ` WHERE ${where.join(" AND ")}` : ""})`;
  }

  #highest(name: string): string {
    const { grows, quoted, column } = this.#tables.get(name) as PolledTable;
    return grows === "number" ? `(SELECT max(${column.quoted})::text FROM ${quoted})` : "NULL";
  }

  #newer(
    { column, grows }: PolledTable,
    { from, full, low, lowValue }: Pick<BatchBounds, "from" | "full" | "low" | "lowValue">,
  ): string[] {
    if (full || from === null) return [];
    if (grows === "number")
      return lowValue === null ? [] : [`${column.quoted} > ${literal(lowValue)}::${column.type}`];
    if (low === null) return [];
    const time = `to_timestamp(${low / 1000 - this.#source.skewSeconds})`;
    const zoned = column.type.includes("without")
      ? `(${time} AT TIME ZONE ${literal(this.#source.timeZone)})`
      : time;
    return [`${column.quoted} >= ${zoned}`];
  }

  async #page(query: Query, table: PolledTable, now: LookUnderWay): Promise<readonly string[][]> {
    const { to, full, last } = now.under;
    const lowValue = now.lowValues[formatTable(table.name)] ?? null;
    const where = [
      ...this.#newer(table, { ...now, full, lowValue }),
      ...ended(now.from, to),
      ...range(table, last, null),
    ];
    const rows = await query<{ place: string[] }>(
      `SELECT ${texts([table.column, ...table.key])} AS place FROM ${table.quoted} AS tributary_t
        ${where.length > 0 ? `WHERE ${where.join(" AND ")}` : ""}
        ORDER BY ${[table.column, ...table.key].map(({ quoted }) => quoted).join(", ")} LIMIT ${this.#source.batchRows}`,
    );
    return rows.map(({ place }) => place);
  }

  /** As many rows of the page as have places of their own. */
  #batch(now: LookUnderWay, table: string, page: readonly string[][]): BatchPlan {
    const { under } = now;
    const places = new Set<bigint>();
    let upTo = page[0] as string[];
    for (const row of page) {
      const place = hash(row.slice(1));
      if (places.has(place)) break;
      places.add(place);
      upTo = row;
    }
    const number = now.number + 1;
    const bounds: BatchBounds = {
      ...{ number, table, from: now.from, to: under.to, last: under.last, upTo },
      ...{ full: under.full, low: now.low, lowValue: now.lowValues[table] ?? null },
      atUs: BigInt(Math.trunc(Date.now() * 1000)).toString(),
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
        ...{ oid: table.oid, ...table.name, identity: "full" as const },
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

type LookUnderWay = Look & { readonly under: NonNullable<Look["under"]> };

const FIRST: LookStart = { number: 0, from: null, low: null, lowValues: {}, marks: [], fullUntil: null };

/**
 * Row versions of transactions in `[from, to)`, or of all below `to`: by 32 bits of their ids, which go round. Of rows that are
 * older than one round, a few look as if they were new.
 */
function ended(from: string | null, to: string): string[] {
  const since = (xid: string) => `(xmin::text::int8 - ${BigInt(xid) % UNDER} + ${UNDER}) % ${UNDER}`;
  if (from !== null) return [`${since(from)} < ${BigInt(to) - BigInt(from)}`];
  return [`${since(to)} >= pg_snapshot_xmax(pg_current_snapshot())::text::int8 - ${to}`];
}

function range(table: PolledTable, last: readonly string[] | null, upTo: readonly string[] | null): string[] {
  const columns = [table.column, ...table.key];
  const row = (values: readonly string[]) =>
    `(${values.map((value, i) => `${literal(value)}::${columns[i]?.type}`).join(", ")})`;
  const names = `(${columns.map(({ quoted }) => quoted).join(", ")})`;
  return [...(last ? [`${names} > ${row(last)}`] : []), ...(upTo ? [`${names} <= ${row(upTo)}`] : [])];
}

function texts(columns: readonly PolledColumn[]): string {
  return `ARRAY[${columns.map(({ quoted }) => `${quoted}::text`).join(", ")}]`;
}

function literal(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
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
