import { expect, test } from "vitest";
import { LaneMetrics } from "../../../lib/stream/lane-metrics.ts";
import type { StreamMetrics } from "../../../lib/stream/metrics.ts";

const metrics = (over: Partial<StreamMetrics>): StreamMetrics => ({
  ...{ changes: 0, records: 0, bytes: 0, requests: 0, retries: 0, throttles: 0, oversize: 0 },
  ...{ tables: new Map(), bufferedBytes: 0, oldestUnacknowledgedMs: 0 },
  ...{ acknowledgedPlace: 7n, acknowledgedCommitTimeMs: undefined },
  ...over,
});

test("lanes together: sums, the oldest of what waits, tables; at most once a second unless asked", () => {
  const told: StreamMetrics[] = [];
  const lanes = new LaneMetrics((sum) => told.push(sum));
  const writers = [{}, {}] as const;
  const [one, two] = [lanes.callbackFor(writers[0]), lanes.callbackFor(writers[1])];
  const tables = new Map([["outbox.order", { changes: 2, bytes: 10 }]]);
  const newest = (n: number) => () =>
    new Map([["outbox.order", { partition: n, position: String(n).padStart(34, "0") }]]);
  one(
    metrics({
      changes: 2,
      newest: newest(7),
      tables,
      oldestUnacknowledgedMs: 5,
      unansweredMs: 0,
      acknowledgedCommitTimeMs: 1,
    }),
  );
  two(metrics({ changes: 3, newest: newest(3), tables, bufferedBytes: 4, acknowledgedCommitTimeMs: 2 }));
  lanes.reportIfDue(10_000);
  lanes.reportIfDue(10_900);
  expect(told).toEqual([
    metrics({
      changes: 5,
      bufferedBytes: 4,
      oldestUnacknowledgedMs: 5,
      unansweredMs: 0,
      acknowledgedPlace: undefined,
      acknowledgedCommitTimeMs: 2,
      tables: new Map([["outbox.order", { changes: 4, bytes: 20 }]]),
      newest: expect.any(Function),
    }),
  ]);
  expect(told[0]?.newest?.()).toEqual(newest(7)());
  // A writer that ended keeps what it counted; the same one counts on.
  two(metrics({ changes: 4 }));
  lanes.reportIfDue(11_000);
  lanes.end(writers[0]);
  lanes.end(writers[0]);
  lanes.reportIfDue(12_000);
  lanes.end(writers[1]);
  lanes.callbackFor({})(metrics({ changes: 1 }));
  lanes.reportIfDue(13_000);
  lanes.report();
  expect(told.slice(1).map(({ changes }) => changes)).toEqual([6, 6, 7, 7]);
  expect(told.slice(1).map(({ oldestUnacknowledgedMs }) => oldestUnacknowledgedMs)).toEqual([5, 0, 0, 0]);
});
