import {
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
  PutRecordsCommand,
  SplitShardCommand,
} from "@aws-sdk/client-kinesis";
import { expect, test } from "vitest";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { formatPosition } from "../../lib/change/position.ts";
import { claimRecord } from "../../lib/change/record.ts";
import { explicitHashKey } from "../../lib/change/topic.ts";
import { readTail } from "../../lib/stream/kinesis/stream-tail.ts";
import { eventually } from "../eventually.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { writeKinesis } from "../stream/kinesis.ts";
import { emulatedAws } from "./emulated.ts";

const aws = emulatedAws();
const log = { info: () => {}, warn: () => {} };
const orders = { name: "shop.public.orders", partitions: 8 };
const forever = new AbortController().signal;
const position = (commitLsn: bigint, epoch = 1) => formatPosition({ epoch, commitLsn, ordinal: 1 });

/** A change of a transaction that bears its LSN, or of none. */
function inTransaction(partition: number, lsn: bigint, txId = String(lsn)): SourceMessage[] {
  const made = change(orders, partition, lsn, 1);
  return [
    { ...made, json: `${made.json},"txId":"${txId}","ts_ms":${Number(lsn) * 1000}` },
    { kind: "commit", endPlace: lsn + 8n, commitTimeMs: 0 },
  ];
}

async function writes(
  streamName: string,
  writer: number,
  changes: readonly SourceMessage[][],
  packing: "batch" | "gzip" | "none" = "batch",
): Promise<void> {
  const beats = { name: "shop", quietSince: 0 };
  const options = { kinesis: aws().kinesis, streamName, writer, packing, beats, log } as const;
  await writeKinesis(sourceOf(changes), options, forever);
}

const tail = (streamName: string, more: Partial<Parameters<typeof readTail>[0]> = {}) =>
  readTail({
    ...{
      kinesis: aws().kinesis,
      streamName,
      topicPrefix: "shop",
      writer: 2,
      epoch: 1,
      fromLsn: 100n,
      sinceMs: Date.now() - 60_000,
    },
    ...{ untilMs: performance.now(), signal: forever, log },
    ...more,
  });

test.each(["batch", "gzip", "none"] as const)(
  "the last change of a writer is found, whatever else is in the stream (%s)",
  async (packing) => {
    const streamName = await aws().freshStream(3);
    await writes(streamName, 1, [inTransaction(0, 900n)], packing);
    const own = [60n, 110n, 140n, 120n].map((lsn, i) => inTransaction(i, lsn));
    await writes(streamName, 2, own, packing);
    await writes(streamName, 3, [inTransaction(1, 800n)], packing);
    const { ends, records } = await tail(streamName);
    expect(ends).toEqual([{ position: position(140n), txId: "140", timeMs: 140_000 }]);
    // The beats of three writers in three shards, too.
    expect(records).toBeGreaterThanOrEqual(3 * 3 + 3);
    expect((await tail(streamName, { fromLsn: 140n })).ends).toHaveLength(1);
    // What was stored before, what is of another epoch, and what nobody wrote, are not found.
    expect((await tail(streamName, { fromLsn: 141n })).ends).toEqual([]);
    expect((await tail(streamName, { epoch: 2 })).ends).toEqual([]);
    expect((await tail(streamName, { writer: 4 })).ends).toEqual([]);
  },
);

test("another pipeline's records in the same stream are none of its, whatever their writer is called", async () => {
  const streamName = await aws().freshStream(1);
  await writes(streamName, 2, [inTransaction(0, 110n)]);
  const other = { name: "shop-eu.public.orders", partitions: 8 };
  const made = change(other, 0, 900n, 1);
  const theirs: SourceMessage[] = [
    { ...made, json: `${made.json},"txId":"900","ts_ms":1` },
    { kind: "commit", endPlace: 908n, commitTimeMs: 0 },
  ];
  for (const packing of ["batch", "gzip", "none"] as const) await writes(streamName, 2, [theirs], packing);
  expect((await tail(streamName)).ends).toMatchObject([{ txId: "110" }]);
});

test("what stands outside of transactions bears no transaction; a claim check bears its place alone", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(1);
  await writes(streamName, 2, [inTransaction(0, 110n), inTransaction(1, 130n, "")]);
  expect((await tail(streamName)).ends).toEqual([{ position: position(130n), txId: "", timeMs: 130_000 }]);
  const claim = { bucket: "b", key: "k", bytes: 1, sha256: "0".repeat(64) };
  const header = { topic: orders.name, partition: 0, writer: 2 };
  const Data = Buffer.from(claimRecord(header, claim, position(150n), position(110n)));
  const ExplicitHashKey = explicitHashKey(orders, 0);
  await kinesis.send(
    new PutRecordsCommand({
      StreamName: streamName,
      Records: [{ Data, PartitionKey: "p", ExplicitHashKey }],
    }),
  );
  // And the last one of which more is known.
  expect((await tail(streamName)).ends).toEqual([
    { position: position(130n), txId: "", timeMs: 130_000 },
    { position: position(150n) },
  ]);
});

test("a barrier stands at no place of the log, and one of our messages maybe where a commit does", async () => {
  const streamName = await aws().freshStream(1);
  const ours = (partition: number, lsn: bigint, ordinal: number): SourceMessage[] => {
    const made = change(orders, partition, lsn, ordinal);
    const message = '"message":{"prefix":"tributary.probe","content":"","transactional":false}';
    const json = `{"op":"m","before":null,${message},${made.json.slice(made.json.indexOf('"after"')).replace(/"after":\{.*?\}/, '"after":null')},"txId":"","ts_ms":1`;
    return [
      { ...made, json },
      { kind: "commit", endPlace: lsn + 8n, commitTimeMs: 0 },
    ];
  };
  await writes(streamName, 2, [inTransaction(0, 110n), ours(0, 120n, 0), ours(1, 130n, 0)]);
  expect((await tail(streamName)).ends).toMatchObject([{ txId: "110" }]);
  await writes(streamName, 2, [ours(1, 140n, 1)]);
  expect((await tail(streamName)).ends).toEqual([{ position: position(140n) }]);
});

test("what cannot be read as a record is nobody's", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(1);
  const Records = [
    "",
    "no JSON",
    '{"v":1,"writer":2}',
    '{"v":1,"topic":"t","partition":0,"writer":2,"events":[]}',
  ].map((text) => ({ Data: Buffer.from(text || " "), PartitionKey: "p" }));
  await kinesis.send(new PutRecordsCommand({ StreamName: streamName, Records }));
  expect(await tail(streamName)).toMatchObject({ ends: [], records: 4 });
});

test("a shard that was split is read to its end, and so are its children", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(1);
  await writes(streamName, 2, [inTransaction(0, 110n)]);
  const half = (2n ** 127n).toString();
  await kinesis.send(
    new SplitShardCommand({
      StreamName: streamName,
      ShardToSplit: "shardId-000000000000",
      NewStartingHashKey: half,
    }),
  );
  await eventually(
    () =>
      writes(
        streamName,
        2,
        [0, 1, 2, 3].map((partition) => inTransaction(partition, 120n + BigInt(partition))),
      ).then(() => true),
    { what: "the children" },
  );
  expect((await tail(streamName)).ends).toMatchObject([{ txId: "123" }]);
});

test("the children of a shard that is split while it is read are read, too", async () => {
  const { kinesis, freshStream } = aws();
  const streamName = await freshStream(1);
  let listed = 0;
  // A request that was under way lands in a child.
  const splitting = {
    send: async (command: { input: object }, options: object) => {
      const answer = await kinesis.send(command as never, options);
      if (command instanceof ListShardsCommand && listed++ === 0) {
        const NewStartingHashKey = (2n ** 127n).toString();
        const ShardToSplit = "shardId-000000000000";
        await kinesis.send(
          new SplitShardCommand({ StreamName: streamName, ShardToSplit, NewStartingHashKey }),
        );
        const shards = async () =>
          (await kinesis.send(new ListShardsCommand({ StreamName: streamName }))).Shards ?? [];
        await eventually(async () => (await shards()).length === 3, { what: "the children" });
        await writes(streamName, 2, [inTransaction(0, 110n), inTransaction(7, 120n)]);
      }
      return answer;
    },
  } as unknown as KinesisClient;
  const { ends } = await tail(streamName, { kinesis: splitting, untilMs: performance.now() });
  expect(ends).toMatchObject([{ txId: "120" }]);
});

/** Kinesis of one shard that has nothing, with another one that fails. */
function failingOnce(failure: Error, shards: readonly string[][]) {
  const lists = [...shards];
  let failed = false;
  const send = async (command: { input: { ShardId?: string } }) => {
    if (command instanceof ListShardsCommand)
      return { Shards: (lists.length > 1 ? lists.shift() : lists[0])?.map((ShardId) => ({ ShardId })) };
    if (command instanceof GetShardIteratorCommand) {
      if (command.input.ShardId === "bad" && !failed) {
        failed = true;
        throw failure;
      }
      return { ShardIterator: "i" };
    }
    return { Records: [], MillisBehindLatest: 0, NextShardIterator: "i" };
  };
  return { send } as unknown as KinesisClient;
}
const refusal = (name: string, httpStatusCode: number, message = name) =>
  Object.assign(new Error(message), { name, $metadata: { httpStatusCode } });

test("a closed shard that expires while it is read has nothing more", async () => {
  const gone = refusal("ResourceNotFoundException", 400);
  expect(await tail("s", { kinesis: failingOnce(gone, [["bad", "good"], ["good"]]) })).toMatchObject({
    ends: [],
  });
  const noStream = tail("s", { kinesis: failingOnce(gone, [["bad", "good"]]) });
  await expect(noStream).rejects.toMatchObject({ code: "STREAM_NOT_FOUND" });
});

test.each([
  refusal(
    "InvalidSignatureException",
    400,
    "Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z",
  ),
  refusal("Unknown", 429),
])("what the clock or the pace is to blame for is asked again ($name)", async (failure) => {
  expect(await tail("s", { kinesis: failingOnce(failure, [["bad"]]) })).toMatchObject({ ends: [] });
});

test("it is read up to its time, and not before", async () => {
  const streamName = await aws().freshStream(1);
  const untilMs = performance.now() + 700;
  const found = tail(streamName, { untilMs });
  await writes(streamName, 2, [inTransaction(0, 110n)]);
  expect((await found).ends).toHaveLength(1);
  expect(performance.now()).toBeGreaterThanOrEqual(untilMs);
});

test("a stream that is not there, one that may not be read, and one that cannot be reached, end it", async () => {
  await expect(tail("no-such-stream")).rejects.toMatchObject({ code: "STREAM_NOT_FOUND", retry: "stop" });
  const failing = (name: string, httpStatusCode?: number) =>
    ({
      send: async () => {
        throw Object.assign(new Error(name), { name, $metadata: { httpStatusCode } });
      },
    }) as never;
  const refused = tail("s", { kinesis: failing("AccessDeniedException", 400) });
  await expect(refused).rejects.toMatchObject({
    code: "STREAM_ACCESS",
    remedy: expect.stringContaining("kinesis:GetRecords"),
  });
  const gone = tail("s", { kinesis: failing("TimeoutError"), patienceMs: 0 });
  await expect(gone).rejects.toMatchObject({ code: "STREAM_TAIL", retry: "restart" });
  const stop = new AbortController();
  const waiting = tail("s", {
    kinesis: failing("ProvisionedThroughputExceededException", 400),
    signal: stop.signal,
  });
  stop.abort(new Error("stopped"));
  await expect(waiting).rejects.toThrow("stopped");
});
