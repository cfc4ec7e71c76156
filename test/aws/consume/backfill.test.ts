import { describe, expect, it } from "vitest";
import { PROBE } from "../../../lib/change/control-event.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { Sweep } from "../../../lib/consume/run/sweep.ts";
import { at, backfillEnd, type Change, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();

const read = (commit: number, ordinal: number, id: string, more: Partial<Change> = {}): Change => ({
  ...{ op: "r", at: commit, ordinal, row: { id }, source: { snapshot: "true" } },
  after: ordinal === 1 ? commit - 1 : at(commit, { ordinal: ordinal - 1 }),
  ...more,
});
const forOther = { source: { backfill: { run: 1, consumer: "another" } } };

describe("rows read by a backfill", () => {
  it("come in their place as Operation.Read; those for another consumer are passed", async () => {
    const bench = await consumerBench(aws());
    const effects: string[] = [];
    const handler = bench.instance((c) =>
      c.onBatch("public.orders", {}, (events) => {
        for (const { op, row } of events) effects.push(`${op} ${row?.id}`);
      }),
    );
    const own = { source: { backfill: { run: 1, consumer: bench.name } } };
    const record = packed([
      { at: 1, after: null, op: "u", row: { id: "a" } },
      read(2, 1, "b"),
      read(2, 2, "c", own),
      read(2, 3, "d", forOther),
      { at: 3, after: at(2, { ordinal: 3 }), op: "u", row: { id: "b" } },
      read(4, 1, "e", forOther),
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(effects).toEqual(["u a", "r b", "r c", "u b"]);
    expect(bench.reports[0]).toMatchObject({ applied: 4, passed: 2, unhandled: 0 });
    expect((await bench.stored()).position).toBe(at(4));
  });

  it("wait behind a parked change of their key", async () => {
    const bench = await consumerBench(aws());
    const effects: string[] = [];
    let broken = true;
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", [Operation.Update, Operation.Read], ({ op, row }) => {
          if (broken && op === "u") throw new Error("poison");
          effects.push(`${op} ${row.id}`);
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    const record = packed([
      { at: 1, after: null, op: "u", row: { id: "a" } },
      read(2, 1, "a"),
      read(2, 2, "b"),
      // Not ours: nothing of it is parked.
      read(2, 3, "a", forOther),
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(effects).toEqual(["r b"]);
    expect(bench.reports[0]).toMatchObject({ parked: 1, parkedBehind: 1, passed: 1 });
    broken = false;
    expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 2 });
    expect(effects).toEqual(["r b", "u a", "r a"]);
  });
});

describe("control events", () => {
  it("move the fence and are given to no handler", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = bench.instance((c) =>
      c.onBatch("*", {}, (events) => void seen.push(...events.map((e) => e.id))),
    );
    const record = packed([
      { at: 1, after: null },
      { at: 2, after: 1, op: "m", message: { prefix: PROBE, content: "e30=" } },
      { at: 3, after: 2 },
      { at: 4, after: 3, op: "m", message: backfillEnd(at(1)) },
      { at: 5, after: 4, op: "m", message: { prefix: "app", content: "e30=" } },
      { at: 6, after: 5, op: "m", message: backfillEnd(at(1), { sweep: false }) },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(seen).toEqual([at(1), at(3), at(5)]);
    expect(bench.reports[0]).toMatchObject({ applied: 3, passed: 3, unhandled: 0, deadLettered: 0 });
    expect((await bench.stored()).position).toBe(at(6));
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(bench.reports[1]).toMatchObject({ duplicates: 6, passed: 0 });
  });

  it("that cannot be read hold their partition: a sweep may not be lost", async () => {
    const bench = await consumerBench(aws());
    const handler = bench.instance((c) => c.onSweep("public.orders", () => {}));
    const record = packed([
      { at: 1, after: null },
      { at: 2, after: 1, op: "m", message: { ...backfillEnd(""), content: "e30=" } },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(bench.lines.join()).toContain("RECORD_FORMAT");
    expect(await bench.stored()).toMatchObject({ position: at(1), hold: { cause: "RecordFormatError" } });
  });
});

describe("a sweep", () => {
  it("comes once, in its place, with its bound; not to other tables' handlers, not to other consumers", async () => {
    const bench = await consumerBench(aws());
    const effects: (string | Sweep)[] = [];
    const handler = bench.instance((c) =>
      c
        .onBatch("public.*", {}, (events) => void effects.push(...events.map(({ row }) => String(row?.id))))
        .onSweep("public.items", () => void effects.push("items"))
        .onSweep("public.orders", (sweep, { attempt }) => {
          if (attempt === 1) throw new Error("once more");
          effects.push(sweep);
        }),
    );
    const end = { op: "m", message: backfillEnd(at(2)) } as const;
    const record = packed([
      { at: 1, after: null },
      { at: 3, after: 1 },
      { at: 4, after: 3, ...end },
      { at: 5, after: 4 },
      { at: 6, after: 5, ...end, ...forOther },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    const sweep = {
      id: at(4),
      before: at(2),
      run: 1,
      topic: TOPIC,
      partition: 0,
      schema: "public",
      table: "orders",
    };
    expect(effects).toEqual(["1", "3", sweep, "5"]);
    expect(bench.reports[0]).toMatchObject({ applied: 4, retried: 1, passed: 1 });
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(effects).toHaveLength(4);
  });

  it("that fails for good holds its partition", async () => {
    const bench = await consumerBench(aws());
    const handler = bench.instance(
      (c) =>
        c.onSweep("public.orders", () => {
          throw new Error("poison");
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    const record = packed([
      { at: 1, after: null },
      { at: 2, after: 1, op: "m", message: backfillEnd(at(1)) },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(bench.lines.join()).toContain("POISON_WITHOUT_KEY");
    expect(bench.reports[0]).toMatchObject({ held: 1, heldPartitions: 1, deadLettered: 0 });
    expect((await bench.stored()).position).toBe(at(1));
  });

  it.each(["park", "skip"])(
    "supersedes parked changes below its bound, no others, under %s",
    async (poison) => {
      const bench = await consumerBench(aws());
      const effects: string[] = [];
      let broken = true;
      const handler = bench.instance(
        (c) =>
          c
            .on("public.*", [Operation.Update, Operation.Read], ({ op, row, id }) => {
              const commit = Number.parseInt(id.slice(8, 24), 16);
              if (broken) throw new Error("poison");
              effects.push(`${op} ${row.id} ${commit}`);
            })
            .onSweep("public.orders", () => void effects.push("sweep")),
        { TRIBUTARY_ATTEMPTS: "1", TRIBUTARY_POISON: poison },
      );
      const update = (commit: number, id: string, table = "orders"): Change => ({
        ...{ at: commit, after: commit === 1 ? null : commit - 1, op: "u", row: { id }, table },
      });
      const before = packed([
        ...[update(1, "gone"), update(2, "stays"), update(3, "item", "items")],
        read(4, 1, "stays"),
        { ...update(5, "new"), after: at(4) },
      ]);
      expect(await invoke(handler, [before])).toEqual(DONE);
      // The backfill began behind 3.
      const sweep = packed([{ at: 6, after: 5, op: "m", message: backfillEnd(at(4, { ordinal: 0 })) }]);
      expect(await invoke(handler, [sweep])).toEqual(DONE);
      expect(effects).toEqual(["sweep"]);
      expect(bench.reports[1]).toMatchObject({ superseded: 1, applied: 1 });
      broken = false;
      await redrive(handler);
      expect(effects.slice(1).sort()).toEqual(["r stays 4", "u item 3", "u new 5"]);
      expect((await bench.stored()).parked ?? "").toBe("");
    },
  );
});
