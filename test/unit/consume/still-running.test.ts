import { setTimeout as sleep } from "node:timers/promises";
import { UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import type { MemoryTable } from "./memory-table.ts";
import { at, type Change, chain, invocationOf, packed, TOPIC } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

const OLD_AND_NEW: Change[] = [
  { at: 1, after: null, row: { id: "k", v: "old" } },
  { at: 2, after: 1, row: { id: "k", v: "new" } },
];

/** Time enough that a handler has its share of it on a busy machine too. */
const SHORT_MS = 1_200;

/** Ends when the test says so, and heeds no signal. */
function endless() {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { ended, end };
}

/** What the fence remembers of calls in partition 0. */
function remembered(table: MemoryTable) {
  const text = table.item(fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0).sk)?.a0?.S;
  return text === undefined ? undefined : JSON.parse(text);
}

/** The time in which the other process may have had an effect is over. */
async function letLeasePass(table: MemoryTable): Promise<void> {
  const { pk, sk } = fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0);
  const attempts = remembered(table);
  attempts.running.until = Date.now();
  const Key = { pk: { S: pk }, sk: { S: sk } };
  const ExpressionAttributeValues = { ":a": { S: JSON.stringify(attempts) } };
  const command = { TableName: "t", Key, UpdateExpression: "SET a0=:a", ExpressionAttributeValues };
  await table.client(async () => "none").send(new UpdateItemCommand(command));
}

describe("a handler that runs on when its invocation has ended", () => {
  it.each(["skip", "park"] as const)(
    "%s: is not given up while it runs, and nothing overtakes it",
    async (poison) => {
      const { ended, end } = endless();
      const sink: unknown[] = [];
      let calls = 0;
      const { handler, letters, table } = await rig(
        (c) =>
          c.on("*", Operation.Create, async ({ after }) => {
            if (calls++ === 0) await ended;
            sink.push(after.v);
          }),
        { poison, attempts: 1 },
      );
      const event = invocationOf(packed(OLD_AND_NEW));
      for (const _ of [1, 2, 3]) {
        const { batchItemFailures } = await handler(event, lambdaContext(SHORT_MS));
        expect([batchItemFailures.length, sink, letters]).toEqual([1, [], []]);
      }
      expect(calls).toBe(1);
      expect(remembered(table)).toMatchObject({
        from: at(1),
        calls: 1,
        running: { until: expect.any(Number) },
      });
      end();
      expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
      // Its late success counts: it is not called again.
      expect([sink, letters, remembered(table)]).toEqual([["old", "new"], [], undefined]);
    },
  );

  it("holds its partition also where the fence could not be told", async () => {
    const { ended, end } = endless();
    const sink: unknown[] = [];
    let calls = 0;
    let isAway = false;
    const { handler } = await rig(
      (c) =>
        c.on("*", Operation.Create, async ({ after }) => {
          isAway = true;
          if (calls++ === 0) await ended;
          sink.push(after.v);
        }),
      { step: async (when) => (isAway && when === "before" ? "throttled" : "none") },
    );
    const event = invocationOf(packed(OLD_AND_NEW));
    expect((await handler(event, lambdaContext(SHORT_MS))).batchItemFailures).toHaveLength(1);
    isAway = false;
    expect((await handler(event, lambdaContext(SHORT_MS))).batchItemFailures).toHaveLength(1);
    expect([calls, sink]).toEqual([1, []]);
    end();
  });

  it("is given up, without another call, when it has failed late and its attempts are used up", async () => {
    const { ended, end } = endless();
    let calls = 0;
    const { handler, letters } = await rig(
      (c) =>
        c.on("*", Operation.Create, async ({ after }) => {
          calls++;
          if (after.v !== "old") return;
          await ended;
          throw new Error("late");
        }),
      { poison: "skip", attempts: 1 },
    );
    const event = invocationOf(packed(OLD_AND_NEW));
    await handler(event, lambdaContext(SHORT_MS));
    end();
    expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect([calls, letters.map(({ position, error }) => [position, error.name])]).toEqual([
      2,
      [[at(1), "HandlerTimeoutError"]],
    ]);
  });

  it("is waited for by another process, which gives it up when the old one cannot act any more", async () => {
    const never = () => new Promise(() => {});
    const first = await rig((c) => c.on("*", Operation.Create, never), { attempts: 1 });
    const done: string[] = [];
    const second = await rig((c) => c.on("*", Operation.Create, ({ id }) => void done.push(id)), {
      attempts: 1,
      table: first.table,
    });
    const event = invocationOf(packed(chain(1, 2)));
    await first.handler(event, lambdaContext(SHORT_MS));
    const early = await second.handler(event, lambdaContext(SHORT_MS));
    expect([early.batchItemFailures.length, done, second.letters]).toEqual([1, [], []]);
    expect(second.lines.join()).toContain("HANDLER_STILL_RUNNING");
    await letLeasePass(first.table);
    expect(await second.handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect([done, second.letters.map(({ position }) => position)]).toEqual([[at(2)], [at(1)]]);
  });

  it("is called again by another process where it has attempts left", async () => {
    const attempts: number[] = [];
    const never = () => new Promise(() => {});
    const first = await rig((c) => c.on("*", Operation.Create, never));
    const second = await rig(
      (c) => c.on("*", Operation.Create, (_, { attempt }) => void attempts.push(attempt)),
      {
        table: first.table,
      },
    );
    const event = invocationOf(packed(chain(1, 2)));
    await first.handler(event, lambdaContext(SHORT_MS));
    await letLeasePass(first.table);
    expect(await second.handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect(attempts).toEqual([2, 1]);
  });

  it("holds its partition also where its call had no fair share of time", async () => {
    const { ended, end } = endless();
    const done: string[] = [];
    let calls = 0;
    const { handler } = await rig((c) =>
      c.on("*", Operation.Create, async ({ after }) => {
        // The first takes most of the time there is.
        if (calls++ === 0) await sleep(500);
        else if (calls === 2) await ended;
        done.push(String(after.id));
      }),
    );
    const event = invocationOf(packed(chain(1, 3)));
    await handler(event, lambdaContext(SHORT_MS));
    await handler(event, lambdaContext(SHORT_MS));
    expect([calls, done]).toEqual([2, ["1"]]);
    end();
    await handler(event, lambdaContext());
    expect([calls, done]).toEqual([3, ["1", "2", "3"]]);
  });

  it("holds its partition where it was called for many at once, and no other", async () => {
    const { ended, end } = endless();
    const done: string[] = [];
    let calls = 0;
    const { handler } = await rig((c) =>
      c.onBatch("*", {}, async (events) => {
        if (events[0]?.partition === 0 && calls++ === 0) await ended;
        done.push(...events.map(({ partition, key }) => `${partition}/${key.id}`));
      }),
    );
    const event = invocationOf(packed(chain(1, 2)), packed(chain(1, 2), { partition: 1 }));
    for (const _ of [1, 2]) await handler(event, lambdaContext(SHORT_MS));
    expect([calls, done]).toEqual([1, ["1/1", "1/2"]]);
    end();
    expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect(done.slice(0, 4)).toEqual(["1/1", "1/2", "0/1", "0/2"]);
  });

  it("keeps its claim until it ends", async () => {
    const { ended, end } = endless();
    let effects = 0;
    const register = (wait: boolean) => (c: Parameters<Parameters<typeof rig>[0]>[0]) =>
      c.on("*", Operation.Create, { once: "claim" }, async () => {
        if (wait) await ended;
        effects++;
      });
    const { handler, table } = await rig(register(true), { attempts: 1 });
    await handler(invocationOf(packed(chain(1, 1))), lambdaContext(SHORT_MS));
    expect([effects, table.items("claim").map(({ state }) => state?.S)]).toEqual([0, ["running"]]);
    end();
  });

  it("keeps no claim where it heeds the signal", async () => {
    let calls = 0;
    const { handler, table } = await rig((c) =>
      c.on("*", Operation.Create, { once: "claim" }, async (_, { signal }) => {
        if (calls++ === 0) await sleep(60_000, undefined, { signal });
      }),
    );
    const event = invocationOf(packed(chain(1, 1)));
    await handler(event, lambdaContext(SHORT_MS));
    expect(table.items("claim")).toEqual([]);
    expect(await handler(event, lambdaContext(1_000))).toEqual({ batchItemFailures: [] });
  });

  it("in a redrive, is neither redriven nor discarded by another while it may act", async () => {
    const { ended, end } = endless();
    const sink: string[] = [];
    let mode = "fails";
    const register = (c: Parameters<Parameters<typeof rig>[0]>[0]) =>
      c.on("*", Operation.Create, async ({ position }) => {
        if (mode === "fails") throw new Error("x");
        if (mode === "hangs") await ended;
        sink.push(position);
      });
    const first = await rig(register, { attempts: 1 });
    const second = await rig(register, { attempts: 1, table: first.table });
    await first.handler(invocationOf(packed(OLD_AND_NEW)), lambdaContext());
    mode = "hangs";
    await first.handler({ tributary: "redrive" }, lambdaContext(SHORT_MS));
    mode = "works";
    const discard = { tributary: "redrive", key: "k", discard: true } as const;
    expect(await second.handler(discard, lambdaContext(SHORT_MS))).toMatchObject({ busy: 1, discarded: 0 });
    expect(await first.handler(discard, lambdaContext(SHORT_MS))).toMatchObject({ busy: 1, discarded: 0 });
    expect(sink).toEqual([]);
    end();
  });
});
