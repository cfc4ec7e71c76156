import { describe, expect, it } from "vitest";
import { FailedEvents } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { PARKING_LIMITS } from "../../../lib/consume/hold/parked-keys.ts";
import { at, type Change, chain, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { type ConsumerBench, consumerBench, DONE, failedAt, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();

const ALL = [Operation.Create, Operation.Update, Operation.Delete, Operation.Truncate] as const;

/** Updates of keys, one after the other: `"a b a"` is three changes of two keys. */
function updates(keys: string, from = 1): Change[] {
  return keys.split(" ").map((id, i) => {
    const commit = from + i;
    if (id === "T") return { at: commit, after: commit === 1 ? null : commit - 1, op: "t" };
    return { at: commit, after: commit === 1 ? null : commit - 1, op: "u", row: { id, v: commit } };
  });
}

/** A consumer that fails on some positions while `bad` holds them; what took effect is `key@commit`. */
function failing(bench: ConsumerBench, bad: Set<number>, effects: string[], environment = {}) {
  return bench.instance(
    (c) =>
      c.on("public.*", ALL, (event) => {
        const commit = Number.parseInt(event.id.slice(8, 24), 16);
        if (bad.has(commit)) throw new Error("poison");
        effects.push(event.operation === Operation.Truncate ? `T@${commit}` : `${event.row.id}@${commit}`);
      }),
    { TRIBUTARY_ATTEMPTS: "1", ...environment },
  );
}

const ofKey = (effects: readonly string[], key: string) => effects.filter((e) => e.startsWith(`${key}@`));

describe("a change that fails for good, under park", () => {
  it("holds back later changes of its key alone; redrive applies them in order", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([2]), [] as string[]];
    const handler = failing(bench, bad, effects);
    expect(await invoke(handler, [packed(updates("a b a b c a"))])).toEqual(DONE);
    expect(effects).toEqual(["a@1", "a@3", "c@5", "a@6"]);
    expect(bench.reports[0]).toMatchObject({ applied: 4, deadLettered: 1, parked: 1, parkedBehind: 1 });
    expect(await bench.stored()).toMatchObject({ position: at(6), token: undefined });
    expect(await bench.letters()).toMatchObject([
      {
        position: at(2),
        topic: TOPIC,
        attempts: 1,
        error: { message: "poison" },
        payload: { after: { id: "b" } },
      },
    ]);

    // Another instance, another invocation: the key is still parked, its duplicates are duplicates.
    const other = failing(bench, bad, effects);
    expect(await invoke(other, [packed(updates("a b", 5)), packed(updates("b c b", 7))])).toEqual(DONE);
    expect(ofKey(effects, "b")).toEqual([]);
    expect(ofKey(effects, "c")).toEqual(["c@5", "c@8"]);
    expect(bench.reports[1]).toMatchObject({ duplicates: 2, parkedBehind: 2, applied: 1 });

    bad.clear();
    expect(await redrive(handler, { dryRun: true })).toMatchObject({
      ...{ open: 1, redriven: 0, more: false },
      letters: [{ key: "b", position: at(2), outcome: "open", parked: 4, attempts: 1, error: "Error" }],
    });
    expect(ofKey(effects, "b")).toEqual([]);
    expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 4, open: 0, failed: 0 });
    expect(ofKey(effects, "b")).toEqual(["b@2", "b@4", "b@7", "b@9"]);
    expect(await bench.parkedItems()).toEqual([]);
    expect((await bench.stored()).parked ?? "").toBe("");
    // Twice is safe, and the key flows again.
    expect(await redrive(handler)).toMatchObject({ done: 0, redriven: 0, letters: [] });
    expect(await invoke(handler, [packed(updates("b", 10))])).toEqual(DONE);
    expect(ofKey(effects, "b").at(-1)).toBe("b@10");
  });

  it("among thousands: others flow, order kept, and all is there in the end", async () => {
    const bench = await consumerBench(aws());
    const keys = Array.from({ length: 3000 }, (_, i) => `k${(i * 7919) % 97}`);
    const all = updates(keys.join(" "));
    const bad = new Set([100, 777]);
    const effects: string[] = [];
    const handler = failing(bench, bad, effects);
    for (let i = 0; i < all.length; i += 500) {
      expect(await invoke(handler, [packed(all.slice(i, i + 500))])).toEqual(DONE);
    }
    const poisoned = new Set([keys[99] as string, keys[776] as string]);
    const expected = (key: string) => keys.flatMap((k, i) => (k === key ? [`${k}@${i + 1}`] : []));
    for (const key of new Set(keys)) {
      const first = key === keys[99] ? 100 : 777;
      const flowing = expected(key).filter((e) => !poisoned.has(key) || Number(e.split("@")[1]) < first);
      expect(ofKey(effects, key)).toEqual(flowing);
    }
    bad.clear();
    expect(await redrive(handler)).toMatchObject({ done: 2, open: 0 });
    for (const key of new Set(keys)) expect(ofKey(effects, key)).toEqual(expected(key));
    expect(await bench.parkedItems()).toEqual([]);
  });

  it("fails again in redrive: it stays, with its calls counted; those behind it wait", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([1, 2, 4]), [] as string[]];
    const handler = failing(bench, bad, effects);
    expect(await invoke(handler, [packed(updates("a b a b"))])).toEqual(DONE);
    bad.delete(2);
    const report = await redrive(handler);
    expect(report).toMatchObject({ failed: 2, done: 0, redriven: 1, more: false });
    expect(report.letters.toSorted((a, b) => (a.key < b.key ? -1 : 1))).toMatchObject([
      { key: "a", outcome: "failed", attempts: 2, redriven: 0 },
      { key: "b", outcome: "failed", attempts: 1, redriven: 1 },
    ]);
    expect(effects).toEqual(["b@2"]);
    bad.clear();
    expect(await redrive(handler, { key: "b" })).toMatchObject({ done: 1, redriven: 1 });
    expect(effects).toEqual(["b@2", "b@4"]);
    expect(await redrive(handler, { position: at(1), topic: TOPIC, partition: 0 })).toMatchObject({
      redriven: 2,
    });
    expect(effects).toEqual(["b@2", "b@4", "a@1", "a@3"]);
  });

  it("can be given up, and those behind it go on; a limit ends a redrive", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([1]), [] as string[]];
    const handler = failing(bench, bad, effects);
    expect(await invoke(handler, [packed(updates("a a a a"))])).toEqual(DONE);
    await expect(redrive(handler, { discard: true })).rejects.toThrow(/discard/);
    expect(await redrive(handler, { key: "a", discard: true, limit: 2 })).toMatchObject({
      ...{ discarded: 1, redriven: 1, open: 1, more: true },
    });
    expect(effects).toEqual(["a@2"]);
    expect(await redrive(handler, { key: "a" })).toMatchObject({ done: 1, redriven: 2 });
    expect(effects).toEqual(["a@2", "a@3", "a@4"]);
  });

  it("and its key: both halves of a key change wait where they must", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([1]), [] as string[]];
    const handler = failing(bench, bad, effects);
    const keyChange = { from: { id: "a" }, to: { id: "b" } };
    // a fails; then a becomes b, and b goes on: the delete waits, the create does not.
    const record = packed([
      ...updates("a"),
      { at: 2, after: 1, op: "d", row: { id: "a" }, source: { keyChange } },
      { at: 2, ordinal: 2, after: at(2), op: "c", row: { id: "b" }, source: { keyChange } },
      { at: 3, after: at(2, { ordinal: 2 }), op: "u", row: { id: "b" } },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(effects).toEqual(["b@2", "b@3"]);
    bad.clear();
    await redrive(handler);
    expect(effects).toEqual(["b@2", "b@3", "a@1", "a@2"]);
  });

  it.each([
    ["a truncate", { at: 2, after: 1, op: "t" }],
    ["a logical message", { at: 2, after: 1, op: "m" }],
    ["a change of a table without key", { at: 2, after: 1, source: { key: [] } }],
  ] as const)("holds its partition where it is %s", async (_what, change) => {
    for (const policy of ["park", "skip"]) {
      const bench = await consumerBench(aws());
      const handler = bench.instance(
        (c) =>
          c.on("*", [...ALL, Operation.Message], (event) => {
            if (event.id === at(2)) throw new Error("poison");
          }),
        { TRIBUTARY_ATTEMPTS: "1", TRIBUTARY_POISON: policy },
      );
      const record = packed([...updates("a"), change, ...updates("a", 3)]);
      expect(await invoke(handler, [record])).toEqual(DONE);
      expect(await bench.stored()).toMatchObject({ position: at(1), hold: { intake: { position: at(3) } } });
      expect(bench.reports[0]).toMatchObject({ held: 1, heldPartitions: 1, deadLettered: 0 });
      expect(bench.lines.join()).toContain("POISON_WITHOUT_KEY");
    }
  });

  it("in a batch: those behind it in the very batch wait too", async () => {
    const bench = await consumerBench(aws());
    const effects: number[] = [];
    let broken = true;
    const handler = bench.instance(
      (c) =>
        c.onBatch("public.orders", {}, (events) => {
          const commits = events.map(({ id }) => Number.parseInt(id.slice(8, 24), 16));
          if (broken && commits.includes(2)) throw new Error("all or nothing");
          effects.push(...commits);
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    expect(await invoke(handler, [packed(updates("a b a b b a b"))])).toEqual(DONE);
    expect(effects).toEqual([1, 3, 6]);
    broken = false;
    expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 4 });
    expect(effects).toEqual([1, 3, 6, 2, 4, 5, 7]);
  });

  it("in a batch whose handler names it: a later change of its key that took effect supersedes it", async () => {
    const bench = await consumerBench(aws());
    const handler = bench.instance(
      (c) =>
        c.onBatch("public.orders", {}, (events) => {
          const failed = events.flatMap(({ id }, i) => ([at(1), at(4)].includes(id) ? [i] : []));
          if (failed.length > 0) throw new FailedEvents(failed);
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    // a@1 fails, a@2 took effect; b@4 fails, and b@5 is in the next call.
    expect(await invoke(handler, [packed(updates("a a b b"))])).toEqual(DONE);
    expect((await bench.letters()).map(({ position }) => position).sort()).toEqual([at(1), at(4)]);
    expect(await invoke(handler, [packed(updates("b", 5))])).toEqual(DONE);
    const report = await redrive(handler, { dryRun: true });
    expect(report.letters.toSorted((a, b) => (a.key < b.key ? -1 : 1))).toMatchObject([
      { key: "a", outcome: "superseded" },
      { key: "b", outcome: "open", parked: 2 },
    ]);
    expect(await redrive(handler, { key: "a" })).toMatchObject({ superseded: 1, redriven: 0 });
  });

  it('under once: "claim" is redriven once', async () => {
    const bench = await consumerBench(aws());
    let broken = true;
    const seen: string[] = [];
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Update, { once: "claim" }, (event) => {
          if (broken && event.id === at(1)) throw new Error("poison");
          seen.push(event.id);
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    expect(await invoke(handler, [packed(updates("a a b"))])).toEqual(DONE);
    expect(seen).toEqual([at(3)]);
    broken = false;
    expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 2 });
    expect(seen).toEqual([at(3), at(1), at(2)]);
    const done = (await bench.claims()).map(({ state }) => state?.S);
    expect(done).toEqual(["done", "done", "done"]);
  });
});

describe("a truncate", () => {
  it("supersedes older parked changes of its table, and only those", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([1, 3]), [] as string[]];
    const handler = failing(bench, bad, effects);
    const record = packed([
      ...updates("a a b"),
      // Another table of the topic, with the key b too: one key, as far as order goes.
      { at: 4, after: 3, op: "u", row: { id: "b" }, table: "items" },
      { at: 5, after: 4, op: "t" },
      ...updates("a b", 6),
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(effects).toEqual(["T@5", "a@6"]);
    expect(bench.reports[0]).toMatchObject({ superseded: 1, parkedBehind: 3 });
    bad.clear();
    const report = await redrive(handler);
    expect(report).toMatchObject({ done: 1, redriven: 2, superseded: 1 });
    expect(effects).toEqual(["T@5", "a@6", "b@4", "b@7"]);
  });
});

describe("the policy skip", () => {
  const skip = { TRIBUTARY_POISON: "skip" };

  it("lets later changes go on; the first that takes effect supersedes the letter", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([1, 2, 3]), [] as string[]];
    const handler = failing(bench, bad, effects, skip);
    expect(await invoke(handler, [packed(updates("a b b c"))])).toEqual(DONE);
    expect(await bench.letters()).toHaveLength(3);
    expect(await invoke(handler, [packed(updates("a", 5))])).toEqual(DONE);
    expect(effects).toEqual(["c@4", "a@5"]);
    expect(bench.reports[1]).toMatchObject({ superseded: 1, applied: 1 });
    bad.clear();
    expect(await redrive(handler, { key: "a" })).toMatchObject({ superseded: 1, redriven: 0 });
    expect(await redrive(handler)).toMatchObject({ superseded: 1, done: 1, redriven: 2 });
    expect(effects).toEqual(["c@4", "a@5", "b@2", "b@3"]);
    expect((await bench.parkedItems()).map(({ superseded }) => superseded?.BOOL)).toEqual([true]);
  });

  it("in one invocation too", async () => {
    const bench = await consumerBench(aws());
    const [bad, effects] = [new Set([1]), [] as string[]];
    const handler = failing(bench, bad, effects, skip);
    expect(await invoke(handler, [packed(updates("a a"))])).toEqual(DONE);
    bad.clear();
    expect(await redrive(handler)).toMatchObject({ superseded: 1, redriven: 0 });
    expect(effects).toEqual(["a@2"]);
  });

  it("does not overtake a letter while redrive is at work on it", async () => {
    const bench = await consumerBench(aws());
    const effects: string[] = [];
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    let broken = true;
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Update, async (event) => {
          if (event.id === at(1)) {
            if (broken) throw new Error("poison");
            reached.resolve();
            await gate.promise;
          }
          effects.push(event.id);
        }),
      { TRIBUTARY_ATTEMPTS: "1", ...skip },
    );
    expect(await invoke(handler, [packed(updates("a"))])).toEqual(DONE);
    broken = false;
    const redriven = redrive(handler);
    await reached.promise;
    const later = packed(updates("b a", 2));
    expect(await invoke(handler, [later])).toEqual(failedAt(later));
    expect(bench.lines.join()).toContain("REDRIVE_UNDER_WAY");
    expect(effects).toEqual([at(2)]);
    gate.resolve();
    expect(await redriven).toMatchObject({ done: 1 });
    expect(await invoke(handler, [later])).toEqual(DONE);
    expect(effects).toEqual([at(2), at(1), at(3)]);
  });
});

describe("what is parked", () => {
  it("is bounded: at the bound the partition is held, nothing is dropped, the others go on", async () => {
    const bench = await consumerBench(aws());
    const effects: string[] = [];
    let broken = true;
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Update, (event) => {
          if (broken && event.partition === 0) throw new Error("every one of them");
          effects.push(`${event.partition}:${event.id}`);
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    const count = PARKING_LIMITS.keys + 2;
    const keys = Array.from({ length: count }, (_, i) => `k${i}`).join(" ");
    const [full, other] = [packed(updates(keys)), packed(chainOfUpdates(1, 3), { partition: 1 })];
    expect(await invoke(handler, [full, other], 280_000)).toEqual(DONE);
    expect(await bench.stored()).toMatchObject({ position: at(PARKING_LIMITS.keys) });
    expect(bench.reports[0]).toMatchObject({ parked: PARKING_LIMITS.keys, parkingFull: 1, applied: 3 });
    expect(bench.lines.join()).toContain("PARKING_FULL");
    expect(await invoke(handler, [full])).toEqual(DONE);
    broken = false;
    // The keys, and the hold.
    expect(await redrive(handler, {}, 280_000)).toMatchObject({ done: PARKING_LIMITS.keys + 1, open: 0 });
    expect(new Set(effects.filter((e) => e.startsWith("0:"))).size).toBe(count);
    expect(await bench.parkedItems()).toEqual([]);
  }, 300_000);
});

function chainOfUpdates(from: number, to: number): Change[] {
  return chain(from, to).map((change) => ({ ...change, op: "u" }));
}
