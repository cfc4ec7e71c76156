import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { FailedEvents, SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { addSinkKind, openSink } from "../../../lib/sink/index.ts";
import { sinkConsumer } from "../../../lib/sink/sink-consumer.ts";
import {
  changeEvent,
  HandlerInMemory,
  kinesisEvent,
  sweepEvent,
} from "../../../lib/testing/handler/index.ts";
import { makeStore, type ToyStore, toyKind } from "./toy/toy.ts";

addSinkKind(toyKind);

const TABLES = ["public.orders", "public.items"];
const open = (configuration: object = {}) =>
  openSink({ ...{ kind: "toy", store: "shop", tables: TABLES }, ...configuration });
const order = (id: string, note: number) =>
  changeEvent({ table: "public.orders", op: "c", after: { id, note } });

let store: ToyStore;
beforeEach(() => {
  store = makeStore("shop");
});

async function heldBy(sink = open()): Promise<Map<unknown, unknown>> {
  const held = new Map<unknown, unknown>();
  const signal = AbortSignal.timeout(1_000);
  const pages = sink.verify.table({ schema: "public", table: "orders" })?.rows(signal) ?? [];
  for await (const page of pages) for (const row of page) held.set(row.id, row.note);
  return held;
}

describe("a sink that is one folder and one line", () => {
  it("holds the last state of each row, whatever fails, comes twice, waits or is swept on the way", async () => {
    const step = fc.record({
      op: fc.constantFrom("c", "u", "d", "t", "sweep"),
      id: fc.integer({ min: 1, max: 4 }).map(String),
      // How often its write fails before it succeeds.
      fails: fc.constantFrom(0, 0, 0, 1, 2, 9),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 20 }),
        fc.constantFrom(1, 3, undefined),
        fc.integer({ min: 1, max: 5 }),
        async (steps, maxEvents, eventsPerRecord) => {
          store = makeStore("shop");
          const expected = new Map<string, number>();
          const left = new Map<string, number>();
          // All in one partition, as a truncate concerns one alone.
          const events = steps.map(({ op, id, fails }, note) => {
            if (op === "sweep") {
              expected.clear();
              const before = order(id, note).position;
              return sweepEvent({ table: "orders", before, partition: 0 });
            }
            const row = { id, note };
            const event = changeEvent({
              ...{ table: "public.orders", op: op as "c", partition: 0 },
              ...(op === "t" ? {} : op === "d" ? { before: row } : { after: row }),
            });
            // What has no key would hold its partition.
            left.set(event.position, op === "t" ? 0 : fails);
            if (op === "t") expected.clear();
            else if (op === "d") expected.delete(id);
            else expected.set(id, note);
            return event;
          });
          store.onWrite = ({ position }) => {
            const fails = left.get(position) ?? 0;
            left.set(position, fails - 1);
            if (fails > 0) throw new Error("not yet");
          };
          const memory = new HandlerInMemory(sinkConsumer("toy", open({ maxEvents })).handler());
          await memory.run(kinesisEvent(events, { eventsPerRecord }));
          await memory.run(kinesisEvent(events, { eventsPerRecord }));
          store.onWrite = undefined;
          while ((await memory.redrive()).redriven > 0);
          expect(await heldBy()).toEqual(expected);
        },
      ),
      { numRuns: 60 },
    );
  });

  it("gets consecutive events of one pattern in one call, at most maxEvents", async () => {
    const calls: string[] = [];
    const sink = open({ maxEvents: 2 });
    const spied = {
      ...sink,
      apply: async (...[events, ctx]: Parameters<typeof sink.apply>) => {
        calls.push(events.map(({ table, after }) => `${table} ${after?.note}`).join(", "));
        await sink.apply(events, ctx);
      },
    };
    const item = changeEvent({
      table: "public.items",
      op: "c",
      partition: 3,
      topic: "shop",
      after: { id: "1", note: 9 },
    });
    const orders = [1, 2, 3].map((note) =>
      changeEvent({ table: "public.orders", op: "c", partition: 3, topic: "shop", after: { id: "1", note } }),
    );
    const late = changeEvent({
      table: "public.items",
      op: "c",
      partition: 3,
      topic: "shop",
      after: { id: "1", note: 10 },
    });
    await new HandlerInMemory(sinkConsumer("toy", spied).handler()).run(
      kinesisEvent([item, ...orders, late]),
    );
    expect(calls).toEqual(["items 9", "orders 1, orders 2", "orders 3", "items 10"]);
  });

  it("leaves a row that fails for good to the library: parked with those behind it, the others go on", async () => {
    store.onWrite = ({ after }) => {
      if (after?.note === 13) throw new RangeError("unlucky");
    };
    const memory = new HandlerInMemory(sinkConsumer("toy", open()).handler());
    const run = await memory.run(kinesisEvent([order("1", 13), order("1", 14), order("2", 15)]));
    expect(run.report).toMatchObject({ parked: 1, parkedBehind: 1 });
    expect(run.deadLetters).toMatchObject([{ error: { message: "unlucky" } }]);
    expect(await heldBy()).toEqual(new Map([["2", 15]]));
  });

  it("says which events failed, or that it is away: then nothing is a dead letter", async () => {
    const failing = { ...open(), apply: async () => Promise.reject(new SinkUnavailableError("refused")) };
    const away = await new HandlerInMemory(sinkConsumer("toy", failing).handler()).run(
      kinesisEvent([order("1", 1)]),
    );
    expect([away.deadLetters, away.batchItemFailures.length]).toEqual([[], 1]);
    const some = {
      ...open(),
      apply: async () => Promise.reject(new FailedEvents([1], { cause: new Error("second") })),
    };
    const events = [order("1", 1), order("1", 2)];
    const run = await new HandlerInMemory(sinkConsumer("toy", some).handler()).run(kinesisEvent(events));
    expect(run.applied.map(({ id }) => id)).toEqual([events[0]?.id]);
  });

  it("cannot fail events by what it returns", async () => {
    const returns = { ...open(), apply: (async () => [0]) as unknown as () => Promise<void> };
    for (const maxEvents of [1, 5]) {
      const handler = sinkConsumer("toy", { ...returns, maxEvents }).handler();
      expect((await new HandlerInMemory(handler).run(kinesisEvent([order("1", 1)]))).applied).toHaveLength(1);
    }
  });

  it("is swept of what the backfill did not find, and keeps late changes of it away", async () => {
    const memory = new HandlerInMemory(sinkConsumer("toy", open()).handler());
    const [gone, late] = [order("1", 1), order("1", 2)];
    const { partition } = gone;
    const began = changeEvent({ table: "public.orders", op: "c", partition, after: { id: "2", note: 3 } });
    const end = sweepEvent({ table: "public.orders", partition, before: began.position });
    const { sweeps } = await memory.run(kinesisEvent([gone, began, end]));
    expect(sweeps).toHaveLength(1);
    expect(await heldBy()).toEqual(new Map([["2", 3]]));
    await new HandlerInMemory(sinkConsumer("toy", open()).handler()).run(kinesisEvent([late]));
    expect(await heldBy()).toEqual(new Map([["2", 3]]));
  });

  it("has another identity once its store was made anew", async () => {
    const sink = open();
    const before = await sink.identity();
    expect(await sink.identity()).toEqual(before);
    makeStore("shop");
    expect(await sink.identity()).not.toEqual(before);
  });
});

describe("the list of sinks", () => {
  it("refuses a kind that is not there, a second of one name, and a configuration that does not fit", () => {
    expect(() => openSink({ kind: "elsewhere" })).toThrow(
      /kind: there is no such kind: write .*toy.*elsewhere/,
    );
    expect(() => addSinkKind(toyKind)).toThrow(/there is a kind of sink "toy"/);
    expect(() => open({ store: undefined, tables: [] })).toThrow(
      /The sink "toy" is not valid:\n +store: write the name of a store.*\n +tables: write a table.*got \[\]/,
    );
  });
});
