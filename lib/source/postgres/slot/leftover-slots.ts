import * as z from "zod";
import type { Log } from "../../../log.ts";
import { withConnection } from "../link/connection.ts";
import type { PostgresConnectionOptions } from "../link/connection-options.ts";

/** A slot of our name on a server that we do not read from. */
export interface LeftoverSlot {
  /** `host:port`. */
  readonly server: string;
  /** Bytes of WAL that it holds back there. */
  readonly heldBytes: number;
}

const EVERY_MS = 60_000;
const WARN_EVERY_MS = 600_000;
const CONNECT_MS = 5_000;

/** A slot that the server keeps in step with the primary's (17) is no leftover. */
const LOOK = `SELECT coalesce(to_jsonb(s) ->> 'synced', 'false') = 'true' AS synced,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                    restart_lsn)::float8 AS held
  FROM pg_replication_slots s WHERE slot_name = $1`;

const row = z.object({ synced: z.boolean(), held: z.number().nullable() });

/**
 * After a failover the old primary may come back with our slot on it, which nobody reads any more: it holds WAL back there until
 * the disk is full (rule 44). Looks at the servers that are not read from, and says the statement that drops it there.
 */
export class LeftoverSlots {
  readonly #connection: PostgresConnectionOptions;
  readonly #slot: string;
  readonly #log: Log;
  readonly #signal: AbortSignal;
  #found: readonly LeftoverSlot[] = [];
  #lookedAt = Number.NEGATIVE_INFINITY;
  readonly #warned = new Map<string, number>();

  constructor(connection: PostgresConnectionOptions, slot: string, log: Log, signal: AbortSignal) {
    this.#connection = connection;
    this.#slot = slot;
    this.#log = log;
    this.#signal = signal;
  }

  get found(): readonly LeftoverSlot[] {
    return this.#found;
  }

  /** Looks, about once a minute. Never throws: a server that is away has nothing to say. */
  async look(atMs: number): Promise<void> {
    if (atMs - this.#lookedAt < EVERY_MS) return;
    this.#lookedAt = atMs;
    const others = this.#connection.hosts?.others ?? [];
    const found = await Promise.all(others.map((place) => this.#lookAt(place).catch(() => undefined)));
    this.#found = found.filter((slot) => slot !== undefined);
    for (const { server, heldBytes } of this.#found) {
      if (atMs - (this.#warned.get(server) ?? Number.NEGATIVE_INFINITY) < WARN_EVERY_MS) continue;
      this.#warned.set(server, atMs);
      this.#log.warn(
        `the server ${server}, which is not read from, still has the slot "${this.#slot}": it keeps ${Math.round(heldBytes / 1024 / 1024)} MB of WAL there, and more with time`,
        { server, heldBytes, remedy: `On ${server}: SELECT pg_drop_replication_slot('${this.#slot}');` },
      );
    }
  }

  async #lookAt(place: { host: string; port: number }): Promise<LeftoverSlot | undefined> {
    const options = { ...this.#connection, ...place, hosts: undefined, connectTimeoutMs: CONNECT_MS };
    return await withConnection(options, { signal: this.#signal }, async (client) => {
      const { rows } = await client.query(LOOK, [this.#slot]);
      if (rows.length === 0) return undefined;
      const { synced, held } = row.parse(rows[0]);
      return synced
        ? undefined
        : { server: `${place.host}:${place.port}`, heldBytes: Math.max(0, held ?? 0) };
    });
  }
}
