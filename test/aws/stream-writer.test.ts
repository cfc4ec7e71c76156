import { ListShardsCommand } from "@aws-sdk/client-kinesis";
import { expect, test } from "vitest";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { positionOf } from "../../lib/change/record.ts";
import { readShardBeat } from "../../lib/change/shard-beat.ts";
import { explicitHashKey } from "../../lib/change/topic.ts";
import type { StreamMetrics } from "../../lib/stream/metrics.ts";
import type { ShardBeatOptions } from "../../lib/stream/shard-beats.ts";
import { eventually } from "../eventually.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { writeKinesis } from "../stream/kinesis.ts";
import { emulatedAws } from "./emulated.ts";
import { readShards, readStream, type StoredRecord } from "./stream-records.ts";

const aws = emulatedAws();
const log = { info: () => {}, warn: () => {} };
const orders = { name: "shop.public.orders", partitions: 8 };

function* transactions(count: number): Generator<SourceMessage[]> {
  for (let i = 1; i <= count; i++) {
    const lsn = BigInt(i * 16);
    yield [
      change(orders, i % 8, lsn, 1, `ä${i}`),
      change(orders, (i * 3) % 8, lsn, 2),
      { kind: "commit", endPlace: lsn + 8n, commitTimeMs: i },
    ];
  }
}

test("every change stands in the stream once, in order per partition, and the last commit is acknowledged", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(2);
  const source = sourceOf(transactions(500));
  const options = { kinesis, streamName, writer: 3, packing: "batch", log } as const;
  await writeKinesis(source, options, new AbortController().signal);

  const offered = [...transactions(500)].flat().filter((message) => message.kind === "change");
  const stored = await readStream(kinesis, streamName);
  for (let partition = 0; partition < 8; partition++) {
    const records = stored.filter((r) => r.partitionKey === `shop.public.orders/${partition}`);
    const events = records.flatMap(({ record }) => (record.kind === "events" ? record.events : []));
    const expected = offered.filter((c) => c.partition === partition).map((c) => c.position);
    expect(events.map(positionOf)).toEqual(expected);
    expect(events.map((event) => event.source.after)).toEqual([null, ...expected.slice(0, -1)]);
    expect(records.every(({ record }) => record.writer === 3 && record.partition === partition)).toBe(true);
  }
  expect(source.acknowledged.at(-1)).toBe(500n * 16n + 8n);
});

test("a partition's records stand in the shard of its hash key, not of its name", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(4);
  const options = { kinesis, streamName, writer: 1, packing: "batch", log } as const;
  await writeKinesis(sourceOf(transactions(20)), options, new AbortController().signal);

  const { Shards = [] } = await kinesis.send(new ListShardsCommand({ StreamName: streamName }));
  const shardOf = (hashKey: bigint) =>
    Shards.find(
      ({ HashKeyRange: range }) =>
        hashKey >= BigInt(range?.StartingHashKey ?? 0) && hashKey <= BigInt(range?.EndingHashKey ?? 0),
    )?.ShardId;
  const stored = await readStream(kinesis, streamName);
  expect(new Set(stored.map(({ shardId }) => shardId)).size).toBe(4);
  for (const { shardId, record } of stored) {
    expect(shardId).toBe(shardOf(BigInt(explicitHashKey(orders, record.partition))));
  }
});

test("unpacked: one event a record, each whole by itself", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream();
  const options = { kinesis, streamName, writer: 3, packing: "none", log } as const;
  const source = sourceOf(transactions(50));
  await writeKinesis(source, options, new AbortController().signal);

  const stored = await readStream(kinesis, streamName);
  expect(stored).toHaveLength(100);
  for (const { partitionKey, record } of stored) {
    expect(`${record.topic}/${record.partition}`).toBe(partitionKey);
    expect(record).toMatchObject({ kind: "events", writer: 3, events: [{ op: "c" }] });
  }
  expect(source.acknowledged.at(-1)).toBe(50n * 16n + 8n);
});

test("metrics at the end: all that was stored, nothing left", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream();
  const seen: StreamMetrics[] = [];
  const onMetrics = (metrics: StreamMetrics) => void seen.push(metrics);
  const options = { kinesis, streamName, writer: 3, packing: "batch", log, onMetrics } as const;
  await writeKinesis(sourceOf(transactions(50)), options, new AbortController().signal);

  const stored = await readStream(kinesis, streamName);
  expect(seen.at(-1)).toMatchObject({
    changes: 100,
    records: stored.length,
    bytes: stored.reduce((sum, { bytes, partitionKey }) => sum + bytes + partitionKey.length, 0),
    retries: 0,
    tables: new Map([["public.orders", { changes: 100, bytes: expect.any(Number) }]]),
    bufferedBytes: 0,
    oldestUnacknowledgedMs: 0,
    acknowledgedPlace: 50n * 16n + 8n,
    acknowledgedCommitTimeMs: 50,
  });
  // What the records hold beyond their events is their heads and tails.
  const tableBytes = seen.at(-1)?.tables.get("public.orders")?.bytes ?? 0;
  const given = [...transactions(50)].flat().flatMap((m) => (m.kind === "change" ? [m.json.length] : []));
  expect(tableBytes).toBeGreaterThanOrEqual(given.reduce((sum, length) => sum + length, 0));
  expect(tableBytes).toBeLessThan(seen.at(-1)?.bytes ?? 0);
});

test("a beat stands in each open shard before the first change, is repeated, and counts as no change", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(3);
  let latest: StreamMetrics | undefined;
  const metrics = { onMetrics: (now: StreamMetrics) => (latest = now) };
  const beats: ShardBeatOptions = { name: "shop", quietSince: 1_700_000_000_000, everyMs: 20 };
  const stopping = new AbortController();
  const source = sourceOf(
    (async function* () {
      yield* transactions(20);
      await new Promise((resolve) => stopping.signal.addEventListener("abort", resolve));
    })(),
  );
  const options = { kinesis, streamName, writer: 3, packing: "batch", log, beats, ...metrics } as const;
  const written = writeKinesis(source, options, stopping.signal);
  const beatOf = ({ record }: StoredRecord) =>
    record.kind === "events" && record.events[0] ? readShardBeat(record.events[0]) : undefined;
  const beatsOf = async () => (await readShards(kinesis, streamName)).map((records) => records.map(beatOf));
  await eventually(async () => (await beatsOf()).every((shard) => shard.filter(Boolean).length > 2), {
    what: "beats in all shards",
  });
  stopping.abort();
  await written;

  for (const [number, shard] of (await beatsOf()).entries()) {
    const shardId = `shardId-${String(number).padStart(12, "0")}`;
    expect(shard[0], "the first record says since when it was quiet").toEqual({
      shardId,
      quietSince: beats.quietSince,
    });
    expect(new Set(shard.slice(1).flatMap((beat) => (beat ? [JSON.stringify(beat)] : [])))).toEqual(
      new Set([JSON.stringify({ shardId })]),
    );
  }
  expect(source.acknowledged.at(-1)).toBe(20n * 16n + 8n);
  expect(latest?.changes).toBe(40);
});

test("capture goes on where the shards cannot be listed", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream();
  const send = kinesis.send.bind(kinesis) as (command: unknown, ...rest: unknown[]) => Promise<unknown>;
  const forbidden = Object.assign(Object.create(kinesis), {
    send: async (command: unknown, ...rest: unknown[]) => {
      if (command instanceof ListShardsCommand) throw new Error("not permitted");
      return await send(command, ...rest);
    },
  });
  const warnings: string[] = [];
  const said = { ...log, warn: (message: string) => void warnings.push(message) };
  const beats = { name: "shop", quietSince: undefined };
  const options = { kinesis: forbidden, streamName, writer: 3, packing: "batch", log: said, beats } as const;
  const source = sourceOf(transactions(5));
  await writeKinesis(source, options, new AbortController().signal);
  expect(source.acknowledged.at(-1)).toBe(5n * 16n + 8n);
  expect(warnings.join()).toContain("shards cannot be listed");
});
