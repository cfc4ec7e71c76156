import { describe, expect, it } from "vitest";
import { CapturePublisher, metricsSecondsFromEnvironment } from "../../../lib/capture/capture-metrics.ts";
import type { CaptureMetrics } from "../../../lib/capture/capture-options.ts";
import { MAX_TABLES } from "../../../lib/capture/table-metrics.ts";
import { CAPTURE_METRIC, METRICS_NAMESPACE, TABLE_METRIC } from "../../../lib/telemetry/metrics.ts";
import { emf } from "./emf-line.ts";

const START = 1_795_428_930_000;

function metrics(
  stream: Partial<CaptureMetrics["stream"]> = {},
  source: Partial<CaptureMetrics["source"]> = {},
): CaptureMetrics {
  return {
    stream: {
      changes: 0,
      records: 0,
      bytes: 0,
      requests: 0,
      retries: 0,
      throttles: 0,
      oversize: 0,
      tables: new Map(),
      bufferedBytes: 0,
      oldestUnacknowledgedMs: 0,
      acknowledgedPlace: undefined,
      acknowledgedCommitTimeMs: undefined,
      ...stream,
    },
    source: {
      connected: true,
      receivedLsn: 100n,
      serverLsn: 100n,
      confirmedLsn: 100n,
      reconnects: 0,
      backfills: [],
      leftoverSlots: [],
      holds: [],
      putAside: 0,
      rowsAsked: 0,
      walStatus: "reserved",
      safeWalBytes: undefined,
      walHeldBytes: undefined,
      walLossSeconds: undefined,
      oldestTransactionSeconds: undefined,
      oldestTransactionPid: undefined,
      ...source,
    },
  };
}

function publisher(seconds = 20) {
  const lines: string[] = [];
  const made = new CapturePublisher({
    stage: "Test",
    pipeline: "shop",
    seconds,
    write: (line) => lines.push(line),
  });
  return { made, written: () => lines.splice(0).map(emf) };
}

describe("the capture task's metrics", () => {
  it("are written at once, then when their time has come, with what was added and every gauge in between", () => {
    const { made, written } = publisher(20);
    made.take(metrics({ changes: 3, throttles: 1 }, { serverLsn: 107n }), START);
    const [first] = written();
    expect(first?.namespace).toBe(METRICS_NAMESPACE);
    expect(first?.dimensions).toEqual({ stage: "Test", pipeline: "shop" });
    expect(first?.values).toMatchObject({ Changes: 3, Throttles: 1, ReplicationLagBytes: 7, SlotActive: 1 });

    for (let second = 1; second < 20; second++) {
      const peak = second === 7 ? 900n : 0n;
      made.take(metrics({ changes: 3 + second }, { serverLsn: 100n + peak }), START + second * 1000);
    }
    expect(written()).toEqual([]);
    made.take(metrics({ changes: 23, throttles: 1 }, { reconnects: 2 }), START + 20_000);
    const [second] = written();
    expect(second?.values).toMatchObject({ Changes: 20, Throttles: 0, Reconnects: 2 });
    expect(second?.values.ReplicationLagBytes).toHaveLength(20);
    expect(second?.values.ReplicationLagBytes).toContain(900);
  });

  it("lose nothing at the end", () => {
    const { made, written } = publisher();
    made.take(metrics({ changes: 1 }), START);
    made.take(metrics({ changes: 5 }), START + 1000);
    made.flush(START + 1500);
    made.flush(START + 1600);
    expect(written().map((line) => line.values.Changes)).toEqual([1, 4]);
  });

  it("begin anew at a pause and behind it: nothing that was added is missing, and no counter goes back", () => {
    const { made, written } = publisher(60);
    const tables = (changes: number) => new Map([["public.a", { changes, bytes: changes * 10 }]]);
    const streaming = (changes: number) =>
      metrics({ changes, tables: tables(changes) }, { reconnects: 1, putAside: changes });
    const paused = { ...metrics({}, { connected: false }), paused: { since: START } };
    made.take(streaming(10), START);
    made.take(streaming(15), START + 1_000);
    // Both turns are written at once, long before the line that is due.
    made.take(paused, START + 2_000);
    made.take(paused, START + 3_000);
    made.take(streaming(3), START + 4_000);
    made.take(streaming(7), START + 5_000);
    made.flush(START + 6_000);
    const shown = written().map(({ kind, values }) =>
      kind === "capture-table"
        ? ["table", values[TABLE_METRIC.changes.name]]
        : ["capture", values.Changes, values.PutAside, values.Reconnects],
    );
    expect(shown).toEqual([
      ["table", 10],
      ["capture", 10, 10, 1],
      ["table", 5],
      ["capture", 5, 5, 0],
      ["capture", 0, 0, 0],
      ["capture", 0, 0, 0],
      ["table", 3],
      ["capture", 3, 3, 1],
      ["table", 4],
      ["capture", 4, 4, 0],
    ]);
  });

  it("have each unit as its name says, and no dimension that CloudWatch would bill beside", () => {
    const { made, written } = publisher();
    made.take(
      metrics(
        {},
        {
          ...{ walHeldBytes: 300, safeWalBytes: 100, walLossSeconds: 5, oldestTransactionSeconds: 1 },
          rowsAsked: 2,
        },
      ),
      START,
    );
    const [line] = written();
    const { sourceConnected: _ofTables, ...ofTheLog } = CAPTURE_METRIC;
    const named = Object.values(ofTheLog).map(({ name, unit }) => [name, unit]);
    expect(Object.entries(line?.units ?? {}).sort()).toEqual(named.sort());
    expect(line?.dimensionSets).toEqual([["stage", "pipeline"]]);
  });

  it("of a source that reads tables: whether it is connected, and nothing of a slot", () => {
    const { made, written } = publisher();
    const of = (connected: boolean): CaptureMetrics => ({
      ...metrics(),
      source: { kind: "tables", connected, reconnects: 0, oldestTransactionSeconds: 3 },
    });
    made.take(of(true), START);
    const [line] = written();
    expect(line?.values).toMatchObject({ SourceConnected: 1, OldestTransactionSeconds: 3 });
    for (const name of Object.keys(line?.values ?? {})) expect(name).not.toMatch(/Slot|Wal|LagBytes/);
    made.take(of(false), START + 20_000);
    expect(written()[0]?.values.SourceConnected).toBe(0);
  });

  it.each([
    [{ walHeldBytes: 300, safeWalBytes: 100 }, 25],
    [{ walHeldBytes: 300, safeWalBytes: -5 }, 0],
    [{ walHeldBytes: 300 }, 100],
    [{}, undefined],
  ])("WAL budget of %j: %s per cent", (source, left) => {
    const { made, written } = publisher();
    made.take(metrics({}, source), START);
    expect(written()[0]?.values.WalBudgetLeft).toBe(left);
  });

  it("say that the slot is not active while the link is away, and nothing before it was first opened", () => {
    const { made, written } = publisher(1);
    made.take({ ...metrics(), source: undefined }, START);
    made.take(metrics({}, { connected: false }), START + 1000);
    expect(written().map((line) => line.values.SlotActive)).toEqual([undefined, 0]);
  });

  it("are late by time only while something waits", () => {
    const { made, written } = publisher(1);
    made.take(metrics({ acknowledgedCommitTimeMs: START - 90_000 }), START);
    made.take(
      metrics({ acknowledgedCommitTimeMs: START - 90_000, oldestUnacknowledgedMs: 10 }),
      START + 1000,
    );
    expect(written().map((line) => line.values.ReplicationLagMilliseconds)).toEqual([0, 91_000]);
  });

  it("carry no line that CloudWatch would not take: 100 values of a metric at most", () => {
    const { made, written } = publisher(60);
    for (let i = 0; i <= 500; i++) made.take(metrics(), START + i * 119);
    made.flush(START + 59_999);
    const sizes = written().map((line) => [line.values.BufferedBytes].flat().length);
    expect(Math.max(...sizes)).toBeGreaterThan(50);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(100);
  });
});

describe("metrics of tables", () => {
  const counts = (entries: Record<string, number>) =>
    new Map(Object.entries(entries).map(([table, changes]) => [table, { changes, bytes: changes * 10 }]));

  it("are what was added to each, before the pipeline's own line", () => {
    const { made, written } = publisher(1);
    made.take(metrics({ tables: counts({ "public.a": 2, "public.b": 1 }) }), START);
    made.take(metrics({ tables: counts({ "public.a": 2, "public.b": 6 }) }), START + 1000);
    const lines = written().map(({ kind, dimensions, values }) => [
      kind,
      dimensions.table,
      values[TABLE_METRIC.changes.name],
      values[TABLE_METRIC.bytes.name],
    ]);
    expect(lines).toEqual([
      ["capture-table", "public.a", 2, 20],
      ["capture-table", "public.b", 1, 10],
      ["capture", undefined, undefined, undefined],
      ["capture-table", "public.b", 5, 50],
      ["capture", undefined, undefined, undefined],
    ]);
  });

  it("have names that CloudWatch takes, ASCII alone", () => {
    const { made, written } = publisher(1);
    made.take(metrics({ tables: counts({ 'public."Köln\n"': 1 }) }), START);
    expect(written()[0]?.dimensions.table).toBe('public."K%C3%B6ln%0A"');
  });

  it("are of the busiest by name and of all others together, and of no more names than bounded in a task's life", () => {
    const { made, written } = publisher(1);
    const totals: Record<string, number> = {};
    const seen = new Map<string, number>();
    for (let second = 0; second < 30; second++) {
      // Each second ten other tables are the busiest.
      for (let i = 0; i < 10; i++) totals[`public.t${second * 10 + i}`] = 1000 * (second + 1);
      made.take(metrics({ tables: counts(totals) }), START + second * 1000);
      const tables = written().filter(({ kind }) => kind === "capture-table");
      expect(tables.length).toBeLessThanOrEqual(MAX_TABLES + 1);
      for (const { dimensions, values } of tables) {
        const table = dimensions.table as string;
        seen.set(table, (seen.get(table) ?? 0) + (values[TABLE_METRIC.changes.name] as number));
      }
    }
    expect(seen.size).toBeLessThanOrEqual(2 * MAX_TABLES + 1);
    expect(seen.has("public.t0")).toBe(true);
    const sum = (numbers: Iterable<number>) => [...numbers].reduce((a, b) => a + b, 0);
    expect(sum(seen.values())).toBe(sum(Object.values(totals)));
  });
});

it("the seconds between lines are from 1 to 60", () => {
  const read = (value?: string) => metricsSecondsFromEnvironment({ TRIBUTARY_METRICS_SECONDS: value });
  expect([read("1"), read("60")]).toEqual([{ seconds: 1 }, { seconds: 60 }]);
  for (const wrong of ["0", "61", "x", ""]) expect(read(wrong).problem).toMatchObject({ value: wrong });
  expect(read().problem).toBeUndefined();
});
