import { setTimeout as delay } from "node:timers/promises";
import { type Backoff, backoffMs } from "../../backoff.ts";
import { failpoint } from "../../failpoint.ts";
import type { Log } from "../../log.ts";
import { lanesOf } from "../../publish/relay-sql.ts";
import { CaptureLeaseLostError } from "../capture-lease-lost.ts";
import type { TablesStatus } from "../tables-status.ts";
import { Lane } from "./lane.ts";
import { OutboxDatabaseError } from "./outbox-errors.ts";
import { type Batch, CLEAN_ROWS, type RelayDatabase } from "./relay-database.ts";
import { type RowChangeOptions, rowChange } from "./row-change.ts";

/** Dependencies of `Relay`. */
export interface RelayOptions {
  readonly database: RelayDatabase;
  readonly rows: RowChangeOptions;
  /** Wait after a look that found nothing, in milliseconds. */
  readonly intervalMs: number;
  /** Rows of a batch at most. */
  readonly batchRows: number;
  /** Time that published rows stay, in hours; 0: they are deleted when they are acknowledged. */
  readonly keepHours: number;
  /** A relay silent for this long loses its lanes to the others, in milliseconds. */
  readonly leaseMs: number;
  /** A generation greater than every one given before, to any relay. */
  readonly nextGeneration: () => Promise<number>;
  /** Throws where this relay must end: the pipeline has begun a new epoch. Asked at every beat. */
  readonly check: () => Promise<void>;
  /** Writes a lane to the stream until it ends, is lost, or the signal aborts. */
  readonly write: (lane: Lane, signal: AbortSignal) => Promise<void>;
  /** Ends reading: what was read is stored, acknowledged and given back. */
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly onStatus?: (status: TablesStatus) => void;
}

const RETRY: Backoff = { baseMs: 200, capMs: 10_000, jitter: 0 };
const CLEAN_MS = 60_000;

/**
 * One relay: publishes the events of the lanes it owns, a batch of each at a time.
 *
 * Order of an aggregate: its rows are all in one lane, a lane has one owner, and a batch is stored before its first
 * event is published and removed only when all of it is acknowledged; whoever owns the lane next publishes an open
 * batch first, at the same positions. Rows come in the order of their numbers among those a snapshot shows.
 */
export class Relay {
  readonly #options: RelayOptions;
  readonly #lanes = new Map<number, Lane>();
  readonly #writing = new Map<Lane, Promise<void>>();
  #leaving: ReadonlySet<number> = new Set();
  #generation: number | undefined;
  #asking = false;
  /** Time of the next beat, by `performance.now()`: a clock that is set back must not silence us. */
  #nextBeat = 0;
  #nextClean = 0;
  readonly #stopping = new AbortController();
  #failure: { readonly error: unknown } | undefined;
  #woken = false;
  #wake: (() => void) | undefined;
  #reconnects = 0;

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** Runs until the signal. @throws what writing throws, OutboxRelayError and the errors of a row. */
  async run(): Promise<void> {
    const { signal } = this.#options;
    const rouse = () => this.#rouse();
    signal.addEventListener("abort", rouse);
    try {
      await this.#loop();
    } finally {
      signal.removeEventListener("abort", rouse);
      await this.#finish();
    }
  }

  async #loop(): Promise<void> {
    const { database, intervalMs, log, signal } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      if (this.#failure) throw this.#failure.error;
      let connected = true;
      let found = false;
      try {
        if (performance.now() >= this.#nextBeat) await this.#beat();
        await this.#closeAcknowledged();
        found = await this.#assign();
        await this.#clean();
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof OutboxDatabaseError)) throw error;
        connected = false;
        failures++;
        this.#reconnects++;
        this.#nextBeat = 0;
        log.warn(error.message, { relay: database.id, waitsFor: "database" });
      }
      this.#options.onStatus?.({
        kind: "tables",
        connected,
        reconnects: this.#reconnects,
        oldestTransactionSeconds: undefined,
      });
      if (failures > 0) await this.#sleep(backoffMs(failures, RETRY));
      else if (!found)
        await this.#sleep(Math.min(intervalMs, Math.max(1, this.#nextBeat - performance.now())));
    }
  }

  /** Tells that we live, and sees who owns what: takes what is free, gives back what is above our share. */
  async #beat(): Promise<void> {
    const { database, leaseMs, log, rows, check } = this.#options;
    await check();
    const alive = await database.beat(leaseMs);
    let stored = await database.survey(leaseMs);
    this.#nextBeat = performance.now() + leaseMs / 3;
    const share = Math.ceil(lanesOf(rows.pipeline.topics.partitions) / alive);
    const ours = () => stored.filter(({ owner }) => owner === database.id);
    const free = stored.filter(({ alive: owned }) => !owned);
    const missing = Math.min(free.length, share - ours().length);
    const generation = missing > 0 ? this.#takeGeneration() : undefined;
    if (generation !== undefined) {
      const taken = await database.take(generation, missing, leaseMs);
      if (taken.length > 0) log.info(`took outbox lanes ${taken.join(", ")}`, { generation });
      stored = await database.survey(leaseMs);
    }
    const own = new Map(ours().map((lane) => [lane.lane, lane]));
    for (const lane of [...this.#lanes.values()]) {
      if (own.get(lane.lane)?.generation !== lane.generation) this.#lose(lane);
    }
    for (const { lane, generation } of own.values()) if (!this.#lanes.has(lane)) this.#open(lane, generation);
    await this.#resume([...own.values()].filter(({ open }) => open).map(({ lane }) => lane));
    for (const { lane, open } of own.values()) if (!open) this.#lanes.get(lane)?.closed();
    // The last ones are given back, once their batch is done: the others keep their owner.
    this.#leaving = new Set([...own.keys()].slice(share));
    await this.#giveBack();
  }

  /** A generation for lanes to take; undefined while it is asked for, which may take as long as a lease. */
  #takeGeneration(): number | undefined {
    const generation = this.#generation;
    this.#generation = undefined;
    if (generation !== undefined || this.#asking) return generation;
    this.#asking = true;
    this.#options
      .nextGeneration()
      .then((next) => {
        this.#generation = next;
        this.#nextBeat = 0;
      })
      .catch((error) => {
        if (!this.#options.signal.aborted) this.#failure ??= { error };
      })
      .finally(() => {
        this.#asking = false;
        this.#rouse();
      });
    return undefined;
  }

  /** Batches that are open in the database and not here: of the owner before, or an answer was lost. */
  async #resume(lanes: readonly number[]): Promise<void> {
    const unknown = lanes.filter((lane) => this.#lanes.get(lane)?.batch === undefined);
    if (unknown.length > 0) await this.#publish(await this.#options.database.openBatches(unknown));
  }

  async #giveBack(): Promise<void> {
    const idle = [...this.#leaving].filter((lane) => this.#lanes.get(lane)?.batch === undefined);
    if (idle.length === 0) return;
    await this.#options.database.release(idle);
    for (const lane of idle) {
      await this.#lanes.get(lane)?.close();
      this.#lanes.delete(lane);
    }
    this.#leaving = new Set([...this.#leaving].filter((lane) => !idle.includes(lane)));
    this.#options.log.info(`gave outbox lanes ${idle.join(", ")} back`);
  }

  async #closeAcknowledged(): Promise<void> {
    const { database, keepHours } = this.#options;
    for (const lane of this.#lanes.values()) {
      const batch = lane.acknowledged;
      if (!batch) continue;
      if (await database.close(lane.lane, lane.generation, batch, keepHours > 0)) lane.closed();
      // Lost, or the answer to our own first try was: the survey tells.
      else this.#nextBeat = 0;
    }
    await this.#giveBack();
  }

  /** Assigns what is there to lanes without an open batch, and publishes it. Tells whether there was anything. */
  async #assign(): Promise<boolean> {
    const { database, batchRows } = this.#options;
    const ready = [...this.#lanes.values()].filter(
      ({ lane, batch }) => batch === undefined && !this.#leaving.has(lane),
    );
    if (ready.length === 0) return false;
    const assigned = await database.assign(
      ready.map(({ lane }) => lane),
      batchRows,
    );
    if (assigned.size === 0) return false;
    failpoint("batch-recorded");
    await this.#publish(assigned);
    return true;
  }

  async #publish(batches: ReadonlyMap<number, Batch>): Promise<void> {
    const { database, rows: options, log } = this.#options;
    const read = await database.rows([...batches.values()].flatMap(({ seqs }) => seqs));
    const bySeq = new Map(read.map((row) => [row.seq, row]));
    for (const [number, batch] of batches) {
      const lane = this.#lanes.get(number);
      if (!lane) continue;
      const rows = batch.seqs.flatMap((seq) => bySeq.get(seq) ?? []);
      const gone = batch.seqs.length - rows.length;
      if (gone > 0)
        log.warn("rows of the outbox were deleted before they were published", {
          lane: number,
          rows: gone,
        });
      const changes = rows.map((row) => rowChange(options, batch, row));
      const committed = Math.max(0, ...rows.map((row) => Number(row.created_ms ?? 0)));
      lane.open(batch, changes, committed || Date.now());
    }
  }

  #open(number: number, generation: number): void {
    const lane = new Lane(number, generation, () => this.#rouse());
    this.#lanes.set(number, lane);
    const writing = this.#options.write(lane, this.#stopping.signal).catch((error) => {
      if (lane.lost.aborted) return;
      this.#failure ??= { error };
      this.#rouse();
    });
    this.#writing.set(
      lane,
      writing.finally(() => this.#writing.delete(lane)),
    );
  }

  #lose(lane: Lane): void {
    const { log, rows } = this.#options;
    this.#lanes.delete(lane.lane);
    lane.lose(new CaptureLeaseLostError(rows.pipeline.name, lane.generation));
    log.warn(`lost outbox lane ${lane.lane} to another relay`, { generation: lane.generation });
  }

  async #clean(): Promise<void> {
    const { database, keepHours } = this.#options;
    if (keepHours === 0 || performance.now() < this.#nextClean) return;
    const removed = await database.clean(keepHours);
    // More has grown old than one statement removes: at once again, between batches.
    this.#nextClean = removed < CLEAN_ROWS ? performance.now() + CLEAN_MS : 0;
  }

  /** Lets the writers store what they hold, closes what was acknowledged, and gives the lanes back. */
  async #finish(): Promise<void> {
    const { database, log } = this.#options;
    this.#stopping.abort();
    for (const lane of this.#lanes.values()) await lane.close();
    await Promise.all(this.#writing.values());
    try {
      await this.#closeAcknowledged();
      await database.leave();
    } catch (error) {
      // They fall to the others when the lease has run out.
      log.warn(`the outbox relay could not give its lanes back: ${(error as Error).name}`);
    }
    await database.disconnect();
  }

  #rouse(): void {
    this.#woken = true;
    this.#wake?.();
  }

  async #sleep(ms: number): Promise<void> {
    if (!this.#woken) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const over = new AbortController();
      this.#wake = resolve;
      await Promise.race([promise, delay(ms, undefined, { signal: over.signal }).catch(() => {})]);
      over.abort();
      this.#wake = undefined;
    }
    this.#woken = false;
  }
}
