import { expect, test } from "vitest";
import { backfillLines } from "../../../lib/cli/backfill-status.ts";
import { backfillFigures } from "../../../lib/state/backfill-figures.ts";
import type { Backfill, BackfillProgress } from "../../../lib/state/backfills.ts";

const progress: BackfillProgress = {
  ...{ startPosition: "", startedAt: 0, updatedAt: 100_000, lastKey: ["1"], keyColumns: ["id"] },
  ...{ chunk: 3, rows: 50_000, bytes: 1, estimatedRows: 200_000 },
};
const backfill = (more: Partial<Backfill>): Backfill => ({
  ...{ table: "public.orders", run: 1, wanted: "run", status: "running", epoch: 1, generation: 1 },
  request: { sweep: true, requestedAt: 0 },
  progress,
  ...more,
});

test("figures: per cent of the estimate, rate, what remains at that rate", () => {
  expect(backfillFigures(backfill({}))).toEqual({
    ...{ rows: 50_000, percent: 25, rowsPerSecond: 500, remainingSeconds: 300 },
  });
  const more = { ...progress, rows: 300_000 };
  // The estimate was too low: never 100 before the end, never less than nothing left.
  expect(backfillFigures(backfill({ progress: more }))).toMatchObject({ percent: 99, remainingSeconds: 0 });
  const done = { ...more, finishedAt: 200_000 };
  expect(backfillFigures(backfill({ status: "done", progress: done }))).toEqual({
    ...{ rows: 300_000, percent: 100, rowsPerSecond: 1500, remainingSeconds: undefined },
  });
  const { estimatedRows: _, ...unknown } = progress;
  expect(backfillFigures(backfill({ progress: unknown }))).toMatchObject({ percent: undefined });
  expect(backfillFigures(backfill({ progress: undefined })).rowsPerSecond).toBeUndefined();
});

test("lines: one a table, with what is not heard yet", () => {
  const lines = backfillLines([
    backfill({}),
    backfill({ table: "public.order_items", run: 12, wanted: "pause", progress: undefined }),
    backfill({
      wanted: "pause",
      status: "paused",
      request: { where: "id > 1", sweep: false, requestedAt: 0 },
    }),
    backfill({ wanted: "run", status: "paused", request: { consumer: "view", sweep: true, requestedAt: 0 } }),
    backfill({ wanted: "cancel", progress: { ...progress, reason: "waits" } }),
  ]);
  expect(lines).toEqual([
    "table               run  status        rows  done  rows/s   left",
    "public.orders         1  running     50,000   25%     500  300 s",
    "public.order_items   12  pausing          0     –       –      –",
    "public.orders         1  paused      50,000   25%     500  300 s  some rows",
    "public.orders         1  resuming    50,000   25%     500  300 s  for view",
    "public.orders         1  cancelling  50,000   25%     500  300 s  waits",
  ]);
});
