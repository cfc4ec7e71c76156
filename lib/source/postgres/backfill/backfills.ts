import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { PROBE } from "../../../change/control-event.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { RouteTable } from "../../../definition/route.ts";
import type { Log } from "../../../log.ts";
import { Listeners } from "../decode/listeners.ts";
import type { OwnMessage } from "../decode/logical-messages.ts";
import type { Relation } from "../decode/pgoutput/messages.ts";
import type { ChangeListener, RelationPlan } from "../decode/relation-plan.ts";
import type { TextEncoding } from "../decode/values/text.ts";
import type { LogPipeline } from "../definition.ts";
import type { PostgresConnectionOptions } from "../link/connection-options.ts";
import type { IncompleteCreate } from "../reread/incomplete-create.ts";
import type { RereadRecord } from "../reread/reread-record.ts";
import { REREAD_RUN, Rereads } from "../reread/rereads.ts";
import type { SlotFacts } from "../slot/slot.ts";
import type { SlotState } from "../slot/slot-record.ts";
import {
  type Backfill,
  type BackfillProgress,
  type BackfillRecord,
  type BackfillRequest,
  type BackfillStatus,
  hasEnded,
} from "./backfill-record.ts";
import { WindowMemory } from "./change-window.ts";
import { ChunkReader } from "./chunk-reader.ts";
import type { Delivery } from "./delivery.ts";
import { probeDelivery } from "./delivery.ts";
import type { ChunkGoal } from "./pace.ts";
import { Pace } from "./pace.ts";
import { GOALS_HELD } from "./read-ahead.ts";
import { startGate } from "./start-gate.ts";
import { TableRun } from "./table-run.ts";
import { StreamedTransactions } from "./visibility.ts";
import { startStep } from "./wanted-backfills.ts";
import { HIGH_WATERMARK, LOW_WATERMARK, readWatermark } from "./watermark.ts";

/** What a stream is given to backfill by. */
export interface BackfillSettings {
  readonly record: BackfillRecord;
  /** Where rows are kept that are to be read again; undefined: those that came without a value stay as they came. */
  readonly rereads?: RereadRecord | undefined;
  /** A standby to read rows from. */
  readonly standby?: PostgresConnectionOptions | undefined;
  /** How often operators' wishes are looked for. Default 3 s. */
  readonly pollMs?: number;
  /** Default: a quarter of a second, 4 MiB. */
  readonly goal?: Partial<ChunkGoal>;
  /** Largest event that the stream can take, in bytes: a larger row ends its table's backfill. Default: any size. */
  readonly maxEventBytes?: number | undefined;
}

/** What the engine needs of the stream that it writes into. */
export interface BackfillsOptions extends BackfillSettings {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  readonly state: SlotState;
  readonly tables: readonly TableName[];
  readonly route: RouteTable;
  /** `server_version_num`. */
  readonly version: number;
  /** How the text of rows is read. */
  readonly encoding: TextEncoding;
  readonly log: Log;
  /** The plan of a relation, as the log's would be. */
  readonly plan: (relation: Relation) => Promise<RelationPlan>;
  readonly listen: (table: string, listener: ChangeListener | undefined) => void;
  /** Only a new start of the task opens sessions again. */
  readonly restart: (error: unknown) => void;
  /** More requests are durable than before: what the stream acknowledged may be confirmed. */
  readonly onAsked: () => void;
}

/** How a table's backfill stands, for metrics. */
export interface BackfillReport {
  readonly table: string;
  readonly run: number;
  readonly request: BackfillRequest;
  readonly status: BackfillStatus;
  readonly progress: BackfillProgress | undefined;
}

const POLL_MS = 3_000;
/** The bell may be missed: all is looked at this often. */
const LIST_EVERY_MS = 60_000;
const FORGET_EVERY_MS = 1_000;
const MAX_REMEMBERED = 1_000_000;
const GOAL: ChunkGoal = { ms: 250, bytes: 4 * 1024 * 1024, firstRows: 1_000 };
/** Bytes of the rows that all tables together have read and not given; a single row may be larger. */
const MAX_BYTES = 128 * 1024 * 1024;

interface Gate {
  readonly opened: Promise<void>;
  readonly stop: AbortController;
  isOpen: boolean;
}

/**
 * The backfills of a stream: begins what the mode and operators want, a few tables side by side, and puts rows
 * into the stream at their watermarks. What goes wrong here never ends the stream, but for what only a new start of the task heals.
 */
export class Backfills {
  readonly #options: BackfillsOptions;
  readonly #task = randomUUID();
  readonly #streamed = new StreamedTransactions();
  readonly #pace: Pace;
  readonly #stop = new AbortController();
  readonly #runs = new Map<string, TableRun>();
  readonly #ending: Promise<void>[] = [];
  /** What is wanted and waits for its turn. */
  #waiting: Backfill[] = [];
  #latest = new Map<string, Backfill>();
  /** Reads of all runs: watermarks of a run that was paused may still come when it goes on. */
  #attempts = 0;
  /** Streamed transactions are remembered; the gate opens when chunks count. */
  #gate: Gate | undefined;
  readonly #memory = new WindowMemory();
  readonly #listeners: Listeners;
  #rereads: Rereads | undefined;
  #bell: number | undefined;
  #listedAt = Number.NEGATIVE_INFINITY;
  #forgotAt = 0;
  #due: Delivery | undefined;
  #closed: Promise<void> | undefined;

  private constructor(options: BackfillsOptions) {
    this.#options = options;
    const { log, pipeline, listen } = options;
    this.#listeners = new Listeners(listen);
    this.#pace = new Pace({ rowsPerSecond: pipeline.source.backfill.rowsPerSecond, log });
  }

  /**
   * Takes over what is under way, and asks for what the mode wants. To be called under the lease and before the first
   * change is given: what an earlier task still writes is refused from then on.
   * @throws what the record throws.
   */
  static async open(options: BackfillsOptions): Promise<Backfills> {
    const backfills = new Backfills(options);
    await backfills.#start();
    backfills.#rereads = await backfills.#openRereads();
    void backfills.#poll();
    return backfills;
  }

  /** A row's create was given without a large value: the row is read again. */
  ask(incomplete: IncompleteCreate): void {
    this.#rereads?.ask(incomplete);
  }

  /** Resolves when all that was asked for is durable. @throws what the record throws. */
  async asked(): Promise<void> {
    await this.#rereads?.written();
  }

  /** How many rows are to be read again. */
  get rowsAsked(): number {
    return this.#rereads?.waiting ?? 0;
  }

  /** Up to where the server may be told that what is durable downstream up to `lsn` is: not beyond a request that is not. */
  durable(lsn: bigint): bigint {
    return this.#rereads?.durable(lsn) ?? lsn;
  }

  /** What is to be given now; set by `message`. */
  takeDue(): Delivery | undefined {
    const due = this.#due;
    this.#due = undefined;
    return due;
  }

  get hasDue(): boolean {
    return this.#due !== undefined;
  }

  /** A transaction came out of the slot. */
  began(xid: number): void {
    if (this.#gate === undefined) return;
    this.#streamed.streamed(xid);
    if (this.#streamed.size <= MAX_REMEMBERED) return;
    // Nothing was read for long: as after a start.
    this.#rest();
    this.reconnected();
  }

  /** A message of ours came. Gives whether something is due at its place. */
  message({ prefix, content, lsn, transactional }: OwnMessage): boolean {
    if (transactional || this.#stop.signal.aborted) return false;
    if (prefix === PROBE) {
      this.#due = probeDelivery(content, lsn, this.#options);
      return this.#due !== undefined;
    }
    if (prefix !== LOW_WATERMARK && prefix !== HIGH_WATERMARK) return false;
    const watermark = readWatermark(content);
    if (watermark?.task !== this.#task || watermark.slot !== this.#options.state.slot) return false;
    const run = watermark.run === REREAD_RUN ? this.#rereads : this.#runs.get(watermark.table);
    if (run === undefined) return false;
    if (run instanceof TableRun && run.backfill.run !== watermark.run) return false;
    if (prefix === LOW_WATERMARK) {
      run.low(watermark);
      return false;
    }
    this.#due = run.high(watermark, lsn);
    return this.#due !== undefined;
  }

  /** A new connection. */
  reconnected(): void {
    this.#due = undefined;
    for (const run of this.#runs.values()) run.reconnected();
    this.#rereads?.reconnected();
  }

  acknowledge(lsn: bigint): void {
    for (const run of this.#runs.values()) run.acknowledge(lsn);
    this.#rereads?.acknowledge(lsn);
  }

  /** A look at the slot. */
  slot(slot: SlotFacts, serverLsn: bigint): void {
    this.#pace.slot(slot, serverLsn);
  }

  /** How the backfills stand that are known. */
  get reports(): readonly BackfillReport[] {
    return [...this.#latest.values()].map(({ table, run, request, status, progress }) => {
      const own = this.#runs.get(table);
      const state = own?.backfill.run === run ? own.state : { status, progress };
      return { table, run, request, ...state };
    });
  }

  /** Asks for a backfill of a whole table, with a sweep, where none is under way. @throws what the record throws. */
  async want(table: string): Promise<void> {
    const { record, log } = this.#options;
    const latest = this.#latest.get(table);
    if (latest && !hasEnded(latest) && !this.#stop.signal.aborted) return;
    try {
      await record.request(table, { sweep: true, requestedAt: Date.now() });
      log.info(`asked for a backfill of ${table}`);
    } catch (error) {
      // An operator was quicker; when that one has ended this is asked for again, if it is still needed.
      if ((error as { code?: string }).code !== "BACKFILL_ACTIVE") throw error;
    }
    this.#bell = undefined;
  }

  /**
   * Has a table read anew as a whole, with a sweep, whatever is under way: another table has its name now, or its rows have
   * another key. @throws what the record throws.
   */
  async readAnew(table: string): Promise<void> {
    const { record } = this.#options;
    const request = { sweep: true, requestedAt: Date.now() };
    const latest = (await record.list()).find((backfill) => backfill.table === table);
    if (latest && !hasEnded(latest)) await record.restart(latest, request);
    else await record.request(table, request);
    this.#bell = undefined;
  }

  /** Ends reading, and writes what is acknowledged. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.#stop.abort();
      await Promise.all(this.#ending);
      await Promise.all([this.#rereads?.close(), ...[...this.#runs.values()].map((run) => run.flush())]);
    })();
    return this.#closed;
  }

  async #start(): Promise<void> {
    const { record, pipeline, state, tables } = this.#options;
    const outbox = pipeline.source.outbox?.table;
    const latest = new Map((await record.list()).map((backfill) => [backfill.table, backfill]));
    const captured = new Set(tables.map(formatTable));
    for (const backfill of latest.values()) if (!captured.has(backfill.table)) await this.#leave(backfill);
    for (const table of tables) {
      const name = formatTable(table);
      if (name === outbox) continue;
      const seen = latest.get(name);
      const step = startStep(pipeline.source.snapshot, seen, state.epoch, Date.now());
      try {
        if (step.kind === "request") await record.request(name, step.request);
        else if (step.kind === "restart" && seen) await record.restart(seen, step.request);
      } catch (error) {
        // An operator was quicker; what is still missing then comes with the next start.
        if ((error as { code?: string }).code !== "BACKFILL_ACTIVE") throw error;
        this.#options.log.warn(`a backfill of ${name} was asked for meanwhile`, { code: "BACKFILL_ACTIVE" });
      }
    }
    this.#bell = await record.bell();
    for (const backfill of await this.#list()) {
      const { status, progress } = backfill;
      // Taken: what the task before still writes comes too late.
      if (status === "running" || status === "paused") {
        await record.write(backfill, { status, epoch: backfill.epoch ?? state.epoch, progress });
      }
    }
  }

  /** From now on the table's changes are not in the stream: noted before the first that is missing. */
  async #leave(backfill: Backfill): Promise<void> {
    const { record, state } = this.#options;
    const { status, epoch } = backfill;
    if (!hasEnded(backfill)) await this.#refuseUnknown(backfill);
    else if (!backfill.left)
      await record.write(backfill, { status, epoch: epoch ?? state.epoch, progress: undefined, left: true });
  }

  async #poll(): Promise<void> {
    const { record, log, pollMs = POLL_MS } = this.#options;
    const { signal } = this.#stop;
    this.#next();
    while (!signal.aborted) {
      await delay(pollMs, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        const bell = await record.bell();
        const late = performance.now() - this.#listedAt > LIST_EVERY_MS;
        if (bell !== this.#bell || late || this.#rereads?.wantsTables) {
          await this.#look(await this.#list());
          this.#bell = bell;
          await this.#rereads?.look(this.#latest);
        }
      } catch (error) {
        if (signal.aborted) return;
        log.warn("the state table could not be asked for backfills", {
          code: (error as { code?: string }).code,
          error: (error as Error).name,
        });
      }
      this.#next();
    }
  }

  async #list(): Promise<readonly Backfill[]> {
    const found = await this.#options.record.list();
    this.#listedAt = performance.now();
    this.#latest = new Map(found.map((backfill) => [backfill.table, backfill]));
    this.#waiting = found.filter(
      ({ table, status, wanted }) =>
        !this.#runs.has(table) &&
        (status === "requested" || status === "running" || (status === "paused" && wanted === "run")),
    );
    return found;
  }

  /** Follows what operators want. */
  async #look(found: readonly Backfill[]): Promise<void> {
    const { record, state } = this.#options;
    for (const backfill of found) {
      const { table, run, wanted, status, progress, generation, epoch } = backfill;
      const own = this.#runs.get(table);
      if (own && own.backfill.run !== run) own.abandon();
      else if (own && wanted !== "run") own.end(wanted === "pause" ? "paused" : "cancelled");
      else if (own || !["requested", "running", "paused"].includes(status)) continue;
      else if (wanted !== "run") {
        const next = wanted === "pause" ? "paused" : "cancelled";
        if (status !== next) await record.write(backfill, { status: next, epoch: state.epoch, progress });
      } else if (progress && (generation < record.generation || (epoch ?? state.epoch) < state.epoch)) {
        // Written by a task before us after we had begun: its rows may have come too late to count.
        await record.restart(backfill, { ...backfill.request, requestedAt: Date.now() });
        this.#bell = undefined;
      }
    }
    this.#waiting = this.#waiting.filter(({ wanted }) => wanted === "run");
  }

  /** Begins what waits, as many as may be side by side. */
  #next(): void {
    const { tablesAtOnce } = this.#options.pipeline.source.backfill;
    while (this.#runs.size < tablesAtOnce && !this.#stop.signal.aborted) {
      const backfill = this.#waiting.shift();
      if (!backfill) return;
      if (backfill.wanted === "run" && !this.#runs.has(backfill.table)) this.#begin(backfill);
    }
  }

  #begin(backfill: Backfill): void {
    const { record, tables, pipeline, state, log, plan, restart, goal } = this.#options;
    const { tablesAtOnce } = pipeline.source.backfill;
    const table = tables.find((candidate) => formatTable(candidate) === backfill.table);
    if (!table) {
      this.#refuseUnknown(backfill).catch((error: Error) =>
        this.#options.log.warn("the refusal could not be written", { error: error.name }),
      );
      return;
    }
    const run: TableRun = new TableRun({
      backfill,
      table,
      record,
      reader: (until, waits) => this.#reader(until, waits),
      streamed: this.#streamed,
      gate: (signal, waits) => this.#opened(signal, waits),
      pace: this.#pace,
      memory: this.#memory,
      plan,
      listen: (name, listener) => this.#listeners.set("backfill", name, listener),
      restart,
      slot: state.slot,
      task: this.#task,
      nextAttempt: () => ++this.#attempts,
      pipeline: pipeline.name,
      database: state.database,
      epoch: state.epoch,
      maxEventBytes: this.#options.maxEventBytes,
      goal: { ...GOAL, bytes: Math.min(GOAL.bytes, MAX_BYTES / tablesAtOnce / GOALS_HELD), ...goal },
      log,
      signal: this.#stop.signal,
      onGiven: () => this.#forget(),
    });
    this.#runs.set(backfill.table, run);
    log.info(`the backfill of ${backfill.table} begins`, {
      run: backfill.run,
      rowsBefore: backfill.progress?.rows ?? 0,
    });
    const ended = run.run().then(() => {
      if (this.#stop.signal.aborted) return;
      this.#runs.delete(backfill.table);
      const { status, progress } = run.state;
      this.#latest.set(backfill.table, { ...backfill, status, progress });
      this.#restIfIdle();
      this.#bell = undefined;
      this.#next();
    });
    this.#ending.push(ended);
    void ended.finally(() => void this.#ending.splice(this.#ending.indexOf(ended), 1));
  }

  async #openRereads(): Promise<Rereads | undefined> {
    const { rereads: record, tables, pipeline, state, log, plan, restart, onAsked } = this.#options;
    if (!record) return undefined;
    const own = new Set(tables.map(formatTable));
    return await Rereads.open({
      record,
      backfills: this.#options.record,
      isOwn: (table) => own.has(table),
      tablesAtOnce: pipeline.source.backfill.tablesAtOnce,
      reader: (until) => this.#reader(until),
      streamed: this.#streamed,
      gate: (signal) => this.#opened(signal, () => {}),
      pace: this.#pace,
      memory: this.#memory,
      plan,
      listen: (table, listener) => this.#listeners.set("reread", table, listener),
      watermark: (table) => {
        const attempt = ++this.#attempts;
        return { slot: state.slot, task: this.#task, table, run: REREAD_RUN, chunk: attempt, attempt };
      },
      restart,
      epoch: state.epoch,
      maxEventBytes: this.#options.maxEventBytes,
      log,
      signal: this.#stop.signal,
      onGiven: () => this.#forget(),
      onWritten: onAsked,
      onFailure: restart,
      onRest: () => this.#restIfIdle(),
    });
  }

  #reader(signal: AbortSignal, waits: (reason: string) => void = () => {}): ChunkReader {
    const { connection, standby, state, version, encoding } = this.#options;
    return new ChunkReader({
      connection,
      standby,
      systemId: state.systemId,
      publication: state.publication,
      version,
      encoding,
      waits,
      signal,
    });
  }

  async #refuseUnknown(backfill: Backfill): Promise<void> {
    const { record, state, log } = this.#options;
    const { table, progress } = backfill;
    const reason = "it is not captured";
    log.error(`the backfill of ${table} is refused: ${reason}`, {
      remedy:
        "Name it in source.tables and restart the capture task; a partition is backfilled with its root.",
    });
    const now = Date.now();
    const nothing = { lastKey: null, keyColumns: [], chunk: 0, rows: 0, bytes: 0, startedAt: now };
    const refused = {
      startPosition: "0".repeat(34),
      ...nothing,
      ...progress,
      updatedAt: now,
      finishedAt: now,
      reason,
    };
    await record.write(backfill, { status: "refused", epoch: state.epoch, progress: refused, left: true });
  }

  /**
   * Rule 25: from the first run on, streamed transactions are remembered; chunks wait for those of before. A standby needs
   * none of that: behind the low watermark's replay it sees all that was streamed before.
   */
  async #opened(signal: AbortSignal, waits: (reason: string | undefined) => void): Promise<void> {
    if (this.#options.standby) return;
    this.#gate ??= this.#openGate();
    const { opened, isOpen } = this.#gate;
    if (isOpen) return;
    waits("transactions that were open when the capture task began have not ended");
    signal.throwIfAborted();
    await Promise.race([opened, once(signal, "abort")]);
    signal.throwIfAborted();
  }

  #openGate(): Gate {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, stop.signal]);
    // Of its own: runs come and go while it waits.
    const reader = this.#reader(signal);
    const opened = startGate({
      query: (sql) => reader.query(sql),
      streamed: (xid) => this.#streamed.has(xid),
      signal,
      log: this.#options.log,
    }).finally(() => reader.end());
    const gate: Gate = { opened, stop, isOpen: false };
    opened.then(
      () => {
        gate.isOpen = true;
      },
      () => {
        if (this.#gate === gate) this.#rest();
      },
    );
    return gate;
  }

  #restIfIdle(): void {
    if (this.#runs.size === 0 && this.#waiting.length === 0 && this.#rereads?.isIdle !== false) this.#rest();
  }

  /** Nothing runs: transactions need not be remembered until something does. */
  #rest(): void {
    this.#gate?.stop.abort();
    this.#gate = undefined;
    this.#streamed.clear();
  }

  /** What a snapshot sees that is older than all open chunks', they see. */
  #forget(): void {
    const now = performance.now();
    if (now - this.#forgotAt < FORGET_EVERY_MS) return;
    this.#forgotAt = now;
    const open = [...this.#runs.values()].flatMap((run) => run.firstOpen ?? []);
    open.push(...(this.#rereads?.firstOpen ?? []));
    const oldest = open.sort((a, b) => a.begunAt - b.begunAt)[0];
    const floor = oldest ? oldest.floor : this.#streamed.latest;
    if (floor) this.#streamed.forgetSeen(floor);
  }
}
