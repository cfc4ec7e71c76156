import { parseLsn } from "../../../change/lsn.ts";
import type { Log } from "../../../log.ts";
import { withConnection } from "../link/connection.ts";
import type { PostgresConnectionOptions } from "../link/connection-options.ts";
import { readSlot } from "./slot.ts";
import { type SlotHealth, SlotWatch } from "./slot-watch.ts";

/** A slot that nobody reads, as its metrics tell it. */
export interface SlotAtRest extends SlotHealth {
  readonly confirmedLsn: bigint;
  /** End of the server's WAL. */
  readonly serverLsn: bigint;
}

/**
 * Looks at a slot whose reader is paused, and touches nothing: the server keeps WAL for it, and gives it up when that is too much. The
 * forecast needs its looks in a row.
 */
export class RestingSlot {
  readonly #connection: PostgresConnectionOptions;
  readonly #watch: SlotWatch;

  constructor(connection: PostgresConnectionOptions, log: Log) {
    this.#connection = connection;
    this.#watch = new SlotWatch(log);
  }

  /** Undefined: there is no such slot (yet). @throws the errors of `connect` and of the server */
  async look(name: string, signal: AbortSignal): Promise<SlotAtRest | undefined> {
    return await withConnection(this.#connection, { signal }, async (client) => {
      const slot = await readSlot((sql) => client.query(sql), name);
      if (!slot) return undefined;
      const { rows } = await client.query<{ lsn: string }>(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn",
      );
      const serverLsn = parseLsn(rows[0]?.lsn ?? "0/0");
      this.#watch.take({ atMs: performance.now(), slot, serverLsn, oldestTransaction: undefined });
      return { ...this.#watch.health, confirmedLsn: slot.confirmedLsn, serverLsn };
    });
  }
}
