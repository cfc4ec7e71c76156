import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { LogPipeline } from "../definition.ts";
import type { SlotState } from "../slot/slot-record.ts";
import { type Backfill, type BackfillRecord, hasEnded, startSteps } from "./backfill-record.ts";
import type { RunState } from "./run-progress.ts";
import type { TableRun } from "./table-run.ts";

/** Dependencies of `BackfillList`. */
export interface BackfillListOptions {
  readonly record: BackfillRecord;
  readonly pipeline: LogPipeline;
  readonly state: SlotState;
  readonly tables: readonly TableName[];
  /** Those that are under way, by table. */
  readonly runs: ReadonlyMap<string, TableRun>;
  readonly log: Log;
}

/** The bell may be missed: all is looked at this often. */
const LIST_EVERY_MS = 60_000;

/** The backfills as the record has them: asks for what the mode wants, follows what operators want, says which is next. */
export class BackfillList {
  readonly #options: BackfillListOptions;
  /** Backfills that are wanted and wait for their turn. */
  #waiting: Backfill[] = [];
  #latest = new Map<string, Backfill>();
  #bell: number | undefined;
  #listedAt = Number.NEGATIVE_INFINITY;

  constructor(options: BackfillListOptions) {
    this.#options = options;
  }

  /** The latest backfill of each table. */
  get latest(): ReadonlyMap<string, Backfill> {
    return this.#latest;
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Takes over what is under way, and asks for what the mode wants. @throws what the record throws. */
  async start(): Promise<void> {
    const { record, pipeline, state, tables, log } = this.#options;
    const latest = new Map((await record.list()).map((backfill) => [backfill.table, backfill]));
    const captured = new Set(tables.map(formatTable));
    for (const backfill of latest.values()) if (!captured.has(backfill.table)) await this.#leave(backfill);
    const steps = startSteps(pipeline.source, tables.map(formatTable), latest, state.epoch, Date.now());
    for (const { table: name, seen, step } of steps) {
      try {
        if (step.kind === "request") await record.request(name, step.request);
        else if (step.kind === "restart" && seen) await record.restart(seen, step.request);
      } catch (error) {
        // An operator was quicker; what is still missing then comes with the next start.
        if ((error as { code?: string }).code !== "BACKFILL_ACTIVE") throw error;
        log.warn(`a backfill of ${name} was asked for meanwhile`, { code: "BACKFILL_ACTIVE" });
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

  /** Follows what operators want, where the bell rang, or after a while, or `anyway`. Returns whether it looked. @throws what the record throws. */
  async look(anyway: boolean): Promise<boolean> {
    const bell = await this.#options.record.bell();
    const late = performance.now() - this.#listedAt > LIST_EVERY_MS;
    if (bell === this.#bell && !late && !anyway) return false;
    await this.#follow(await this.#list());
    this.#bell = bell;
    return true;
  }

  /** The next look is due: something was asked for, or has ended. */
  ring(): void {
    this.#bell = undefined;
  }

  /** Takes the next one that waits for its turn. */
  next(): Backfill | undefined {
    return this.#waiting.shift();
  }

  ended(backfill: Backfill, { status, progress }: RunState): void {
    this.#latest.set(backfill.table, { ...backfill, status, progress });
    this.ring();
  }

  /** Asks for a backfill of a whole table, with a sweep, where none is under way. @throws what the record throws. */
  async want(table: string): Promise<void> {
    const { record, log } = this.#options;
    try {
      await record.request(table, { sweep: true, requestedAt: Date.now() });
      log.info(`asked for a backfill of ${table}`);
    } catch (error) {
      // An operator was quicker; when that one has ended this is asked for again, if it is still needed.
      if ((error as { code?: string }).code !== "BACKFILL_ACTIVE") throw error;
    }
    this.ring();
  }

  /** Has a table read anew as a whole, with a sweep, whatever is under way. @throws what the record throws. */
  async readAnew(table: string): Promise<void> {
    const { record } = this.#options;
    const request = { sweep: true, requestedAt: Date.now() };
    const latest = (await record.list()).find((backfill) => backfill.table === table);
    if (latest && !hasEnded(latest)) await record.restart(latest, request);
    else await record.request(table, request);
    this.ring();
  }

  /** Refuses a backfill of a table that is not captured. @throws what the record throws. */
  async refuseUnknown(backfill: Backfill): Promise<void> {
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

  /** From now on the table's changes are not in the stream: noted before the first that is missing. */
  async #leave(backfill: Backfill): Promise<void> {
    const { record, state } = this.#options;
    const { status, epoch } = backfill;
    if (!hasEnded(backfill)) await this.refuseUnknown(backfill);
    else if (!backfill.left)
      await record.write(backfill, { status, epoch: epoch ?? state.epoch, progress: undefined, left: true });
  }

  async #list(): Promise<readonly Backfill[]> {
    const { record, runs } = this.#options;
    const found = await record.list();
    this.#listedAt = performance.now();
    this.#latest = new Map(found.map((backfill) => [backfill.table, backfill]));
    this.#waiting = found.filter(
      ({ table, status, wanted }) =>
        !runs.has(table) &&
        (status === "requested" || status === "running" || (status === "paused" && wanted === "run")),
    );
    return found;
  }

  async #follow(found: readonly Backfill[]): Promise<void> {
    const { record, state, runs } = this.#options;
    for (const backfill of found) {
      const { table, run, wanted, status, progress, generation, epoch } = backfill;
      const own = runs.get(table);
      if (own && own.backfill.run !== run) own.abandon();
      else if (own && wanted !== "run") own.end(wanted === "pause" ? "paused" : "cancelled");
      else if (own || !["requested", "running", "paused"].includes(status)) continue;
      else if (wanted !== "run") {
        const next = wanted === "pause" ? "paused" : "cancelled";
        if (status !== next) await record.write(backfill, { status: next, epoch: state.epoch, progress });
      } else if (progress && (generation < record.generation || (epoch ?? state.epoch) < state.epoch)) {
        // Written by a task before us after we had begun: its rows may have come too late to count.
        await record.restart(backfill, { ...backfill.request, requestedAt: Date.now() });
      }
    }
    this.#waiting = this.#waiting.filter(({ wanted }) => wanted === "run");
  }
}
