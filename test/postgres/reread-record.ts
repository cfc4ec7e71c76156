import type { AskedTable, RereadRecord } from "../../lib/source/postgres/reread/reread-record.ts";

/** The rows asked for again of a pipeline, in memory, which notes each write. Outlives the sources that use it. */
export class MemoryRereads implements RereadRecord {
  readonly tables = new Map<string, AskedTable>();
  readonly writes: AskedTable[] = [];
  /** Writes wait for it. */
  gate: Promise<void> | undefined;
  /** Fails the next writes when set. */
  failure: Error | undefined;

  async list(): Promise<readonly AskedTable[]> {
    return [...this.tables.values()];
  }

  async read(table: string): Promise<AskedTable | undefined> {
    return this.tables.get(table);
  }

  async write(asked: AskedTable): Promise<void> {
    await this.gate;
    if (this.failure) throw this.failure;
    this.writes.push(asked);
    if (asked.rows.length === 0 && asked.whole === undefined) this.tables.delete(asked.table);
    else this.tables.set(asked.table, asked);
  }
}
