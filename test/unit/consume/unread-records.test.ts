import { describe, expect, it, vi } from "vitest";
import { RECORD_TAIL, type RecordRange, recordHead } from "../../../lib/change/record.ts";
import { FailedEvents, SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { orderedBatch } from "../../../lib/consume/run/ordered-batch.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, type Change, chain, eventJson, invocationOf, kinesisRecord, packed, TOPIC } from "./records.ts";

const HEADER = { topic: TOPIC, partition: 0, writer: 1 };

/** A packed record so large that it is read in its turn. */
function large(
  changes: readonly Change[],
  {
    writer = 1,
    tail = RECORD_TAIL,
    ...range
  }: Partial<RecordRange> & { writer?: number; tail?: string } = {},
) {
  const [first, last] = [changes[0] as Change, changes.at(-1) as Change];
  const after = typeof first.after === "number" ? at(first.after) : null;
  const head = recordHead({ ...HEADER, writer }, { first: at(first.at), last: at(last.at), after, ...range });
  return kinesisRecord(`${head}${changes.map(eventJson).join(",")}${" ".repeat(20_000)}${tail}`);
}

async function batches() {
  const calls: string[][] = [];
  const made = await memoryConsumer((c) =>
    c.onBatch("*", { operations: Operation.Create, maxEvents: 10_000 }, (events) => {
      calls.push(events.map(({ row }) => String(row.id)));
    }),
  );
  return { ...made, calls };
}

/** Texts that are decoded meanwhile, of records or large parts of them. */
async function decoded(act: () => Promise<unknown>): Promise<number> {
  const decode = vi.spyOn(TextDecoder.prototype, "decode");
  try {
    await act();
    return decode.mock.calls.filter(([data]) => (data?.byteLength ?? 0) > 16_384).length;
  } finally {
    decode.mockRestore();
  }
}

describe("the events of a large record", () => {
  it("are read when they are asked for, and let go of when it is closed", () => {
    const [record] = orderedBatch([large(chain(1, 3))]).lanes[0]?.records ?? [];
    const events = record?.events;
    expect(record?.events).toBe(events);
    record?.close?.();
    expect(record?.events).not.toBe(events);
    expect(record?.events).toEqual(events);
    expect(JSON.parse(record?.verbatim(1) ?? "")).toEqual(events?.[1]);
  });

  it("come to a call together with those of others, whatever their size", async () => {
    const { handler, calls } = await batches();
    await handler(invocationOf(large(chain(1, 2)), packed(chain(3, 3)), large(chain(4, 5))), timeLeft());
    expect(calls).toEqual([["1", "2", "3", "4", "5"]]);
  });

  it("are not looked at where a newer writer was seen", async () => {
    const { handler, calls, letters } = await batches();
    const stale = large(chain(1, 2));
    stale.kinesis.data = Buffer.from(
      Buffer.from(stale.kinesis.data, "base64").toString().replaceAll('"op":"c"', '"op":"?"'),
    ).toString("base64");
    const newer = large(chain(1, 2), { writer: 2 });
    await handler(invocationOf(newer, stale, large([{ at: 3, after: 2 }], { writer: 2 })), timeLeft());
    expect(calls).toEqual([["1", "2", "3"]]);
    expect(letters).toEqual([]);
  });

  it.each([
    ["first", { first: at(3) }, 3],
    ["last", { last: at(4) }, 4],
    ["predecessor", { after: null }, 3],
  ])("are a dead letter as a whole where its header names another %s", async (_what, range, last) => {
    const { handler, calls, letters } = await batches();
    const records = [packed(chain(1, 1)), large(chain(2, 3), range), packed([{ at: 5, after: last }])];
    const answer = await handler(invocationOf(...records), timeLeft());
    expect(letters).toHaveLength(1);
    expect({ answer, calls: calls.flat() }).toEqual({ answer: { batchItemFailures: [] }, calls: ["1", "5"] });
  });

  const CLAIM = { bucket: "b", key: "k", bytes: 1, sha256: "0".repeat(64) };
  it.each([
    ["a claim check", `"claim":${JSON.stringify(CLAIM)},"position":"${at(2)}","after":"${at(1)}"`],
    ["another writer", `"writer":7`],
    ["another topic", `"topic":"shop.public.customers"`],
    ["another partition", `"partition":3`],
  ])("are a dead letter as a whole where %s stands behind them", async (_what, member) => {
    const { handler, calls, letters } = await batches();
    const poison = large([{ at: 2, after: 1 }], { tail: `],${member},"more":[]}` });
    const answer = await handler(invocationOf(packed(chain(1, 1)), poison, packed(chain(3, 3))), timeLeft());
    expect(letters).toHaveLength(1);
    expect({ answer, calls: calls.flat() }).toEqual({ answer: { batchItemFailures: [] }, calls: ["1", "3"] });
  });

  it.each([
    ["an encoding", `"encoding":"zstd"`],
    ["a version", `"v":2`],
  ])(
    "wait as those of a small record do, where %s of a newer library stands behind them",
    async (_what, member) => {
      const { handler, calls, letters, lines } = await batches();
      const newer = large([{ at: 2, after: 1 }], { tail: `],${member}}` });
      await handler(invocationOf(packed(chain(1, 1)), newer, packed(chain(3, 3))), timeLeft());
      expect([calls.flat(), letters]).toEqual([["1"], []]);
      expect(lines).toMatchObject([{ error: "RecordNotSupportedError" }]);
    },
  );

  it("wait where their record names an encoding of a newer library before them", async () => {
    const { handler, calls, letters, lines } = await batches();
    const newer = large(chain(2, 2));
    const text = Buffer.from(newer.kinesis.data, "base64").toString();
    newer.kinesis.data = Buffer.from(text.replace('"events":', '"encoding":"zstd","events":')).toString(
      "base64",
    );
    await handler(invocationOf(packed(chain(1, 1)), newer), timeLeft());
    expect([calls.flat(), letters]).toEqual([["1"], []]);
    expect(lines).toMatchObject([{ error: "RecordNotSupportedError" }]);
  });

  it("are cut into their texts once, however many of a call that failed are parked", async () => {
    const down = await memoryConsumer((c) =>
      c.onBatch("*", { maxEvents: 10_000 }, () => {
        throw new Error("down");
      }),
    );
    // Once for the events, once for their texts.
    expect(await decoded(() => down.handler(invocationOf(large(chain(1, 50))), timeLeft()))).toBe(2);
    expect(down.letters).toHaveLength(50);
  });

  it("are not read once more for each change before them that fails, where they took effect already", async () => {
    const all = Array.from({ length: 20 }, (_, i) => i);
    const ahead = new FailedEvents(all, { cause: new SinkUnavailableError("s") });
    let isFirst = true;
    const { handler, letters, table } = await memoryConsumer((c) =>
      c.onBatch("*", { maxEvents: 10_000 }, () => {
        if (!isFirst) throw new Error("down");
        isFirst = false;
        throw ahead;
      }),
    );
    const records = invocationOf(packed(chain(1, 20)), large(chain(21, 40)));
    await handler(records, timeLeft());
    expect(table.items("fence")[0]?.a0?.S).toContain("done");
    // Once in their turn, once more for all.
    expect(await decoded(() => handler(records, timeLeft()))).toBe(2);
    expect(letters).toHaveLength(20);
  });
});
