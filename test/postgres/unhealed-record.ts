import type { UnhealedRecord, UnhealedTable } from "../../lib/source/postgres/contract/unhealed-record.ts";

/** Tables with missing changes, in memory; an operator accepts one by taking it out. */
export class MemoryUnhealed implements UnhealedRecord {
  readonly tables = new Map<string, UnhealedTable>();

  async list(): Promise<readonly UnhealedTable[]> {
    return [...this.tables.values()];
  }

  async write(entry: UnhealedTable): Promise<void> {
    this.tables.set(entry.table, entry);
  }

  async end(table: string): Promise<void> {
    this.tables.delete(table);
  }
}
