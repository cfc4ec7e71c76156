import { setTimeout as sleep } from "node:timers/promises";
import { TributaryError } from "../change/tributary-error.ts";
import { sourceKind } from "../source/index.ts";
import { RestingSlot } from "../source/postgres/slot/slot-at-rest.ts";
import type { SourceStatus } from "../source/postgres/source-status.ts";
import type { AnySourceStatus } from "../source/source-kind.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { readHolds } from "../state/holds.ts";
import { type Pause, pausedBy, resumeCommand } from "../state/pause.ts";
import { type Pauses, readPauses } from "../state/pauses.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { readUnhealed } from "../state/unhealed.ts";
import { isLog } from "./capture-metrics.ts";
import type { CaptureMetrics, CaptureOptions } from "./capture-options.ts";

/*
 * Rule 64. The flag in the state table is looked at before the task takes the lease, and every 5 s from then on. A pause ends the stream as
 * SIGTERM does: what was read is acknowledged, stored and confirmed, then link and lease are let go. The process stays, and
 * goes on measuring what the server keeps for it.
 */

/** Interval between two looks at the flag, in milliseconds. */
export const LOOK_MS = 5_000;
/** One look at the server is given up after this, in milliseconds. */
const SERVER_MS = 4_000;

/** No change is written while a task is paused; its counters begin anew behind it. */
const NOTHING_WRITTEN: CaptureMetrics["stream"] = {
  ...{ changes: 0, records: 0, bytes: 0, requests: 0, retries: 0, throttles: 0, oversize: 0 },
  tables: new Map(),
  ...{ bufferedBytes: 0, oldestUnacknowledgedMs: 0 },
  ...{ acknowledgedPlace: undefined, acknowledgedCommitTimeMs: undefined },
};

/**
 * Runs a capture task while nobody has paused capture, and has it stand still while somebody has: until `signal`, or until
 * `run` has ended by itself. `run` ends in order when its signal aborts, and begins anew when it is called again.
 *
 * @throws what `run` throws; StateTableError, StateTableUnavailableError where the flag cannot be read at the start.
 */
export async function withPauses(
  options: CaptureOptions,
  run: (options: CaptureOptions, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { dynamodb, stateTable: table, pipeline, log } = options;
  const place = { dynamodb, table, pipeline: pipeline.name, signal };
  let last: AnySourceStatus | undefined;
  const heard: CaptureOptions = {
    ...options,
    onMetrics: (metrics) => {
      last = metrics.source ?? last;
      options.onMetrics?.(metrics);
    },
  };
  for (;;) {
    const pauses = await readPauses(place, true);
    options.onPauses?.(pauses);
    if (pauses.capture) {
      await new Rest(options, place, last).until(pauses.capture);
      if (signal.aborted) return;
      continue;
    }
    const pausing = new AbortController();
    const ended = new AbortController();
    const watching = watch(options, { ...place, signal: ended.signal }, pausing);
    try {
      await run(heard, AbortSignal.any([signal, pausing.signal]));
      if (!pausing.signal.aborted) return;
    } catch (error) {
      if (!pausing.signal.aborted) throw error;
      // What matters is met again behind the pause. Of errors that are not ours the name has to do.
      if (error !== pausing.signal.reason)
        log.warn("the task was paused, and did not end in order: what it had not confirmed comes again", {
          error: (error as Error).name,
          ...(error instanceof TributaryError && { code: error.code, reason: error.message }),
        });
    } finally {
      ended.abort();
      await watching;
    }
    if (signal.aborted) return;
  }
}

/** Looks at the flag until the task has ended by itself. What cannot be read now is read again. */
async function watch(
  { onPauses, log }: CaptureOptions,
  place: StatePlace,
  pausing: AbortController,
): Promise<void> {
  const { signal } = place;
  const looks = new Looks(place, log, "Until then the task goes on, and learns of no pause.");
  while (!signal.aborted) {
    const pauses = await looks.next();
    if (!pauses || signal.aborted) continue;
    onPauses?.(pauses);
    if (pauses.capture) return pausing.abort();
  }
}

/** Looks at the flag, each `LOOK_MS` after the one before, whether that one could be read or not. */
class Looks {
  readonly #place: StatePlace;
  readonly #log: CaptureOptions["log"];
  readonly #meanwhile: string;
  #failed = false;

  /** `meanwhile`: what the task does while the flag cannot be read, for people. */
  constructor(place: StatePlace, log: CaptureOptions["log"], meanwhile: string) {
    this.#place = place;
    this.#log = log;
    this.#meanwhile = meanwhile;
  }

  /** Returns what is paused; undefined where that cannot be read, or at the signal. Tells once of what cannot be read. Never throws. */
  async next(): Promise<Pauses | undefined> {
    const { signal } = this.#place;
    try {
      await sleep(LOOK_MS, undefined, { signal });
      const pauses = await readPauses(this.#place, true);
      this.#failed = false;
      return pauses;
    } catch (error) {
      if (signal.aborted) return undefined;
      if (!this.#failed)
        this.#log.warn("whether capture is paused cannot be read", {
          error: (error as Error).name,
          ...(error instanceof TributaryError && { code: error.code, reason: error.message }),
          remedy: `It is read again every ${LOOK_MS / 1000} s. ${this.#meanwhile}${error instanceof TributaryError ? ` ${error.remedy}` : ""}`,
        });
      this.#failed = true;
      return undefined;
    }
  }
}

/** A task that stands still. */
class Rest {
  readonly #options: CaptureOptions;
  readonly #place: StatePlace;
  readonly #slot: RestingSlot;
  #last: AnySourceStatus | undefined;
  #failed = false;

  /** `last`: the source as the task last saw it. */
  constructor(options: CaptureOptions, place: StatePlace, last: AnySourceStatus | undefined) {
    this.#options = options;
    this.#place = place;
    this.#last = last;
    this.#slot = new RestingSlot(options.connection, options.log);
  }

  /** Ends when nobody has paused capture any more, or at the signal. */
  async until(pause: Pause): Promise<void> {
    const { report, log, onMetrics, onPauses } = this.#options;
    const { signal } = this.#place;
    report?.paused(pausedBy(pause));
    log.warn(
      `capture is paused ${pausedBy(pause)}: it reads nothing, and what is changed waits at the server`,
      {
        remedy: `To go on: ${resumeCommand("capture")}`,
      },
    );
    const looks = new Looks(this.#place, log, "Until then the task stays paused.");
    try {
      while (!signal.aborted) {
        const source = await this.#source();
        onMetrics?.({ stream: NOTHING_WRITTEN, source, paused: { since: pause.since } });
        // Where the flag cannot be read, it may well be there.
        const pauses = await looks.next();
        if (pauses) onPauses?.(pauses);
        if (pauses && !pauses.capture) return log.info("capture goes on: nobody has paused it any more");
      }
    } finally {
      report?.paused(undefined);
    }
  }

  /** The source as its metrics are to tell it. Never throws. */
  async #source(): Promise<AnySourceStatus> {
    const { pipeline, slot = 1, log } = this.#options;
    if (!sourceKind(pipeline.source).throughSlots?.(pipeline)) {
      const known = this.#last && !isLog(this.#last) ? this.#last : undefined;
      const unknown = { kind: "tables", reconnects: 0, oldestTransactionSeconds: undefined } as const;
      return { ...unknown, ...known, connected: false };
    }
    const signal = AbortSignal.any([this.#place.signal, AbortSignal.timeout(SERVER_MS)]);
    let status: SourceStatus = this.#last && isLog(this.#last) ? this.#last : NOTHING_KNOWN;
    try {
      const place = { ...this.#place, signal };
      const record = await readCaptureRecord({ ...place, slot });
      const facts = record.slot && (await this.#slot.look(record.slot.slot, signal));
      const [holds, unhealed] = await Promise.all([readHolds(place), readUnhealed(place)]);
      const own = this.#last === undefined ? { holds, unhealed } : {};
      if (facts) status = { ...status, ...own, ...facts, receivedLsn: facts.confirmedLsn };
      this.#failed = false;
    } catch (error) {
      if (!this.#failed && !this.#place.signal.aborted)
        log.warn(`the paused slot cannot be looked at: ${(error as Error).name}`, {
          remedy: "It is tried again. Until then the metrics of its WAL stand still.",
        });
      this.#failed = true;
    }
    this.#last = { ...status, connected: false };
    return this.#last;
  }
}

const NOTHING_KNOWN: SourceStatus = {
  ...{ connected: false, receivedLsn: 0n, serverLsn: 0n, confirmedLsn: 0n, reconnects: 0 },
  ...{ backfills: [], rowsAsked: 0, holds: [], putAside: 0 },
  ...{ walStatus: undefined, safeWalBytes: undefined, walHeldBytes: undefined, walLossSeconds: undefined },
  ...{ oldestTransactionSeconds: undefined, oldestTransactionPid: undefined },
};
