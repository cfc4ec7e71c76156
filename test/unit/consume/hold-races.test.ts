import { type DynamoDBClient, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import type { KinesisStreamRecord } from "aws-lambda";
import { describe, expect, it, vi } from "vitest";
import { acceptGap } from "../../../lib/admin/accept-gap.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import type { MissingChanges } from "../../../lib/consume/run/missing-changes.ts";
import { eventually } from "../../eventually.ts";
import type { MemoryTable } from "./memory-table.ts";
import { at, chain, invocationOf, packed, TOPIC } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

/*
 * Three who have to do with one held partition, each stopped at the request that matters. Nobody dies, so nothing may take
 * effect twice, and nothing may stay behind.
 */

type Step = NonNullable<Parameters<typeof rig>[1]>["step"] & {};

/** Stops whoever makes such a request for the first time, or the `nth`, until it is told to go on. */
function stopsBefore(isMeant: (update: UpdateItemCommand["input"]) => boolean, nth = 1) {
  const [asked, may] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let left = nth;
  const step: Step = async (when, _what, command) => {
    const isOne = when === "before" && command instanceof UpdateItemCommand && isMeant(command.input);
    if (isOne && --left === 0) {
      asked.resolve();
      await may.promise;
    }
    return "none";
  };
  return { step, isAsked: asked.promise, goesOn: () => may.resolve() };
}

const handsOver = ({ UpdateExpression, ConditionExpression }: UpdateItemCommand["input"]) =>
  UpdateExpression?.startsWith("SET m0") === true && ConditionExpression?.includes("v0=") === true;
const closes = ({ UpdateExpression, ConditionExpression }: UpdateItemCommand["input"]) =>
  UpdateExpression?.startsWith("SET m0") === true && !ConditionExpression?.includes("v0=");
const takesLease = ({ UpdateExpression }: UpdateItemCommand["input"]) =>
  UpdateExpression?.startsWith("SET v0") === true;
const takes = ({ UpdateExpression }: UpdateItemCommand["input"]) => UpdateExpression === "SET t0=:t";

/** A process of the consumer; changes of row `x` fail where `isBad`. */
async function process(
  effects: unknown[],
  { table, step, poison = "park" }: { table?: MemoryTable; step?: Step; poison?: "park" | "stop" } = {},
) {
  let stop: { called: PromiseWithResolvers<void>; may: PromiseWithResolvers<void> } | undefined;
  const bad = { isBad: false };
  let ms = 0;
  const made = await rig(
    (c) =>
      c.on("*", [Operation.Create, Operation.Update], async ({ after }) => {
        if (bad.isBad && after.id === "x") throw new Error("poison");
        const here = stop;
        stop = undefined;
        here?.called.resolve();
        await here?.may.promise;
        if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
        effects.push(after.v);
      }),
    { attempts: 1, poison, ...(table ? { table } : {}), ...(step ? { step } : {}) },
  );
  return {
    ...made,
    bad,
    /** Each call of the handler takes so long from now on. */
    takesMs: (callMs: number) => {
      ms = callMs;
    },
    invoke: (records: readonly KinesisStreamRecord[], ms?: number) =>
      made.handler(invocationOf(...records), lambdaContext(ms)),
    redrive: (key?: string) =>
      made.handler({ tributary: "redrive", ...(key ? { key } : {}) }, lambdaContext()),
    /** The next call of the handler waits until it is told to go on. */
    stopsAtCall: () => {
      const own = { called: Promise.withResolvers<void>(), may: Promise.withResolvers<void>() };
      stop = own;
      return { isCalled: own.called.promise, goesOn: () => own.may.resolve() };
    },
  };
}

const stored = (table: MemoryTable) => readPartition(table.item(`fence#${TOPIC}#0`), 0);
/** Accepts that the second change never came. */
function accept(dynamodb: DynamoDBClient) {
  const place = { dynamodb, table: "t", pipeline: "p", consumer: "c" };
  const missing: MissingChanges = {
    ...{ topic: TOPIC, partition: 0, cause: "gap", behind: at(1), upTo: at(2), writer: 1 },
    ...{ foundAt: "2026-01-01T00:00:00Z", accepted: undefined, swept: [] },
  };
  return acceptGap(place, { missing: [missing], tables: [], others: [] }, "me", AbortSignal.timeout(20_000));
}

const DONE = { batchItemFailures: [] };

/** Changes of these rows, each behind the one before, in records of their own. */
function records(...ids: [string, string, string, string]) {
  const record = (i: number) =>
    packed([{ at: i + 1, after: i === 0 ? null : i, row: { id: ids[i] as string, v: i + 1 } }]);
  return [record(0), record(1), record(2), record(3)] as const;
}

describe("a replay from which the partition was taken", () => {
  it("hands over what it did, whoever takes the partition next", async () => {
    const effects: unknown[] = [];
    const handingOver = stopsBefore(handsOver);
    const first = await process(effects, { step: handingOver.step });
    const { table } = first;
    const [second, third] = [await process(effects, { table }), await process(effects, { table })];
    const [one, two, three, four] = records("a", "b", "c", "d");
    await first.invoke([one]);
    await first.invoke([three]);
    expect(stored(table).hold).toBeDefined();
    const call = first.stopsAtCall();
    const replays = first.invoke([two]);
    await call.isCalled;
    // It has no time to wait for the call.
    expect((await second.invoke([four], 1_200)).batchItemFailures).toHaveLength(1);
    call.goesOn();
    await handingOver.isAsked;
    const { token } = stored(table);
    const brings = third.invoke([four]);
    await eventually(() => stored(table).token !== token, { what: "another takes the partition" });
    handingOver.goesOn();
    expect((await replays).batchItemFailures).toHaveLength(1);
    expect(await brings).toEqual(DONE);
    expect(await third.invoke([two])).toEqual(DONE);
    await third.redrive();
    expect(effects).toEqual([1, 2, 3, 4]);
  });
});

describe("a key that is redriven while its partition's hold is replayed", () => {
  it("is parked no more, and nothing is done twice", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const { table } = first;
    const second = await process(effects, { table });
    const [one, two, three, four] = records("x", "b", "c", "d");
    first.bad.isBad = true;
    await first.invoke([one]);
    await first.invoke([three]);
    first.bad.isBad = false;
    const call = first.stopsAtCall();
    const replays = first.invoke([two]);
    await call.isCalled;
    const report = await second.redrive("x");
    call.goesOn();
    expect(await replays).toEqual(DONE);
    const third = await process(effects, { table });
    expect(await third.invoke([four])).toEqual(DONE);
    expect(report).toMatchObject({ redriven: 1, busy: 1, letters: [{ error: "HoldAtWorkError" }] });
    await second.redrive();
    expect(effects).toEqual([1, 2, 3, 4]);
    expect(stored(table)).toMatchObject({ position: at(4), parked: undefined, token: undefined });
  });

  it("stays so where the replay was frozen for longer than its lease, and wakes", async () => {
    const effects: unknown[] = [];
    let up = Promise.resolve();
    const step: Step = async () => {
      await up;
      return "none";
    };
    const first = await process(effects, { step });
    const { table } = first;
    const second = await process(effects, { table });
    const [one, two, three, four] = records("x", "b", "c", "d");
    first.bad.isBad = true;
    await first.invoke([one]);
    await first.invoke([three]);
    first.bad.isBad = false;
    const call = first.stopsAtCall();
    const replays = first.invoke([two], 60_000);
    await call.isCalled;
    const frozen = Promise.withResolvers<void>();
    up = frozen.promise;
    const now = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 31_000);
    expect(await second.redrive("x")).toMatchObject({ redriven: 1, done: 1 });
    call.goesOn();
    frozen.resolve();
    await replays;
    now.mockRestore();
    const third = await process(effects, { table });
    await third.invoke([two]);
    expect(await third.invoke([four])).toEqual(DONE);
    await third.redrive();
    expect(stored(table)).toMatchObject({ position: at(4), parked: undefined, token: undefined });
  });
});

describe("an invocation that has taken a partition before another began to replay it", () => {
  it("is given nothing that it does not wait for: no list is gone that it names", async () => {
    const effects: unknown[] = [];
    const [begins, ends] = [stopsBefore(takesLease), stopsBefore(closes)];
    const early = await process(effects);
    const { table } = early;
    const first = await process(effects, { table, step: begins.step });
    const second = await process(effects, { table, step: ends.step });
    const [one, two, three, four] = records("x", "x", "x", "d");
    early.bad.isBad = true;
    await early.invoke([one]);
    await early.invoke([three]);
    const fills = first.invoke([two]);
    await begins.isAsked;
    const stores = second.invoke([four]);
    await ends.isAsked;
    begins.goesOn();
    const { batchItemFailures } = await fills;
    const { position = "" } = stored(table);
    ends.goesOn();
    expect(await stores).toEqual(DONE);
    expect((stored(table).position ?? "") >= position, "the mark does not go back").toBe(true);
    expect(batchItemFailures).toHaveLength(1);
    expect(await first.invoke([two])).toEqual(DONE);
    await first.redrive();
    await first.redrive();
    expect(effects.toSorted()).toEqual([1, 2, 3, 4]);
    expect(stored(table)).toMatchObject({ position: at(4), parked: undefined, token: undefined });
  });
});

describe("a redrive that was frozen between lease and partition, and wakes", () => {
  it("overwrites nothing that the next one hands over to it", async () => {
    const effects: unknown[] = [];
    const [frozen, writes] = [stopsBefore(takes), stopsBefore(closes)];
    const first = await process(effects, { poison: "stop" });
    const { table } = first;
    const step: Step = async (...request) => {
      await frozen.step(...request);
      return writes.step(...request);
    };
    const sleeper = await process(effects, { table, step, poison: "stop" });
    const next = await process(effects, { table, poison: "stop" });
    first.bad.isBad = true;
    await first.invoke(records("x", "b", "c", "d"));
    first.bad.isBad = false;
    const sleeps = sleeper.redrive();
    await frozen.isAsked;
    const now = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 31_000);
    const call = next.stopsAtCall();
    const replays = next.redrive();
    await call.isCalled;
    const { token } = stored(table);
    frozen.goesOn();
    await eventually(() => stored(table).token !== token, { what: "it takes the partition" });
    await Promise.race([sleeps, writes.isAsked]);
    call.goesOn();
    await replays;
    writes.goesOn();
    expect(await sleeps).toMatchObject({ redriven: 0 });
    now.mockRestore();
    await first.redrive();
    expect(effects).toEqual([1, 2, 3, 4]);
    expect(stored(table)).toMatchObject({ position: at(4), token: undefined });
  });
});

describe("a gap that is accepted", () => {
  it("takes nothing from a replay of a hold that began after it looked", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const { table } = first;
    const [one, two, three] = records("a", "b", "c", "d");
    await first.invoke([one]);
    const accepts = stopsBefore(takes);
    const accepting = accept(table.client(accepts.step));
    await accepts.isAsked;
    await first.invoke([three]);
    const call = first.stopsAtCall();
    const replays = first.invoke([two]);
    await call.isCalled;
    const { token } = stored(table);
    accepts.goesOn();
    await eventually(() => stored(table).token !== token, { what: "the acceptance takes the partition" });
    call.goesOn();
    await replays;
    await accepting;
    await first.invoke([two]);
    await first.redrive();
    expect(effects).toEqual([1, 2, 3]);
    expect(stored(table)).toMatchObject({ position: at(3), token: undefined });
  });

  it("ends a replay behind the call that is under way, and nothing is done twice", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const { table } = first;
    const [one, two] = records("a", "b", "c", "d");
    const many = packed(chain(3, 202).map((change) => ({ ...change, row: { id: "e", v: change.at } })));
    first.takesMs(20);
    await first.invoke([one]);
    await first.invoke([many]);
    const replays = first.invoke([two], 60_000);
    await eventually(() => effects.length > 5, { what: "the replay is at work" });
    await accept(table.client(async () => "none"));
    await replays;
    first.takesMs(0);
    await first.invoke([two]);
    await first.redrive();
    expect(effects).toEqual(Array.from({ length: 202 }, (_, i) => i + 1));
  });

  it("overwrites nothing that a replay hands over, where it was frozen for longer than its lease", async () => {
    const effects: unknown[] = [];
    const first = await process(effects, { poison: "stop" });
    const { table } = first;
    first.bad.isBad = true;
    await first.invoke(records("x", "b", "c", "d"));
    first.bad.isBad = false;
    // The first time it only sees that the partition is held.
    const [frozen, writes] = [stopsBefore(takes, 2), stopsBefore(closes)];
    const accepting = accept(
      table.client(async (...request) => {
        await frozen.step(...request);
        return writes.step(...request);
      }),
    );
    await frozen.isAsked;
    const now = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 31_000);
    const call = first.stopsAtCall();
    const replays = first.redrive();
    await call.isCalled;
    const { token } = stored(table);
    frozen.goesOn();
    await eventually(() => stored(table).token !== token, { what: "it takes the partition" });
    call.goesOn();
    await replays;
    writes.goesOn();
    await accepting;
    now.mockRestore();
    await first.redrive();
    expect(effects).toEqual([1, 2, 3, 4]);
    expect(stored(table)).toMatchObject({ position: at(4), token: undefined });
  });

  it("waits for an invocation at work in a partition that is accepted beside it", async () => {
    const effects: unknown[] = [];
    const first = await process(effects);
    const { table } = first;
    const [one] = records("a", "b", "c", "d");
    const call = first.stopsAtCall();
    const atWork = first.invoke([one]);
    await call.isCalled;
    let asked = 0;
    const counts: Step = async () => {
      asked++;
      return "none";
    };
    const place = { dynamodb: table.client(counts), table: "t", pipeline: "p", consumer: "c" };
    const expired: MissingChanges = {
      ...{ topic: TOPIC, partition: 1, cause: "expired", behind: at(1), upTo: at(2), writer: 1 },
      ...{ foundAt: "2026-01-01T00:00:00Z", accepted: undefined, swept: [] },
    };
    const plan = { missing: [expired], tables: [], others: [{ topic: TOPIC, partition: 0 }] };
    const accepting = acceptGap(place, plan, "me", AbortSignal.timeout(20_000));
    const isAccepted = () => table.item(`fence#${TOPIC}#0`)?.j1 !== undefined;
    await eventually(isAccepted, { what: "the partition before it is accepted" });
    const before = asked;
    let isThrough = false;
    void accepting.finally(() => {
      isThrough = true;
    });
    await eventually(() => isThrough || asked > before + 12, { what: "it looks, and looks again" });
    call.goesOn();
    expect(await atWork).toEqual(DONE);
    await accepting;
    expect(effects).toEqual([1]);
    expect(stored(table)).toMatchObject({ position: at(1), lost: { state: "settled" }, token: undefined });
  });
});
