import {
  DescribeStreamSummaryCommand,
  type KinesisClient,
  ListShardsCommand,
  SplitShardCommand,
} from "@aws-sdk/client-kinesis";
import { afterEach, describe, expect, test } from "vitest";
import { kinesisClient } from "../../lib/aws/clients.ts";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { positionOf } from "../../lib/change/record.ts";
import { AwsFaultProxy, type ChooseFault } from "../../lib/testing/fault/aws-proxy.ts";
import { entriesOf, failEntries } from "../../lib/testing/fault/put-records.ts";
import { eventually } from "../eventually.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { type KinesisOptions, writeKinesis } from "../stream/kinesis.ts";
import { emulatedAws } from "./emulated.ts";
import { readStream } from "./stream-records.ts";

const aws = emulatedAws();
const never = new AbortController().signal;
const orders = { name: "shop.public.orders", partitions: 8 };
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** A Kinesis client behind a proxy with these faults. It also watches rule 6 on the wire. */
async function faulty(choose: ChooseFault) {
  const inFlight = new Set<string>();
  const violations: string[] = [];
  const proxy = await AwsFaultProxy.start({
    target: aws().environment.AWS_ENDPOINT_URL_KINESIS ?? aws().environment.AWS_ENDPOINT_URL ?? "",
    choose: (call) => {
      for (const { PartitionKey } of entriesOf(call)) {
        if (inFlight.has(PartitionKey)) violations.push(PartitionKey);
        inFlight.add(PartitionKey);
      }
      return choose(call);
    },
    onEnd: (call) => {
      for (const { PartitionKey } of entriesOf(call)) inFlight.delete(PartitionKey);
    },
  });
  const kinesis = kinesisClient({ ...aws().environment, AWS_ENDPOINT_URL_KINESIS: proxy.endpoint });
  cleanups.push(() => {
    kinesis.destroy();
    return proxy.stop();
  });
  return { kinesis, violations };
}

function options(kinesis: KinesisClient, streamName: string): KinesisOptions {
  return { kinesis, streamName, writer: 1, packing: "batch", log: { info() {}, warn() {} } };
}

function* transactions(count: number, text = ""): Generator<SourceMessage[]> {
  for (let i = 1; i <= count; i++) {
    const lsn = BigInt(i * 16);
    const changes = [change(orders, i % 8, lsn, 1, text), change(orders, (i * 3) % 8, lsn, 2, text)];
    yield [...changes, { kind: "commit", endPlace: lsn + 8n, commitTimeMs: i }];
  }
}

async function* paced(batches: Iterable<SourceMessage[]>) {
  for (const batch of batches) {
    await new Promise(setImmediate);
    yield batch;
  }
}

/** What takes effect at a consumer that drops duplicates by position, by partition; throws at a gap. */
async function effects(streamName: string): Promise<Map<string, string[]>> {
  const effects = new Map<string, string[]>();
  for (const { record, partitionKey } of await readStream(aws().kinesis, streamName)) {
    const seen = effects.get(partitionKey) ?? [];
    effects.set(partitionKey, seen);
    for (const event of record.kind === "events" ? record.events : []) {
      const mark = seen.at(-1) ?? "";
      if (positionOf(event) <= mark) continue;
      if ((event.source.after ?? "") > mark) throw new Error(`gap in ${partitionKey} behind ${mark}`);
      seen.push(positionOf(event));
    }
  }
  return effects;
}

function offered(count: number): Map<string, string[]> {
  const changes = [...transactions(count)].flat().filter((message) => message.kind === "change");
  const byKey = Map.groupBy(changes, ({ partition }) => `${orders.name}/${partition}`);
  return new Map([...byKey].map(([key, list]) => [key, list.map((c) => c.position)]));
}

function sorted(map: Map<string, string[]>) {
  return [...map].toSorted(([a], [b]) => a.localeCompare(b));
}

/** Draws by a fixed sequence of random numbers; the first draw wins, so that no run is without a fault. */
function lottery(): (chance: number) => boolean {
  let state = 0;
  return (chance) => {
    const won = state / 2 ** 32 < chance;
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return won;
  };
}

let draw = lottery();
const faults: [string, ChooseFault][] = [
  ["entries that fail", (call) => failEntries(call, () => draw(0.3), "InternalFailure")],
  ["entries throttled", (call) => (draw(0.5) ? failEntries(call, (_, i) => i % 2 === 0) : undefined)],
  ["every entry throttled", (call) => (draw(0.5) ? failEntries(call, () => true) : undefined)],
  [
    "requests throttled",
    () =>
      draw(0.4) ? { kind: "error", status: 400, code: "ProvisionedThroughputExceededException" } : undefined,
  ],
  [
    "internal failures",
    () => (draw(0.4) ? { kind: "error", status: 500, code: "InternalFailure" } : undefined),
  ],
  [
    "credentials that ran out",
    () => (draw(0.4) ? { kind: "error", status: 400, code: "ExpiredTokenException" } : undefined),
  ],
  ["connections cut", () => (draw(0.3) ? { kind: "cut" } : undefined)],
  ["answers lost", () => (draw(0.3) ? { kind: "loseAnswer" } : undefined)],
  ["requests doubled", () => (draw(0.5) ? { kind: "duplicate" } : undefined)],
  ["requests that arrive behind their retry", () => (draw(0.3) ? { kind: "late", ms: 300 } : undefined)],
  ["slow requests", () => (draw(0.3) ? { kind: "slow", ms: 100 } : undefined)],
  ["requests without an answer", () => (draw(0.1) ? { kind: "hang" } : undefined)],
];

test.each(faults)("%s: nothing lost, nothing out of order, all acknowledged", async (_, fault) => {
  draw = lottery();
  let injected = 0;
  const { kinesis, violations } = await faulty((call) => {
    const chosen = call.operation === "PutRecords" ? fault(call) : undefined;
    if (chosen) injected++;
    return chosen;
  });
  const streamName = await aws().freshStream(2);
  const source = sourceOf(paced(transactions(150)));
  // Small requests, so that there are many of them.
  const limits = { requestTimeoutMs: 1_000, requestRecords: 3, targetRecordBytes: 1_000 };
  await writeKinesis(source, { ...options(kinesis, streamName), limits }, never);
  expect(sorted(await effects(streamName))).toEqual(sorted(offered(150)));
  expect(source.acknowledged.at(-1)).toBe(150n * 16n + 8n);
  expect(violations).toEqual([]);
  expect(injected).toBeGreaterThan(0);
});

test("a shard split in the middle moves no partition out of order", async () => {
  const { kinesis, freshStream } = aws();
  const StreamName = await freshStream(1);
  async function* split(): AsyncGenerator<SourceMessage[]> {
    const all = [...transactions(150)];
    yield* paced(all.slice(0, 50));
    const { Shards: [shard] = [] } = await kinesis.send(new ListShardsCommand({ StreamName }));
    const NewStartingHashKey = (2n ** 127n).toString();
    await kinesis.send(
      new SplitShardCommand({ StreamName, ShardToSplit: shard?.ShardId, NewStartingHashKey }),
    );
    yield* paced(all.slice(50, 100));
    await eventually(
      async () => {
        const { StreamDescriptionSummary } = await kinesis.send(
          new DescribeStreamSummaryCommand({ StreamName }),
        );
        return StreamDescriptionSummary?.StreamStatus === "ACTIVE";
      },
      { what: "the end of the split" },
    );
    yield* paced(all.slice(100));
  }
  const source = sourceOf(split());
  await writeKinesis(source, options(kinesis, StreamName), never);
  // Shards are listed, and so read, parent first.
  expect(sorted(await effects(StreamName))).toEqual(sorted(offered(150)));
  const shards = new Set((await readStream(kinesis, StreamName)).map(({ shardId }) => shardId));
  expect(shards.size).toBe(3);
  expect(source.acknowledged.at(-1)).toBe(150n * 16n + 8n);
});

test("nothing is acknowledged that Kinesis has not", async () => {
  let storing = false;
  const { kinesis } = await faulty((call) =>
    storing ? undefined : failEntries(call, ({ PartitionKey }) => PartitionKey.endsWith("/3")),
  );
  const streamName = await aws().freshStream();
  const source = sourceOf(paced(transactions(100)));
  const written = writeKinesis(source, options(kinesis, streamName), never);
  await eventually(async () => (await effects(streamName)).size === 7, { what: "the other partitions" });
  // The first transaction has a change of partition 3.
  expect(source.acknowledged).toEqual([]);
  storing = true;
  await written;
  expect(source.acknowledged.at(-1)).toBe(100n * 16n + 8n);
});

describe("what does not pass stops the writer with a typed error", () => {
  const cases: [string, string, string][] = [
    ["AccessDeniedException", "STREAM_ACCESS", "kinesis:PutRecords"],
    ["UnrecognizedClientException", "STREAM_ACCESS", "role"],
    ["KMSDisabledException", "STREAM_ACCESS", "kms:GenerateDataKey"],
    ["ValidationException", "STREAM_REQUEST", "maxRecordBytes"],
    ["InvalidArgumentException", "STREAM_REQUEST", "maxRecordBytes"],
  ];
  test.each(cases)("%s", async (code, ours, remedy) => {
    const { kinesis } = await faulty(() => ({ kind: "error", status: 400, code }));
    const source = sourceOf(transactions(1));
    const written = writeKinesis(source, options(kinesis, "orders"), never);
    await expect(written).rejects.toMatchObject({ code: ours, remedy: expect.stringContaining(remedy) });
    expect(source.acknowledged).toEqual([]);
  });

  test("a stream that does not exist", async () => {
    const written = writeKinesis(sourceOf(transactions(1)), options(aws().kinesis, "nowhere"), never);
    await expect(written).rejects.toMatchObject({ code: "STREAM_NOT_FOUND", retry: "stop" });
  });

  test("a client that retries by itself is refused before anything is sent", async () => {
    let calls = 0;
    const { kinesis } = await faulty(() => void calls++);
    kinesis.config.maxAttempts = async () => 3;
    const written = writeKinesis(sourceOf(transactions(1)), options(kinesis, "orders"), never);
    await expect(written).rejects.toMatchObject({ code: "CLIENT_RETRIES" });
    expect(calls).toBe(0);
  });

  test("a signature of a wrong time passes, a wrong one does not", async () => {
    const message = [
      "Signature expired: 1 is now earlier than 2",
      "The signature we calculated does not match",
    ];
    const { kinesis } = await faulty((call) =>
      call.number <= 2
        ? { kind: "error", status: 400, code: "InvalidSignatureException", message: message[call.number - 1] }
        : undefined,
    );
    const log = {
      info() {},
      warn: (_: string, fields: Record<string, unknown>) => void codes.push(fields.code),
    };
    const codes: unknown[] = [];
    const written = writeKinesis(sourceOf(transactions(1)), { ...options(kinesis, "orders"), log }, never);
    await expect(written).rejects.toMatchObject({ code: "STREAM_ACCESS" });
    expect(codes).toEqual(["InvalidSignatureException"]);
  });
});

test("while Kinesis is away the source is not pulled beyond the buffer; a larger transaction flows all the same", async () => {
  let away = true;
  const { kinesis } = await faulty(() =>
    away ? { kind: "error", status: 500, code: "InternalFailure" } : undefined,
  );
  const streamName = await aws().freshStream();
  let pulled = 0;
  async function* transaction(): AsyncGenerator<SourceMessage[]> {
    for (let i = 1; i <= 300; i++) {
      pulled = i;
      yield [change(orders, i % 8, 16n, i, "x".repeat(10_000))];
    }
    yield [{ kind: "commit", endPlace: 24n, commitTimeMs: 0 }];
  }
  let retries = 0;
  const source = sourceOf(transaction());
  const bufferBytes = 300_000;
  let buffered = 0;
  const written = writeKinesis(
    source,
    {
      ...options(kinesis, streamName),
      limits: { bufferBytes },
      onMetrics: (metrics) => {
        retries = metrics.retries;
        buffered = Math.max(buffered, metrics.bufferedBytes);
      },
    },
    never,
  );
  await eventually(() => retries > 0, { what: "retries in the metrics" });
  expect(pulled).toBeLessThanOrEqual(31);
  expect(buffered).toBeGreaterThan(bufferBytes);
  // Records grow by doubling.
  expect(buffered).toBeLessThan(bufferBytes + 2 * 11_000);
  away = false;
  await written;
  expect(pulled).toBe(300);
  expect(source.acknowledged).toEqual([24n]);
});

describe("stop", () => {
  /** Gives its batches, then nothing more, for ever: as a source does whose database is quiet. */
  async function* quiet(batches: Iterable<SourceMessage[]>): AsyncGenerator<SourceMessage[]> {
    yield* batches;
    await new Promise(() => {});
  }

  test("stores and acknowledges what was read", async () => {
    const { kinesis } = await faulty(() => ({ kind: "slow", ms: 300 }));
    const streamName = await aws().freshStream();
    const source = sourceOf(quiet(transactions(20)));
    const stop = new AbortController();
    let bufferedBytes = 0;
    const written = writeKinesis(
      source,
      { ...options(kinesis, streamName), onMetrics: (metrics) => (bufferedBytes = metrics.bufferedBytes) },
      stop.signal,
    );
    await new Promise(setImmediate);
    await eventually(() => source.acknowledged.length > 0, { what: "the first acknowledgement" });
    stop.abort();
    await written;
    expect(source.acknowledged.at(-1)).toBe(20n * 16n + 8n);
    expect(bufferedBytes).toBe(0);
  });

  test("takes the transaction that it has begun to its end, and begins no other", async () => {
    const begun = Promise.withResolvers<void>();
    const rest = Promise.withResolvers<void>();
    async function* halting(): AsyncGenerator<SourceMessage[]> {
      yield [change(orders, 1, 16n, 1)];
      begun.resolve();
      await rest.promise;
      yield [change(orders, 1, 16n, 2)];
      yield [change(orders, 1, 16n, 3), { kind: "commit", endPlace: 24n, commitTimeMs: 1 }];
      yield [change(orders, 1, 32n, 1), { kind: "commit", endPlace: 40n, commitTimeMs: 2 }];
    }
    const streamName = await aws().freshStream();
    const source = sourceOf(halting());
    const stop = new AbortController();
    const written = writeKinesis(source, options(aws().kinesis, streamName), stop.signal);
    await begun.promise;
    stop.abort();
    rest.resolve();
    await written;
    expect(source.acknowledged.at(-1)).toBe(24n);
    expect((await effects(streamName)).get("shop.public.orders/1")).toEqual(
      [1, 2, 3].map((ordinal) => change(orders, 1, 16n, ordinal).position),
    );
  });

  test("gives up at the deadline, acknowledging nothing that is not stored", async () => {
    let calls = 0;
    const { kinesis } = await faulty(() => {
      calls++;
      return { kind: "hang" };
    });
    const source = sourceOf(quiet(transactions(20)));
    const stop = new AbortController();
    const limits = { drainMs: 200, requestTimeoutMs: 60_000 };
    const written = writeKinesis(source, { ...options(kinesis, "orders"), limits }, stop.signal);
    await eventually(() => calls > 0, { what: "a request" });
    stop.abort();
    await written;
    expect(source.acknowledged).toEqual([]);
  });

  test("an error of the source is thrown when what it gave before is stored", async () => {
    async function* failing(): AsyncGenerator<SourceMessage[]> {
      yield* transactions(20);
      throw new Error("the slot is lost");
    }
    const streamName = await aws().freshStream();
    const source = sourceOf(failing());
    const written = writeKinesis(source, options(aws().kinesis, streamName), never);
    await expect(written).rejects.toThrow("the slot is lost");
    expect(source.acknowledged.at(-1)).toBe(20n * 16n + 8n);
  });

  test("before the start: nothing is read", async () => {
    const source = sourceOf(transactions(20));
    await writeKinesis(source, options(aws().kinesis, "orders"), AbortSignal.abort());
    expect(source.acknowledged).toEqual([]);
  });
});

describe("a change above the record limit", () => {
  function* large(): Generator<SourceMessage[]> {
    yield* transactions(2);
    yield [
      change(orders, 1, 100n, 1, "x".repeat(1_100_000)),
      { kind: "commit", endPlace: 101n, commitTimeMs: 0 },
    ];
    yield [change(orders, 1, 200n, 1), { kind: "commit", endPlace: 201n, commitTimeMs: 0 }];
  }

  test("stops the writer with what was before it stored", async () => {
    const streamName = await aws().freshStream();
    const source = sourceOf(large());
    const written = writeKinesis(source, options(aws().kinesis, streamName), never);
    await expect(written).rejects.toMatchObject({ code: "OVERSIZE_CHANGE", table: "public.orders" });
    expect(source.acknowledged.at(-1)).toBe(40n);
  });

  test("is written as the strategy says", async () => {
    const streamName = await aws().freshStream();
    const source = sourceOf(large());
    const oversize = async ({ topic, partition }: { topic: typeof orders; partition: number }) =>
      change(topic, partition, 100n, 1, "omitted");
    await writeKinesis(source, { ...options(aws().kinesis, streamName), oversize }, never);
    expect((await effects(streamName)).get("shop.public.orders/1")?.slice(-2)).toEqual([
      change(orders, 1, 100n, 1).position,
      change(orders, 1, 200n, 1).position,
    ]);
    expect(source.acknowledged.at(-1)).toBe(201n);
  });
});
