import { describe, expect, it } from "vitest";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import {
  changeEvent,
  HandlerInMemory,
  kinesisEvent,
  runHandler,
  sweepEvent,
} from "../../../lib/testing/handler/index.ts";

const order = (id: string, status: string) =>
  changeEvent({ table: "public.orders", op: "c", after: { id, status } });

/** A handler that throws on rows of this status until it is mended. */
function shipping({ poison = "broken" } = {}) {
  const shipped: string[] = [];
  const state = { mended: false };
  const handler = consumer("shipping")
    .on("public.orders", Operation.Create, ({ after }, ctx) => {
      ctx.logger.info("an order came", { status: after.status });
      if (after.status === poison && !state.mended) throw new TypeError(`order ${after.id} is ${poison}`);
      shipped.push(`${after.id} ${after.status}`);
    })
    .handler();
  return { handler, shipped, state };
}

describe("a run of a handler in memory", () => {
  it("gives what took effect, in its order, and nothing to come again", async () => {
    const { handler, shipped } = shipping();
    const [first, second] = [order("17", "placed"), order("17", "paid")];
    const deleted = changeEvent({ table: "public.orders", op: "d", before: { id: "17" } });
    const run = await runHandler(handler, kinesisEvent([first, second, deleted]));
    expect(shipped).toEqual(["17 placed", "17 paid"]);
    expect(run.applied.map(({ position }) => position)).toEqual([first.position, second.position]);
    expect(run).toMatchObject({
      batchItemFailures: [],
      deadLetters: [],
      report: { applied: 2, unhandled: 1 },
    });
    expect(run.logs).toContainEqual(expect.objectContaining({ message: "an order came", status: "paid" }));
  });

  it("sends what fails for good to the dead letters, with the error, and goes on with other keys", async () => {
    const { handler } = shipping();
    const [bad, behind, other] = [order("17", "broken"), order("17", "paid"), order("4", "paid")];
    const run = await runHandler(handler, kinesisEvent([bad, behind, other]));
    expect(run.applied.map(({ id }) => id)).toEqual([other.id]);
    expect(run.deadLetters).toMatchObject([
      {
        position: bad.position,
        attempts: 1,
        error: { name: "TypeError", message: "order 17 is broken" },
        payload: { after: { id: "17" } },
      },
    ]);
    expect(run.report).toMatchObject({ parked: 1, parkedBehind: 1 });
    expect(run.batchItemFailures).toEqual([]);
  });

  it("says which record Lambda would bring again where the sink is away", async () => {
    const handler = consumer("c")
      .on("*", Operation.Create, ({ after }) => {
        if (after.status === "unreachable") throw new SinkUnavailableError("connection refused");
      })
      .handler();
    const placed = [order("17", "paid"), order("17", "unreachable"), order("17", "sent")];
    const event = kinesisEvent(placed, { eventsPerRecord: 1 });
    const run = await runHandler(handler, event);
    const itemIdentifier = event.Records[1]?.kinesis.sequenceNumber;
    expect(run).toMatchObject({ batchItemFailures: [{ itemIdentifier }], deadLetters: [] });
    expect(run.applied).toHaveLength(1);
  });

  it("holds the partition under the policy stop, without a dead letter", async () => {
    const event = kinesisEvent([order("17", "broken"), order("17", "paid")]);
    const run = await runHandler(shipping().handler, event, { poison: "stop" });
    expect(run).toMatchObject({ applied: [], deadLetters: [], report: { held: 1, heldPartitions: 1 } });
  });

  it("calls again as often as the pipeline would, and counts the calls", async () => {
    const attempts: number[] = [];
    const handler = consumer("c")
      .on("*", Operation.Create, (_, { attempt }) => {
        attempts.push(attempt);
        if (attempt === 1) throw new Error("not yet");
      })
      .handler();
    const run = await runHandler(handler, kinesisEvent([order("17", "paid")]), { attempts: 3 });
    expect([attempts, run.deadLetters, run.report.retried]).toEqual([[1, 2], [], 1]);
  });

  it("hands sweeps to their handler", async () => {
    const handler = consumer("c")
      .onSweep("public.orders", () => {})
      .handler();
    const { partition, position: before } = order("17", "paid");
    const { sweeps, applied } = await runHandler(
      handler,
      kinesisEvent([sweepEvent({ table: "orders", partition, before })]),
    );
    expect(sweeps).toMatchObject([{ schema: "public", table: "orders", partition, before, run: 1 }]);
    expect(applied).toEqual([]);
  });

  it("needs no environment, and still tells the handler's own observer", async () => {
    const reports: InvocationReport[] = [];
    const handler = consumer("c")
      .on("*", Operation.Create, () => {})
      .handler({ observer: { invocation: (report) => reports.push(report) } });
    await runHandler(handler, kinesisEvent([order("17", "paid")]));
    expect(reports).toMatchObject([{ consumer: "c", applied: 1 }]);
  });

  it("takes less than a tenth of a second", async () => {
    const { handler } = shipping();
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 10; i++) {
      const started = performance.now();
      await runHandler(handler, kinesisEvent([order("17", "broken"), order("4", "paid")]));
      best = Math.min(best, performance.now() - started);
    }
    expect(best).toBeLessThan(100);
  });

  it("is refused for a function that consumer().handler() did not make", async () => {
    const { handler } = shipping();
    const wrapped: typeof handler = ((event: never, context: never) => handler(event, context)) as never;
    expect(() => runHandler(wrapped, kinesisEvent([]))).toThrow(/unwrapped/);
  });
});

describe("invocations that share one memory", () => {
  it("do nothing again that took effect before", async () => {
    const { handler, shipped } = shipping();
    const memory = new HandlerInMemory(handler);
    const event = kinesisEvent([order("17", "paid")]);
    await memory.run(event);
    const again = await memory.run(event);
    expect(shipped).toEqual(["17 paid"]);
    expect(again).toMatchObject({ applied: [], report: { duplicates: 1 } });
  });

  it("keep changes behind a parked one of their key, until it is redriven", async () => {
    const { handler, shipped, state } = shipping();
    const memory = new HandlerInMemory(handler);
    await memory.run(kinesisEvent([order("17", "broken")]));
    await memory.run(kinesisEvent([order("17", "paid")]));
    expect(shipped).toEqual([]);
    state.mended = true;
    expect(await memory.redrive()).toMatchObject({ redriven: 2, done: 1 });
    expect(shipped).toEqual(["17 broken", "17 paid"]);
    expect((await memory.run(kinesisEvent([order("17", "sent")]))).applied).toHaveLength(1);
  });

  it("say what each did alone", async () => {
    const memory = new HandlerInMemory(shipping().handler);
    const first = await memory.run(kinesisEvent([order("17", "broken"), order("4", "paid")]));
    const second = await memory.run(kinesisEvent([]));
    expect([first.deadLetters.length, first.applied.length, first.logs.length > 0]).toEqual([1, 1, true]);
    expect(second).toMatchObject({ applied: [], deadLetters: [], logs: [], report: { applied: 0 } });
  });

  it("are apart from those of another memory", async () => {
    const { handler, shipped } = shipping();
    const event = kinesisEvent([order("17", "paid")]);
    await runHandler(handler, event);
    await runHandler(handler, event);
    expect(shipped).toHaveLength(2);
  });
});
