import pg from "pg";
import type { Effect, InvocationTimes } from "./check.ts";

/**
 * The checker's handlers leave their effects here: a PostgreSQL database of its own, so that a fault of the source is none of
 * the sinks, and what was committed survives the kill of a handler.
 */
const SINK_SCHEMA = `
  CREATE TABLE invocations (id text PRIMARY KEY, consumer text NOT NULL, pid int NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(), ended timestamptz);
  CREATE TABLE effects (
    seq bigserial PRIMARY KEY, consumer text NOT NULL, topic text NOT NULL, partition int NOT NULL,
    position text COLLATE "C" NOT NULL, invocation text NOT NULL, visible boolean NOT NULL
  );
  CREATE INDEX ON effects (consumer, position);
  CREATE TABLE held (
    tbl text, key text, partition int NOT NULL, position text COLLATE "C" NOT NULL, data jsonb, PRIMARY KEY (tbl, key)
  );
  CREATE TABLE truncated (tbl text, partition int, position text COLLATE "C", PRIMARY KEY (tbl, partition, position));
`;

/** Variables that the handlers read. */
export const SINK_URL_VARIABLE = "CHECKER_SINK_URL";
/** Names the file that says what goes wrong in handlers. */
export const MISCHIEF_VARIABLE = "CHECKER_MISCHIEF_FILE";
/** Names the file that, where it exists, mends a handler that fails. */
export const MENDED_VARIABLE = "CHECKER_MENDED_FILE";

/** Reads what the handlers left. */
export class SinkStore {
  readonly url: string;
  readonly #pool: pg.Pool;

  constructor(url: string) {
    this.url = url;
    this.#pool = new pg.Pool({ connectionString: url, max: 2 });
    this.#pool.on("error", () => {});
  }

  /** Makes the tables. */
  async create(): Promise<void> {
    await this.#pool.query(SINK_SCHEMA);
  }

  /** Effects of a consumer so far, in their order. */
  async effects(consumer: string): Promise<Effect[]> {
    const { rows } = await this.#pool.query<Effect>(
      "SELECT topic, partition, position, invocation, visible FROM effects WHERE consumer = $1 ORDER BY seq",
      [consumer],
    );
    return rows;
  }

  /** Counts the different changes from a position on that a consumer has seen so far. */
  async seen(consumer: string, from: string): Promise<number> {
    const { rows } = await this.#pool.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM
         (SELECT DISTINCT topic, partition, position FROM effects
          WHERE consumer = $1 AND position >= $2) AS distinct_effects`,
      [consumer, from],
    );
    return rows[0]?.count ?? 0;
  }

  /** All invocations so far, and when those that succeeded in everything ended. */
  async invocations(): Promise<ReadonlyMap<string, InvocationTimes>> {
    const { rows } = await this.#pool.query<{ id: string; started: Date; ended: Date | null }>(
      "SELECT id, started, ended FROM invocations",
    );
    return new Map(
      rows.map(({ id, started, ended }) => [id, { startedAt: started.getTime(), endedAt: ended?.getTime() }]),
    );
  }

  /** The rows that the consumer which compares positions holds, as JSON text by table and key. */
  async rows(): Promise<ReadonlyMap<string, string>> {
    const { rows } = await this.#pool.query<{ tbl: string; key: string; data: string }>(
      "SELECT tbl, key, data::text AS data FROM held WHERE data IS NOT NULL",
    );
    return new Map(rows.map(({ tbl, key, data }) => [`${tbl} ${key}`, data]));
  }

  async end(): Promise<void> {
    await this.#pool.end();
  }
}
