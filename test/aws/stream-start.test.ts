import { MergeShardsCommand } from "@aws-sdk/client-kinesis";
import { expect, test } from "vitest";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { formatPosition } from "../../lib/change/position.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import { findStart } from "../../lib/stream/kinesis/stream-start.ts";
import { eventually } from "../eventually.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { writeKinesis } from "../stream/kinesis.ts";
import { emulatedAws } from "./emulated.ts";

const aws = emulatedAws();
const log = { info: () => {}, warn: () => {} };
const signal = new AbortController().signal;
const orders = { name: "shop.public.orders", partitions: 8 };
const MINUTE = 60_000;

/** A change that was committed so many minutes ago. */
function committed(partition: number, lsn: bigint, minutesAgo: number, topic = orders): SourceMessage[] {
  const made = change(topic, partition, lsn, 1);
  return [
    { ...made, json: `${made.json},"txId":"${lsn}","ts_ms":${Date.now() - minutesAgo * MINUTE}` },
    { kind: "commit", endPlace: lsn + 8n, commitTimeMs: 0 },
  ];
}

test.each(["batch", "gzip", "none"] as const)(
  "the start is found in all shards, those that are closed too (%s)",
  async (packing) => {
    const { kinesis, freshStream } = aws();
    const streamName = await freshStream(2);
    const write = (changes: readonly SourceMessage[][]) =>
      writeKinesis(
        sourceOf(changes),
        { ...{ kinesis, streamName, writer: 1, packing, log }, beats: { name: "shop", quietSince: 0 } },
        signal,
      );
    const find = (minutesAgo: number) =>
      findStart({
        ...{ kinesis, streamName, topicPrefix: "shop", signal, log },
        ...{ keptFromMs: Date.now() - 60 * MINUTE, timeMs: Date.now() - minutesAgo * MINUTE },
      });
    expect(await find(30)).toBeUndefined();
    // Another pipeline's changes are in the stream, and one that is older than all that is kept for sure.
    await write([committed(0, 5_000n, 31, { name: "shop-eu.public.orders", partitions: 8 })]);
    await write([0, 1, 2, 3].map((n) => committed(n, BigInt(100 + n), [90, 50, 40, 20][n] as number)));
    const [left, right] = ["shardId-000000000000", "shardId-000000000001"];
    await kinesis.send(
      new MergeShardsCommand({ StreamName: streamName, ShardToMerge: left, AdjacentShardToMerge: right }),
    );
    await eventually(() => write([committed(0, 200n, 10)]).then(() => true), { what: "the child" });

    const behind = (lsn: bigint, ordinal = 1) => formatPosition({ epoch: 1, commitLsn: lsn, ordinal });
    expect((await find(30))?.position).toBe(behind(102n));
    expect((await find(15))?.position).toBe(behind(103n));
    expect((await find(45))?.position).toBe(behind(101n));
    expect((await find(55))?.position, "before the first one").toBe(behind(101n, 0));
    expect((await kinesisStream(kinesis, streamName).extent(signal)).shards).toEqual(
      expect.arrayContaining([left, right]),
    );
  },
);

test("a stream that is not there, may not be read or cannot be reached ends it", async () => {
  const times = { keptFromMs: 0, timeMs: Date.now(), topicPrefix: "shop", signal, log };
  const failing = (name: string, httpStatusCode?: number) =>
    ({
      send: async () => {
        throw Object.assign(new Error(name), { name, $metadata: { httpStatusCode } });
      },
    }) as never;
  const missing = findStart({ ...times, kinesis: aws().kinesis, streamName: "no-such-stream" });
  await expect(missing).rejects.toMatchObject({ code: "STREAM_NOT_FOUND", retry: "stop" });
  const refused = kinesisStream(failing("AccessDeniedException", 400), "s").extent(signal);
  await expect(refused).rejects.toMatchObject({
    code: "STREAM_ACCESS",
    remedy: expect.stringContaining("kinesis:DescribeStreamSummary"),
  });
  const gone = findStart({ ...times, kinesis: failing("TimeoutError"), streamName: "s", patienceMs: 0 });
  await expect(gone).rejects.toMatchObject({ code: "STREAM_READ", retry: "restart" });
});
