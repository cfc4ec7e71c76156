import type { TableCounts } from "../stream/metrics.ts";
import { metricsLine } from "../telemetry/emf.ts";
import {
  DIMENSION,
  dimensionsOf,
  type MeasuredPipeline,
  OTHER_TABLES,
  TABLE_METRIC,
} from "../telemetry/metrics.ts";

/** Tables with metrics of their own in one line: CloudWatch bills each for every hour in which it has a value. */
export const MAX_TABLES = 20;

/** Over a task's life no more than this many tables get metrics of their own. */
const MAX_TABLES_EVER = 2 * MAX_TABLES;

/** Publishes what was added by table: the busiest since the start by name, all others together. */
export class TableMetrics {
  readonly #of: MeasuredPipeline;
  readonly #published = new Map<string, TableCounts>();
  readonly #named = new Set<string>();

  constructor(of: MeasuredPipeline) {
    this.#of = of;
  }

  /** Totals begin anew. */
  restart(): void {
    this.#published.clear();
  }

  /** Lines of the tables that something was added to; `tables` holds totals since the task's start. */
  lines(tables: ReadonlyMap<string, TableCounts>): string[] {
    const busiest = this.#name(tables);
    const added = new Map<string, { changes: number; bytes: number }>();
    for (const [table, { changes, bytes }] of tables) {
      const before = this.#published.get(table) ?? { changes: 0, bytes: 0 };
      if (changes === before.changes) continue;
      this.#published.set(table, { changes, bytes });
      const name = busiest.has(table) ? table : OTHER_TABLES;
      const sum = added.get(name) ?? { changes: 0, bytes: 0 };
      added.set(name, {
        changes: sum.changes + changes - before.changes,
        bytes: sum.bytes + bytes - before.bytes,
      });
    }
    return [...added].map(([table, { changes, bytes }]) =>
      metricsLine("capture-table", dimensionsOf(this.#of, { [DIMENSION.table]: asciiDimension(table) }), [
        [TABLE_METRIC.changes, changes],
        [TABLE_METRIC.bytes, bytes],
      ]),
    );
  }

  /** Returns the tables that are reported by name now. */
  #name(tables: ReadonlyMap<string, TableCounts>): ReadonlySet<string> {
    const ranked = [...tables].sort(([, a], [, b]) => b.changes - a.changes).map(([table]) => table);
    const busiest = new Set<string>();
    for (const table of ranked) {
      if (busiest.size === MAX_TABLES) break;
      if (!this.#named.has(table) && this.#named.size >= MAX_TABLES_EVER) continue;
      this.#named.add(table);
      busiest.add(table);
    }
    return busiest;
  }
}

/** A name as a dimension: CloudWatch takes no other characters. */
export function asciiDimension(name: string): string {
  return name.toWellFormed().replace(/[^\x20-\x7e]+/gu, encodeURIComponent);
}
