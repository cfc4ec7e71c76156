import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DeleteStreamCommand, MergeShardsCommand, SplitShardCommand } from "@aws-sdk/client-kinesis";
import type { KinesisStreamEvent } from "aws-lambda";
import { describe, expect, test } from "vitest";
import { kinesisClient } from "../../lib/aws/clients.ts";
import { MemoryCheckpoints } from "../../lib/local/event-source-mapping/checkpoint.ts";
import type { MappingEvents } from "../../lib/local/event-source-mapping/events.ts";
import type { EventSourceMapping } from "../../lib/local/event-source-mapping/mapping.ts";
import { MappedStreamNotFoundError } from "../../lib/local/event-source-mapping/mapping-errors.ts";
import { eventually } from "../eventually.ts";
import { emulatedAws } from "./emulated.ts";
import { scenario } from "./event-source-mapping/scenario.ts";

const aws = emulatedAws();

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const told = (from: number, to: number) => numbers(from, to).map((n) => ({ n }));

/** Collects one kind of event of a mapping. */
function collected<K extends keyof MappingEvents>(
  mapping: EventSourceMapping,
  kind: K,
): MappingEvents[K][0][] {
  const all: MappingEvents[K][0][] = [];
  mapping.events.on(kind, ((event: MappingEvents[K][0]) => all.push(event)) as never);
  return all;
}

async function done(mapping: EventSourceMapping, records: number): Promise<void> {
  await eventually(() => mapping.stats().completed >= records, { what: `${records} records to be done` });
}

describe("batches", () => {
  test("the event has Lambda's shape to the letter", async () => {
    const s = await scenario(aws(), { keepEvents: true });
    await s.put({ n: 1, key: "a/b" });
    await s.run();
    await s.met(1);
    const line = await eventually(() => readFileSync(join(s.directory, "events"), "utf8").split("\n")[0], {
      what: "the event",
    });
    const event = JSON.parse(line) as KinesisStreamEvent;
    const [record] = event.Records;
    const sequenceNumber = record?.kinesis.sequenceNumber as string;
    const arrival = record?.kinesis.approximateArrivalTimestamp as number;
    expect(sequenceNumber).toMatch(/^\d{56}$/);
    expect(Math.abs(arrival - Date.now() / 1000)).toBeLessThan(600);
    expect(event).toEqual({
      Records: [
        {
          kinesis: {
            kinesisSchemaVersion: "1.0",
            partitionKey: "a/b",
            sequenceNumber,
            data: Buffer.from('{"n":1}').toString("base64"),
            approximateArrivalTimestamp: arrival,
          },
          eventSource: "aws:kinesis",
          eventVersion: "1.0",
          eventID: `shardId-000000000000:${sequenceNumber}`,
          eventName: "aws:kinesis:record",
          invokeIdentityArn: "arn:aws:iam::000000000000:role/journal",
          awsRegion: "us-east-1",
          eventSourceARN: `arn:aws:kinesis:us-east-1:000000000000:stream/${s.streamName}`,
        },
      ],
    });
  });

  test("hold at most batchSize records, in the shard's order", async () => {
    const s = await scenario(aws());
    await s.put(...told(1, 10));
    const mapping = await s.run({ batchSize: 4 });
    await done(mapping, 10);
    expect(s.batches()).toEqual([numbers(1, 4), numbers(5, 8), numbers(9, 10)]);
  });

  test("hold at most 6 MB of payload, data counted as base64", async () => {
    const s = await scenario(aws());
    await s.put(...told(1, 6).map((record) => ({ ...record, fill: 1_000_000 })));
    const mapping = await s.run({ maximumBatchingWindowSeconds: 300, batchSize: 1000 });
    // Six of 1.33 MB: four fit, and go although the window is open; the others wait for more.
    await s.met(1, 2, 3, 4);
    await s.put(...told(7, 9).map((record) => ({ ...record, fill: 1_000_000 })));
    await done(mapping, 8);
    expect(s.batches()).toEqual([numbers(1, 4), numbers(5, 8)]);
  });

  test("wait for their window, or until they are full", async () => {
    const s = await scenario(aws());
    const mapping = await s.run({ maximumBatchingWindowSeconds: 300, batchSize: 5 });
    for (const n of numbers(1, 5)) {
      await s.put({ n });
      await eventually(() => mapping.stats().read === n, { what: `record ${n} to be read` });
    }
    await done(mapping, 5);
    expect(s.batches()).toEqual([numbers(1, 5)]);

    const other = await scenario(aws());
    const windowed = await other.run({ maximumBatchingWindowSeconds: 2, batchSize: 5 });
    await other.put({ n: 1 });
    await done(windowed, 1);
    expect(other.batches()).toEqual([[1]]);
  });
});

describe("failures", () => {
  test("an exception fails the whole batch", async () => {
    const s = await scenario(aws());
    await s.put({ n: 4 }, { n: 5, act: "throw", once: true }, { n: 6 });
    const mapping = await s.run();
    await done(mapping, 3);
    const later = s.batches();
    expect(later.flat().filter((n) => n === 5)).toHaveLength(2);
    expect(later.at(-1)).toContain(6);
    expect(mapping.stats().failedInvocations).toBe(1);
  });

  test("the lowest reported sequence number is where the batch goes on", async () => {
    const s = await scenario(aws());
    await s.put(...told(1, 4), { n: 5, act: "report", once: true }, ...told(6, 8));
    const mapping = await s.run();
    await done(mapping, 8);
    expect(s.batches()).toEqual([numbers(1, 8), numbers(5, 8)]);
  });

  test("a batch that fails comes again for ever, and nothing overtakes it", async () => {
    const s = await scenario(aws());
    await s.put({ n: 1 }, { n: 2, act: "throw" }, { n: 3 });
    await s.run({ batchSize: 3 });
    await s.put({ n: 4 });
    await eventually(() => s.batches().length > 5, { what: "the batch to come again and again" });
    expect(new Set(s.batches().map(String))).toEqual(new Set([String(numbers(1, 3))]));
  });

  test.each(["exit", "kill"] as const)(
    "a process that ends by %s: the batch comes again, in a fresh one",
    async (act) => {
      const s = await scenario(aws());
      await s.put({ n: 1 }, { n: 2, act, once: true }, { n: 3 });
      const mapping = await s.run();
      const invoked = collected(mapping, "invoked");
      await done(mapping, 3);
      expect(s.batches()).toEqual([numbers(1, 3), numbers(1, 3)]);
      expect(new Set(s.journal().map(({ pid }) => pid)).size).toBe(2);
      expect(invoked.map(({ error, completed }) => [error, completed])).toEqual([
        ["Runtime.ExitError", 0],
        [undefined, 3],
      ]);
    },
  );

  test("a busy handler is killed at its timeout, and the batch comes again", async () => {
    const s = await scenario(aws(), { timeoutMs: 2_000 });
    await s.put({ n: 1 }, { n: 2, act: "hang", once: true });
    const mapping = await s.run();
    const invoked = collected(mapping, "invoked");
    await done(mapping, 2);
    expect(s.batches()).toEqual([numbers(1, 2), numbers(1, 2)]);
    expect(invoked.map(({ error }) => error)).toEqual(["Sandbox.Timedout", undefined]);
  });

  test("a failing shard holds back no other", async () => {
    const s = await scenario(aws(), { shards: 2 });
    const keys = numbers(1, 20).map((n) => ({ n, key: `k${n}` }));
    const mapping = await s.run({ batchSize: 1 });
    await s.put(...keys);
    await done(mapping, 20);
    const perShard = mapping.stats().shards.map(({ checkpoint }) => checkpoint);
    expect(perShard).toHaveLength(2);
    await s.put({ n: 100, key: "k1", act: "throw" });
    await s.met(100);
    await s.put(...keys.map(({ n, key }) => ({ n: 200 + n, key })));
    const other = await eventually(
      () =>
        mapping
          .stats()
          .shards.find(
            ({ pendingBytes, checkpoint }) => pendingBytes === 0 && !perShard.includes(checkpoint),
          ),
      { what: "the other shard to go on" },
    );
    await eventually(
      () =>
        s
          .batches()
          .flat()
          .filter((n) => n === 100).length > 2,
      { what: "the poison to be retried" },
    );
    expect(s.batches().flat()).not.toContain(201);
    expect(other.checkpoint).toBeDefined();
  });
});

describe("lanes", () => {
  test("ten lanes keep the order of each key and run side by side", async () => {
    const s = await scenario(aws(), { concurrency: 10 });
    const keys = 30;
    const all = numbers(0, 599).map((n) => ({ n, key: `k${n % keys}` }));
    await s.put(...all);
    const mapping = await s.run({ parallelizationFactor: 10, batchSize: 7 });
    const invoked = collected(mapping, "invoked");
    await done(mapping, 600);
    const order = new Map<string, number[]>();
    for (const { keys: batchKeys, numbers: batch } of s.journal()) {
      batch.forEach((n, i) => {
        const key = batchKeys[i] as string;
        order.set(key, [...(order.get(key) ?? []), n]);
      });
    }
    expect(order.size).toBe(keys);
    for (const [key, seen] of order) {
      expect(seen, key).toEqual(all.filter((record) => record.key === key).map(({ n }) => n));
    }
    expect(new Set(invoked.map(({ lane }) => lane)).size).toBe(10);
    expect(new Set(s.journal().map(({ pid }) => pid)).size).toBeGreaterThan(1);
  });

  test("the checkpoint stays before what the slowest lane has not done: it comes again after a restart", async () => {
    const s = await scenario(aws(), { concurrency: 10 });
    const checkpoints = new MemoryCheckpoints();
    await s.put({ n: 1, key: "k0" }, { n: 2, key: "k1", act: "release" });
    await s.put(...numbers(3, 40).map((n) => ({ n, key: `k${n}` })));
    const mapping = await s.run({ parallelizationFactor: 10, checkpoints });
    const kept = collected(mapping, "checkpoint");
    await eventually(() => mapping.stats().completed > 20, { what: "the other lanes to go on" });
    await mapping.stop(50);
    s.release();
    expect(kept.length).toBeLessThanOrEqual(1);
    const before = s.journal().length;
    const again = await s.run({ parallelizationFactor: 10, checkpoints });
    await eventually(() => again.stats().shards[0]?.pendingBytes === 0 && again.stats().read >= 39, {
      what: "everything to be done",
    });
    const second = new Set(s.batches().slice(before).flat());
    expect(second.has(1)).toBe(false);
    expect(numbers(2, 40).filter((n) => !second.has(n))).toEqual([]);
  });
});

describe("shards", () => {
  test("split and merged under load: every record once, the order of each key kept", async () => {
    const s = await scenario(aws(), { shards: 2 });
    const mapping = await s.run({ batchSize: 25 });
    const started = collected(mapping, "shardStarted");
    const finished = collected(mapping, "shardFinished");
    const keys = 12;
    let n = 0;
    const load = async (rounds: number) => {
      for (let i = 0; i < rounds; i++) {
        await s.put(...numbers(1, keys).map((key) => ({ n: n++, key: `key-${key}` })));
      }
    };
    const split = async () => {
      const [first] = await s.openShards();
      const NewStartingHashKey = String(((first?.from ?? 0n) + (first?.to ?? 0n)) / 2n);
      const shard = { StreamName: s.streamName, ShardToSplit: first?.id, NewStartingHashKey };
      await aws().kinesis.send(new SplitShardCommand(shard));
      await s.openShards();
    };
    const merge = async () => {
      const [first, second] = await s.openShards();
      const pair = { ShardToMerge: first?.id, AdjacentShardToMerge: second?.id };
      await aws().kinesis.send(new MergeShardsCommand({ StreamName: s.streamName, ...pair }));
      await s.openShards();
    };
    await Promise.all([load(15), split()]);
    await Promise.all([load(15), merge()]);
    await Promise.all([load(15), split()]);
    await done(mapping, n);

    const order = new Map<string, number[]>();
    for (const { keys: batchKeys, numbers: batch } of s.journal()) {
      batch.forEach((number, i) => {
        const key = batchKeys[i] as string;
        order.set(key, [...(order.get(key) ?? []), number]);
      });
    }
    for (let key = 1; key <= keys; key++) {
      const expected = numbers(0, n - 1).filter((number) => number % keys === key - 1);
      expect(order.get(`key-${key}`), `key-${key}`).toEqual(expected);
    }
    expect(started.length).toBeGreaterThanOrEqual(5);
    expect(finished.length).toBeGreaterThanOrEqual(4);
  });

  test("a merged shard waits for the last record of both parents", async () => {
    const s = await scenario(aws(), { shards: 3 });
    const [first, second, third] = await s.openShards();
    const mapping = await s.run({ batchSize: 1 });
    // A key in each shard, found by trying.
    const invoked = collected(mapping, "invoked");
    const keyOf = new Map<string, string>();
    for (let i = 0; keyOf.size < 3; i++) {
      await s.put({ n: i, key: `k${i}` });
      await eventually(() => invoked.length === i + 1, { what: "the record's shard" });
      keyOf.set(invoked[i]?.shardId ?? "", `k${i}`);
    }
    const [slow, fast, aside] = [first, second, third].map((shard) => keyOf.get(shard?.id ?? ""));
    const started = collected(mapping, "shardStarted");
    const finished = collected(mapping, "shardFinished");
    await s.put({ n: 1001, key: slow, act: "release" });
    await s.met(1001);
    const pair = { ShardToMerge: first?.id, AdjacentShardToMerge: second?.id };
    await aws().kinesis.send(new MergeShardsCommand({ StreamName: s.streamName, ...pair }));
    const merged = (await s.openShards())[0]?.id;
    await s.put({ n: 2001, key: fast }, { n: 2002, key: slow });
    await eventually(() => finished.some(({ shardId }) => shardId === second?.id), {
      what: "the other parent to be finished",
    });
    // A split elsewhere makes the mapping look at all shards again.
    const NewStartingHashKey = String(((third?.from ?? 0n) + (third?.to ?? 0n)) / 2n);
    const split = { StreamName: s.streamName, ShardToSplit: third?.id, NewStartingHashKey };
    await aws().kinesis.send(new SplitShardCommand(split));
    await s.openShards();
    await s.put({ n: 3001, key: aside });
    await s.met(3001);
    expect(started.map(({ shardId }) => shardId)).not.toContain(merged);
    expect(s.batches().flat()).not.toContain(2001);
    s.release();
    await s.met(2001, 2002);
    expect(started.map(({ shardId }) => shardId)).toContain(merged);
  });

  test("a stream that was split before: children start when their parent is done", async () => {
    const s = await scenario(aws());
    const [shard] = await s.openShards();
    await s.put(...numbers(1, 10).map((n) => ({ n, key: `k${n}` })), { n: 11, key: "k1", act: "release" });
    const NewStartingHashKey = String(1n << 127n);
    const split = { StreamName: s.streamName, ShardToSplit: shard?.id, NewStartingHashKey };
    await aws().kinesis.send(new SplitShardCommand(split));
    await s.openShards();
    await s.put(...numbers(21, 30).map((n) => ({ n, key: `k${n - 20}` })));
    const mapping = await s.run({ batchSize: 1 });
    expect(mapping.stats().shards.map(({ shardId }) => shardId)).toEqual([shard?.id]);
    await s.met(11);
    expect(s.batches().flat()).toEqual(numbers(1, 11));
    s.release();
    await done(mapping, 21);
    expect(mapping.stats().shards).toHaveLength(2);
  });

  test("a mapping restarted with its checkpoints goes on behind them, finished shards included", async () => {
    const s = await scenario(aws());
    const checkpoints = new MemoryCheckpoints();
    await s.put(...told(1, 5));
    const first = await s.run({ checkpoints });
    await done(first, 5);
    await first.stop();
    await s.put(...told(6, 8));
    const [shard] = await s.openShards();
    await aws().kinesis.send(
      new SplitShardCommand({
        StreamName: s.streamName,
        ShardToSplit: shard?.id,
        NewStartingHashKey: String(1n << 127n),
      }),
    );
    await s.openShards();
    const second = await s.run({ checkpoints });
    const finished = collected(second, "shardFinished");
    await done(second, 3);
    await eventually(() => finished.length === 1, { what: "the parent to be finished" });
    await second.stop();
    await s.put(...told(9, 10));
    const third = await s.run({ checkpoints });
    await done(third, 2);
    expect(s.batches().flat()).toEqual(numbers(1, 10));
  });

  test("a stream that is not there, or goes, is a typed error", async () => {
    const s = await scenario(aws());
    await expect(s.run({ streamName: "no-such-stream" })).rejects.toThrow(MappedStreamNotFoundError);
    const mapping = await s.run();
    await aws().kinesis.send(new DeleteStreamCommand({ StreamName: s.streamName }));
    const failure = await eventually(() => mapping.stats().failure, { what: "the mapping to end" });
    expect(failure).toBeInstanceOf(MappedStreamNotFoundError);
    await mapping.stop();
  });
});

describe("reading", () => {
  test("expired iterators, throttles and lost answers: every record once, in order", async () => {
    const kinesis = kinesisClient(aws().environment);
    const faults = [
      "ExpiredIteratorException",
      "ProvisionedThroughputExceededException",
      "InternalFailure",
      "TimeoutError",
    ];
    let reads = 0;
    const expired = new Set<unknown>();
    const fail = (name: string) => {
      throw Object.assign(new Error(name), { name });
    };
    kinesis.middlewareStack.add(
      (next, context) => async (args) => {
        if (context.commandName !== "GetRecordsCommand") return next(args);
        const { ShardIterator } = args.input as { ShardIterator?: string };
        if (expired.has(ShardIterator)) fail("ExpiredIteratorException");
        // After the answer: a read whose answer is lost must be repeated.
        const answer = await next(args);
        const fault = reads++ % 2 === 0 ? faults[(reads >> 1) % faults.length] : undefined;
        if (fault === "ExpiredIteratorException") expired.add(ShardIterator);
        if (fault) fail(fault);
        return answer;
      },
      { step: "initialize" },
    );
    const s = await scenario(aws(), { kinesis });
    await s.put(...told(1, 40));
    const mapping = await s.run({ batchSize: 10 });
    const troubles = collected(mapping, "troubled");
    await done(mapping, 40);
    await eventually(() => new Set(troubles.map(({ error }) => error)).size === faults.length, {
      what: "each fault to be met",
    });
    await s.put(...told(41, 50));
    await s.met(...numbers(41, 50));
    expect(s.batches().flat()).toEqual(numbers(1, 50));
    kinesis.destroy();
  });

  test("filtered and unreadable records are passed over, and the checkpoint moves behind them", async () => {
    const s = await scenario(aws());
    const checkpoints = new MemoryCheckpoints();
    const options = { checkpoints, filters: [{ data: { side: ["right"] } }] };
    await s.put({ n: 1 }, { n: 10, side: "right" }, { n: 2 }, { n: 11, side: "right" });
    await s.putRaw({ key: "k", data: Buffer.from("no json") });
    await s.put({ n: 3 });
    const mapping = await s.run(options);
    await done(mapping, 2);
    await eventually(() => mapping.stats().read === 6, { what: "all to be read" });
    expect(s.batches().flat()).toEqual([10, 11]);
    expect(mapping.stats().filtered).toBe(4);
    await mapping.stop();
    const again = await s.run(options);
    await s.put({ n: 12, side: "right" });
    await done(again, 1);
    expect(again.stats().read).toBe(1);
  });

  test("a slow handler holds reading back: no more is buffered than two payloads and one read", async () => {
    const s = await scenario(aws());
    const mapping = await s.run();
    await s.put({ n: 0, act: "release" });
    await s.met(0);
    await s.put(...told(1, 40).map((record) => ({ ...record, fill: 1_000_000 })));
    const pending = () => mapping.stats().shards[0]?.pendingBytes ?? 0;
    await eventually(() => pending() > 12 * 1024 * 1024, { what: "the buffer to be full" });
    // By the time a second mapping has read everything, the first would have, too.
    const invoke = async () => ({ ok: true, requestId: "", response: null }) as const;
    const swift = await s.run({ functionHost: { name: "swift", invoke } });
    await done(swift, 41);
    expect(mapping.stats().read).toBeLessThan(30);
    s.release();
    await done(mapping, 41);
    expect(new Set(s.batches().flat())).toEqual(new Set(numbers(0, 40)));
  });
});

describe("stopping", () => {
  test("waits for the invocation under way: it is not repeated after a restart", async () => {
    const s = await scenario(aws());
    const checkpoints = new MemoryCheckpoints();
    await s.put({ n: 1, act: "release" });
    const mapping = await s.run({ checkpoints });
    await s.met(1);
    const stopping = mapping.stop();
    await s.put({ n: 2 });
    s.release();
    await stopping;
    const again = await s.run({ checkpoints });
    await done(again, 1);
    expect(s.batches()).toEqual([[1], [2]]);
  });

  test("does not wait for ever: what has not answered comes again", async () => {
    const s = await scenario(aws());
    const checkpoints = new MemoryCheckpoints();
    await s.put({ n: 1, act: "release" });
    const mapping = await s.run({ checkpoints });
    await s.met(1);
    await mapping.stop(50);
    s.release();
    const again = await s.run({ checkpoints });
    await done(again, 1);
    expect(s.batches()).toEqual([[1], [1]]);
    expect(mapping.stats().completed).toBe(0);
  });
});
