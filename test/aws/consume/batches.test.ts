import { describe, expect, it } from "vitest";
import { FailedEvents } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { at, chain, packed } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, failedAt, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();
const commits = (events: readonly { id: string }[]) =>
  events.map(({ id }) => Number.parseInt(id.slice(8, 24), 16));

describe("onBatch", () => {
  it("gets consecutive events of a partition, as many as it asked for, across records", async () => {
    const bench = await consumerBench(aws());
    const calls: string[] = [];
    const handler = bench.instance((c) =>
      c
        .on(
          "public.orders",
          Operation.Update,
          (event) => void calls.push(`${event.partition} single ${commits([event])}`),
        )
        .onBatch("public.orders", { maxEvents: 3, operations: Operation.Create }, (events) => {
          calls.push(`${events[0]?.partition} ${commits(events)}`);
        }),
    );
    const records = [
      packed(chain(1, 2)),
      packed(chain(1, 1), { partition: 1 }),
      // A delete is nobody's business, and does not part its neighbours; an update is another handler's.
      packed([
        { at: 3, after: 2, op: "d" },
        { at: 4, after: 3 },
        { at: 5, after: 4 },
      ]),
      packed([
        { at: 6, after: 5, op: "u" },
        { at: 7, after: 6 },
      ]),
    ];
    expect(await invoke(handler, records)).toEqual(DONE);
    expect(calls.filter((c) => c.startsWith("0"))).toEqual(["0 1,2,4", "0 5", "0 single 6", "0 7"]);
    expect(calls.filter((c) => c.startsWith("1"))).toEqual(["1 1"]);
    expect(await bench.stored()).toMatchObject({ position: at(7) });
    expect(bench.reports[0]).toMatchObject({ applied: 7, unhandled: 1 });
  });

  it("that fails is called for halves, down to the change that fails", async () => {
    const bench = await consumerBench(aws());
    const taken: number[] = [];
    const handler = bench.instance((c) =>
      c.onBatch("public.orders", {}, (events) => {
        if (commits(events).includes(6)) throw new Error("all or nothing");
        taken.push(...commits(events));
      }),
    );
    expect(await invoke(handler, [packed(chain(1, 10))])).toEqual(DONE);
    expect(taken).toEqual([1, 2, 3, 4, 5, 7, 8, 9, 10]);
    expect(await bench.letters()).toMatchObject([
      { position: at(6), attempts: 3, error: { message: "all or nothing" } },
    ]);
    expect(bench.reports[0]).toMatchObject({ applied: 9, deadLettered: 1 });
  });

  it.each(["throws", "returns"])(
    "that %s the failed indexes is called again for those alone",
    async (how) => {
      const bench = await consumerBench(aws());
      const calls: number[][] = [];
      const handler = bench.instance((c) =>
        c.onBatch("public.orders", {}, (events, ctx) => {
          calls.push(commits(events));
          const failed = events.flatMap((event, i) =>
            event.id === at(3) || (event.id === at(5) && ctx.attempt < 2) ? [i] : [],
          );
          if (how === "returns") return failed;
          if (failed.length > 0) throw new FailedEvents(failed, { cause: new Error("rejected") });
          return undefined;
        }),
      );
      expect(await invoke(handler, [packed(chain(1, 6))])).toEqual(DONE);
      expect(calls).toEqual([[1, 2, 3, 4, 5, 6], [3, 5], [3]]);
      const [letter] = await bench.letters();
      expect(letter).toMatchObject({ position: at(3), attempts: 3 });
      if (how === "throws") expect(letter).toMatchObject({ error: { message: "rejected" } });
      expect(await bench.stored()).toMatchObject({ position: at(6) });
      expect(bench.reports[0]).toMatchObject({ applied: 5, deadLettered: 1 });
    },
  );

  it("that names indexes it was not given failed as a whole", async () => {
    const bench = await consumerBench(aws());
    const handler = bench.instance((c) => c.onBatch("public.orders", {}, () => [7]), {
      TRIBUTARY_POISON: "stop",
    });
    const record = packed(chain(1, 2));
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(await bench.stored()).toMatchObject({
      position: "0".repeat(34),
      hold: { intake: { position: at(2) } },
    });
  });

  it("under the policy stop keeps what took effect before the failed one", async () => {
    const bench = await consumerBench(aws());
    const handler = bench.instance(
      (c) =>
        c.onBatch("public.orders", {}, (events) => {
          if (commits(events).includes(4)) throw new Error("no");
        }),
      { TRIBUTARY_POISON: "stop" },
    );
    const records = [packed(chain(1, 2)), packed(chain(3, 6))] as const;
    expect(await invoke(handler, [...records])).toEqual(DONE);
    expect(await bench.stored()).toMatchObject({
      position: at(3),
      attempts: { from: at(4), count: 1, calls: 3 },
    });
  });
});

describe("a batch that stops in its middle", () => {
  it("holds what was passed while it waited for its call", async () => {
    const bench = await consumerBench(aws());
    let broken = true;
    const seen: number[] = [];
    const handler = bench.instance(
      (c) =>
        c.onBatch("public.orders", { operations: Operation.Create }, (events) => {
          if (broken && commits(events).includes(3)) throw new Error("no");
          seen.push(...commits(events));
        }),
      { TRIBUTARY_POISON: "stop", TRIBUTARY_ATTEMPTS: "1" },
    );
    const unhandled = { at: 2, after: 1, op: "d" } as const;
    const records = [packed(chain(1, 1)), packed([unhandled]), packed(chain(3, 3))] as const;
    expect(await invoke(handler, [...records])).toEqual(DONE);
    expect(await bench.stored()).toMatchObject({ position: at(1) });
    broken = false;
    expect(await redrive(handler)).toMatchObject({ done: 1 });
    expect(seen).toEqual([1, 3]);
    expect(await bench.stored()).toMatchObject({ position: at(3) });
  });
});

describe('once: "claim"', () => {
  const claiming = (bench: Awaited<ReturnType<typeof consumerBench>>, handle: (id: string) => unknown) =>
    bench.instance((c) =>
      c.on("public.orders", Operation.Create, { once: "claim" }, (event) => handle(event.id)),
    );

  it("does not repeat what was recorded as done, though the fence did not move on", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const records = [packed(chain(1, 3))];
    let stall = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    const first = invoke(
      claiming(bench, async (id) => {
        seen.push(id);
        if (id !== at(3)) return;
        reached.resolve();
        await stall.promise;
      }),
      records,
    );
    await reached.promise;
    // Its successor finds two done, and waits for the third.
    const second = invoke(
      claiming(bench, (id) => void seen.push(id)),
      records,
    );
    await bench.settled(() => bench.stored().then(({ token }) => token !== undefined));
    stall.resolve();
    stall = Promise.withResolvers();
    await first;
    expect(await second).toEqual(DONE);
    expect(seen).toEqual([at(1), at(2), at(3)]);
    expect(bench.reports.at(-1)?.duplicates).toBe(3);
  });

  it("comes again, uncounted, while another holds the claim, and runs after its lease", async () => {
    const bench = await consumerBench(aws());
    const record = packed(chain(1, 1));
    const seen: string[] = [];
    // A process that is gone after its handler began: nobody records the end.
    void invoke(
      claiming(bench, () => new Promise(() => {})),
      [record],
      2_000,
    );
    await bench.settled(() => bench.claims().then((claims) => claims.length === 1));
    const handler = claiming(bench, (id) => void seen.push(id));
    expect(await invoke(handler, [record], 3_000)).toEqual(failedAt(record));
    expect(bench.lines.join()).toContain("CLAIM_HELD");
    await bench.settled(async () => (await invoke(handler, [record], 5_000)).batchItemFailures.length === 0);
    expect(seen).toEqual([at(1)]);
    expect(await bench.letters()).toEqual([]);
  });

  it("may be tried again at once when the handler failed, and after redrive", async () => {
    const bench = await consumerBench(aws());
    let calls = 0;
    const handler = claiming(bench, () => {
      if (++calls === 1) throw new Error("once");
    });
    expect(await invoke(handler, [packed(chain(1, 1))])).toEqual(DONE);
    expect(calls).toBe(2);
    const failing = claiming(bench, () => {
      throw new Error("always");
    });
    expect(await invoke(failing, [packed(chain(2, 2))])).toEqual(DONE);
    expect(await bench.claims()).toMatchObject([{ state: { S: "done" } }]);
  });
});
