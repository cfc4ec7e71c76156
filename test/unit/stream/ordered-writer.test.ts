import { describe, expect, test } from "vitest";
import { parseRecord, positionOf } from "../../../lib/change/record.ts";
import { EVERY_PARTITION } from "../../../lib/change/topic.ts";
import type { StreamLimits } from "../../../lib/stream/limits.ts";
import { OrderedWriter } from "../../../lib/stream/ordered-writer.ts";
import type { Packing } from "../../../lib/stream/packing.ts";
import type { EntryResult, PutRequest } from "../../../lib/stream/record-writer.ts";
import { change, encoded } from "../../stream/changes.ts";
import { DEFAULT_LIMITS } from "../../stream/kinesis.ts";

const orders = { name: "shop.public.orders", partitions: 4 };

function writer(limits: Partial<StreamLimits> = {}, packing: Packing = "batch") {
  return new OrderedWriter({
    writer: 7,
    packing,
    limits: { ...DEFAULT_LIMITS, ...limits },
    random: () => 0.5,
  });
}

function keys(request: PutRequest | undefined): string[] {
  return (request?.entries ?? []).map((entry) => entry.queue.partitionKey);
}

function all(request: PutRequest, result: EntryResult): EntryResult[] {
  return request.entries.map(() => result);
}

function take(machine: OrderedWriter, now: number): PutRequest {
  const request = machine.take(now);
  if (request === undefined) throw new Error("nothing to take");
  return request;
}

test("under light load a change goes at once", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 0);
  expect(keys(machine.take(0))).toEqual(["shop.public.orders/1"]);
});

test("while a partition's entry is in flight its changes gather, and then go together", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 0);
  const first = take(machine, 0);
  for (let i = 2; i < 100; i++) machine.offer(change(orders, 1, 10n, i), 0);
  expect(machine.take(60_000)).toBeUndefined();
  machine.settle(first, ["stored"], 60_000);
  expect(take(machine, 60_000).entries.map((entry) => entry.events)).toEqual([98]);
});

test("a partition that has been idle for longest is released, and its next event still follows its last", () => {
  const idle = new OrderedWriter({
    ...{ writer: 7, packing: "batch", limits: DEFAULT_LIMITS, random: () => 0.5, idleQueues: 2 },
  });
  const send = (partition: number, lsn: bigint) => {
    idle.offer(change(orders, partition, lsn, 1), 0);
    const request = take(idle, 0);
    idle.settle(request, ["stored"], 0);
    const [entry] = request.entries;
    const after = /"after":"(\d[\dA-F]{33})"|"after":(null)\}/.exec(entry?.data.toString() ?? "");
    return { queue: entry?.queue, after: after?.[1] };
  };
  const first = send(0, 10n);
  const second = send(1, 11n);
  expect(send(0, 12n)).toEqual({ queue: first.queue, after: change(orders, 0, 10n, 1).position });
  send(2, 13n);
  const again = send(1, 14n);
  expect(again.queue).not.toBe(second.queue);
  expect(again.after).toBe(change(orders, 1, 11n, 1).position);
  expect(send(3, 15n).after).toBeUndefined();
});

test("a small request waits a little for company while another is under way, and not for ever", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 0);
  take(machine, 0);
  machine.offer(change(orders, 2, 10n, 2), 0);
  expect(machine.take(0)).toBeUndefined();
  const wakeAt = machine.wakeAt ?? Number.NaN;
  machine.offer(change(orders, 3, 10n, 3), 0);
  expect(keys(machine.take(wakeAt))).toEqual(["shop.public.orders/2", "shop.public.orders/3"]);
});

test("a failed entry holds back its own partition alone, and is sent again byte for byte", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 0);
  machine.offer(change(orders, 2, 10n, 2), 0);
  const first = take(machine, 0);
  machine.settle(first, ["throttled", "stored"], 0);
  machine.offer(change(orders, 1, 20n, 1), 0);
  machine.offer(change(orders, 2, 20n, 2), 0);
  const second = take(machine, 0);
  expect(keys(second)).toEqual(["shop.public.orders/2"]);
  machine.settle(second, ["stored"], 0);

  const retry = take(machine, machine.wakeAt ?? 0);
  expect(keys(retry)).toEqual(["shop.public.orders/1"]);
  expect(retry.entries[0]?.data).toEqual(first.entries[0]?.data);
  machine.settle(retry, ["stored"], 1_000);
  expect(keys(machine.take(1_000))).toEqual(["shop.public.orders/1"]);
});

test("packed with gzip, a large record says the same in fewer bytes, a small one as it is; a retry is the same bytes", () => {
  const offered = Array.from({ length: 60 }, (_, i) => change(orders, 1, 10n, i + 1, `ü"☎${"x".repeat(i)}`));
  const plain = writer();
  const machine = writer({}, "gzip");
  for (const event of offered) plain.offer(event, 0);
  for (const event of offered) machine.offer(encoded(event), 0);
  const request = take(machine, 0);
  const data = Buffer.from(request.entries[0]?.data ?? []);
  const expected = take(plain, 0).entries[0]?.data ?? Buffer.alloc(0);
  expect(JSON.parse(data.toString())).toMatchObject({ topic: orders.name, partition: 1, encoding: "gzip" });
  expect(data.length * 3).toBeLessThan(expected.length);
  expect(request.bytes).toBe(data.length + Buffer.byteLength("shop.public.orders/1"));
  expect(parseRecord(data)).toEqual(parseRecord(expected));
  machine.settle(request, ["failed"], 0);
  const retry = take(machine, 10_000);
  expect(retry.entries[0]?.data).toEqual(data);
  machine.settle(retry, ["stored"], 10_000);
  expect(machine.bufferedBytes).toBe(0);
  machine.offer(change(orders, 1, 20n, 1), 20_000);
  expect(JSON.parse(String(take(machine, 20_000).entries[0]?.data)).events).toHaveLength(1);
});

test("a partition that fails for ever waits longer and longer, up to seconds, while others flow on", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 0);
  let now = 0;
  const waits: number[] = [];
  for (let i = 0; i < 20; i++) {
    machine.settle(take(machine, now), ["throttled"], now);
    waits.push((machine.wakeAt ?? 0) - now);
    machine.offer(change(orders, 2, 20n, i + 1), now);
    const other = take(machine, now);
    expect(keys(other)).toEqual(["shop.public.orders/2"]);
    machine.settle(other, ["stored"], now);
    now = machine.wakeAt ?? 0;
  }
  expect(waits).toEqual(waits.toSorted((a, b) => a - b));
  expect(waits[0]).toBeLessThan(100);
  expect(waits.at(-1)).toBeGreaterThan(2_000);
  expect(waits.at(-1)).toBeLessThanOrEqual(5_000);

  machine.settle(take(machine, now), ["stored"], now);
  machine.offer(change(orders, 1, 30n, 1), now);
  machine.settle(take(machine, now), ["throttled"], now);
  expect((machine.wakeAt ?? 0) - now).toBe(waits[0]);
});

test("partitions of a request that failed as a whole come back together", () => {
  const machine = writer();
  for (let i = 0; i < 4; i++) machine.offer(change(orders, i, 10n, i + 1), 0);
  machine.fail(take(machine, 0), 0);
  expect(machine.take(0)).toBeUndefined();
  expect(keys(machine.take(machine.wakeAt ?? 0))).toHaveLength(4);
});

test("the partition with the oldest change goes first, so that none is passed over", () => {
  const machine = writer({ requestRecords: 2 });
  for (let i = 0; i < 4; i++) machine.offer(change(orders, 3 - i, 10n, i + 1), 0);
  const first = take(machine, 0);
  expect(keys(first)).toEqual(["shop.public.orders/3", "shop.public.orders/2"]);
  machine.offer(change(orders, 3, 20n, 1), 0);
  machine.settle(first, all(first, "stored"), 0);
  expect(keys(machine.take(0))).toEqual(["shop.public.orders/1", "shop.public.orders/0"]);
});

test("a truncate goes to every partition in its place, and counts when stored in all of them", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 0);
  machine.offer(change(orders, EVERY_PARTITION, 10n, 2), 0);
  machine.offer(change(orders, 1, 10n, 3), 0);
  machine.offer({ kind: "commit", endPlace: 11n, commitTimeMs: 5 }, 0);
  const request = take(machine, 0);
  const positions = request.entries.map(({ data }) => {
    const record = parseRecord(data);
    return record.kind === "events"
      ? [record.partition, ...record.events.map((e) => positionOf(e).slice(-1))]
      : [];
  });
  expect(positions.toSorted()).toEqual([
    [0, "2"],
    [1, "1", "2", "3"],
    [2, "2"],
    [3, "2"],
  ]);
  machine.settle(request, ["stored", "stored", "failed", "stored"], 0);
  expect(machine.acknowledged).toBeUndefined();
  machine.settle(take(machine, 1_000), ["stored"], 1_000);
  expect(machine.acknowledged).toEqual({ place: 11n, commitTimeMs: 5 });
  expect(machine.bufferedBytes).toBe(0);
});

describe("limits", () => {
  const text = "é".repeat(1_000);

  test("a record grows to the target, and holds one event at least", () => {
    const machine = writer({ targetRecordBytes: 10_000 });
    for (let i = 1; i <= 10; i++) machine.offer(change(orders, 1, 10n, i, text), 0);
    machine.offer(change(orders, 1, 20n, 1, text.repeat(10)), 0);
    const sizes: number[] = [];
    while (machine.bufferedBytes > 0) {
      const request = take(machine, 0);
      sizes.push(...request.entries.map((entry) => entry.events));
      machine.settle(request, all(request, "stored"), 0);
    }
    expect(sizes).toEqual([4, 4, 2, 1]);
  });

  test("a change exactly as large as a record may be goes; one byte more is an error that names it", () => {
    const alone = take(offered(writer()), 0).bytes;
    expect(take(offered(writer({ maxRecordBytes: alone })), 0).bytes).toBe(alone);
    const machine = writer({ maxRecordBytes: alone - 1 });
    const error = caught(() => offered(machine));
    expect(error).toMatchObject({
      code: "OVERSIZE_CHANGE",
      table: "public.orders",
      position: change(orders, 1, 10n, 1).position,
      bytes: alone,
    });
    expect(error.message).not.toContain("é");
    expect(machine.take(0)).toBeUndefined();
    expect(machine.bufferedBytes).toBe(0);

    function offered(to: OrderedWriter) {
      to.offer(change(orders, 1, 10n, 1, text), 0);
      return to;
    }
  });

  test("a request stays within its bytes, partition keys included", () => {
    const machine = writer();
    const wide = { name: "shop.public.wide", partitions: 64 };
    for (let i = 0; i < 64; i++) machine.offer(change(wide, i, 10n, i + 1, "x".repeat(250_000)), 0);
    const request = take(machine, 0);
    const bytes = request.entries.map(
      ({ data, queue }) => data.length + Buffer.byteLength(queue.partitionKey),
    );
    const total = bytes.reduce((sum, size) => sum + size);
    expect(total).toBeLessThanOrEqual(5 * 1024 * 1024);
    expect(total).toBeGreaterThan(5 * 1024 * 1024 - 260_000);
  });

  test("500 entries in a request, 8 requests in flight", () => {
    const machine = writer();
    const wide = { name: "shop.public.wide", partitions: 4096 };
    for (let i = 0; i < 4096; i++) machine.offer(change(wide, i, 10n, i + 1), 0);
    const counts = Array.from({ length: 9 }, (_, i) => machine.take(i * 1_000)?.entries.length);
    expect(counts).toEqual([...Array(8).fill(500), undefined]);
  });

  test("a partition key above 256 characters is an error that names the topic", () => {
    const name = `shop.public.${"ü".repeat(243)}`;
    const machine = writer();
    // 255 + "/" + one digit is 257 characters.
    const error = caught(() => machine.offer(change({ name, partitions: 4 }, 1, 10n, 1), 0));
    expect(error).toMatchObject({ code: "PARTITION_KEY_TOO_LONG" });
    expect(error.message).toContain(name);
    expect(() => machine.offer(change({ name: name.slice(1), partitions: 4 }, 1, 10n, 1), 0)).not.toThrow();
  });
});

test("unpacked, an event is a record and says in its source what a packed record says around it", () => {
  const machine = writer({}, "none");
  machine.offer(change(orders, 1, 10n, 1), 0);
  machine.offer(change(orders, 1, 10n, 2), 0);
  const request = take(machine, 0);
  expect(request.entries.map((entry) => entry.events)).toEqual([1]);
  machine.settle(request, ["stored"], 0);
  const event = JSON.parse(Buffer.from(take(machine, 0).entries[0]?.data ?? []).toString());
  expect(event).toMatchObject({
    op: "c",
    source: {
      ordinal: 2,
      after: change(orders, 1, 10n, 1).position,
      topic: "shop.public.orders",
      partition: 1,
      writer: 7,
    },
  });
});

test("metrics count what was stored and what is left", () => {
  const machine = writer();
  machine.offer(change(orders, 1, 10n, 1), 100);
  machine.offer(change(orders, 2, 10n, 2), 100);
  machine.offer({ kind: "commit", endPlace: 11n, commitTimeMs: 5 }, 100);
  machine.settle(take(machine, 100), ["stored", "throttled"], 100);
  const texts = [change(orders, 1, 10n, 1), change(orders, 2, 10n, 2)].map(({ json }) => json);
  const bytes = Buffer.byteLength(texts.join(""));
  expect(machine.metrics(400)).toMatchObject({
    changes: 1,
    records: 1,
    requests: 1,
    retries: 1,
    throttles: 1,
    oldestUnacknowledgedMs: 300,
    acknowledgedPlace: undefined,
    tables: new Map([["public.orders", { changes: 2, bytes }]]),
  });
  machine.settle(take(machine, 400), ["stored"], 400);
  expect(machine.metrics(500)).toMatchObject({
    changes: 2,
    bufferedBytes: 0,
    oldestUnacknowledgedMs: 0,
    acknowledgedPlace: 11n,
    acknowledgedCommitTimeMs: 5,
  });
});

function caught(run: () => unknown): Error {
  try {
    run();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error("nothing was thrown");
}
