import { AsyncLocalStorage } from "node:async_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { FailedEvents, SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { sinkConsumer } from "../../../lib/sink/sink-consumer.ts";
import {
  changeEvent,
  HandlerInMemory,
  kinesisEvent,
  runHandler,
  sweepEvent,
} from "../../../lib/testing/handler/index.ts";
import { MemoryTable } from "./memory-table.ts";
import { invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

const order = (id: string, status = "paid") =>
  changeEvent({ table: "public.orders", op: "c", after: { id, status } });
/** All in one partition, so that they are one batch. */
const rows = (...ids: string[]) =>
  ids.map((id) => changeEvent({ table: "public.orders", op: "c", after: { id }, partition: 0 }));

describe("middleware around handlers of single events", () => {
  it("runs in the order of use, around handlers registered before and after it", async () => {
    const steps: string[] = [];
    const note = (name: string) => async (_: unknown, __: unknown, next: () => Promise<void>) => {
      steps.push(`${name} in`);
      await next();
      steps.push(`${name} out`);
    };
    const handler = consumer("c")
      .use(note("first"))
      .on("public.orders", Operation.Create, ({ after }) => void steps.push(`create ${after.id}`))
      .use(note("second"))
      .on("public.orders", Operation.Delete, ({ key }) => void steps.push(`delete ${key.id}`))
      .handler();
    const placed = order("17");
    const deleted = changeEvent({ table: "public.orders", op: "d", before: { id: "17" } });
    await runHandler(handler, kinesisEvent([placed, deleted]));
    const around = (step: string) => ["first in", "second in", step, "second out", "first out"];
    expect(steps).toEqual([...around("create 17"), ...around("delete 17")]);
  });

  it("gets event and context of the handler, and its async context reaches the handler", async () => {
    const tenants = new AsyncLocalStorage<unknown>();
    const seen: unknown[] = [];
    const handler = consumer("c")
      .use((event, ctx, next) => {
        seen.push(event, ctx);
        return tenants.run(event.row?.id, next);
      })
      .on("*", Operation.Create, async (event, ctx) => {
        await sleep(1);
        seen.push(event, ctx, tenants.getStore());
      })
      .handler();
    await runHandler(handler, kinesisEvent([order("17")]));
    expect([seen[2] === seen[0], seen[3] === seen[1], seen[4]]).toEqual([true, true, "17"]);
  });

  it("runs again with each call, and fails a change by throwing: attempts, then a dead letter", async () => {
    const attempts: number[] = [];
    const called: unknown[] = [];
    const handler = consumer("c")
      .use(async ({ row }, ctx, next) => {
        if (row?.id === "bad") {
          attempts.push(ctx.attempt);
          throw new TypeError("no such tenant");
        }
        await next();
      })
      .on("*", Operation.Create, ({ key }) => void called.push(key.id))
      .handler();
    const run = await runHandler(handler, kinesisEvent([order("bad"), order("17")]), { attempts: 2 });
    expect([attempts, called]).toEqual([[1, 2], ["17"]]);
    expect(run.deadLetters).toMatchObject([{ attempts: 2, error: { message: "no such tenant" } }]);
  });

  it("that ends without next skips the change: handled, and never brought again", async () => {
    const called: unknown[] = [];
    const handler = consumer("c")
      .use((event, _ctx, next) => (event.row?.status === "test" ? undefined : next()))
      .on("*", Operation.Create, ({ key }) => void called.push(key.id))
      .handler();
    const memory = new HandlerInMemory(handler);
    const event = kinesisEvent([order("17", "test"), order("4")]);
    expect(await memory.run(event)).toMatchObject({ report: { applied: 2 }, batchItemFailures: [] });
    expect((await memory.run(event)).report.duplicates).toBe(2);
    expect(called).toEqual(["4"]);
  });

  it("may catch the handler's error, which then counts as handled", async () => {
    const handler = consumer("c")
      .use(async (_event, _ctx, next) => {
        await next().catch((error: Error) => {
          if (error.message !== "gone") throw error;
        });
      })
      .on("*", Operation.Create, ({ key }) => {
        throw new Error(key.id === "17" ? "gone" : "broken");
      })
      .handler();
    const { deadLetters, applied } = await runHandler(handler, kinesisEvent([order("17"), order("4")]));
    expect(applied.map(({ key }) => key.id)).toEqual(["17"]);
    expect(deadLetters).toMatchObject([{ error: { message: "broken" } }]);
  });

  it.each<[string, () => unknown]>([
    ["at once", () => Promise.reject(new Error("lost"))],
    [
      "by throwing",
      () => {
        throw new Error("lost");
      },
    ],
    ["later", () => sleep(5).then(() => Promise.reject(new Error("lost")))],
  ])("that does not wait for next hides no failure of the handler: %s", async (_when, handle) => {
    const handler = consumer("c")
      .use((_event, _ctx, next) => void next())
      .on("*", Operation.Create, handle)
      .handler();
    const { deadLetters } = await runHandler(handler, kinesisEvent([order("17")]));
    expect(deadLetters).toMatchObject([{ error: { message: "lost" } }]);
  });

  it.each<[string, (next: () => Promise<void>) => unknown]>([
    ["it waits for something else", (next) => Promise.all([void next(), sleep(40)])],
    ["it catches errors for later", (next) => void next().catch(() => {})],
    ["it lets time win", (next) => Promise.race([next(), sleep(1)])],
  ])("that does not wait for the handler hides no failure of it: %s", async (_how, middleware) => {
    const handler = consumer("c")
      .use((_event, _ctx, next) => middleware(next))
      .on("*", Operation.Create, () => sleep(20).then(() => Promise.reject(new Error("lost"))))
      .handler();
    const { applied, deadLetters } = await runHandler(handler, kinesisEvent([order("17")]));
    expect([applied, deadLetters]).toMatchObject([[], [{ error: { message: "lost" } }]]);
  });

  it("that ends early waits for the handler before the next change of the partition begins", async () => {
    const steps: string[] = [];
    const handler = consumer("c")
      .use(async (event, _ctx, next) => {
        void next();
        if (event.key.id === "1") throw new Error("early");
      })
      .on("*", Operation.Create, async ({ key }) => {
        steps.push(`${key.id} begins`);
        await sleep(5);
        steps.push(`${key.id} ends`);
      })
      .handler();
    await runHandler(handler, kinesisEvent(rows("1", "2")), { poison: "skip" });
    expect(steps).toEqual(["1 begins", "1 ends", "2 begins", "2 ends"]);
  });

  it.each<[string, (next: () => Promise<void>) => Promise<unknown>]>([
    ["one after the other", (next) => next().then(next)],
    ["and catches the error", (next) => next().then(() => next().catch(() => {}))],
    ["and waits for neither", async (next) => void [next(), next()]],
  ])("that calls next twice fails the change, whose handler ran once: %s", async (_how, twice) => {
    let calls = 0;
    const handler = consumer("c")
      // An outer one that catches everything makes no success of it.
      .use((_event, _ctx, next) => next().catch(() => {}))
      .use((_event, _ctx, next) => twice(next))
      .on("*", Operation.Create, () => void calls++)
      .handler();
    const { deadLetters } = await runHandler(handler, kinesisEvent([order("17")]));
    expect(calls).toBe(1);
    expect(deadLetters).toMatchObject([{ error: { name: "MiddlewareError" } }]);
  });

  it("cannot call the handler after its end", async () => {
    let late: (() => Promise<void>) | undefined;
    let calls = 0;
    const handler = consumer("c")
      .use((_event, _ctx, next) => {
        late = next;
      })
      .on("*", Operation.Create, () => void calls++)
      .handler();
    await runHandler(handler, kinesisEvent([order("17")]));
    await expect(late?.()).rejects.toMatchObject({ code: "MIDDLEWARE" });
    expect(calls).toBe(0);
  });

  it("has the handler's deadline: it is cut short, and begins no handler when time is over", async () => {
    let calls = 0;
    const ended = Promise.withResolvers<void>();
    const handler = consumer("c")
      .use(async (_event, ctx, next) => {
        await sleep(60_000, undefined, { signal: ctx.signal }).catch(() => {});
        // A middleware that catches everything does not make a change of it that took effect.
        await next().catch(() => {});
        ended.resolve();
      })
      .on("*", Operation.Create, () => void calls++)
      .handler();
    const event = kinesisEvent([order("17")]);
    const run = await runHandler(handler, event, { timeoutMs: 300, attempts: 3 });
    await ended.promise;
    expect(run.applied).toEqual([]);
    expect(run.batchItemFailures).toHaveLength(1);
    expect(calls).toBe(0);
  });

  it("makes no success of a handler that time has cut short", async () => {
    const handler = consumer("c")
      .use((_event, _ctx, next) => next().catch(() => {}))
      .on("*", Operation.Create, (_event, { signal }) => sleep(60_000, undefined, { signal }))
      .handler();
    const event = kinesisEvent([order("17")]);
    const run = await runHandler(handler, event, { timeoutMs: 300, attempts: 3 });
    expect([run.applied, run.batchItemFailures.length]).toEqual([[], 1]);
  });

  it("stands inside the claim of `once`, which a skipped change closes too", async () => {
    const table = new MemoryTable();
    const states: unknown[] = [];
    const look = () => states.push(table.items("claim").map(({ state }) => state?.S));
    const { handler } = await rig(
      (c) =>
        c
          .use(() => void look())
          .on("*", Operation.Create, { once: "claim" }, () => void states.push("handler")),
      { table },
    );
    await handler(invocationOf(packed([{ at: 1, after: null, row: { id: "k" } }])), lambdaContext());
    look();
    expect(states).toEqual([["running"], ["done"]]);
  });

  it("runs in a redrive too", async () => {
    const seen: string[] = [];
    const handler = consumer("c")
      .use(async (_event, ctx, next) => {
        seen.push(`attempt ${ctx.attempt}`);
        await next();
      })
      .on("*", Operation.Create, () => {
        if (seen.length === 1) throw new Error("not yet");
      })
      .handler();
    const memory = new HandlerInMemory(handler);
    await memory.run(kinesisEvent([order("17")]));
    expect(await memory.redrive()).toMatchObject({ redriven: 1 });
    expect(seen).toEqual(["attempt 1", "attempt 2"]);
  });

  it("stops the partition where it says that the sink is away", async () => {
    const handler = consumer("c")
      .use(() => {
        throw new SinkUnavailableError("parameters");
      })
      .on("*", Operation.Create, () => {})
      .handler();
    const run = await runHandler(handler, kinesisEvent([order("17")]));
    expect([run.deadLetters, run.batchItemFailures.length]).toEqual([[], 1]);
  });
});

describe("middleware around batch handlers", () => {
  it("gets the events of each call, as halves are tried", async () => {
    const calls: unknown[][] = [];
    const handler = consumer("c")
      .useBatch(async (events, _ctx, next) => {
        calls.push(events.map(({ key }) => key.id));
        await next();
      })
      .onBatch("*", {}, (events) => {
        if (events.some(({ key }) => key.id === "2")) throw new Error("broken");
      })
      .handler();
    const { deadLetters } = await runHandler(handler, kinesisEvent(rows("1", "2")), { poison: "skip" });
    expect(calls).toEqual([["1", "2"], ["1"], ["2"]]);
    expect(deadLetters).toHaveLength(1);
  });

  it.each<[string, () => unknown]>([
    ["returns", () => [1]],
    [
      "throws",
      () => {
        throw new FailedEvents([1]);
      },
    ],
  ])("lets through which events failed, where the handler %s them", async (_how, fail) => {
    const handler = consumer("c")
      .useBatch((_events, _ctx, next) => next())
      .onBatch("*", {}, (events) => (events.length === 2 ? fail() : undefined))
      .handler();
    const { applied, deadLetters } = await runHandler(handler, kinesisEvent(rows("1", "2")), {
      poison: "skip",
    });
    expect([applied.map(({ key }) => key.id), deadLetters]).toMatchObject([
      ["1"],
      [{ payload: { after: { id: "2" } } }],
    ]);
  });

  it("stands around what a sink applies, not around its sweeps", async () => {
    const steps: string[] = [];
    const sink = {
      tables: ["public.orders"],
      apply: async (events: readonly unknown[]) => void steps.push(`apply ${events.length}`),
      sweep: async () => void steps.push("sweep"),
      identity: async () => ({ id: "1" }),
      verify: { table: () => undefined },
    };
    const handler = sinkConsumer("c", sink)
      .useBatch(async (events, _ctx, next) => {
        steps.push(`middleware ${events.length}`);
        await next();
      })
      .handler();
    const events = rows("1", "2");
    const { partition, position: before } = events[1] as (typeof events)[1] & {};
    await runHandler(handler, kinesisEvent([...events, sweepEvent({ table: "orders", partition, before })]));
    expect(steps).toEqual(["middleware 2", "apply 2", "sweep"]);
  });

  it("is refused beside handlers that no middleware is around", () => {
    const pass = (_: unknown, __: unknown, next: () => Promise<void>) => next();
    const both = () =>
      consumer("c")
        .on("public.a", Operation.Create, () => {})
        .onBatch("public.b", {}, () => {});
    expect(() => both().use(pass).handler()).toThrow(ConfigurationError);
    expect(() => both().useBatch(pass).handler()).toThrow(/useBatch is not around/);
    expect(() => both().use(pass).useBatch(pass).handler()).not.toThrow();
  });
});
