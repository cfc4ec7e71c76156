import {
  type Backfill,
  type BackfillRecord,
  type BackfillRequest,
  hasEnded,
  standsForWhole,
} from "../source/postgres/backfill/backfill-record.ts";

/** Settings of `TailRows`. */
export interface TailRowsOptions {
  /** True once the rows of all tables are printed. */
  readonly all: boolean;
  readonly say: (line: string) => void;
}

/**
 * The backfills of a tail: existing rows come between watermarks, as they do in a pipeline. They are kept in memory, so a tail that
 * is started again reads them again.
 */
export class TailRows implements BackfillRecord {
  readonly generation = 1;
  readonly #backfills = new Map<string, Backfill>();
  readonly #options: TailRowsOptions;
  readonly #told = new Map<string, string>();
  #bell = 0;

  constructor(options: TailRowsOptions) {
    this.#options = options;
  }

  /** Has the rows of a table read that was made while tail runs. */
  add(table: string): void {
    this.#begin(table, { sweep: false, requestedAt: Date.now() });
  }

  /** True while no rows are being read. */
  get isIdle(): boolean {
    return [...this.#backfills.values()].every(hasEnded);
  }

  async list(): Promise<readonly Backfill[]> {
    return [...this.#backfills.values()];
  }

  async bell(): Promise<number> {
    return this.#bell;
  }

  async request(table: string, request: BackfillRequest): Promise<void> {
    // Without --snapshot nobody asked for rows of tables that were there.
    if (this.#options.all) this.#begin(table, request);
  }

  async restart({ table }: Backfill, request: BackfillRequest): Promise<void> {
    this.#begin(table, request);
  }

  async write(
    { table, run, request, left }: Pick<Backfill, "table" | "run" | "request" | "left">,
    update: Parameters<BackfillRecord["write"]>[1],
  ): Promise<boolean> {
    const known = this.#backfills.get(table);
    if (known?.run !== run) return false;
    if (update.left) {
      // If it comes back, it is another table.
      this.#backfills.delete(table);
      return true;
    }
    const { status, epoch, progress } = update;
    const whole = standsForWhole(status, { request, left }, epoch) ? epoch : known.wholeEpoch;
    this.#backfills.set(table, { ...known, status, epoch, progress, wholeEpoch: whole });
    this.#tell(table, status, progress);
    return true;
  }

  #begin(table: string, request: BackfillRequest): void {
    const run = (this.#backfills.get(table)?.run ?? 0) + 1;
    const status = "requested";
    const open = { epoch: undefined, generation: this.generation, progress: undefined };
    this.#backfills.set(table, { ...{ table, run, wanted: "run", status, request }, ...open });
    this.#bell++;
  }

  /** Says that it has ended, or what it waits for, once. */
  #tell(table: string, status: Backfill["status"], progress: Backfill["progress"]): void {
    const rows = progress?.rows ?? 0;
    let line: string | undefined;
    if (status === "done") line = `the rows of ${table} are printed: ${rows}`;
    // A refusal is said where it happens.
    else if (progress?.reason && status !== "refused") line = `the rows of ${table} wait: ${progress.reason}`;
    if (line === undefined || this.#told.get(table) === line) return;
    this.#told.set(table, line);
    this.#options.say(line);
  }
}
