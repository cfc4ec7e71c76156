import {
  type Backfill,
  type BackfillRecord,
  type BackfillRequest,
  hasEnded,
  standsForWhole,
} from "../../lib/source/postgres/backfill/backfill-record.ts";

type Update = Parameters<BackfillRecord["write"]>[1];

/** Backfills in memory, which notes each write. Outlives the sources that use it, as the state table does. */
export class MemoryBackfills implements BackfillRecord {
  generation = 1;
  readonly items = new Map<string, Backfill>();
  readonly writes: (Update & { readonly table: string })[] = [];
  /** Fails the next calls when set. */
  failure: Error | undefined;
  #bell = 0;

  async list(): Promise<readonly Backfill[]> {
    if (this.failure) throw this.failure;
    return [...this.items.values()].sort((a, b) => (a.table < b.table ? -1 : 1));
  }

  async bell(): Promise<number> {
    if (this.failure) throw this.failure;
    return this.#bell;
  }

  async request(table: string, request: BackfillRequest): Promise<void> {
    const before = this.items.get(table);
    if (before && !hasEnded(before)) throw new Error("active");
    this.#begin(table, request, before?.run ?? 0);
  }

  async restart(seen: Backfill, request: BackfillRequest): Promise<void> {
    this.#begin(seen.table, request, seen.run);
  }

  want(table: string, wanted: Backfill["wanted"]): void {
    this.items.set(table, { ...this.of(table), wanted });
    this.#bell++;
  }

  of(table: string): Backfill {
    const backfill = this.items.get(table);
    if (!backfill) throw new Error(`no backfill of ${table}`);
    return backfill;
  }

  async write(backfill: Parameters<BackfillRecord["write"]>[0], update: Update): Promise<boolean> {
    if (this.failure) throw this.failure;
    const { table, run } = backfill;
    const whole = !update.left && standsForWhole(update.status, backfill, update.epoch);
    const now = this.of(table);
    if (now.run !== run || now.generation > this.generation) return false;
    this.writes.push({ table, ...update });
    this.items.set(table, {
      ...now,
      status: update.status,
      epoch: update.epoch,
      ...(whole ? { wholeEpoch: update.epoch, left: undefined } : {}),
      ...(update.left ? { wholeEpoch: undefined, left: true } : {}),
      generation: this.generation,
      progress: update.progress ?? now.progress,
    });
    return true;
  }

  #begin(table: string, request: BackfillRequest, run: number): void {
    this.items.set(table, {
      table,
      run: run + 1,
      wanted: "run",
      status: "requested",
      request,
      epoch: undefined,
      wholeEpoch: this.items.get(table)?.wholeEpoch,
      left: this.items.get(table)?.left,
      generation: this.items.get(table)?.generation ?? 0,
      progress: undefined,
    });
    this.#bell++;
  }
}
