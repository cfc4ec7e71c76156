import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CompletedPrefix } from "../../../../lib/local/event-source-mapping/checkpoint.ts";
import { ENVELOPE_BYTES, queuedRecord } from "../../../../lib/local/event-source-mapping/event.ts";
import { cutBatch, laneOf, remainingWindow } from "../../../../lib/local/event-source-mapping/lanes.ts";
import { childless, startableShards } from "../../../../lib/local/event-source-mapping/lineage.ts";
import { MAX_PAYLOAD_BYTES } from "../../../../lib/local/lambda/invocation.ts";

describe("lanes", () => {
  test("a key has one lane, and keys spread over all ten", () => {
    const lanes = Array.from({ length: 1000 }, (_, i) => laneOf(`shop.public.orders/${i}`, 10));
    expect(new Set(lanes)).toEqual(new Set([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    expect(Array.from({ length: 1000 }, (_, i) => laneOf(`shop.public.orders/${i}`, 10))).toEqual(lanes);
  });
});

describe("the completed prefix", () => {
  test("is behind the last record before which everything is done, in whatever order they finish", () => {
    const runs = fc.integer({ min: 1, max: 60 }).chain((size) =>
      fc.record({
        filtered: fc.array(fc.boolean(), { minLength: size, maxLength: size }),
        order: fc.shuffledSubarray(
          Array.from({ length: size }, (_, i) => i),
          { minLength: size, maxLength: size },
        ),
      }),
    );
    fc.assert(
      fc.property(runs, ({ filtered, order }) => {
        const prefix = new CompletedPrefix();
        const done = [...filtered];
        let reached = -1;
        const check = () => {
          const taken = prefix.take();
          const expected = done.indexOf(false) === -1 ? done.length - 1 : done.indexOf(false) - 1;
          if (taken !== undefined) reached = Number(taken);
          expect(reached).toBe(expected);
          expect(prefix.size).toBeLessThanOrEqual(2 * done.filter((d) => !d).length + 1);
        };
        for (const [i, isFiltered] of filtered.entries()) prefix.add(String(i), isFiltered);
        check();
        for (const i of order) {
          done[i] = true;
          prefix.complete(String(i));
          check();
        }
        expect(prefix.empty).toBe(true);
      }),
    );
  });
});

describe("a batch", () => {
  const record = (payloadBytes: number, queuedAt = 0) => ({ payloadBytes, queuedAt });

  test("ends at its size or at 6 MB of payload, whichever comes first", () => {
    expect(cutBatch([record(100), record(100), record(100)], 2)).toEqual({ records: 2, full: true });
    expect(cutBatch([record(100), record(100)], 3)).toEqual({ records: 2, full: false });
    const half = (MAX_PAYLOAD_BYTES - ENVELOPE_BYTES) / 2;
    expect(cutBatch([record(half), record(half)], 10)).toEqual({ records: 2, full: false });
    expect(cutBatch([record(half), record(half + 1)], 10)).toEqual({ records: 1, full: true });
    expect(cutBatch([record(MAX_PAYLOAD_BYTES), record(1)], 10)).toEqual({ records: 1, full: true });
  });

  test("payload is counted as the JSON event: never less than its bytes, at most one comma more", () => {
    const origin = {
      streamArn: "arn:aws:kinesis:us-east-1:000000000000:stream/s",
      roleArn: "arn:aws:iam::0:role/r",
    };
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.uint8Array({ maxLength: 100 }), (key, data) => {
        const raw = {
          SequenceNumber: "1",
          PartitionKey: key,
          Data: data,
          ApproximateArrivalTimestamp: new Date(1),
        };
        const queued = queuedRecord(origin, "shardId-000000000000", raw);
        const bytes = Buffer.byteLength(JSON.stringify({ Records: [queued.event] }));
        expect(ENVELOPE_BYTES + queued.payloadBytes).toBe(bytes + 1);
      }),
    );
  });

  test("waits for its window unless it is full or nothing more can come", () => {
    const limits = { batchSize: 2, maximumBatchingWindowSeconds: 3 };
    expect(remainingWindow([record(1, 1_000)], limits, false, 2_500)).toBe(1_500);
    expect(remainingWindow([record(1, 1_000)], limits, false, 4_000)).toBe(0);
    expect(remainingWindow([record(1, 1_000), record(1, 2_000)], limits, false, 2_500)).toBe(0);
    expect(remainingWindow([record(1, 1_000)], limits, true, 2_500)).toBe(0);
    expect(
      remainingWindow([record(1, 1_000)], { ...limits, maximumBatchingWindowSeconds: 0 }, false, 1_000),
    ).toBe(0);
  });
});

describe("lineage", () => {
  const shard = (ShardId: string, ParentShardId?: string, AdjacentParentShardId?: string) => ({
    ShardId,
    ...(ParentShardId && { ParentShardId }),
    ...(AdjacentParentShardId && { AdjacentParentShardId }),
    HashKeyRange: { StartingHashKey: "0", EndingHashKey: "1" },
    SequenceNumberRange: { StartingSequenceNumber: "1" },
  });
  const ids = (shards: readonly { ShardId: string | undefined }[]) => shards.map(({ ShardId }) => ShardId);
  const shards = [
    shard("a"),
    shard("b"),
    shard("a1", "a"),
    shard("a2", "a"),
    shard("m", "a2", "b"),
    shard("o", "expired"),
  ];

  test("children wait for their parent, a merged shard for both, and an expired parent does not count", () => {
    const startable = (...finished: string[]) =>
      ids(startableShards(shards, new Set(["a", "b"]), new Set(finished)));
    expect(startable()).toEqual(["o"]);
    expect(startable("a")).toEqual(["a1", "a2", "o"]);
    expect(startable("a", "b")).toEqual(["a1", "a2", "o"]);
    expect(startable("a", "a2")).toEqual(["a1", "o"]);
    expect(startable("a", "a2", "b")).toEqual(["a1", "m", "o"]);
  });

  test("a finished shard without children has to be looked for again", () => {
    expect(childless(shards, new Set(["a", "b"]))).toEqual([]);
    expect(childless(shards, new Set(["a", "a1"]))).toEqual(["a1"]);
  });
});
