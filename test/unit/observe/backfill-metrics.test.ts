import { expect, it } from "vitest";
import { BackfillMetrics, toldBackfills } from "../../../lib/capture/backfill-metrics.ts";
import type { BackfillReport } from "../../../lib/source/postgres/backfill/backfills.ts";
import { BACKFILL_METRIC } from "../../../lib/telemetry/metrics.ts";
import { emf } from "./emf-line.ts";

const report = (more: Partial<BackfillReport>, rows = 100, finishedAt?: number): BackfillReport => ({
  ...{ table: "public.orders", run: 1, status: "running", request: { sweep: true, requestedAt: 0 } },
  progress: {
    ...{ startPosition: "", startedAt: 0, updatedAt: 1000, lastKey: ["1"], keyColumns: ["id"] },
    ...{ chunk: 1, rows, bytes: 1, estimatedRows: 400, finishedAt },
  },
  ...more,
});

it("publishes rows as what was added, and the per cent, until the end and no longer", () => {
  const made = new BackfillMetrics({ stage: "Test", pipeline: "shop" });
  const take = (...reports: BackfillReport[]) => made.lines(reports).map(emf);
  const { rows, percent } = BACKFILL_METRIC;
  // A run that an earlier task had begun: its rows were told.
  const [first] = take(report({}));
  expect(first?.dimensions).toEqual({ stage: "Test", pipeline: "shop", table: "public.orders" });
  expect(first?.values).toMatchObject({ [rows.name]: 0, [percent.name]: 25 });
  expect(take(report({}, 150))[0]?.values).toMatchObject({ [rows.name]: 50, [percent.name]: 37 });
  expect(take(report({ status: "done" }, 200))[0]?.values).toMatchObject({
    [rows.name]: 50,
    [percent.name]: 100,
  });
  expect(take(report({ status: "done" }, 200))).toEqual([]);
  expect(take(report({ run: 2 }, 30))[0]?.values).toMatchObject({ [rows.name]: 30 });
  // What ended before this task is no news.
  expect(take(report({ table: "public.items", status: "done" }))).toEqual([]);
});

it("tells of an ended backfill for a while", () => {
  const done = report({ status: "done" }, 400, 10_000);
  expect(toldBackfills([report({}), done], 20_000)).toEqual([
    { table: "public.orders", status: "running", rows: 100, percent: 25 },
    { table: "public.orders", status: "done", rows: 400, percent: 100 },
  ]);
  expect(toldBackfills([done], 80_000)).toEqual([]);
});
