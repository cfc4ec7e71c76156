import { UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { expect, test } from "vitest";
import {
  type Backfill,
  type BackfillProgress,
  backfillRecord,
  hasEnded,
  readBackfill,
  readBackfillBell,
  readBackfills,
  requestBackfill,
  restartBackfill,
  wantBackfill,
  writeBackfill,
} from "../../../lib/state/backfills.ts";
import { CaptureState } from "../../../lib/state/capture-state.ts";
import type { StatePlace } from "../../../lib/state/persistent-table.ts";
import {
  BackfillActiveError,
  BackfillNotActiveError,
  StateTableError,
} from "../../../lib/state/state-errors.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();

async function store(): Promise<StatePlace> {
  return {
    dynamodb: aws().dynamodb,
    table: await aws().freshTable(),
    pipeline: "shop",
    signal: new AbortController().signal,
  };
}

const wish = { sweep: false, requestedAt: 1_795_428_930_123 };
const progress: BackfillProgress = {
  startPosition: `00000001${"0".repeat(26)}`,
  startedAt: 1_795_428_930_200,
  lastKey: ["9223372036854775807", 'a"b\u0001'],
  keyColumns: ["id", "name"],
  chunk: 3,
  rows: 120_000,
  bytes: 8_000_000_000,
  estimatedRows: 5e6,
  updatedAt: 1_795_428_930_300,
};

test("a request is found, runs, and comes back as it was written", async () => {
  const given = await store();
  expect(await readBackfills(given)).toEqual([]);
  expect(await requestBackfill(given, 'public."Odd Name"', { ...wish, where: "id > 5" })).toBe(1);
  expect(await requestBackfill(given, "public.orders", { ...wish, consumer: "view" })).toBe(1);
  const [odd, orders] = (await readBackfills(given)) as [Backfill, Backfill];
  expect(odd).toEqual({
    table: 'public."Odd Name"',
    run: 1,
    wanted: "run",
    status: "requested",
    request: { ...wish, where: "id > 5" },
    epoch: undefined,
    generation: 0,
    progress: undefined,
  });
  expect(await writeBackfill(given, orders, 4, { status: "running", epoch: 1, progress })).toBe(true);
  expect(await readBackfill(given, "public.orders")).toEqual({
    ...orders,
    status: "running",
    epoch: 1,
    generation: 4,
    progress,
  });
  // Left out, progress stays.
  await writeBackfill(given, orders, 4, { status: "paused", epoch: 1, progress: undefined });
  expect((await readBackfill(given, "public.orders"))?.progress).toEqual(progress);
});

test("what a run of the whole table brought stays on record, whatever runs of some rows come after", async () => {
  const given = await store();
  await requestBackfill(given, "public.a", { sweep: false, requestedAt: 1 });
  const end = async (epoch: number) => {
    const backfill = (await readBackfill(given, "public.a")) as Backfill;
    await writeBackfill(given, backfill, 1, { status: "done", epoch, progress });
    return (await readBackfill(given, "public.a"))?.wholeEpoch;
  };
  expect(await end(1)).toBe(1);
  await requestBackfill(given, "public.a", { sweep: false, where: "id > 5", requestedAt: 2 });
  expect(await end(2)).toBe(1);
  await requestBackfill(given, "public.a", { sweep: true, requestedAt: 3 });
  expect(await end(2)).toBe(2);
});

test("a table that left is noted, whatever is asked for meanwhile, until it is read as a whole with a sweep", async () => {
  const given = await store();
  const end = async (wanted: { sweep: boolean; where?: string } | undefined, left: boolean) => {
    if (wanted) await requestBackfill(given, "public.a", { ...wanted, requestedAt: 1 });
    const backfill = (await readBackfill(given, "public.a")) as Backfill;
    await writeBackfill(given, backfill, 1, {
      status: "done",
      epoch: 1,
      progress,
      ...(left ? { left } : {}),
    });
    const now = (await readBackfill(given, "public.a")) as Backfill;
    return [now.left, now.wholeEpoch];
  };
  expect(await end({ sweep: false }, false)).toEqual([undefined, 1]);
  expect(await end(undefined, true)).toEqual([true, undefined]);
  expect(await end({ sweep: false, where: "id > 5" }, false)).toEqual([true, undefined]);
  expect(await end({ sweep: false }, false)).toEqual([true, undefined]);
  expect(await end({ sweep: true }, false)).toEqual([undefined, 1]);
});

test("of the ends of a run of the whole table a refusal brings nothing", async () => {
  const given = await store();
  for (const [status, wholeEpoch] of [
    ["refused", undefined],
    ["cancelled", 1],
    ["done", 1],
  ] as const) {
    await requestBackfill(given, `public.${status}`, { sweep: false, requestedAt: 1 });
    const backfill = (await readBackfill(given, `public.${status}`)) as Backfill;
    await writeBackfill(given, backfill, 1, { status, epoch: 1, progress });
    expect((await readBackfill(given, `public.${status}`))?.wholeEpoch).toBe(wholeEpoch);
  }
});

test("one at a time: a second request is refused until the first has ended", async () => {
  const given = await store();
  await requestBackfill(given, "public.a", wish);
  await expect(requestBackfill(given, "public.a", wish)).rejects.toThrow(BackfillActiveError);
  const first = (await readBackfill(given, "public.a")) as Backfill;
  for (const status of ["done", "cancelled", "refused"] as const) {
    const before = (await readBackfill(given, "public.a")) as Backfill;
    const { run } = before;
    await writeBackfill(given, before, 1, { status, epoch: 1, progress });
    expect(hasEnded({ status })).toBe(true);
    expect(await requestBackfill(given, "public.a", { ...wish, requestedAt: run })).toBe(run + 1);
  }
  const anew = (await readBackfill(given, "public.a")) as Backfill;
  expect(anew).toMatchObject({ run: 4, status: "requested", progress: undefined, epoch: undefined });
  // The first run's task comes too late.
  const late = await writeBackfill(given, first, 9, { status: "running", epoch: 1, progress });
  expect(late).toBe(false);
});

test("of many requests at once one begins", async () => {
  const given = await store();
  const requests = Array.from({ length: 8 }, (_, i) =>
    requestBackfill(given, "public.a", { ...wish, requestedAt: i }),
  );
  const settled = await Promise.allSettled(requests);
  expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  expect((await readBackfill(given, "public.a"))?.run).toBe(1);
});

test("two who ask in one millisecond, for the same or not: one of them is told that another was quicker", async () => {
  const given = await store();
  const pairs = [
    [wish, wish],
    [
      { ...wish, where: "id < 5" },
      { ...wish, consumer: "view", sweep: true },
    ],
  ] as const;
  for (const [i, pair] of pairs.entries()) {
    const asked = await Promise.allSettled(pair.map((one) => requestBackfill(given, `public.t${i}`, one)));
    expect(asked.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const won = pair[asked.findIndex(({ status }) => status === "fulfilled")];
    expect((await readBackfill(given, `public.t${i}`))?.request).toEqual(won);
  }
});

test("a request whose answer was lost is known again as one's own", async () => {
  const given = await store();
  let lost = 0;
  const send = given.dynamodb.send.bind(given.dynamodb) as (...args: unknown[]) => Promise<unknown>;
  const dynamodb = new Proxy(given.dynamodb, {
    get: (target, member) =>
      member !== "send"
        ? Reflect.get(target, member)
        : async (...args: unknown[]) => {
            const answer = await send(...args);
            if (args[0] instanceof UpdateItemCommand && lost++ === 0)
              throw Object.assign(new Error("cut"), { name: "TimeoutError", code: "ECONNRESET" });
            return answer;
          },
  });
  expect(await requestBackfill({ ...given, dynamodb }, "public.a", wish)).toBe(1);
  expect(lost).toBeGreaterThan(1);
});

test("a filter that would leave no room for the progress is refused before it is written", async () => {
  const given = await store();
  const where = (ids: number) => `id IN (${Array.from({ length: ids }, (_, i) => 1_000_000 + i).join(",")})`;
  const asked = requestBackfill(given, "public.t", { where: where(60_000), sweep: false, requestedAt: 1 });
  await expect(asked).rejects.toThrow(/--where: write a filter of at most 256 KB/);
  expect(await readBackfill(given, "public.t")).toBeUndefined();
  // The longest that is taken, with the longest key that PostgreSQL indexes.
  await requestBackfill(given, "public.t", { where: where(32_000), sweep: false, requestedAt: 1 });
  const backfill = (await readBackfill(given, "public.t")) as Backfill;
  const long = { ...progress, lastKey: ["\u0001".repeat(2_700)], reason: "\u0001".repeat(2_000) };
  expect(await writeBackfill(given, backfill, 1, { status: "running", epoch: 1, progress: long })).toBe(true);
});

test("a capture task that was taken over writes no more", async () => {
  const given = await store();
  await requestBackfill(given, "public.a", wish);
  const backfill = (await readBackfill(given, "public.a")) as Backfill;
  const write = (generation: number, chunk: number) =>
    writeBackfill(given, backfill, generation, {
      status: "running",
      epoch: 1,
      progress: { ...progress, chunk },
    });
  expect(await write(1, 1)).toBe(true);
  expect(await write(2, 1)).toBe(true);
  expect(await write(1, 2)).toBe(false);
  expect((await readBackfill(given, "public.a"))?.progress?.chunk).toBe(1);
});

test("a task that has lost the lease and does not know it ends no run that nobody else has touched", async () => {
  const given = await store();
  const take = (leaseMs: number) => CaptureState.take({ ...given, leaseMs, log: () => {} });
  // It renews so rarely that it does not hear of the other.
  const zombie = await take(3_600_000);
  await requestBackfill(given, "public.a", wish);
  const backfill = (await readBackfill(given, "public.a")) as Backfill;
  const successor = await take(50);
  const done = { status: "done", epoch: 1, progress } as const;
  expect(await backfillRecord(given, zombie).write(backfill, done)).toBe(false);
  expect(await readBackfill(given, "public.a")).toEqual(backfill);
  expect(await backfillRecord(given, successor).write(backfill, done)).toBe(true);
  await successor.release();
  await zombie.release();
});

test("the operator pauses and cancels what has not ended; the task's writes leave the wish alone", async () => {
  const given = await store();
  await expect(wantBackfill(given, "public.a", "pause")).rejects.toThrow(BackfillNotActiveError);
  await requestBackfill(given, "public.a", wish);
  await wantBackfill(given, "public.a", "pause");
  const backfill = (await readBackfill(given, "public.a")) as Backfill;
  expect(backfill.wanted).toBe("pause");
  await writeBackfill(given, backfill, 1, { status: "paused", epoch: 1, progress });
  await wantBackfill(given, "public.a", "cancel");
  expect((await readBackfill(given, "public.a"))?.wanted).toBe("cancel");
  await writeBackfill(given, backfill, 1, { status: "cancelled", epoch: 1, progress });
  await expect(wantBackfill(given, "public.a", "run")).rejects.toThrow(/the last one is cancelled/);
});

test("the capture task begins a run anew in place of the one it saw", async () => {
  const given = await store();
  await requestBackfill(given, "public.a", { ...wish, where: "id > 5" });
  const seen = (await readBackfill(given, "public.a")) as Backfill;
  await writeBackfill(given, seen, 1, { status: "running", epoch: 1, progress });
  const running = (await readBackfill(given, "public.a")) as Backfill;
  const whole = { sweep: true, requestedAt: 7 };
  expect(await restartBackfill(given, running, whole)).toBe(2);
  expect(await readBackfill(given, "public.a")).toMatchObject({
    run: 2,
    status: "requested",
    wanted: "run",
    request: whole,
    progress: undefined,
    epoch: undefined,
  });
  // What was seen is the past by now, whoever asks, and for whatever.
  for (const late of [whole, { ...whole, requestedAt: 8 }])
    await expect(restartBackfill(given, running, late)).rejects.toThrow(BackfillActiveError);
});

test("the bell rings for every wish, and not for progress", async () => {
  const given = await store();
  const bells = [await readBackfillBell(given)];
  await requestBackfill(given, "public.a", wish);
  bells.push(await readBackfillBell(given));
  const backfill = (await readBackfill(given, "public.a")) as Backfill;
  await writeBackfill(given, backfill, 1, { status: "running", epoch: 1, progress });
  bells.push(await readBackfillBell(given));
  await wantBackfill(given, "public.a", "pause");
  bells.push(await readBackfillBell(given));
  expect(new Set(bells).size).toBe(3);
  expect(bells[1]).toBe(bells[2]);
  expect(await readBackfills(given)).toHaveLength(1);
});

test("a table that is not there is named", async () => {
  const given = { ...(await store()), table: "no-such-table" };
  await expect(readBackfills(given)).rejects.toThrow(StateTableError);
  await expect(requestBackfill(given, "public.a", wish)).rejects.toThrow(/"no-such-table" does not exist/);
});
