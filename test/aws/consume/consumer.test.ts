import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { at, chain, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, invoke } from "./consumer-bench.ts";

const aws = emulatedAws();

describe("an invocation", () => {
  it("applies events in order, moves the mark and gives the partitions back", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = bench.instance((c) =>
      c.on(
        "public.orders",
        Operation.Create,
        async (event) => void seen.push(`${event.partition}:${event.id}`),
      ),
    );
    const records = [
      packed(chain(1, 3), { partition: 0 }),
      packed(chain(1, 2), { partition: 40 }),
      packed(chain(4, 5), { partition: 0 }),
    ];
    expect(await invoke(handler, records)).toEqual(DONE);
    expect(seen.filter((s) => s.startsWith("0:"))).toEqual([1, 2, 3, 4, 5].map((i) => `0:${at(i)}`));
    expect(seen.filter((s) => s.startsWith("40:"))).toEqual([1, 2].map((i) => `40:${at(i)}`));
    expect(await bench.stored(0)).toMatchObject({
      position: at(5),
      writer: 1,
      token: undefined,
      attempts: undefined,
    });
    expect(await bench.stored(40)).toMatchObject({ position: at(2), token: undefined });
    expect(bench.reports).toMatchObject([
      { applied: 7, duplicates: 0, commitToEffectMs: { p50: expect.any(Number) } },
    ]);
  });

  it("takes no effect from a batch that comes again, whole or in part", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const build = () =>
      bench.instance((c) => c.on("public.orders", Operation.Create, (event) => void seen.push(event.id)));
    await invoke(build(), [packed(chain(1, 3))]);
    await invoke(build(), [packed(chain(1, 3)), packed(chain(2, 6, 1))]);
    expect(seen).toEqual([1, 2, 3, 4, 5, 6].map((i) => at(i)));
    expect(bench.reports[1]).toMatchObject({ applied: 3, duplicates: 5 });
  });

  it("holds only the partition of the first failure, and asks for nothing again", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Create, (event) => {
          if (event.partition === 1 && event.id >= at(2)) throw new Error("secret value");
          seen.push(`${event.partition}:${event.id}`);
        }),
      { TRIBUTARY_POISON: "stop", TRIBUTARY_ATTEMPTS: "1" },
    );
    const records = [
      packed(chain(1, 1), { partition: 1 }),
      packed(chain(1, 1), { partition: 2 }),
      packed(chain(2, 2), { partition: 1 }),
      packed(chain(2, 2), { partition: 2 }),
      packed(chain(3, 3), { partition: 1 }),
    ] as const;
    expect(await invoke(handler, [...records])).toEqual(DONE);
    expect(seen.sort()).toEqual([`1:${at(1)}`, `2:${at(1)}`, `2:${at(2)}`]);
    const hold = { intake: { position: at(3) } };
    expect(await bench.stored(1)).toMatchObject({ position: at(1), attempts: { calls: 1 }, hold });
    expect(await bench.stored(2)).toMatchObject({ position: at(2) });
    expect(bench.lines.join()).not.toContain("secret");
  });

  it("puts a change that fails for good into the dead letters, with all fields, and goes on", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const attempts: number[] = [];
    const handler = bench.instance((c) =>
      c.on("public.orders", Operation.Create, (event, ctx) => {
        if (event.id !== at(2)) return void seen.push(event.id);
        attempts.push(ctx.attempt);
        throw new TypeError("cannot", { cause: new Error("deep") });
      }),
    );
    const digits = '{"id":"2","meta":{"n":9007199254740993,"d":1.10},"__proto__":"x"}';
    const record = packed([
      { at: 1, after: null },
      { at: 2, after: 1, rowJson: digits },
      { at: 3, after: 2 },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(attempts).toEqual([1, 2, 3]);
    expect(seen).toEqual([at(1), at(3)]);
    const [letter, ...others] = await bench.letters();
    expect(others).toEqual([]);
    expect(letter).toMatchObject({
      consumer: bench.name,
      topic: TOPIC,
      partition: 0,
      position: at(2),
      shardId: "shardId-000000000000",
      sequenceNumber: record.kinesis.sequenceNumber,
      attempts: 3,
      firstFailedAt: expect.stringMatching(/^\d{4}-.*Z$/),
      lastFailedAt: expect.stringMatching(/^\d{4}-.*Z$/),
      error: {
        name: "TypeError",
        message: "cannot",
        stack: expect.stringContaining("Caused by: Error: deep"),
      },
      payload: { op: "c", source: { after: at(1) } },
    });
    expect(bench.reports[0]).toMatchObject({ applied: 2, deadLettered: 1, retried: 2 });
  });
});
