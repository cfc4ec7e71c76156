import pg from "pg";
import { TributaryError } from "../../change/tributary-error.ts";
import { type OutboxTableName, outboxTableName } from "../../definition/outbox-table.ts";
import { relayTables } from "../../publish/relay-sql.ts";
import { connect, disconnect } from "../postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../postgres/link/connection-options.ts";
import { Beats } from "./beats.ts";
import { OutboxDatabaseError, OutboxRelayError } from "./outbox-errors.ts";

/** A batch of a lane: which rows, stored before the first of them is published (rules 27 and 28). */
export interface Batch {
  /** Grows with each batch of the lane, over all its owners. */
  readonly number: bigint;
  /** Numbers of its rows, in the order in which they are published. */
  readonly seqs: readonly string[];
}

/** A lane as it stands in the database. */
export interface StoredLane {
  readonly lane: number;
  readonly owner: string | null;
  readonly generation: number;
  /** True if its owner is alive. */
  readonly alive: boolean;
  /** True if a batch of it is open: published, perhaps, and not yet acknowledged. */
  readonly open: boolean;
}

/** A row of the outbox, as text. */
export interface OutboxRow {
  readonly seq: string;
  readonly lane: number;
  readonly id: string;
  readonly aggregate_type: string | null;
  readonly aggregate_id: string | null;
  readonly type: string | null;
  readonly payload: string | null;
  readonly headers: string | null;
  /** As the log's values have it: with ` BC`, or an infinity. */
  readonly created_at: string | null;
  /** Null where it is infinite. */
  readonly created_ms: string | null;
  readonly xid: string;
}

/** The latest time of JavaScript, milliseconds from 1970; PostgreSQL's go further. */
const MOST_MS = 8_640_000_000_000_000n;
/** Of a batch payloads and headers are cut here; a single larger one is a batch of its own. */
const BATCH_BYTES = 4 * 1024 * 1024;
const STATEMENT_TIMEOUT_MS = 30_000;
/** A relay that has been silent for this many leases is not coming back. */
const FORGOTTEN_LEASES = 10;
/** Deleted at once of what was kept long enough. */
export const CLEAN_ROWS = 5000;

/**
 * The statements of a relay: each call is one statement, and so whole or nothing. Every write to a lane is
 * conditional on owner and generation, so that a relay which lost it can neither assign rows nor remove them.
 */
export class RelayDatabase {
  readonly #connection: PostgresConnectionOptions;
  readonly #tables: ReturnType<typeof relayTables>;
  readonly #signal: AbortSignal;
  /** Names this relay. */
  readonly id: string;
  readonly #beats = new Beats();
  #client: pg.Client | undefined;

  constructor(options: {
    readonly connection: PostgresConnectionOptions;
    readonly table: string | OutboxTableName;
    readonly id: string;
    readonly signal: AbortSignal;
  }) {
    const { table } = options;
    this.#connection = options.connection;
    this.#tables = relayTables(typeof table === "string" ? outboxTableName(table) : table);
    this.#signal = options.signal;
    this.id = options.id;
  }

  /** Says that this relay is alive, and forgets those that have not said so for long; gives the number of the living. */
  async beat(leaseMs: number): Promise<number> {
    const { relays } = this.#tables;
    await this.#query(
      `INSERT INTO ${relays} AS r (id, seen_at) VALUES ($1, clock_timestamp())
       ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()`,
      [this.id],
    );
    const alive = await this.#living(leaseMs);
    const silent = this.#beats.silent(FORGOTTEN_LEASES * leaseMs);
    if (silent.length > 0)
      await this.#query(
        `DELETE FROM ${relays} r USING unnest($1::uuid[], $2::text[]) AS silent (id, beat)
         WHERE r.id = silent.id AND r.seen_at::text = silent.beat`,
        [silent.map(({ id }) => id), silent.map(({ beat }) => beat)],
      );
    return alive.size;
  }

  /** All lanes. */
  async survey(leaseMs: number): Promise<readonly StoredLane[]> {
    const alive = await this.#living(leaseMs);
    const rows = await this.#query<Omit<StoredLane, "generation" | "alive"> & { generation: string }>(
      `SELECT lane, owner::text, generation::text, seqs IS NOT NULL AS open FROM ${this.#tables.lanes} ORDER BY lane`,
    );
    return rows.map((row) => ({
      ...row,
      generation: Number(row.generation),
      alive: row.owner !== null && alive.has(row.owner),
    }));
  }

  /** Takes up to `most` lanes whose owner is dead or that have none. */
  async take(generation: number, most: number, leaseMs: number): Promise<readonly number[]> {
    const stored = await this.survey(leaseMs);
    const dead = stored.flatMap(({ owner, alive }) => (owner === null || alive ? [] : [owner]));
    const { lanes } = this.#tables;
    const rows = await this.#query<{ lane: number }>(
      `UPDATE ${lanes} SET owner = $1, generation = $2 WHERE lane IN (
         SELECT lane FROM ${lanes} WHERE (owner IS NULL OR owner = ANY ($4::uuid[])) AND generation < $2
         ORDER BY lane LIMIT $3 FOR UPDATE SKIP LOCKED)
       RETURNING lane`,
      [this.id, generation, most, dead],
    );
    return rows.map(({ lane }) => lane);
  }

  /** Returns the relays that are alive: their beats have moved within the last lease. */
  async #living(leaseMs: number): Promise<ReadonlySet<string>> {
    const rows = await this.#query<{ id: string; beat: string }>(
      `SELECT id::text, seen_at::text AS beat FROM ${this.#tables.relays}`,
    );
    this.#beats.see(new Map(rows.map(({ id, beat }) => [id, beat])));
    return this.#beats.living(leaseMs);
  }

  /** Gives lanes back that have no open batch; all of them without `lanes`. */
  async release(given: readonly number[]): Promise<void> {
    await this.#query(
      `UPDATE ${this.#tables.lanes} SET owner = NULL WHERE owner = $1 AND lane = ANY($2::smallint[]) AND seqs IS NULL`,
      [this.id, given],
    );
  }

  /** Takes every lane from whoever has it, so that it begins a new generation. */
  async disown(): Promise<void> {
    await this.#query(`UPDATE ${this.#tables.lanes} SET owner = NULL WHERE owner IS NOT NULL`);
  }

  /** Leaves: its lanes are free at once. */
  async leave(): Promise<void> {
    const { lanes, relays } = this.#tables;
    await this.#query(`UPDATE ${lanes} SET owner = NULL WHERE owner = $1`, [this.id]);
    await this.#query(`DELETE FROM ${relays} WHERE id = $1`, [this.id]);
  }

  /**
   * Stores the next batch of each lane: of what this statement's snapshot shows and was not published, the first rows
   * by number. A transaction that commits later is in a later snapshot, whatever its numbers.
   */
  async assign(lanes: readonly number[], rows: number): Promise<ReadonlyMap<number, Batch>> {
    const { outbox, lanes: table } = this.#tables;
    const stored = await this.#query<{ lane: number; batch: string; seqs: string[] }>(
      `UPDATE ${table} l SET batch = GREATEST(l.batch, l.generation << 32) + 1, seqs = fresh.seqs
       FROM (SELECT ready.lane, array_agg(picked.seq ORDER BY picked.seq) AS seqs
             FROM unnest($2::smallint[]) AS ready (lane)
             CROSS JOIN LATERAL (
               SELECT seq, sum(bytes) OVER (ORDER BY seq) - bytes AS before
               FROM (SELECT o.seq, octet_length(o.payload::text)::bigint + coalesce(octet_length(o.headers::text), 0) AS bytes FROM ${outbox} o
                     WHERE o.lane = ready.lane AND o.published_at IS NULL ORDER BY o.seq LIMIT $3) first) picked
             WHERE picked.before < $4
             GROUP BY ready.lane) fresh
       WHERE l.lane = fresh.lane AND l.owner = $1 AND l.seqs IS NULL
       RETURNING l.lane, l.batch::text, l.seqs::text[]`,
      [this.id, lanes, rows, BATCH_BYTES],
    );
    return batches(stored);
  }

  /** The open batches of lanes of ours. */
  async openBatches(lanes: readonly number[]): Promise<ReadonlyMap<number, Batch>> {
    const stored = await this.#query<{ lane: number; batch: string; seqs: string[] }>(
      `SELECT lane, batch::text, seqs::text[] FROM ${this.#tables.lanes}
       WHERE owner = $1 AND lane = ANY($2::smallint[]) AND seqs IS NOT NULL`,
      [this.id, lanes],
    );
    return batches(stored);
  }

  /** Rows by their numbers, in that order. */
  async rows(seqs: readonly string[]): Promise<readonly OutboxRow[]> {
    return this.#query<OutboxRow>(
      `SELECT seq::text, lane, id::text, aggregate_type, aggregate_id, type, payload::text, headers::text,
         CASE WHEN isfinite(created_at)
           THEN to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
             || CASE WHEN extract(year FROM created_at AT TIME ZONE 'UTC') < 0 THEN ' BC' ELSE '' END
           ELSE created_at::text END AS created_at,
         CASE WHEN isfinite(created_at)
           THEN least(greatest(extract(epoch FROM created_at) * 1000, -${MOST_MS}), ${MOST_MS})::bigint::text END AS created_ms,
         xmin::text AS xid
       FROM ${this.#tables.outbox} WHERE seq = ANY($1::bigint[]) ORDER BY ${this.#tables.outbox}.seq`,
      [seqs],
    );
  }

  /** The batch was acknowledged: its rows go, or are marked. False where the lane is not ours any more. */
  async close(lane: number, generation: number, { number, seqs }: Batch, keep: boolean): Promise<boolean> {
    const { outbox, lanes } = this.#tables;
    const done = keep ? `UPDATE ${outbox} SET published_at = clock_timestamp()` : `DELETE FROM ${outbox}`;
    const [row] = await this.#query<{ closed: boolean }>(
      `WITH ours AS (UPDATE ${lanes} SET seqs = NULL
                     WHERE lane = $1 AND owner = $2 AND generation = $3 AND batch = $4 AND seqs IS NOT NULL RETURNING lane),
            done AS (${done} WHERE seq = ANY($5::bigint[]) AND EXISTS (SELECT FROM ours))
       SELECT EXISTS (SELECT FROM ours) AS closed`,
      [lane, this.id, generation, String(number), seqs],
    );
    return row?.closed === true;
  }

  /** Deletes some of the rows that were published longer ago; gives how many. Other relays delete others meanwhile. */
  async clean(keepHours: number): Promise<number> {
    const { outbox } = this.#tables;
    const [row] = await this.#query<{ removed: number }>(
      `WITH old AS (SELECT seq FROM ${outbox} WHERE published_at < clock_timestamp() - $1 * interval '1 hour'
                    ORDER BY published_at LIMIT ${CLEAN_ROWS} FOR UPDATE SKIP LOCKED),
            removed AS (DELETE FROM ${outbox} o USING old WHERE o.seq = old.seq RETURNING o.seq)
       SELECT count(*)::int AS removed FROM removed`,
      [keepHours],
    );
    return row?.removed ?? 0;
  }

  /** Ends the session; the next call opens another. */
  async disconnect(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client) await disconnect(client);
  }

  async #query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    try {
      this.#client ??= await this.#connect();
      return (await this.#client.query<Row>(sql, values)).rows;
    } catch (error) {
      if (!mayPass(error)) throw error instanceof pg.DatabaseError ? new OutboxRelayError(error) : error;
      // What of it took effect is not known: the next survey tells.
      await this.disconnect();
      throw new OutboxDatabaseError(error as Error);
    }
  }

  async #connect(): Promise<pg.Client> {
    const client = await connect(this.#connection, { signal: this.#signal });
    try {
      await client.query(`SET statement_timeout = ${STATEMENT_TIMEOUT_MS}`);
      return client;
    } catch (error) {
      await disconnect(client);
      throw error;
    }
  }
}

function batches(
  rows: readonly { readonly lane: number; readonly batch: string; readonly seqs: readonly string[] }[],
): ReadonlyMap<number, Batch> {
  return new Map(rows.map(({ lane, batch, seqs }) => [lane, { number: BigInt(batch), seqs }]));
}

/**
 * Returns true if an error of a statement passes with another session: a lost link, a server that stops, locks and time.
 * https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
function mayPass(error: unknown): boolean {
  if (error instanceof TributaryError) return error.retry === "retry";
  if (!(error instanceof pg.DatabaseError)) return true;
  return /^(08|40|53|55|57|58)/.test(error.code ?? "");
}
