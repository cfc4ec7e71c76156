import type { Log } from "../../../log.ts";

/** Prefix of the logical message that carries an idle slot along. */
export const HEARTBEAT = "tributary.heartbeat";

/** A view of the slot when it may be time for a heartbeat. */
export interface IdleView {
  readonly atMs: number;
  /** End of the server's WAL. */
  readonly serverLsn: bigint;
  /** End of what came last: a commit, or a keepalive between transactions. */
  readonly receivedLsn: bigint;
  /** Everything that came was acknowledged, and we wait for more. */
  readonly waiting: boolean;
}

/** Less than this behind is no trouble: a segment of WAL is 16 MB. */
const BEHIND_BYTES = 1024n * 1024n;
const INTERVAL_MS = 30_000;
/** The only failure that the next heartbeat would meet as well; a lost session, a failover, a lock pass. */
const INSUFFICIENT_PRIVILEGE = "42501";

/**
 * Carries the slot along where keepalives do not. They do so wherever they were tried (see docs, PostgreSQL, "Idle
 * databases"); should the server or what stands between not send them, a message of our own in the log does: it arrives
 * in its place behind all commits before it.
 */
export class Heartbeat {
  readonly #emit: () => Promise<unknown>;
  readonly #log: Log;
  #before: IdleView | undefined;
  #lastBeat = Number.NEGATIVE_INFINITY;
  #refused = false;

  /** `emit` writes the message. */
  constructor(emit: () => Promise<unknown>, log: Log) {
    this.#emit = emit;
    this.#log = log;
  }

  /** Looks at two views in a row: idle at both, behind at both, nothing came in between, and the log grew. */
  async look(view: IdleView): Promise<void> {
    const before = this.#before;
    this.#before = view;
    if (this.#refused || view.atMs - this.#lastBeat < INTERVAL_MS) return;
    if (!before?.waiting || !view.waiting || view.receivedLsn !== before.receivedLsn) return;
    if (before.serverLsn - before.receivedLsn < BEHIND_BYTES || view.serverLsn <= before.serverLsn) return;
    this.#lastBeat = view.atMs;
    try {
      await this.#emit();
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (code !== INSUFFICIENT_PRIVILEGE) {
        this.#log.info(`a heartbeat could not be written, the next one is tried: ${message}`);
        return;
      }
      this.#refused = true;
      this.#log.warn("the role may not write a heartbeat: an idle slot follows the log by keepalives alone", {
        code,
        remedy: "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) TO the role.",
      });
    }
  }
}

/** The statement that writes one. Flushed at once from 17; before, the server's WAL writer does it within a second. */
export function heartbeatSql(version: number): string {
  return `SELECT pg_logical_emit_message(false, '${HEARTBEAT}', ''${version >= 170_000 ? ", true" : ""})`;
}
