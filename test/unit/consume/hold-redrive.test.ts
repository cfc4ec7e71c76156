import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { acceptGap } from "../../../lib/admin/accept-gap.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import type { MissingChanges } from "../../../lib/consume/run/missing-changes.ts";
import { eventually } from "../../eventually.ts";
import type { MemoryTable } from "./memory-table.ts";
import { at, invocationOf, packed, TOPIC } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

/*
 * Two who replay what one partition holds: an invocation for which its next try has come, and a redrive. Each process is a rig
 * of its own on one table. `old` is held; `new` follows it.
 */

let clock = 0;
beforeEach(() => {
  clock = Date.parse("2026-01-01T00:00:00Z");
  vi.spyOn(Date, "now").mockImplementation(() => clock);
});
afterEach(() => void vi.restoreAllMocks());

const OLD = { at: 1, after: null, row: { id: "k", v: "old" } };
const NEW = { at: 2, after: 1, row: { id: "k", v: "new" } };
/** What the redrive of a lease's holder that died waits for, in steps of the clock. */
const LEASE_MS = 30_000;

/** A process; its first call of a handler says so, and waits, where it is told to. */
async function process(effects: unknown[], table?: MemoryTable) {
  /** Where the next call stops. */
  let stop: { called: PromiseWithResolvers<void>; may: PromiseWithResolvers<void> } | undefined;
  /** Each request waits for it. */
  const network = { up: Promise.resolve() };
  let isBad = false;
  const made = await rig(
    (c) =>
      c.on("*", Operation.Create, async ({ after }) => {
        if (isBad) throw new Error("poison");
        const here = stop;
        stop = undefined;
        here?.called.resolve();
        await here?.may.promise;
        effects.push(after.v);
      }),
    {
      ...{ poison: "stop", attempts: 1 },
      ...(table ? { table } : {}),
      step: async () => {
        await network.up;
        return "none";
      },
    },
  );
  const invoke = (...changes: (typeof OLD | typeof NEW)[]) =>
    made.handler(invocationOf(...changes.map((change) => packed([change]))), lambdaContext());
  return {
    ...made,
    invoke,
    redrive: (ms?: number) => made.handler({ tributary: "redrive" }, lambdaContext(ms)),
    /** Holds `OLD`. */
    holdOld: async () => {
      isBad = true;
      await invoke(OLD);
      isBad = false;
      clock += 1_000;
    },
    /** The next call waits until it is told to go on. */
    stopsAtCall: () => {
      const own = { called: Promise.withResolvers<void>(), may: Promise.withResolvers<void>() };
      stop = own;
      return { isCalled: own.called.promise, goesOn: () => own.may.resolve() };
    },
    /** None of its requests reaches the table until the function is called that is returned. */
    cutOff: () => {
      const up = Promise.withResolvers<void>();
      network.up = up.promise;
      return () => up.resolve();
    },
  };
}

const stored = (table: MemoryTable) => readPartition(table.item(`fence#${TOPIC}#0`), 0);

/** The partition has another owner than now. */
function isTaken(table: MemoryTable): Promise<unknown> {
  const before = stored(table).token;
  return eventually(() => stored(table).token !== before, { what: "another takes the partition" });
}

/** Lets the clock run as long as something waits for it. */
async function whileTimePasses<T>(waiting: Promise<T>): Promise<T> {
  const timer = setInterval(() => {
    clock += 1_000;
  }, 10);
  return waiting.finally(() => clearInterval(timer));
}

describe("a redrive of a held partition", () => {
  it("does not call handlers beside an invocation that is at work on the same changes", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const { isCalled, goesOn } = first.stopsAtCall();
    const atWork = first.invoke(NEW);
    await isCalled;
    const report = await second.redrive(1_500);
    goesOn();
    expect(await atWork).toEqual({ batchItemFailures: [] });
    expect(effects).toEqual(["old", "new"]);
    expect(report).toMatchObject({ redriven: 0, busy: 1, letters: [{ error: "HoldAtWorkError" }] });
    expect(second.lines.map((line) => JSON.parse(line))).toContainEqual(
      expect.objectContaining({ code: "HELD_AT_WORK", topic: TOPIC, partition: 0 }),
    );
    expect(stored(first.table)).toMatchObject({ position: at(2), token: undefined });
    expect(stored(first.table).hold).toBeUndefined();
  });

  it("goes on where an invocation died at work, once its lease is over", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const { isCalled } = first.stopsAtCall();
    void first.invoke(NEW).catch(() => {});
    await isCalled;
    first.cutOff();
    const died = clock;
    const report = await whileTimePasses(second.redrive());
    expect(effects).toEqual(["old"]);
    expect(report).toMatchObject({ done: 1, redriven: 1 });
    expect(clock - died).toBeGreaterThanOrEqual(LEASE_MS);
  });

  it("heals at once where an invocation died that had not begun to replay", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    clock -= 1_000;
    // It stores a record behind the others: its next try has not come.
    const up = first.cutOff();
    const dies = first.invoke(NEW);
    void dies.catch(() => {});
    expect(await second.redrive()).toMatchObject({ done: 1, redriven: 1 });
    expect(effects).toEqual(["old"]);
    up();
    await dies;
  });

  it("leaves the changes to it that one brings whose lease it outlived: woken, that one calls nothing more", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const { isCalled, goesOn } = first.stopsAtCall();
    const frozen = first.invoke(NEW);
    await isCalled;
    const wakes = first.cutOff();
    await whileTimePasses(second.redrive());
    await second.invoke(NEW);
    expect(effects).toEqual(["old", "new"]);
    wakes();
    goesOn();
    expect((await frozen).batchItemFailures).toHaveLength(1);
    // The call that it was frozen in ends; none begins.
    expect(effects).toEqual(["old", "new", "old"]);
    expect(stored(first.table)).toMatchObject({ position: at(2), token: undefined });
  });
});

describe("a redrive that waits for an invocation", () => {
  it("takes nothing from the next one, where the hold has ended meanwhile", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const replays = first.stopsAtCall();
    const atWork = first.invoke(NEW);
    await replays.isCalled;
    const redriven = second.redrive();
    const isWaiting = () => second.lines.some((line) => line.includes("HELD_AT_WORK"));
    await eventually(isWaiting, { what: "the redrive waits" });
    replays.goesOn();
    await atWork;
    const next = first.stopsAtCall();
    const brings = first.invoke({ at: 3, after: 2, row: { id: "k", v: "newest" } });
    await next.isCalled;
    expect(await redriven).toMatchObject({ redriven: 0, busy: 0 });
    next.goesOn();
    expect(await brings).toEqual({ batchItemFailures: [] });
    expect(effects).toEqual(["old", "new", "newest"]);
  });
});

describe("an invocation that brings a change to a partition in which a redrive is at work", () => {
  it("waits for the call under way, and does nothing again that the redrive did", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const { isCalled, goesOn } = second.stopsAtCall();
    const redriven = second.redrive();
    await isCalled;
    const taken = isTaken(first.table);
    const brings = first.invoke(NEW);
    await taken;
    goesOn();
    expect(await brings).toEqual({ batchItemFailures: [] });
    expect(await redriven).toMatchObject({ busy: 1, redriven: 1 });
    expect(effects).toEqual(["old", "new"]);
    expect(stored(first.table)).toMatchObject({ position: at(2), token: undefined });
    expect(first.table.items("hold#"), "nothing is left behind").toEqual([]);
  });

  it("makes the redrive stop before its next call", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    clock -= 1_000;
    await first.invoke(NEW);
    const { isCalled, goesOn } = second.stopsAtCall();
    const redriven = second.redrive();
    await isCalled;
    const taken = isTaken(first.table);
    const brings = first.invoke({ at: 3, after: 2, row: { id: "k", v: "newest" } });
    await taken;
    clock += 2_000;
    goesOn();
    await brings;
    expect(await redriven).toMatchObject({ redriven: 1 });
    expect(effects).toEqual(["old", "new", "newest"]);
  });

  it("goes on by itself where the redrive died, once its lease is over", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const { isCalled } = second.stopsAtCall();
    void second.redrive().catch(() => {});
    await isCalled;
    second.cutOff();
    expect(await whileTimePasses(first.invoke(NEW))).toEqual({ batchItemFailures: [] });
    expect(effects).toEqual(["old", "new"]);
    expect(stored(first.table)).toMatchObject({ position: at(2), token: undefined });
  });

  it("gives its records back where the redrive's call takes longer than it has, and nothing is lost by that", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    const { isCalled, goesOn } = second.stopsAtCall();
    const redriven = second.redrive();
    await isCalled;
    const brings = await first.handler(invocationOf(packed([NEW])), lambdaContext(1_200));
    expect(brings.batchItemFailures).toHaveLength(1);
    expect(first.lines.map((line) => JSON.parse(line))).toContainEqual(
      expect.objectContaining({ code: "HELD_AT_WORK", topic: TOPIC, partition: 0 }),
    );
    goesOn();
    await redriven;
    expect(await first.invoke(NEW)).toEqual({ batchItemFailures: [] });
    expect(effects).toEqual(["old", "new"]);
  });
});

describe("a gap that is accepted while a redrive replays its partition", () => {
  it("ends the redrive behind its call: nothing is done twice, and the gap is passed", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const second = await process(effects, first.table);
    await first.holdOld();
    clock -= 1_000;
    const behind = { at: 3, after: 2, row: { id: "k", v: "behind the gap" } };
    await first.invoke(behind);
    clock += 1_000;
    const { isCalled, goesOn } = second.stopsAtCall();
    const redriven = second.redrive();
    await isCalled;
    let [gaveBack, asked] = [false, false];
    const dynamodb = first.table.client(async (when, what) => {
      if (when === "before") return "none";
      gaveBack ||= what === "SET t0=:next";
      asked ||= gaveBack && what === "get";
      return "none";
    });
    const place = { dynamodb, table: "t", pipeline: "p", consumer: "c" };
    const missing: MissingChanges = {
      ...{ topic: TOPIC, partition: 0, cause: "gap", behind: at(1), upTo: at(2), writer: 1 },
      ...{ foundAt: "2026-01-01T00:00:00Z", accepted: undefined, swept: [] },
    };
    const plan = { missing: [missing], tables: [], others: [] };
    const accepting = acceptGap(place, plan, "me", AbortSignal.timeout(10_000)).finally(() => {
      asked = true;
    });
    await eventually(() => asked, { what: "the acceptance looks at the lease" });
    goesOn();
    expect(await redriven).toMatchObject({ redriven: 1, busy: 1 });
    expect(await accepting).toMatchObject([{ outcome: "passed" }]);
    expect(await first.redrive()).toMatchObject({ done: 1 });
    expect(effects).toEqual(["old", "behind the gap"]);
  });
});
