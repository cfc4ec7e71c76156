import { mkdtemp, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { KinesisStreamRecord } from "aws-lambda";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { SourceChange, SourceMessage } from "../../lib/change/change-stream.ts";
import type { ClaimStore } from "../../lib/change/claim-store.ts";
import type { ClaimRecord } from "../../lib/change/record.ts";
import { claimStoreFromEnvironment } from "../../lib/claim-check/open-claim-store.ts";
import { Operation } from "../../lib/consume/api/operation.ts";
import { claimCheck, type Oversize } from "../../lib/stream/claim-check.ts";
import type { StreamMetrics } from "../../lib/stream/metrics.ts";
import { type AwsFault, AwsFaultProxy } from "../../lib/testing/fault/aws-proxy.ts";
import { eventually } from "../eventually.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { writeKinesis } from "../stream/kinesis.ts";
import { kinesisRecord } from "../unit/consume/records.ts";
import { consumerBench, DONE, failedAt, invoke } from "./consume/consumer-bench.ts";
import { emulatedAws } from "./emulated.ts";
import { emulatedS3 } from "./emulated-s3.ts";
import { readStream } from "./stream-records.ts";

const aws = emulatedAws();
const s3 = emulatedS3();
const log = { info: () => {}, warn: () => {} };
const orders = { name: "shop.public.orders", partitions: 8 };
const MIB = 1024 * 1024;

/** A claim store as both sides get it, and what a test does behind their backs. */
interface Place {
  readonly environment: () => Record<string, string | undefined>;
  overwrite(key: string, bytes: Uint8Array): Promise<void>;
  remove(key: string): Promise<void>;
}

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-claims-test-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const inS3: Place = {
  environment: () => ({ ...s3().environment, TRIBUTARY_CLAIM_BUCKET: `s3://${s3().bucket}/claims` }),
  overwrite: (key, bytes) => s3().overwrite(key, bytes),
  remove: (key) => s3().remove(key),
};
const inDirectory: Place = {
  environment: () => ({ TRIBUTARY_CLAIM_BUCKET: pathToFileURL(directory).href }),
  overwrite: (key, bytes) => writeFile(join(directory, key), bytes),
  remove: (key) => unlink(join(directory, key)),
};

let proxy: AwsFaultProxy | undefined;
afterEach(async () => {
  await proxy?.stop();
  proxy = undefined;
});

/** S3 behind a proxy that makes these faults, one a call; then none. `calls` counts what passed. */
async function faultyS3(
  faults: (AwsFault | undefined)[],
): Promise<{ environment: Record<string, string | undefined>; calls(): number }> {
  let calls = 0;
  proxy = await AwsFaultProxy.start({
    target: s3().endpoint,
    choose: () => {
      calls++;
      return faults.shift();
    },
  });
  return { environment: { ...inS3.environment(), AWS_ENDPOINT_URL_S3: proxy.endpoint }, calls: () => calls };
}

async function store(environment: Record<string, string | undefined>): Promise<ClaimStore> {
  const opened = await claimStoreFromEnvironment(environment);
  if (opened === undefined) throw new Error("a claim store expected");
  return opened;
}

/** Small changes before and behind large ones, in two partitions; a commit each. */
function transactions(sizes: readonly number[]): SourceMessage[][] {
  return sizes.map((size, i) => {
    const lsn = BigInt((i + 1) * 16);
    return [
      change(orders, 1, lsn, 1, "a"),
      change(orders, 1, lsn, 2, text(size, i)),
      change(orders, 1, lsn, 3, "b"),
      change(orders, 2, lsn, 4, "c"),
      { kind: "commit", endPlace: lsn + 8n, commitTimeMs: i },
    ];
  });
}

/** Different all over, so that a part that is missing or doubled shows. */
function text(size: number, seed: number): string {
  const parts: string[] = [];
  for (let length = 0, i = 0; length < size; i++) {
    const part = `${seed}:${i} ä"\\\n `;
    parts.push(part);
    length += part.length;
  }
  return parts.join("").slice(0, size);
}

function written(batches: readonly SourceMessage[][], partition: number): SourceChange[] {
  return batches.flat().filter((m): m is SourceChange => m.kind === "change" && m.partition === partition);
}

function textOf({ json }: SourceChange): string {
  return JSON.parse(`${json}}}`).after.text as string;
}

interface WriteOptions {
  readonly streamName: string;
  readonly oversize?: Oversize | undefined;
  readonly packing?: "batch" | "none";
  readonly writer?: number;
  readonly signal?: AbortSignal;
}

async function write(batches: readonly SourceMessage[][], given: WriteOptions) {
  const {
    writer = 1,
    packing = "batch",
    signal = new AbortController().signal,
    streamName,
    oversize,
  } = given;
  const source = sourceOf(batches);
  const counts = { oversize: 0 };
  const onMetrics = ({ oversize: so }: StreamMetrics) => {
    counts.oversize = so;
  };
  const options = { kinesis: aws().kinesis, streamName, writer, packing, oversize, log, onMetrics };
  await writeKinesis(source, options, signal);
  return { ...source, counts };
}

function checked(claims: ClaimStore, writer = 1): Oversize {
  return claimCheck({ store: claims, pipeline: "shop", writer, log });
}

/** What stands in the stream, as Lambda hands it over, and the claims in it. */
async function delivered(
  streamName: string,
): Promise<{ records: KinesisStreamRecord[]; claims: ClaimRecord[] }> {
  const stored = await readStream(aws().kinesis, streamName);
  return {
    records: stored.map(({ data, partitionKey }) => kinesisRecord(data, partitionKey)),
    claims: stored.map(({ record }) => record).filter((record) => record.kind === "claim"),
  };
}

/** A consumer that collects what took effect, by partition. */
async function collecting(
  environment: Record<string, string | undefined>,
  more: Record<string, string> = {},
) {
  const bench = await consumerBench(aws());
  const effects = new Map<number, { id: string; text: string }[]>();
  const all = { ...environment, ...more } as Record<string, string>;
  const handler = () =>
    bench.instance(
      (c) =>
        c.on("public.orders", Operation.Create, (event) => {
          const seen = effects.get(event.partition) ?? [];
          seen.push({ id: event.id, text: String(event.after.text) });
          effects.set(event.partition, seen);
        }),
      all,
    );
  return { bench, handler, effects: (partition: number) => effects.get(partition) ?? [] };
}

/** Every change of the batches took effect once, in order, with its whole text. */
function expectEffects(
  effects: (partition: number) => { id: string; text: string }[],
  batches: readonly SourceMessage[][],
): void {
  for (const partition of [1, 2]) {
    const expected = written(batches, partition);
    expect(effects(partition).map(({ id }) => id)).toEqual(expected.map(({ position }) => position));
    // Texts are compared apart, so that a difference does not print megabytes.
    const wrong = expected.filter((c, i) => effects(partition)[i]?.text !== textOf(c)).map((c) => c.position);
    expect(wrong).toEqual([]);
  }
}

describe.each([
  { name: "S3", place: inS3 },
  { name: "a directory", place: inDirectory },
])("claims in $name", ({ place }) => {
  test.each(["batch", "none"] as const)("31 MB arrive whole and in order, packing %s", async (packing) => {
    const streamName = await aws().freshStream();
    const batches = transactions([31 * MIB, 10, 2 * MIB]);
    const source = await write(batches, {
      streamName,
      packing,
      oversize: checked(await store(place.environment())),
    });
    expect(source.acknowledged.at(-1)).toBe(3n * 16n + 8n);
    expect(source.counts.oversize).toBe(2);

    const { records, claims } = await delivered(streamName);
    const large = written(batches, 1).filter((c) => c.json.length > MIB);
    expect(claims.map(({ position }) => position)).toEqual(large.map(({ position }) => position));
    const { handler, effects, bench } = await collecting(place.environment());
    expect(await invoke(handler(), records)).toEqual(DONE);
    expectEffects(effects, batches);
    expect(bench.reports).toMatchObject([{ applied: 12, duplicates: 0, gaps: 0, deadLettered: 0 }]);
  });

  test("an object that was altered, cut or removed is a typed dead letter that points to it; the rest goes on", async () => {
    const streamName = await aws().freshStream();
    const batches = transactions([2 * MIB, 2 * MIB, 2 * MIB]);
    await write(batches, { streamName, oversize: checked(await store(place.environment())) });
    const { records, claims } = await delivered(streamName);
    const [altered, cut, removed] = claims.map(({ claim }) => claim);
    if (!altered || !cut || !removed) throw new Error("three claims expected");
    // One digit of the text is another one: still a change event, of the same size and position.
    const stored = await (await store(place.environment())).get(altered, new AbortController().signal);
    const other = Buffer.from(stored);
    other[other.indexOf('"text":"') + '"text":"'.length] = "7".charCodeAt(0);
    await place.overwrite(altered.key, other);
    await place.overwrite(cut.key, Buffer.alloc(cut.bytes - 1, "x"));
    await place.remove(removed.key);

    // Under `park` each would stop its partition: nobody knows the key behind which others were to wait.
    const { handler, effects, bench } = await collecting(place.environment(), { TRIBUTARY_POISON: "skip" });
    expect(await invoke(handler(), records)).toEqual(DONE);
    const lost = claims.map(({ position }) => position);
    const rest = written(batches, 1).filter(({ position }) => !lost.includes(position));
    expect(effects(1).map(({ id }) => id)).toEqual(rest.map(({ position }) => position));
    const letters = await bench.letters();
    expect(
      letters.map(({ position, payloadClaim, attempts, error }) => [
        position,
        payloadClaim,
        attempts,
        (error as Error).name,
      ]),
    ).toEqual([
      [claims[0]?.position, altered, 3, "ClaimMismatchError"],
      [claims[1]?.position, cut, 3, "ClaimMismatchError"],
      [claims[2]?.position, removed, 3, "ClaimMissingError"],
    ]);
    expect(letters.every((letter) => !("payload" in letter))).toBe(true);
  });

  test("a capture task that dies between object and pointer, and between pointer and confirmation", async () => {
    const streamName = await aws().freshStream();
    const batches = transactions([2 * MIB, 2 * MIB]);
    const claims = await store(place.environment());
    // The first task stores an object and comes no further.
    const first = new AbortController();
    const dying: Oversize = async (...facts) => {
      await checked(claims, 1)(...facts);
      first.abort();
      return new Promise(() => {});
    };
    const before = await write(batches, { streamName, oversize: dying, writer: 1, signal: first.signal });
    expect(before.acknowledged).toEqual([]);
    // The second stores all, and nobody hears of it. The third begins again: `ts_ms` is another one then.
    await write(batches, { streamName, oversize: checked(claims, 2), writer: 2 });
    const later = batches.map((batch) =>
      batch.map((m) => (m.kind === "change" ? { ...m, json: m.json.replace('"ts_ms":0', '"ts_ms":1') } : m)),
    );
    await write(later, { streamName, oversize: checked(claims, 3), writer: 3 });

    const { records, claims: pointers } = await delivered(streamName);
    expect(pointers).toHaveLength(4);
    const { handler, effects, bench } = await collecting(place.environment());
    expect(await invoke(handler(), records)).toEqual(DONE);
    expectEffects(effects, batches);
    expect(bench.reports).toMatchObject([{ applied: 8, deadLettered: 0, gaps: 0 }]);
  });
});

describe("the writer", () => {
  test("S3 that fails for a while: nothing is lost or acknowledged early, order kept, what came before flows", async () => {
    const streamName = await aws().freshStream();
    const gate = Promise.withResolvers<void>();
    const { environment } = await faultyS3([
      { kind: "error", status: 500, code: "InternalError" },
      { kind: "error", status: 503, code: "SlowDown" },
      { kind: "cut" },
      { kind: "error", status: 400, code: "ExpiredToken" },
      { kind: "loseAnswer", meanwhile: () => gate.promise },
    ]);
    const batches = transactions([2 * MIB, 2 * MIB]);
    const source = sourceOf(batches);
    const oversize = checked(await store(environment));
    const options = {
      kinesis: aws().kinesis,
      streamName,
      writer: 1,
      packing: "batch",
      oversize,
      log,
    } as const;
    const done = writeKinesis(source, options, new AbortController().signal);
    // The object is there, its answer is not: the change before it is in the stream, it is not, nothing is confirmed.
    await eventually(async () => (await readStream(aws().kinesis, streamName)).length === 1, {
      what: "the first change",
    });
    expect(source.acknowledged).toEqual([]);
    gate.resolve();
    await done;

    expect(source.acknowledged.at(-1)).toBe(2n * 16n + 8n);
    const { records } = await delivered(streamName);
    const { handler, effects } = await collecting(inS3.environment());
    expect(await invoke(handler(), records)).toEqual(DONE);
    expectEffects(effects, batches);
  });

  test("stops at once while S3 is away; nothing was confirmed, nothing goes on behind", async () => {
    const streamName = await aws().freshStream();
    const { environment, calls } = await faultyS3(Array.from({ length: 1000 }, () => ({ kind: "cut" })));
    const stop = new AbortController();
    const check = checked(await store(environment));
    let upload: ReturnType<Oversize> | undefined;
    const oversize: Oversize = (...facts) => {
      upload = check(...facts);
      return upload;
    };
    const writing = write(transactions([2 * MIB]), { streamName, oversize, signal: stop.signal });
    await eventually(() => calls() > 1, { what: "tries" });
    stop.abort();
    expect((await writing).acknowledged).toEqual([]);
    await expect(upload).rejects.toThrow();
    expect((await delivered(streamName)).claims).toEqual([]);
  });

  test.each([
    [
      "a bucket that does not exist",
      async () => ({ ...inS3.environment(), TRIBUTARY_CLAIM_BUCKET: "s3://not-there-at-all" }),
      "NoSuchBucket",
    ],
    [
      "a role that may not",
      async () => (await faultyS3([{ kind: "error", status: 403, code: "AccessDenied" }])).environment,
      "403 AccessDenied",
    ],
  ])("%s is a typed stop", async (_, environment, says) => {
    const streamName = await aws().freshStream();
    const writing = write(transactions([2 * MIB]), {
      streamName,
      oversize: checked(await store(await environment())),
    });
    await expect(writing).rejects.toMatchObject({
      code: "CLAIM_STORE_REFUSED",
      retry: "stop",
      message: expect.stringContaining(says),
      remedy: expect.stringContaining("s3:PutObject"),
    });
  });

  test("without a claim store a change above the limit is a typed stop, what came before it is stored", async () => {
    const streamName = await aws().freshStream();
    await expect(write(transactions([10, 2 * MIB]), { streamName })).rejects.toMatchObject({
      code: "OVERSIZE_CHANGE",
      remedy: expect.stringContaining("TRIBUTARY_CLAIM_BUCKET"),
    });
    expect(await readStream(aws().kinesis, streamName)).not.toEqual([]);
  });
});

describe("the consumer", () => {
  test("does not read what took effect before", async () => {
    const streamName = await aws().freshStream();
    const batches = transactions([2 * MIB, 2 * MIB]);
    await write(batches, { streamName, oversize: checked(await store(inS3.environment())) });
    const { records } = await delivered(streamName);
    const { environment, calls } = await faultyS3([]);
    const { handler, effects, bench } = await collecting(environment);
    await invoke(handler(), records);
    expect(calls()).toBe(2);
    await invoke(handler(), records);
    expect(calls()).toBe(2);
    expectEffects(effects, batches);
    expect(bench.reports[1]).toMatchObject({ applied: 0, duplicates: 8 });
  });

  test("reads again where S3 fails for a while", async () => {
    const streamName = await aws().freshStream();
    const batches = transactions([2 * MIB]);
    await write(batches, { streamName, oversize: checked(await store(inS3.environment())) });
    const { records } = await delivered(streamName);
    const { environment } = await faultyS3([
      { kind: "error", status: 503, code: "SlowDown" },
      { kind: "cut" },
      { kind: "loseAnswer" },
    ]);
    const { handler, effects, bench } = await collecting(environment, { TRIBUTARY_ATTEMPTS: "1" });
    expect(await invoke(handler(), records)).toEqual(DONE);
    expectEffects(effects, batches);
    expect(await bench.letters()).toEqual([]);
  });

  test.each([
    ["is away", { kind: "cut" } as const],
    ["refuses", { kind: "error", status: 403, code: "AccessDenied" } as const],
  ])("where S3 %s the partition waits; no dead letter, the others go on", async (_, fault) => {
    const streamName = await aws().freshStream();
    const batches = transactions([2 * MIB]);
    await write(batches, { streamName, oversize: checked(await store(inS3.environment())) });
    const { records } = await delivered(streamName);
    const { environment } = await faultyS3(Array.from({ length: 1000 }, () => fault));
    const { handler, effects, bench } = await collecting(environment, { TRIBUTARY_ATTEMPTS: "1" });
    const claimed = records.find((r) => Buffer.from(r.kinesis.data, "base64").includes('"claim"'));
    if (!claimed) throw new Error("a claim expected");
    expect(await invoke(handler(), records, 4_000)).toEqual(failedAt(claimed));
    expect(effects(1).map(({ text }) => text)).toEqual(["a"]);
    expect(effects(2).map(({ text }) => text)).toEqual(["c"]);
    expect(await bench.letters()).toEqual([]);

    // It is back: the same records again.
    const again = bench.instance(
      (c) =>
        c.on(
          "public.orders",
          Operation.Create,
          (e) => void effects(e.partition).push({ id: e.id, text: String(e.after.text) }),
        ),
      inS3.environment() as Record<string, string>,
    );
    expect(await invoke(again, records)).toEqual(DONE);
    expectEffects(effects, batches);
  });

  test("a change that is missing before it is a gap, found without reading it", async () => {
    const streamName = await aws().freshStream();
    await write(transactions([2 * MIB]), { streamName, oversize: checked(await store(inS3.environment())) });
    const { records } = await delivered(streamName);
    const ofPartition = records.filter(({ kinesis }) => kinesis.partitionKey === "shop.public.orders/1");
    const [, claimed] = ofPartition;
    if (!claimed) throw new Error("a claim expected");
    const { environment, calls } = await faultyS3([]);
    const { handler, effects, bench } = await collecting(environment);
    expect(await invoke(handler(), ofPartition.slice(1))).toEqual(DONE);
    expect(bench.reports).toMatchObject([{ gaps: 1, applied: 0, heldPartitions: 1 }]);
    expect([effects(1), calls()]).toEqual([[], 0]);
  });

  test("one whose reading ends the process, time and again, is a dead letter in the end", async () => {
    const streamName = await aws().freshStream();
    await write(transactions([2 * MIB]), { streamName, oversize: checked(await store(inS3.environment())) });
    const { records, claims } = await delivered(streamName);
    const ofPartition = records.filter(({ kinesis }) => kinesis.partitionKey === "shop.public.orders/1");
    // An answer that never comes stands for a process that never comes back.
    const { environment, calls } = await faultyS3(Array.from({ length: 1000 }, () => ({ kind: "hang" })));
    const { handler, effects, bench } = await collecting(environment, {
      TRIBUTARY_ATTEMPTS: "1",
      TRIBUTARY_POISON: "skip",
    });
    const first = invoke(handler(), ofPartition, 20_000);
    await eventually(() => calls() === 1, { what: "the first reading" });
    const second = invoke(handler(), ofPartition, 20_000);
    // The predecessor died: this reading is written down before it begins.
    await eventually(() => calls() === 2, { what: "the second reading" });
    expect(await bench.stored(1)).toMatchObject({ attempts: { from: claims[0]?.position, calls: 1 } });

    expect(await invoke(handler(), ofPartition)).toEqual(DONE);
    expect(await bench.letters()).toMatchObject([
      { position: claims[0]?.position, payloadClaim: claims[0]?.claim, error: { name: "HandlerDiedError" } },
    ]);
    expect(effects(1).at(-1)?.text).toBe("b");
    expect(calls()).toBe(2);
    await Promise.allSettled([first, second]);
  });

  test("without a claim store of its own the partition waits", async () => {
    const streamName = await aws().freshStream();
    await write(transactions([2 * MIB]), { streamName, oversize: checked(await store(inS3.environment())) });
    const { records } = await delivered(streamName);
    const { handler, bench } = await collecting({});
    expect(await invoke(handler(), records)).toEqual(DONE);
    expect(bench.reports).toMatchObject([{ heldPartitions: 1, failedPartitions: 0 }]);
    expect(bench.lines.join()).toContain("CLAIM_STORE_NOT_NAMED");
    expect(await bench.letters()).toEqual([]);
  });

  test("an object that holds another change is not used", async () => {
    const streamName = await aws().freshStream();
    await write(transactions([2 * MIB, 2 * MIB]), {
      streamName,
      oversize: checked(await store(inDirectory.environment())),
    });
    const { records, claims } = await delivered(streamName);
    // The second pointer now says the first one's object: size and hash are right.
    const [one, other] = claims;
    const swapped = records.map((record) => {
      const json = JSON.parse(Buffer.from(record.kinesis.data, "base64").toString());
      if (json.position !== other?.position) return record;
      return kinesisRecord(JSON.stringify({ ...json, claim: one?.claim }), record.kinesis.partitionKey);
    });
    const { handler, bench } = await collecting(inDirectory.environment(), { TRIBUTARY_POISON: "skip" });
    expect(await invoke(handler(), swapped)).toEqual(DONE);
    expect(await bench.letters()).toMatchObject([
      {
        position: other?.position,
        error: { name: "ClaimMismatchError", message: expect.stringContaining("expected") },
      },
    ]);
  });
});
