import type { Log } from "../../../log.ts";
import { FORECAST_WINDOW_MS, type WalSample, walLossSeconds } from "../../../telemetry/wal-forecast.ts";
import type { OldestTransaction } from "../catalog/oldest-transaction.ts";
import type { SlotFacts } from "./slot.ts";

/** One look at the slot. */
export interface SlotSighting {
  readonly atMs: number;
  readonly slot: SlotFacts;
  /** End of the server's WAL. */
  readonly serverLsn: bigint;
  readonly oldestTransaction: OldestTransaction | undefined;
}

/** Health of the replication slot, as reported in metrics. */
export interface SlotHealth {
  /** `reserved`, `extended`, `unreserved`, `lost`. */
  readonly walStatus: string | undefined;
  /** Bytes of WAL until the slot is in danger; undefined without a bound. */
  readonly safeWalBytes: number | undefined;
  /** `max_slot_wal_keep_size` in bytes; -1: without a bound. */
  readonly maxSlotWalKeepBytes?: number | undefined;
  /** Bytes of WAL that the slot holds back. */
  readonly walHeldBytes: number | undefined;
  /** Seconds until the server gives the slot up, if it goes on like this; undefined where nothing threatens. */
  readonly walLossSeconds: number | undefined;
  /** Age of the oldest transaction that runs: until it ends, WAL since its begin is held back. */
  readonly oldestTransactionSeconds: number | undefined;
  readonly oldestTransactionPid: number | undefined;
}

/** Limits at which the log warns. */
const WARNINGS = {
  lossSeconds: 3600,
  transactionSeconds: 600,
  /** A transaction is no trouble while no more than this is held back. */
  heldBytes: 64 * 1024 * 1024,
  /** The same warning comes again after this. */
  againMs: 600_000,
};

/** Keeps what was seen of a slot, and warns long before it is lost. */
export class SlotWatch {
  readonly #log: Log;
  readonly #warned = new Map<string, number>();
  #samples: WalSample[] = [];
  #slot: SlotFacts | undefined;
  /** `since`: when it was first seen, which all roles may know. */
  #oldest:
    | { readonly transaction: OldestTransaction; readonly since: number; readonly seconds: number }
    | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  take({ atMs, slot, serverLsn, oldestTransaction: transaction }: SlotSighting): void {
    this.#slot = slot;
    const heldBytes = Math.max(0, Number(serverLsn - slot.restartLsn));
    this.#samples = [
      ...this.#samples.filter((sample) => atMs - sample.atMs <= FORECAST_WINDOW_MS),
      { atMs, heldBytes, safeBytes: slot.safeWalSize },
    ];
    const since = transaction?.xid === this.#oldest?.transaction.xid ? (this.#oldest?.since ?? atMs) : atMs;
    this.#oldest = transaction && {
      transaction,
      since,
      seconds: transaction.seconds ?? (atMs - since) / 1000,
    };
    this.#warnOfLoss(atMs, slot);
    this.#warnOfTransaction(atMs, heldBytes);
  }

  get health(): SlotHealth {
    return {
      walStatus: this.#slot?.walStatus,
      safeWalBytes: this.#slot?.safeWalSize,
      maxSlotWalKeepBytes: this.#slot?.maxWalKeepBytes,
      walHeldBytes: this.#samples.at(-1)?.heldBytes,
      walLossSeconds: walLossSeconds(this.#samples),
      oldestTransactionSeconds: this.#oldest?.seconds,
      oldestTransactionPid: this.#oldest?.transaction.pid,
    };
  }

  #warnOfLoss(atMs: number, slot: SlotFacts): void {
    const seconds = walLossSeconds(this.#samples);
    if (seconds === undefined || seconds >= WARNINGS.lossSeconds || !this.#due("loss", atMs)) return;
    this.#log.warn(
      `the server will give up the slot "${slot.name}" in about ${duration(seconds)} if it goes on like this`,
      {
        walLossSeconds: Math.round(seconds),
        safeWalBytes: slot.safeWalSize,
        remedy:
          "Find what holds the slot back (Kinesis refuses records, a long transaction, a capture task that stands still), or raise max_slot_wal_keep_size now.",
      },
    );
  }

  #warnOfTransaction(atMs: number, heldBytes: number): void {
    const oldest = this.#oldest;
    if (!oldest || oldest.seconds < WARNINGS.transactionSeconds || heldBytes < WARNINGS.heldBytes) return;
    const { pid, xid, name } = oldest.transaction;
    if (!this.#due(`transaction ${xid}`, atMs)) return;
    const who =
      pid === undefined
        ? `the prepared transaction "${name}"`
        : `process ${pid}${name ? ` ("${name}")` : ""}`;
    this.#log.warn(
      `a transaction of ${who} is open for ${duration(oldest.seconds)}: the server keeps ${Math.round(heldBytes / 1024 / 1024)} MB of WAL until it ends`,
      {
        pid,
        walHeldBytes: heldBytes,
        remedy:
          pid === undefined
            ? "COMMIT PREPARED or ROLLBACK PREPARED it."
            : `End it at its client, or: SELECT pg_terminate_backend(${pid});`,
      },
    );
  }

  /** Returns true if this warning was not given lately. */
  #due(what: string, atMs: number): boolean {
    for (const [other, at] of this.#warned) if (atMs - at >= WARNINGS.againMs) this.#warned.delete(other);
    if (this.#warned.has(what)) return false;
    this.#warned.set(what, atMs);
    return true;
  }
}

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
