import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseRecord } from "../../../lib/change/record.ts";
import { partitionOf } from "../../../lib/change/topic.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import {
  changeEvent,
  type HandlerRun,
  kinesisEvent,
  type RecordedEvent,
  runHandler,
} from "../../../lib/testing/handler/index.ts";

const everything = consumer("everything")
  .on("*", ALL_OPERATIONS, () => {})
  .handler();
const given = (events: readonly RecordedEvent[]): Promise<HandlerRun> =>
  runHandler(everything, kinesisEvent(events));
const order = (id: string, more: object = {}) =>
  changeEvent({ table: "public.orders", op: "c", after: { id, ...more } });
const records = (events: readonly RecordedEvent[], options = {}) =>
  kinesisEvent(events, options).Records.map(({ kinesis }) => ({
    key: kinesis.partitionKey,
    sequence: kinesis.sequenceNumber,
    ...(parseRecord(Buffer.from(kinesis.data, "base64")) as Extract<
      ReturnType<typeof parseRecord>,
      { kind: "events" }
    >),
  }));

/** What a handler may look at, its `source` without the predecessor, which only the stream knows. */
function seen(event: RecordedEvent): object {
  const { source, ...facts } = event;
  const { after: _, ...rest } = source;
  return { ...facts, source: rest };
}

describe("an event of changeEvent", () => {
  it("is the event that a handler is given, for any row and operation", async () => {
    const json = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 3 },
        fc.string({ unit: "grapheme" }),
        fc.integer(),
        fc.boolean(),
        fc.constant(null),
        // In json, an integer beyond 2^53 comes as a bigint.
        fc.bigInt({ min: 2n ** 53n + 1n, max: 2n ** 70n }),
        fc.array(tie("value"), { maxLength: 3 }),
        fc.dictionary(fc.string({ minLength: 1 }), tie("value"), { maxKeys: 3, noNullPrototype: true }),
      ),
    })).value;
    const row = fc.record({ id: fc.integer({ min: 1 }).map(String), note: json });
    const change = fc.oneof(
      fc.record({ op: fc.constantFrom("c", "r"), after: row }),
      fc.record({ op: fc.constant("u"), before: fc.option(row), after: row }),
      fc.record({
        op: fc.constant("u"),
        after: row.map(({ id }) => ({ id })),
        unchanged: fc.constant(["note"]),
      }),
      fc.record({ op: fc.constant("d"), before: row }),
      fc.record({ op: fc.constant("t") }),
      fc.record({
        op: fc.constant("m"),
        message: fc.record({ prefix: fc.string({ minLength: 1 }), content: fc.string() }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 5 }), async (changes) => {
        const events = changes.map((one) =>
          changeEvent({ table: "public.orders", ...(one as { op: "c"; after: { id: string } }) }),
        );
        const { applied } = await given(events);
        const byPosition = (a: { position: string }, b: { position: string }) =>
          a.position < b.position ? -1 : 1;
        expect(applied.toSorted(byPosition).map(seen)).toEqual(events.map(seen));
      }),
      { numRuns: 60 },
    );
  });

  it("says what changed, and only that", () => {
    const paid = changeEvent({
      table: "public.orders",
      op: "u",
      before: { id: "17", status: "placed", total: "9.90" },
      after: { id: "17", status: "paid", total: "9.90" },
    });
    expect(paid.changed).toEqual(["status"]);
    expect(paid).toMatchObject({ operation: "update", key: { id: "17" }, topic: "test.public.orders" });
  });

  it("stands behind all events made before it, in the partition that capture gives its key", () => {
    const [first, second] = [order("17"), order("4711")];
    expect(second.position > first.position).toBe(true);
    expect([first.partition, second.partition]).toEqual([partitionOf("17", 64), partitionOf("4711", 64)]);
    const chosen = changeEvent({
      table: "order_items",
      op: "c",
      key: ["order_id", "line"],
      after: { order_id: "17", line: 2 },
    });
    expect(chosen.partition).toBe(partitionOf("17\u00002", 64));
    expect(chosen).toMatchObject({
      schema: "public",
      table: "order_items",
      key: { order_id: "17", line: 2 },
    });
  });

  it("is refused where its operation needs a row, or the row has no such key", () => {
    const table = "public.orders";
    expect(() => changeEvent({ table, op: "u", before: { id: "17" } })).toThrow(/after: .*op u/s);
    expect(() => changeEvent({ table, op: "d", after: { id: "17" } })).toThrow(/before: .*op d/s);
    expect(() => changeEvent({ table, op: "t", after: { id: "17" } })).toThrow(/truncate/);
    expect(() => changeEvent({ table, op: "c", after: { order_id: "17" } })).toThrow(/key/);
    expect(() => changeEvent({ op: "c", after: { id: "17" } })).toThrow(/public\.orders/);
    expect(() => changeEvent({ op: "m" })).toThrow(/message/);
  });
});

describe("the records of kinesisEvent", () => {
  it("hold a topic partition each, say which changes they hold, and chain them", () => {
    const item = changeEvent({ table: "public.order_items", op: "c", after: { id: "17" } });
    const events = [order("17"), order("4711"), order("17"), item, order("17")];
    const found = records(events, { writer: 3 });
    expect(found.map(({ key, events }) => `${key}: ${events.length}`)).toEqual([
      `test.public.orders/${partitionOf("17", 64)}: 3`,
      `test.public.orders/${partitionOf("4711", 64)}: 1`,
      `test.public.order_items/${partitionOf("17", 64)}: 1`,
    ]);
    const [first, third, last] = [events[0], events[2], events[4]].map((event) => event?.position);
    expect(found[0]).toMatchObject({ writer: 3, topic: "test.public.orders" });
    expect(found[0]?.events.map(({ source }) => source.after)).toEqual([null, first, third]);
    const [record] = kinesisEvent(events).Records;
    const head = Buffer.from(record?.kinesis.data ?? "", "base64").toString();
    expect(head).toContain(`"first":"${first}","last":"${last}","after":null`);
    expect(new Set(found.map(({ sequence }) => sequence)).size).toBe(3);
  });

  it("go on behind each other where a record takes only so many events", () => {
    const events = ["17", "17", "17"].map((id) => order(id));
    const found = records(events, { eventsPerRecord: 2 });
    expect(found.map(({ events }) => events.map(({ source }) => source.after))).toEqual([
      [null, events[0]?.position],
      [events[1]?.position],
    ]);
  });

  it("repeat an event in a record of its own, as capture does after a restart", async () => {
    const placed = order("17");
    expect(records([placed, placed])).toHaveLength(2);
    const { applied, report } = await given([placed, placed]);
    expect([applied.length, report.duplicates]).toEqual([1, 1]);
  });
});
