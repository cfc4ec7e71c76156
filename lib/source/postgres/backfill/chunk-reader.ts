import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { formatLsn, parseLsn } from "../../../change/lsn.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { connect, disconnect, type PostgresConnectionOptions } from "../connection.ts";
import { Tuple } from "../pgoutput/tuple.ts";
import { quoteTable } from "../preflight/captured-tables.ts";
import { identifySystem } from "../slot.ts";
import { type ChunkMark, chunkMarkSql, HIGH_MARK, LOW_MARK } from "./chunk-mark.ts";
import { readTexts } from "./copied-row.ts";
import { type CopiedRows, CopyOut } from "./copy-out.ts";
import { BackfillRefusedError, BackfillServerError } from "./errors.ts";
import { PAGE_SETTINGS, pageSql, whereCheckSql } from "./page-sql.ts";
import { Snapshot } from "./snapshot.ts";
import { readShape, shapeSql, type TableShape } from "./table-shape.ts";

/** Where chunks are read from, and marks written. */
export interface ChunkReaderOptions {
  readonly connection: PostgresConnectionOptions;
  /** A standby to read rows from; marks are written at the primary all the same. */
  readonly standby: PostgresConnectionOptions | undefined;
  readonly systemId: string;
  readonly publication: string;
  /** `server_version_num`. */
  readonly version: number;
  readonly signal: AbortSignal;
}

/** What to read. */
export interface ChunkRequest {
  readonly table: TableName;
  readonly mark: ChunkMark;
  readonly where: string | undefined;
  readonly after: readonly string[] | null;
  readonly rows: number;
  readonly maxBytes: number;
  /** Between the low mark and the rows: what they wait for. */
  readonly ready: () => Promise<void>;
}

/** A chunk as it was read, between its marks. */
export interface ReadChunk {
  readonly copied: CopiedRows;
  readonly shape: TableShape;
  /** Taken before the rows' own: what it sees, they hold. */
  readonly snapshot: Snapshot;
  /** Page key of the last row; null for none. */
  readonly lastKey: string[] | null;
  /** Rows may be left behind it. */
  readonly more: boolean;
  /** Of the rows alone. */
  readonly ms: number;
}

const LOCK_TIMEOUT_MS = 5_000;
const REPLAY_POLL_MS = 50;
const REPLAY_DEADLINE_MS = 30_000;

/** Reads the chunks of one table at a time, over sessions of its own. Not to be called twice at once. */
export class ChunkReader {
  readonly #options: ChunkReaderOptions;
  readonly #row = new Tuple();
  #primary: Promise<pg.Client> | undefined;
  #standby: Promise<pg.Client> | undefined;

  constructor(options: ChunkReaderOptions) {
    this.#options = options;
  }

  /** One statement on the server that rows are read from. */
  async query(sql: string): Promise<{ readonly rows: readonly unknown[] }> {
    return await (await this.#source()).query(sql);
  }

  /** One statement on the primary. */
  async primary(sql: string): Promise<{ readonly rows: readonly unknown[] }> {
    return await (await this.#marker()).query(sql);
  }

  /** Where the primary's log ends now. */
  async logEnd(): Promise<bigint> {
    const { rows } = await this.primary("SELECT pg_current_wal_insert_lsn()::text AS lsn");
    return parseLsn((rows[0] as { lsn: string }).lsn);
  }

  /** The table as it stands. @throws BackfillRefusedError, also where `where` is no expression over it. */
  async shape(table: TableName, where: string | undefined): Promise<TableShape> {
    const { publication, version } = this.#options;
    const { rows } = await this.query(shapeSql(table, publication, version));
    const shape = readShape(table, publication, version, rows);
    if (where === undefined) return shape;
    const client = await this.#source();
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
   * Writes the low mark and reads the rows. The table is locked (as by any SELECT) before the snapshot is taken: nothing
   * rewrites or alters it in between. READ COMMITTED does: the snapshot told is older than the rows' own, so what it
   * sees they hold, and rule 25 errs on the safe side.
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

  /** Writes the high mark: the chunk is ready to be given when it comes out of the slot. */
  async close(mark: ChunkMark): Promise<void> {
    try {
      await this.primary(chunkMarkSql(HIGH_MARK, mark, this.#options.version));
    } catch (error) {
      await this.#reset();
      throw error;
    }
  }

  async end(): Promise<void> {
    for (const session of [this.#primary, this.#standby]) {
      const client = await session?.catch(() => undefined);
      if (client) await disconnect(client);
    }
  }

  async #read({ table, mark, where, after, rows, maxBytes, ready }: ChunkRequest): Promise<ReadChunk> {
    const { publication, version } = this.#options;
    const marked = await this.primary(chunkMarkSql(LOW_MARK, mark, version));
    if (this.#options.standby) await this.#replayed(endOfMark(marked));
    await ready();
    const client = await this.#source();
    const results = (await client.query(
      `BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}; ${PAGE_SETTINGS}; SELECT FROM ${quoteTable(table)} LIMIT 0; ${shapeSql(table, publication, version)}`,
    )) as unknown as readonly pg.QueryResult[];
    const shape = readShape(table, publication, version, results.at(-1)?.rows ?? []);
    const sql = pageSql({ shape, where, after, rows });
    const began = performance.now();
    const copy = new CopyOut(sql, maxBytes, () => {
      // There is no other way to stop it in time: the session is cut, and the next one is new.
      client.connection.stream.destroy();
    });
    client.query(copy);
    const copied = await copy.done;
    if (copied.cut) await this.#reset();
    else await client.query("COMMIT");
    const lastKey =
      copied.last === undefined
        ? null
        : readTexts(copied.last, shape.relation.columns.length, shape.pageIndexes, this.#row);
    if (lastKey === undefined) {
      throw new BackfillRefusedError(
        formatTable(table),
        "its key is not UTF-8: pages could not be cut by it",
        "Correct the row's text, or leave the table out.",
      );
    }
    return {
      copied,
      shape,
      snapshot: Snapshot.parse(shape.snapshot),
      lastKey,
      more: copied.cut || copied.rows >= rows,
      ms: performance.now() - began,
    };
  }

  /** @throws BackfillServerError where it does not follow the primary, or does not say how far. */
  async #replayed(lsn: bigint): Promise<void> {
    const deadline = performance.now() + REPLAY_DEADLINE_MS;
    for (;;) {
      const { rows } = await this.query(
        `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() >= '${formatLsn(lsn)}' END AS here`,
      );
      const { here } = rows[0] as { here: boolean | null };
      if (here) return;
      if (here === null) {
        throw new BackfillServerError({
          message:
            "the server to read rows from is no standby, or was promoted, or does not say how far it has replayed: its rows may be older than the log, or others",
          remedy:
            "Name a physical standby in TRIBUTARY_BACKFILL_DATABASE_URL, or leave it out; then start the backfill again.",
        });
      }
      if (performance.now() >= deadline)
        throw new Error(`the standby has not replayed ${formatLsn(lsn)} in ${REPLAY_DEADLINE_MS / 1000} s`);
      await delay(REPLAY_POLL_MS, undefined, { signal: this.#options.signal });
    }
  }

  #marker(): Promise<pg.Client> {
    const { connection, signal } = this.#options;
    this.#primary ??= this.#opened(connect(connection, { signal }), () => {
      this.#primary = undefined;
    });
    return this.#primary;
  }

  #source(): Promise<pg.Client> {
    const { standby } = this.#options;
    if (!standby) return this.#marker();
    this.#standby ??= this.#opened(this.#openStandby(standby), () => {
      this.#standby = undefined;
    });
    return this.#standby;
  }

  /** @throws BackfillServerError where it is not a copy of the primary. */
  async #openStandby(standby: PostgresConnectionOptions): Promise<pg.Client> {
    const { signal, systemId } = this.#options;
    const replication = await connect(standby, { replication: true, signal });
    try {
      const system = await identifySystem(replication);
      if (system.systemId !== systemId) {
        throw new BackfillServerError({
          message: `the server to read rows from is another cluster (system id ${system.systemId}) than the one whose log is read (${systemId})`,
          remedy: "Correct TRIBUTARY_BACKFILL_DATABASE_URL: it must name a standby of the captured server.",
        });
      }
    } finally {
      await disconnect(replication);
    }
    return await connect(standby, { signal });
  }

  #opened(session: Promise<pg.Client>, forget: () => void): Promise<pg.Client> {
    session.then((client) => client.once("end", forget), forget);
    return session;
  }

  async #reset(): Promise<void> {
    const sessions = [this.#primary, this.#standby];
    this.#primary = undefined;
    this.#standby = undefined;
    for (const session of sessions) {
      const client = await session?.catch(() => undefined);
      client?.connection.stream.destroy();
    }
  }
}

/** Where the mark's record ends in the log. Several statements give several results. */
function endOfMark(result: unknown): bigint {
  const results = (Array.isArray(result) ? result : [result]) as readonly pg.QueryResult<{ lsn?: string }>[];
  const row = results.flatMap(({ rows }) => rows).find(({ lsn }) => lsn !== undefined);
  return parseLsn(row?.lsn ?? "0/0");
}
