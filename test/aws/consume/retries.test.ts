import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import * as z from "zod";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { at, chain, kinesisRecord, packed, recordJson, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, failedAt, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();

describe("a change that fails", () => {
  it("is counted across invocations where time is short", async () => {
    const bench = await consumerBench(aws());
    const attempts: number[] = [];
    const build = () =>
      bench.instance((c) =>
        c.on("public.orders", Operation.Create, async (event, ctx) => {
          if (event.id !== at(2)) return;
          attempts.push(ctx.attempt);
          // Leaves too little for the wait before a retry.
          while (ctx.remainingMs() > 30) await sleep(10);
          throw new Error("again");
        }),
      );
    const record = packed(chain(1, 3));
    expect(await invoke(build(), [record], 3_000)).toEqual(failedAt(record));
    expect(await bench.stored()).toMatchObject({
      position: at(1),
      token: undefined,
      attempts: { calls: 1, count: 1 },
    });
    expect(await invoke(build(), [record], 3_000)).toEqual(failedAt(record));
    // The third call is the last; what follows the change may find no time any more.
    await bench.settled(async () => (await invoke(build(), [record], 3_000)).batchItemFailures.length === 0);
    expect(attempts).toEqual([1, 2, 3]);
    expect(await bench.letters()).toMatchObject([{ position: at(2), attempts: 3 }]);
    expect(await bench.stored()).toMatchObject({ position: at(3), attempts: undefined });
  });

  it("and hangs is cut short in time for the marks, and given up in the end", async () => {
    const bench = await consumerBench(aws());
    const build = () =>
      bench.instance((c) =>
        c.on("public.orders", Operation.Create, (event) =>
          event.id === at(2) ? new Promise(() => {}) : undefined,
        ),
      );
    const record = packed(chain(1, 3));
    const other = packed(chain(1, 3), { partition: 1 });
    await bench.settled(async () => {
      const { batchItemFailures } = await invoke(build(), [record, other], 2_500);
      return batchItemFailures.length === 0;
    });
    const letters = await bench.letters();
    expect(letters.map((letter) => [letter.partition, letter.position])).toEqual(
      expect.arrayContaining([
        [0, at(2)],
        [1, at(2)],
      ]),
    );
    for (const letter of letters) {
      expect(letter).toMatchObject({ attempts: 3, error: { name: "HandlerTimeoutError" } });
    }
    expect(await bench.stored()).toMatchObject({ position: at(3), token: undefined });
  });

  it("does not come to the end of its time unseen, where no handler ever waits", async () => {
    const bench = await consumerBench(aws());
    let calls = 0;
    const handler = bench.instance((c) =>
      c.on("public.orders", Operation.Create, (_event, ctx) => {
        calls++;
        const until = ctx.remainingMs() - 100;
        while (ctx.remainingMs() > until && ctx.remainingMs() > 0);
      }),
    );
    const record = packed(chain(1, 40));
    expect(await invoke(handler, [record], 2_000)).toEqual(failedAt(record));
    expect(calls).toBeLessThan(40);
    // What took effect is on record, and is not repeated.
    expect(await bench.stored()).toMatchObject({ position: at(calls), token: undefined });
  });

  it("holds its partition under the policy stop, and no other", async () => {
    const bench = await consumerBench(aws());
    let broken = true;
    const seen: string[] = [];
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Create, (event) => {
          if (broken && event.partition === 0) throw new Error("no");
          seen.push(`${event.partition}:${event.id}`);
        }),
      { TRIBUTARY_POISON: "stop", TRIBUTARY_ATTEMPTS: "2" },
    );
    const records = [packed(chain(1, 2)), packed(chain(1, 1), { partition: 1 })] as const;
    for (let i = 0; i < 2; i++) expect(await invoke(handler, [...records])).toEqual(DONE);
    expect(bench.reports[0]).toMatchObject({ held: 1, heldPartitions: 1, deadLettered: 0 });
    expect(bench.reports[1]).toMatchObject({ heldPartitions: 1, duplicates: 1 });
    broken = false;
    expect(await redrive(handler)).toMatchObject({ done: 1, redriven: 2 });
    expect(seen).toEqual([`1:${at(1)}`, `0:${at(1)}`, `0:${at(2)}`]);
    expect(await bench.letters()).toEqual([]);
  });

  it("because its sink is away is no attempt, and no dead letter", async () => {
    const bench = await consumerBench(aws());
    let away = true;
    const attempts: number[] = [];
    const handler = bench.instance((c) =>
      c.on("public.orders", Operation.Create, (_event, ctx) => {
        attempts.push(ctx.attempt);
        if (away) throw new SinkUnavailableError("search");
      }),
    );
    const record = packed(chain(1, 1));
    for (let i = 0; i < 4; i++) expect(await invoke(handler, [record])).toEqual(failedAt(record));
    away = false;
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(attempts).toEqual([1, 1, 1, 1, 1]);
    expect(await bench.letters()).toEqual([]);
  });

  it("its schema goes to the dead letters at once; the log shows no value of it", async () => {
    const bench = await consumerBench(aws());
    const seen: unknown[] = [];
    const row = z.object({ id: z.string(), total: z.number("wanted a number, not hidden-value") });
    const handler = bench.instance((c) =>
      c.on("public.orders", Operation.Create, { row }, (event) => void seen.push(event.after.total)),
    );
    const record = packed([
      { at: 1, after: null, row: { id: "1", total: 1 } },
      { at: 2, after: 1, row: { id: "2", total: "hidden-value" } },
      { at: 3, after: 2, row: { id: "3", total: 3 } },
    ]);
    expect(await invoke(handler, [record])).toEqual(DONE);
    expect(seen).toEqual([1, 3]);
    expect(await bench.letters()).toMatchObject([
      { position: at(2), attempts: 1, error: { name: "RowSchemaError" } },
    ]);
    expect(bench.lines.join("\n")).toContain("ROW_SCHEMA");
    expect(bench.lines.join("\n")).not.toContain("hidden-value");
  });
});

describe("a dead-letter queue", () => {
  const poison = (bench: Awaited<ReturnType<typeof consumerBench>>, environment = {}) =>
    bench.instance(
      (c) =>
        c.on("public.orders", Operation.Create, (event) => {
          if (event.id === at(2)) throw new Error("poison");
        }),
      { TRIBUTARY_ATTEMPTS: "1", ...environment },
    );

  it("that refuses a letter means the change is not done", async () => {
    const bench = await consumerBench(aws());
    const url = `${bench.environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL}-missing`;
    const record = packed(chain(1, 3));
    const refused = poison(bench, { TRIBUTARY_DEAD_LETTER_QUEUE_URL: url });
    expect(await invoke(refused, [record])).toEqual(failedAt(record));
    expect(await bench.stored()).toMatchObject({ position: at(1), attempts: { calls: 1 } });
    expect(bench.lines.at(-1)).toContain("DEAD_LETTER_REFUSED");
    expect(await invoke(poison(bench), [record])).toEqual(DONE);
    expect(await bench.letters()).toMatchObject([{ position: at(2), attempts: 2 }]);
  });
});

describe("a record that cannot be read", () => {
  const noting = (bench: Awaited<ReturnType<typeof consumerBench>>, seen: string[], environment = {}) =>
    bench.instance(
      (c) =>
        c.on("public.orders", Operation.Create, (event) => void seen.push(`${event.partition}:${event.id}`)),
      environment,
    );

  it("goes to the dead letters whole and once; the hole it leaves is seen", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = noting(bench, seen);
    const damaged = kinesisRecord('{"v":1,"topic":"shop', `${TOPIC}/0`);
    const behind = packed(chain(4, 5));
    const records = [packed(chain(1, 2)), damaged, behind, packed(chain(1, 1), { partition: 1 })];
    for (let i = 0; i < 2; i++) expect(await invoke(handler, records)).toEqual(DONE);
    expect(seen.sort()).toEqual([`0:${at(1)}`, `0:${at(2)}`, `1:${at(1)}`]);
    const { sequenceNumber, data } = damaged.kinesis;
    expect(await bench.letters()).toMatchObject([
      { sequenceNumber, record: data, partitionKey: `${TOPIC}/0`, error: { name: "RecordFormatError" } },
    ]);
    expect(bench.reports.map(({ deadLettered, gaps }) => [deadLettered, gaps])).toEqual([
      [1, 1],
      // Its next try has not come.
      [0, 0],
    ]);
  });

  it("holds the shard under the policy stop", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = noting(bench, seen, { TRIBUTARY_POISON: "stop" });
    const damaged = kinesisRecord("nonsense", "else");
    expect(await invoke(handler, [packed(chain(1, 1)), damaged, packed(chain(2, 2))])).toEqual(
      failedAt(damaged),
    );
    expect(seen).toEqual([`0:${at(1)}`]);
  });

  it("of a newer format waits for a newer library: never skipped, never a dead letter", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const newer = kinesisRecord(recordJson(chain(2, 2)).replace('"v":1', '"v":2'), `${TOPIC}/0`);
    // A writer's start behind it would otherwise hide the hole.
    const records = [packed(chain(1, 1)), newer, packed(chain(3, 3, null), { writer: 2 })];
    expect(await invoke(noting(bench, seen), records)).toEqual(DONE);
    expect(seen).toEqual([`0:${at(1)}`]);
    expect(bench.lines.join()).toContain("RECORD_NOT_SUPPORTED");
    expect(await bench.letters()).toEqual([]);
  });
});

describe("events that nobody handles", () => {
  it("are counted, and the mark moves on", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = bench.instance((c) =>
      c.on("public.orders", Operation.Delete, (event) => void seen.push(event.id)),
    );
    const gone = { at: 4, after: 3, op: "d" } as const;
    expect(await invoke(handler, [packed(chain(1, 3))])).toEqual(DONE);
    expect(await invoke(handler, [packed([gone])])).toEqual(DONE);
    expect(seen).toEqual([at(4)]);
    expect(bench.reports[0]).toMatchObject({ unhandled: 3, applied: 0 });
  });

  it("of other topics are passed without a fence", async () => {
    const bench = await consumerBench(aws());
    const seen: string[] = [];
    const handler = bench.instance(
      (c) => c.on("*", Operation.Create, (event) => void seen.push(event.topic)),
      { TRIBUTARY_TOPICS: "shop.public.items,shop.other.*" },
    );
    const records = [packed(chain(1, 2)), packed(chain(1, 1), { topic: "shop.public.items" })];
    expect(await invoke(handler, records)).toEqual(DONE);
    expect(seen).toEqual(["shop.public.items"]);
    expect(await bench.stored()).toMatchObject({ position: undefined });
  });
});
