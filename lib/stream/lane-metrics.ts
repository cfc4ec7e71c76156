import type { SourcePlace } from "../change/change-stream.ts";
import type { OfferedChange, StreamMetrics, TableCounts } from "./metrics.ts";

const COUNTERS = ["changes", "records", "bytes", "requests", "retries", "throttles", "oversize"] as const;

/** The metrics of several writers as those of one. Counters keep what writers that ended had counted. */
export class LaneMetrics {
  readonly #report: (metrics: StreamMetrics) => void;
  readonly #latest = new Map<object, StreamMetrics<SourcePlace>>();
  /** The sum of those that ended. */
  #ended: readonly StreamMetrics[] = [];
  #reportedAt = Number.NEGATIVE_INFINITY;

  constructor(report: (metrics: StreamMetrics) => void) {
    this.#report = report;
  }

  /** Returns the metrics callback for one writer. */
  callbackFor(writer: object): (metrics: StreamMetrics<SourcePlace>) => void {
    return (metrics) => this.#latest.set(writer, { ...metrics, tables: new Map(metrics.tables) });
  }

  /** The writer has ended: what it counted stays, what it held is no more. */
  end(writer: object): void {
    const last = this.#latest.get(writer);
    this.#latest.delete(writer);
    if (!last) return;
    this.#ended = [
      sum([...this.#ended, { ...last, bufferedBytes: 0, oldestUnacknowledgedMs: 0, unansweredMs: 0 }]),
    ];
  }

  /** Reports the combined metrics, at most once a second. `now`: milliseconds of a clock that only goes forward. */
  reportIfDue(now = performance.now()): void {
    if (now - this.#reportedAt < 1000) return;
    this.#reportedAt = now;
    this.report();
  }

  /** Reports the combined metrics. */
  report(): void {
    this.#report(sum([...this.#ended, ...this.#latest.values()]));
  }
}

function sum(all: readonly StreamMetrics<SourcePlace>[]): StreamMetrics {
  const total = (pick: (metrics: StreamMetrics<SourcePlace>) => number) =>
    all.reduce((n, one) => n + pick(one), 0);
  const tables = new Map<string, TableCounts>();
  for (const [table, { changes, bytes }] of all.flatMap((one) => [...one.tables])) {
    const before = tables.get(table) ?? { changes: 0, bytes: 0 };
    tables.set(table, { changes: before.changes + changes, bytes: before.bytes + bytes });
  }
  const counters = Object.fromEntries(COUNTERS.map((name) => [name, total((one) => one[name])]));
  // Now, and not when it is asked for: what has ended is not held on to.
  const newest = newestOf(all);
  const committed = all.flatMap(({ acknowledgedCommitTimeMs: ms }) => (ms === undefined ? [] : [ms]));
  return {
    ...(counters as Record<(typeof COUNTERS)[number], number>),
    tables,
    bufferedBytes: total(({ bufferedBytes }) => bufferedBytes),
    oldestUnacknowledgedMs: Math.max(0, ...all.map(({ oldestUnacknowledgedMs }) => oldestUnacknowledgedMs)),
    unansweredMs: Math.max(0, ...all.map(({ unansweredMs = 0 }) => unansweredMs)),
    // Each writer's own: there is none that means all.
    acknowledgedPlace: undefined,
    newest: () => newest,
    acknowledgedCommitTimeMs: committed.length > 0 ? Math.max(...committed) : undefined,
  };
}

/** Of a topic that several lanes write, the one with the greatest position: lanes share no order, but each has partitions of its own. */
function newestOf(all: readonly StreamMetrics<SourcePlace>[]): ReadonlyMap<string, OfferedChange> {
  const found = new Map<string, OfferedChange>();
  for (const [topic, change] of all.flatMap((one) => [...(one.newest?.() ?? [])])) {
    if (change.position > (found.get(topic)?.position ?? "")) found.set(topic, change);
  }
  return found;
}
