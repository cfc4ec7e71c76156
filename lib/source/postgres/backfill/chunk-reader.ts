import pg from "pg";
import { parseLsn } from "../../../change/lsn.ts";
import { quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { Tuple } from "../decode/pgoutput/tuple.ts";
import { nameForm, type TextEncoding } from "../decode/values/text.ts";
import { connect, disconnect, withConnection } from "../link/connection.ts";
import type { PostgresConnectionOptions } from "../link/connection-options.ts";
import { BackfillRefusedError } from "./backfill-errors.ts";
import { HIGH_WATERMARK, LOW_WATERMARK, type Watermark, watermarkSql } from "./change-window.ts";
import { type CopiedRows, CopyOut, readTexts } from "./copy-out.ts";
import {
  boundSql,
  KEYS_SETTINGS,
  keysWhere,
  PAGE_SETTINGS,
  type Page,
  type PageKey,
  pageSql,
  whereCheckSql,
} from "./page-sql.ts";
import { Standby } from "./standby.ts";
import { readShape, shapeSql, type TableShape } from "./table-shape.ts";
import { Snapshot } from "./visibility.ts";

/** Dependencies of `ChunkReader`: the servers that it reads from and writes watermarks to. */
export interface ChunkReaderOptions {
  readonly connection: PostgresConnectionOptions;
  /** A standby to read rows from; watermarks are written at the primary all the same. */
  readonly standby: PostgresConnectionOptions | undefined;
  readonly systemId: string;
  readonly publication: string;
  /** `server_version_num`. */
  readonly version: number;
  /** Encoding of the text of rows. */
  readonly encoding: TextEncoding;
  /** Told what reading waits for. */
  readonly waits: (reason: string) => void;
  readonly signal: AbortSignal;
}

/** A page to read. Of a table with a filter `rows` are those that are looked at, so that no chunk looks for its rows without end. */
export interface ChunkRequest {
  readonly table: TableName;
  readonly watermark: Watermark;
  readonly where: string | undefined;
  /** Of the rows with these keys alone. */
  readonly keys?: readonly PageKey[];
  readonly after: readonly string[] | null;
  readonly rows: number;
  readonly maxBytes: number;
  /** Between the low watermark and the rows: what they wait for. */
  readonly ready: () => Promise<void>;
}

/** A chunk as it was read, between its watermarks. */
export interface ReadChunk {
  readonly copied: CopiedRows;
  readonly shape: TableShape;
  /** Taken before the rows' own: what it sees, they hold. */
  readonly snapshot: Snapshot;
  /** Page key of the last row; null for none. */
  readonly lastKey: string[] | null;
  /** Rows may be left behind it. */
  readonly more: boolean;
  /** Rows of the table that were looked at, about: a filter may pass few of them, or none. */
  readonly looked: number;
  /** Of the rows alone. */
  readonly ms: number;
}

const LOCK_TIMEOUT_MS = 5_000;
const CANCEL_DEADLINE_MS = 5_000;

/** Given up together: the standby was looked at beside this session of the primary. */
interface Sessions {
  readonly primary: pg.Client;
  readonly standby: Standby | undefined;
  /** The session that reads rows. */
  readonly source: pg.Client;
}

/**
 * Reads the chunks of one table at a time, over sessions of its own. Not to be called twice at once. Its signal cuts what
 * is under way, at the server too.
 */
export class ChunkReader {
  readonly #options: ChunkReaderOptions;
  readonly #row = new Tuple();
  #primary: Promise<pg.Client> | undefined;
  #opened: Promise<Sessions> | undefined;
  #copying = false;

  constructor(options: ChunkReaderOptions) {
    this.#options = options;
    options.signal.addEventListener("abort", () => void this.#cut(), { once: true });
  }

  /** One statement on the server that rows are read from. */
  async query(sql: string): Promise<{ readonly rows: readonly unknown[] }> {
    return await (await this.#sessions()).source.query(sql);
  }

  /** One statement on the primary. */
  async primary(sql: string): Promise<{ readonly rows: readonly unknown[] }> {
    return await (await this.#primarySession()).query(sql);
  }

  /** Returns the end of the primary's log now. */
  async logEnd(): Promise<bigint> {
    const { rows } = await this.primary("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    return parseLsn((rows[0] as { lsn: string }).lsn);
  }

  /**
   * The table as it stands; `watermark`: a low one, for a standby to replay first, or it may not have heard of the table.
   * @throws BackfillRefusedError, also where `where` is no expression over it; the server's errors.
   */
  async shape(table: TableName, where: string | undefined, watermark: Watermark): Promise<TableShape> {
    const { publication, version, signal, waits } = this.#options;
    const { primary, standby, source: client } = await this.#sessions();
    if (standby) {
      const written = await primary.query(watermarkSql(LOW_WATERMARK, watermark, version));
      await standby.replayed(endOfWatermark(written), signal, waits);
    }
    const { rows } = await client.query(shapeSql(table, publication, version));
    const shape = readShape(table, publication, version, rows);
    if (where === undefined) return shape;
    await client.query("BEGIN READ ONLY");
    try {
      // The extended protocol takes one statement alone.
      const check = { text: whereCheckSql(shape, where), queryMode: "extended" } as pg.QueryConfig;
      await client.query(check);
    } catch (cause) {
      if (!(cause instanceof pg.DatabaseError)) throw cause;
      throw new BackfillRefusedError(
        formatTable(table),
        `the server refuses its filter (${cause.code}): ${cause.message}`,
        "Start it again with an SQL expression over the table's columns.",
        cause,
      );
    } finally {
      await client.query("ROLLBACK").catch(() => {});
    }
    return shape;
  }

  /**
   * Writes the low watermark and reads the rows. The table is locked (as by any SELECT) before the snapshot is taken:
   * nothing rewrites or alters it in between. READ COMMITTED does: the snapshot told is older than the rows' own, so what
   * it sees they hold, and rule 25 errs on the safe side.
   *
   * @throws BackfillRefusedError; the server's errors. After one, sessions are new.
   */
  async read(request: ChunkRequest): Promise<ReadChunk> {
    try {
      return await this.#read(request);
    } catch (error) {
      await this.#reset();
      throw error;
    }
  }

  /** Writes the high watermark: the chunk is ready to be given when it comes out of the slot. */
  async close(watermark: Watermark): Promise<void> {
    try {
      await this.primary(watermarkSql(HIGH_WATERMARK, watermark, this.#options.version));
    } catch (error) {
      await this.#reset();
      throw error;
    }
  }

  async end(): Promise<void> {
    await this.#giveUp(disconnect);
  }

  async #read(request: ChunkRequest): Promise<ReadChunk> {
    const { table, watermark, keys, after, rows, maxBytes, ready } = request;
    const { publication, version, signal, waits } = this.#options;
    const { primary, standby, source: client } = await this.#sessions();
    const written = await primary.query(watermarkSql(LOW_WATERMARK, watermark, version));
    // In the session that reads: behind the same name there may be several servers.
    await standby?.replayed(endOfWatermark(written), signal, waits);
    await ready();
    const results = (await client.query(
      `BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}; ${keys ? KEYS_SETTINGS : PAGE_SETTINGS}; SELECT FROM ${quoteTable(table)} LIMIT 0; ${shapeSql(table, publication, version)}`,
    )) as unknown as readonly pg.QueryResult[];
    const shape = readShape(table, publication, version, results.at(-1)?.rows ?? []);
    const where = keys ? keysWhere(shape, keys) : request.where;
    if (keys && where === undefined) throw otherKey(table);
    const { encoding } = this.#options;
    const raw = encoding === "utf-8" || encoding === "latin1" ? undefined : encoding;
    const began = performance.now();
    const page = { shape, after, rows, encoding: raw };
    // Rows of these keys are looked up, and not for long: their page needs no bound.
    const filtered = !keys && (where !== undefined || shape.filter !== undefined);
    const upTo = filtered ? await this.#bound(client, page) : undefined;
    const copied = await this.#copy(client, pageSql({ ...page, where, upTo }), maxBytes);
    const ms = performance.now() - began;
    if (!copied.cut) await client.query("COMMIT");
    if (standby) await standby.follows(copied.cut ? (await this.#sessions()).source : client);
    const lastKey =
      upTo !== undefined && !copied.cut
        ? upTo
        : this.#keyIn(shape, copied, shape.relation.columns.length, shape.pageIndexes);
    return {
      copied,
      shape,
      snapshot: Snapshot.parse(shape.snapshot),
      lastKey,
      more: copied.cut || (filtered ? upTo !== undefined : copied.rows >= rows),
      looked: filtered ? rows : copied.rows,
      ms,
    };
  }

  /** The key that a page ends with which looks at so many rows; undefined where the table ends before. */
  async #bound(
    client: pg.Client,
    page: Omit<Page, "shape" | "where"> & { readonly shape: TableShape },
  ): Promise<string[] | undefined> {
    const { shape } = page;
    const found = await this.#copy(client, boundSql(page), Number.POSITIVE_INFINITY);
    const indexes = shape.page.map((_, i) => i);
    return this.#keyIn(shape, found, shape.page.length, indexes) ?? undefined;
  }

  /** Texts of the page key in the last row; null for no row. */
  #keyIn(
    { relation }: TableShape,
    { last }: CopiedRows,
    columns: number,
    indexes: readonly number[],
  ): string[] | null {
    if (last === undefined) return null;
    const key = readTexts(last, columns, indexes, this.#row, nameForm(this.#options.encoding).decode);
    if (key !== undefined) return key;
    throw new BackfillRefusedError(
      formatTable(relation),
      "its key is not UTF-8: pages could not be cut by it",
      "Correct the row's text, or leave the table out.",
    );
  }

  /** After a cut at the bound, sessions are new. */
  async #copy(client: pg.Client, sql: string, maxBytes: number): Promise<CopiedRows> {
    this.#options.signal.throwIfAborted();
    const copy = new CopyOut(sql, maxBytes, () => {
      // There is no other way to stop it in time: the session is cut, and the next one is new.
      client.connection.stream.destroy();
    });
    client.query(copy);
    this.#copying = true;
    const copied = await copy.done.finally(() => {
      this.#copying = false;
    });
    if (copied.cut) await this.#reset();
    return copied;
  }

  /** Ends what is under way. A server that scans and finds no row would not notice that nobody waits for it. */
  async #cut(): Promise<void> {
    const { connection, standby } = this.#options;
    const { processID } = ((await this.#opened?.catch(() => undefined))?.source ?? {}) as {
      processID?: number;
    };
    if (this.#copying && processID !== undefined) {
      try {
        const signal = AbortSignal.timeout(CANCEL_DEADLINE_MS);
        await withConnection(standby ?? connection, { signal }, (other) =>
          other.query("SELECT pg_cancel_backend($1)", [processID]),
        );
      } catch {
        // It ends by itself then, at its first row.
      }
    }
    await this.#reset();
  }

  #primarySession(): Promise<pg.Client> {
    const { connection, signal } = this.#options;
    this.#primary ??= this.#kept(connect(connection, { signal }), (client) => client);
    return this.#primary;
  }

  #sessions(): Promise<Sessions> {
    this.#opened ??= this.#kept(this.#open(), ({ source }) => source);
    return this.#opened;
  }

  async #open(): Promise<Sessions> {
    const { standby: where, systemId, signal } = this.#options;
    const primary = await this.#primarySession();
    if (!where) return { primary, standby: undefined, source: primary };
    const { rows } = await primary.query(
      "SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int AS timeline",
    );
    const { timeline } = rows[0] as { timeline: number };
    const standby = await Standby.open(where, { systemId, timeline }, signal);
    return { primary, standby, source: standby.client };
  }

  /** Keeps a session; one that could not be opened, or has ended, is opened anew the next time. */
  #kept<T>(opened: Promise<T>, client: (opened: T) => pg.Client): Promise<T> {
    const forget = () => {
      if (this.#primary === opened || this.#opened === opened) void this.#reset();
    };
    opened.then((session) => client(session).once("end", forget), forget);
    return opened;
  }

  async #reset(): Promise<void> {
    await this.#giveUp(async ({ connection }) => void connection.stream.destroy());
  }

  async #giveUp(end: (client: pg.Client) => Promise<void>): Promise<void> {
    const [primary, opened] = [this.#primary, this.#opened];
    this.#primary = undefined;
    this.#opened = undefined;
    const clients = [await primary?.catch(() => undefined), (await opened?.catch(() => undefined))?.source];
    await Promise.all([...new Set(clients)].map((client) => client && end(client)));
  }
}

function otherKey(table: TableName): BackfillRefusedError {
  return new BackfillRefusedError(
    formatTable(table),
    "its key is another one than that of the rows to read",
    "Nothing to do: the whole table is read instead.",
  );
}

/** Returns the end of the watermark's record in the log. Several statements give several results. */
function endOfWatermark(result: unknown): bigint {
  const results = (Array.isArray(result) ? result : [result]) as readonly pg.QueryResult<{ lsn?: string }>[];
  const row = results.flatMap(({ rows }) => rows).find(({ lsn }) => lsn !== undefined);
  return parseLsn(row?.lsn ?? "0/0");
}
