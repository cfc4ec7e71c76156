import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import * as z from "zod";
import { formatLsn, parseLsn } from "../../../change/lsn.ts";
import { connect, disconnect } from "../link/connection.ts";
import type { PostgresConnectionOptions, SessionOptions } from "../link/connection-options.ts";
import { identifySystem, type SystemFacts } from "../slot/slot.ts";
import { BackfillServerError, StandbyNotReadyError } from "./backfill-errors.ts";

const FIRST_POLL_MS = 2;
const MAX_POLL_MS = 100;
/** A replay that does not move for so long is behind; as long as it moves, it is waited for. */
const STANDS_STILL_MS = 30_000;

/** The primary that a standby must be a copy of. */
export interface StandbyOf {
  readonly systemId: string;
  /** Of the primary's history: a standby of another one, earlier or forked off, has other rows at the same place of the log. */
  readonly timeline: number;
}

const replayRow = z.object({ lsn: z.string().transform(parseLsn).nullable() });
const serverRow = z.object({ recovers: z.boolean(), started: z.string() });

/**
 * A session on a physical standby. What a transaction wrote becomes visible there when its commit is replayed, and the
 * replay's place moves on only then: behind `replayed(lsn)` every commit before `lsn` is seen. (`pg_current_snapshot()`
 * does not tell of running transactions there: its list is empty during recovery.)
 */
export class Standby {
  readonly client: pg.Client;
  /** Start time of its server: tells one server from another behind the same name. */
  readonly #started: string;

  private constructor(client: pg.Client, started: string) {
    this.client = client;
    this.#started = started;
  }

  /**
   * @throws BackfillServerError where it is no standby of the primary; StandbyNotReadyError where it lets nobody in (a role,
   * a password, a database may come with the log), or is not on the primary's timeline.
   */
  static async open(
    connection: PostgresConnectionOptions,
    { systemId, timeline }: StandbyOf,
    signal: AbortSignal,
  ): Promise<Standby> {
    const enter = (session: SessionOptions) =>
      connect(connection, session).catch((error: Error) => {
        signal.throwIfAborted();
        throw new StandbyNotReadyError(error.message, error);
      });
    const replication = await enter({ replication: true, signal });
    let system: SystemFacts;
    try {
      system = await identifySystem(replication);
      if (system.systemId !== systemId) {
        throw new BackfillServerError({
          message: `the server to read rows from is another cluster (system id ${system.systemId}) than the one whose log is read (${systemId})`,
          remedy: "Correct TRIBUTARY_BACKFILL_DATABASE_URL: it must name a standby of the captured server.",
        });
      }
    } finally {
      await disconnect(replication);
    }
    const client = await enter({ signal });
    try {
      const { recovers, started } = await server(client);
      if (!recovers) throw notFollowing();
      if (system.timeline !== timeline)
        throw new StandbyNotReadyError(`it is on timeline ${system.timeline}, the primary on ${timeline}`);
      return new Standby(client, started);
    } catch (error) {
      await disconnect(client);
      throw error;
    }
  }

  /**
   * Waits until the log is replayed up to there; `waits` is told for what.
   * @throws BackfillServerError where it does not follow the primary, or does not say how far; StandbyNotReadyError where
   * its replay stands still.
   */
  async replayed(lsn: bigint, signal: AbortSignal, waits: (reason: string) => void): Promise<void> {
    let at = -1n;
    let movedAt = performance.now();
    for (let pollMs = FIRST_POLL_MS; ; pollMs = Math.min(2 * pollMs, MAX_POLL_MS)) {
      const { rows } = await this.client.query(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END AS lsn",
      );
      const now = replayRow.parse(rows[0]).lsn;
      if (now === null) throw notFollowing();
      if (now >= lsn) return;
      if (now !== at) {
        at = now;
        movedAt = performance.now();
      } else if (performance.now() - movedAt >= STANDS_STILL_MS) {
        throw new StandbyNotReadyError(
          `its replay stands at ${formatLsn(now)}, and ${formatLsn(lsn)} is waited for`,
        );
      }
      waits(`the standby has replayed the log up to ${formatLsn(now)}, not yet up to ${formatLsn(lsn)}`);
      await delay(pollMs, undefined, { signal });
    }
  }

  /**
   * Rows that were read are of the primary's history if the server is still in recovery. `client`: a later session, where
   * the one that read them was cut; it must be on the same server.
   * @throws BackfillServerError where it was promoted; StandbyNotReadyError where another server answers by now
   */
  async follows(client: pg.Client): Promise<void> {
    const { recovers, started } = await server(client);
    if (!recovers) throw notFollowing();
    if (started !== this.#started)
      throw new StandbyNotReadyError("another server answers at its address, or it was started anew");
  }
}

async function server(client: pg.Client): Promise<z.output<typeof serverRow>> {
  const { rows } = await client.query(
    "SELECT pg_is_in_recovery() AS recovers, pg_postmaster_start_time()::text AS started",
  );
  return serverRow.parse(rows[0]);
}

function notFollowing(): BackfillServerError {
  return new BackfillServerError({
    message:
      "the server to read rows from is no standby, or was promoted, or does not say how far it has replayed: its rows may be older than the log, or others",
    remedy:
      "Name a physical standby in TRIBUTARY_BACKFILL_DATABASE_URL, or leave it out; then start the backfill again.",
  });
}
