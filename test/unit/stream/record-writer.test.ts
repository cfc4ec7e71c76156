import { afterEach, expect, test, vi } from "vitest";
import type { SourceMessage } from "../../../lib/change/change-stream.ts";
import { parseRecord, positionOf } from "../../../lib/change/record.ts";
import type { PutOutcome, PutRequest, RecordWriter } from "../../../lib/stream/record-writer.ts";
import { writeStream } from "../../../lib/stream/stream-writer.ts";
import { change, sourceOf } from "../../stream/changes.ts";

afterEach(() => void vi.useRealTimers());

/** A stream in memory: refuses what is above its limits, and fails the first of every three requests. */
class MemoryStream implements RecordWriter {
  readonly limits = { maxRecordBytes: 1_000, requestBytes: 2_000, requestRecords: 3 };
  readonly records: { readonly key: string; readonly data: string }[] = [];
  readonly tooLarge: PutRequest[] = [];
  #requests = 0;

  async put(request: PutRequest): Promise<PutOutcome> {
    const { requestBytes, requestRecords, maxRecordBytes } = this.limits;
    const { entries, bytes } = request;
    if (
      bytes > requestBytes ||
      entries.length > requestRecords ||
      entries.some((e) => e.bytes > maxRecordBytes)
    )
      this.tooLarge.push(request);
    if (this.#requests++ % 3 === 0) return { kind: "failed", result: "throttled", code: "Busy" };
    for (const { queue, data } of entries)
      this.records.push({ key: queue.partitionKey, data: data.toString("utf8") });
    return { kind: "answered", results: entries.map(() => "stored" as const) };
  }

  async openShards() {
    return [{ shardId: "shardId-000000000004", hashKey: "0" }];
  }
}

test("any stream is written in order, within its own limits, and its shards hear a beat before all changes", async () => {
  const topic = { name: "shop.public.orders", partitions: 8 };
  const transactions = Array.from({ length: 60 }, (_, i): SourceMessage[] => [
    change(topic, i % 8, BigInt(i * 16 + 16), 1, "x".repeat(300)),
    { kind: "commit", endPlace: BigInt(i * 16 + 24), commitTimeMs: 0 },
  ]);
  const stream = new MemoryStream();
  const source = sourceOf(transactions);
  const options = { writer: 1, packing: "batch", log: { info() {}, warn() {} } } as const;
  const beats = { name: "shop", quietSince: undefined };
  await writeStream(source, stream, { ...options, beats }, new AbortController().signal);

  expect(stream.tooLarge).toEqual([]);
  expect(source.acknowledged.at(-1)).toBe(59n * 16n + 24n);
  const [beat, ...records] = stream.records;
  expect(beat?.key).toBe("$shards/4");
  for (let partition = 0; partition < 8; partition++) {
    const stored = records.filter(({ key }) => key === `${topic.name}/${partition}`);
    const events = stored.flatMap(({ data }) => {
      const record = parseRecord(Buffer.from(data));
      return record.kind === "events" ? record.events : [];
    });
    const changes = transactions.flat().filter((message) => message.kind === "change");
    const offered = changes.filter((each) => each.partition === partition);
    expect(events.map(positionOf)).toEqual(offered.map(({ position }) => position));
  }
});

test("an error that the stream throws ends the run with it, and acknowledges nothing", async () => {
  const refused = new Error("refused");
  const stream = Object.assign(new MemoryStream(), { put: () => Promise.reject(refused) });
  const source = sourceOf([
    [change({ name: "t", partitions: 1 }, 0, 16n, 1), { kind: "commit", endPlace: 24n, commitTimeMs: 0 }],
  ]);
  const options = { writer: 1, packing: "batch", log: { info() {}, warn() {} } } as const;
  await expect(writeStream(source, stream, options, new AbortController().signal)).rejects.toBe(refused);
  expect(source.acknowledged).toEqual([]);
});

test.each([
  ["gives no answer", new Error("socket hang up"), "AWS_REGION"],
  ["refuses", Object.assign(new Error("no"), { $metadata: { httpStatusCode: 400 } }), "kinesis:ListShards"],
])("a stream that %s before the first record: says so", async (_, error, remedy) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
  const isAnswer = "$metadata" in error;
  let isAway = true;
  const shards = [{ shardId: "shardId-000000000004", hashKey: "0" }];
  const openShards = async () => (isAway ? Promise.reject(error) : shards);
  const stream = Object.assign(new MemoryStream(), { openShards });
  const goOn = Promise.withResolvers<SourceMessage[][]>();
  const source = sourceOf(
    (async function* () {
      yield* await goOn.promise;
    })(),
  );
  const warnings: [string, Record<string, unknown>][] = [];
  const log = {
    info() {},
    warn: (line: string, fields: object) => void warnings.push([line, { ...fields }]),
  };
  let unansweredMs: number | undefined;
  const onMetrics = (metrics: { readonly unansweredMs?: number }) => {
    unansweredMs = metrics.unansweredMs;
  };
  const beats = { name: "shop", quietSince: undefined };
  const stop = new AbortController();
  const options = { writer: 1, packing: "batch", log, beats, onMetrics } as const;
  const written = writeStream(source, stream, options, stop.signal);
  await vi.advanceTimersByTimeAsync(25_000);
  const waits = warnings.filter(([, { waitsFor }]) => waitsFor === "stream");
  expect(waits.length).toBe(isAnswer ? 0 : 2);
  const listings = warnings.filter(([line]) => line.includes("cannot be listed"));
  expect(listings).toEqual([
    [expect.any(String), expect.objectContaining({ remedy: expect.stringContaining(remedy) })],
  ]);
  expect(unansweredMs).toBe(isAnswer ? 0 : 25_000);
  isAway = false;
  await vi.advanceTimersByTimeAsync(60_000);
  expect([stream.records.length, unansweredMs]).toEqual([1, 0]);
  stop.abort();
  goOn.resolve([]);
  await vi.advanceTimersByTimeAsync(20_000);
  await written;
});
