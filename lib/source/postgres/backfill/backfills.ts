import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { PROBE } from "../../../change/control-event.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { RouteTable } from "../../../definition/route.ts";
import type { Log } from "../../../log.ts";
import { type ListenerKind, Listeners } from "../decode/listeners.ts";
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
import { BackfillList } from "./backfill-list.ts";
import {
  type Backfill,
  type BackfillProgress,
  type BackfillRecord,
  type BackfillRequest,
  type BackfillStatus,
  hasEnded,
} from "./backfill-record.ts";
import {
  HIGH_WATERMARK,
  LOW_WATERMARK,
  readWatermark,
  type Watermark,
  WindowMemory,
} from "./change-window.ts";
import { ChunkGate } from "./chunk-gate.ts";
import { ChunkReader } from "./chunk-reader.ts";
import type { Delivery } from "./delivery.ts";
import { probeDelivery } from "./delivery.ts";
import type { OpenChunk, OpenChunks } from "./open-chunks.ts";
import type { ChunkGoal } from "./read-ahead.ts";
import { GOALS_HELD, Pace, type ReadingSurroundings } from "./read-ahead.ts";
import { TableRun } from "./table-run.ts";

/** Settings of a stream's backfills. */
export interface BackfillSettings {
  readonly record: BackfillRecord;
  /** Keeps rows that are to be read again; undefined: those that came without a value stay as they came. */
  readonly rereads?: RereadRecord | undefined;
  /** A standby to read rows from. */
  readonly standby?: PostgresConnectionOptions | undefined;
  /** Interval at which operators' wishes are looked for. Default 3 s. */
  readonly pollMs?: number;
  /** Default: a quarter of a second, 4 MiB. */
  readonly goal?: Partial<ChunkGoal>;
  /** Largest event that the stream can take, in bytes: a larger row ends its table's backfill. Default: any size. */
  readonly maxEventBytes?: number | undefined;
}

/** Dependencies of `Backfills`: the stream that it writes into. */
export interface BackfillsOptions extends BackfillSettings {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  readonly state: SlotState;
  readonly tables: readonly TableName[];
  readonly route: RouteTable;
  /** `server_version_num`. */
  readonly version: number;
  /** Encoding of the text of rows. */
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

/** State of a table's backfill, for metrics. */
export interface BackfillReport {
  readonly table: string;
  readonly run: number;
  readonly request: BackfillRequest;
  readonly status: BackfillStatus;
  readonly progress: BackfillProgress | undefined;
}

const POLL_MS = 3_000;
const GOAL: ChunkGoal = { ms: 250, bytes: 4 * 1024 * 1024, firstRows: 1_000 };
/** Bytes of the rows that all tables together have read and not given; a single row may be larger. */
const MAX_BYTES = 128 * 1024 * 1024;

/**
 * The backfills of a stream: begins what the mode and operators want, a few tables side by side, and puts rows
 * into the stream at their watermarks. What goes wrong here never ends the stream, but for what only a new start of the task heals.
 */
export class Backfills {
  readonly #options: BackfillsOptions;
  readonly #task = randomUUID();
  readonly #pace: Pace;
  readonly #stop = new AbortController();
  readonly #runs = new Map<string, TableRun>();
  readonly #ending: Promise<void>[] = [];
  readonly #list: BackfillList;
  readonly #gate: ChunkGate;
  /** Reads of all runs: watermarks of a run that was paused may still come when it goes on. */
  #attempts = 0;
  readonly #memory = new WindowMemory();
  readonly #listeners: Listeners;
  #rereads: Rereads | undefined;
  #due: Delivery | undefined;
  #closed: Promise<void> | undefined;

  private constructor(options: BackfillsOptions) {
    this.#options = options;
    const { log, pipeline, listen } = options;
    this.#listeners = new Listeners(listen);
    this.#list = new BackfillList({ ...options, runs: this.#runs });
    this.#gate = new ChunkGate({
      isOpen: options.standby !== undefined,
      reader: (signal) => this.#reader(signal),
      signal: this.#stop.signal,
      log,
    });
    this.#pace = new Pace({ rowsPerSecond: pipeline.source.backfill.rowsPerSecond, log });
  }

  /**
   * Takes over what is under way, and asks for what the mode wants. To be called under the lease and before the first
   * change is given: what an earlier task still writes is refused from then on.
   * @throws what the record throws.
   */
  static async open(options: BackfillsOptions): Promise<Backfills> {
    const backfills = new Backfills(options);
    await backfills.#list.start();
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

  /** Number of rows that are to be read again. */
  get rowsAsked(): number {
    return this.#rereads?.waiting ?? 0;
  }

  /** Up to where the server may be told that what is durable downstream up to `lsn` is: not beyond a request that is not. */
  durable(lsn: bigint): bigint {
    return this.#rereads?.durable(lsn) ?? lsn;
  }

  /** Takes the delivery that is due now; set by `message`. */
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
    // As after a start.
    if (!this.#gate.began(xid)) this.reconnected();
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
    const chunks =
      watermark.run === REREAD_RUN ? this.#rereads?.chunks(watermark.table) : this.#chunks(watermark);
    if (chunks === undefined) return false;
    if (prefix === LOW_WATERMARK) {
      chunks.low(watermark);
      return false;
    }
    this.#due = chunks.high(watermark, lsn);
    return this.#due !== undefined;
  }

  #chunks({ table, run }: Watermark): OpenChunks | undefined {
    const own = this.#runs.get(table);
    return own?.backfill.run === run ? own.chunks : undefined;
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

  /** State of the backfills that are known. */
  get reports(): readonly BackfillReport[] {
    return [...this.#list.latest.values()].map(({ table, run, request, status, progress }) => {
      const own = this.#runs.get(table);
      const state = own?.backfill.run === run ? own.state : { status, progress };
      return { table, run, request, ...state };
    });
  }

  /** Asks for a backfill of a whole table, with a sweep, where none is under way. @throws what the record throws. */
  async want(table: string): Promise<void> {
    const latest = this.#list.latest.get(table);
    if (latest && !hasEnded(latest) && !this.#stop.signal.aborted) return;
    await this.#list.want(table);
  }

  /**
   * Has a table read anew as a whole, with a sweep, whatever is under way: another table has its name now, or its rows have
   * another key. @throws what the record throws.
   */
  async readAnew(table: string): Promise<void> {
    await this.#list.readAnew(table);
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

  async #poll(): Promise<void> {
    const { log, pollMs = POLL_MS } = this.#options;
    const { signal } = this.#stop;
    this.#next();
    while (!signal.aborted) {
      await delay(pollMs, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        const looked = await this.#list.look(this.#rereads?.wantsTables === true);
        if (looked) await this.#rereads?.look(this.#list.latest);
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

  /** Begins what waits, as many as may be side by side. */
  #next(): void {
    const { tablesAtOnce } = this.#options.pipeline.source.backfill;
    while (this.#runs.size < tablesAtOnce && !this.#stop.signal.aborted) {
      const backfill = this.#list.next();
      if (!backfill) return;
      if (backfill.wanted === "run" && !this.#runs.has(backfill.table)) this.#begin(backfill);
    }
  }

  #begin(backfill: Backfill): void {
    const { record, tables, pipeline, state, log, goal } = this.#options;
    const { tablesAtOnce } = pipeline.source.backfill;
    const table = tables.find((candidate) => formatTable(candidate) === backfill.table);
    if (!table) {
      this.#list
        .refuseUnknown(backfill)
        .catch((error: Error) => log.warn("the refusal could not be written", { error: error.name }));
      return;
    }
    const run: TableRun = new TableRun({
      ...this.#surroundings("backfill"),
      backfill,
      table,
      record,
      slot: state.slot,
      task: this.#task,
      nextAttempt: () => ++this.#attempts,
      pipeline: pipeline.name,
      database: state.database,
      goal: { ...GOAL, bytes: Math.min(GOAL.bytes, MAX_BYTES / tablesAtOnce / GOALS_HELD), ...goal },
    });
    this.#runs.set(backfill.table, run);
    log.info(`the backfill of ${backfill.table} begins`, {
      run: backfill.run,
      rowsBefore: backfill.progress?.rows ?? 0,
    });
    const ended = run.run().then(() => {
      if (this.#stop.signal.aborted) return;
      this.#runs.delete(backfill.table);
      this.#list.ended(backfill, run.state);
      this.#restIfIdle();
      this.#next();
    });
    this.#ending.push(ended);
    void ended.finally(() => void this.#ending.splice(this.#ending.indexOf(ended), 1));
  }

  async #openRereads(): Promise<Rereads | undefined> {
    const { rereads: record, tables, pipeline, state, restart, onAsked } = this.#options;
    if (!record) return undefined;
    const own = new Set(tables.map(formatTable));
    return await Rereads.open({
      ...this.#surroundings("reread"),
      record,
      backfills: this.#options.record,
      isOwn: (table) => own.has(table),
      tablesAtOnce: pipeline.source.backfill.tablesAtOnce,
      watermark: (table) => {
        const attempt = ++this.#attempts;
        return { slot: state.slot, task: this.#task, table, run: REREAD_RUN, chunk: attempt, attempt };
      },
      onWritten: onAsked,
      onFailure: restart,
      onRest: () => this.#restIfIdle(),
    });
  }

  /** Shared by everything that reads chunks. */
  #surroundings(kind: ListenerKind): ReadingSurroundings {
    const { state, plan, restart, maxEventBytes, log } = this.#options;
    return {
      reader: (signal, waits) => this.#reader(signal, waits),
      streamed: this.#gate.streamed,
      gate: (signal, waits) => this.#gate.opened(signal, waits),
      pace: this.#pace,
      memory: this.#memory,
      plan,
      listen: (table, listener) => this.#listeners.set(kind, table, listener),
      restart,
      epoch: state.epoch,
      maxEventBytes,
      log,
      signal: this.#stop.signal,
      onGiven: () => this.#gate.forget(() => this.#open),
    };
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

  #restIfIdle(): void {
    if (this.#runs.size === 0 && this.#list.isEmpty && this.#rereads?.isIdle !== false) this.#gate.rest();
  }

  /** The first open chunk of each table. */
  get #open(): OpenChunk[] {
    const runs = [...this.#runs.values()].flatMap((run) => run.chunks.first ?? []);
    return [...runs, ...(this.#rereads?.firstOpen ?? [])];
  }
}
