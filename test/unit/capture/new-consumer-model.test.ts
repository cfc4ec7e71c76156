import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { KinesisStreamRecord } from "aws-lambda";
import fc from "fast-check";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { noteStarts, startsOf } from "../../../lib/capture/start-at.ts";
import { shardBeatRecord, shardNumber } from "../../../lib/change/shard-beat.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import type { RecordStream } from "../../../lib/stream/record-stream.ts";
import { MemoryTable } from "../consume/memory-table.ts";
import { at, chain, kinesisRecord, packed } from "../consume/records.ts";

/* Rule 66: a consumer is added to a stream that is older than its retention, by a deploy that starts capture anew. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const RETENTION = 168 * HOUR;
const REGISTERED = Date.UTC(2026, 10, 30, 12);
const SHARD = "shardId-000000000000";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: REGISTERED }));
afterEach(() => void vi.useRealTimers());

interface Arrived {
  readonly atMs: number;
  readonly record: KinesisStreamRecord;
  /** The commit of a change that the new consumer is to get. */
  readonly wanted?: number;
}

/** What has arrived in the shard: a change and a beat every so many hours, before the registration and after it. */
interface History {
  /** Hours before the registration, and how many of its last changes come again behind it. */
  readonly old: readonly number[];
  readonly unconfirmed: number;
  /** Hours since the change before; `restarts`: of a new capture task, which names no predecessor. */
  readonly changes: readonly { readonly hours: number; readonly restarts: boolean }[];
}

const history: fc.Arbitrary<History> = fc
  .record({
    old: fc.array(fc.integer({ min: 0, max: 250 }), { minLength: 1, maxLength: 12 }),
    unconfirmed: fc.integer({ min: 0, max: 3 }),
    changes: fc.array(fc.record({ hours: fc.integer({ min: 0, max: 30 }), restarts: fc.boolean() }), {
      minLength: 1,
      maxLength: 5,
    }),
  })
  .map(({ old, unconfirmed, changes }) => ({
    old: old.toSorted((a, b) => b - a),
    // Kinesis has acknowledged them, and the task ended before it had that on record.
    unconfirmed: Math.min(unconfirmed, old.filter((hours) => hours < 24).length),
    changes,
  }));

/** The records of a history, and the commit that is confirmed when the consumer is registered. */
function streamOf({ old, unconfirmed, changes }: History): { records: Arrived[]; confirmed: number } {
  const records: Arrived[] = [];
  const put = (atMs: number, writer: number, commit: number, after: number | null, wanted: boolean) => {
    const beat = shardBeatRecord({ shardId: SHARD }, { name: "shop", writer, nowMs: atMs, packed: true });
    records.push({ atMs, record: kinesisRecord(beat, `$shards/${shardNumber(SHARD)}`) });
    const record = packed(chain(commit, commit, after), { writer });
    records.push({ atMs, record, ...(wanted && { wanted: commit }) });
  };
  const confirmed = old.length - unconfirmed;
  for (const [i, hours] of old.entries())
    put(REGISTERED - hours * HOUR, 1, i + 1, i === 0 ? null : i, i + 1 > confirmed);
  let writer = 2;
  let last: number | null = null;
  let atMs = REGISTERED + MINUTE;
  for (let commit = confirmed + 1; commit <= old.length; commit++) {
    put(atMs, writer, commit, last, true);
    last = commit;
  }
  let commit = old.length;
  for (const { hours, restarts } of changes) {
    atMs += hours * HOUR;
    if (restarts) [writer, last] = [writer + 1, null];
    put(atMs, writer, ++commit, last, true);
    last = commit;
  }
  return { records: records.map((one) => ({ ...one, record: arrivedAt(one) })), confirmed };
}

function arrivedAt({ record, atMs }: Arrived): KinesisStreamRecord {
  const kinesis = { ...record.kinesis, approximateArrivalTimestamp: atMs / 1000 };
  return { ...record, kinesis, eventID: `${SHARD}:${kinesis.sequenceNumber}` };
}

/** The parts of a capture task that registers consumers. */
function optionsOf(dynamodb: DynamoDBClient, extent: RecordStream["extent"]) {
  return {
    pipeline: definePipeline({
      name: "p",
      source: postgres({ tables: ["public.*"] }),
      topics: { prefix: "shop" },
      consumers: [{ name: "c", entry: "c.ts", topics: ["*"] }],
    }),
    ...{ dynamodb, stateTable: "t", log: { info: () => {}, warn: () => {}, error: () => {} } },
    stream: { extent } as unknown as RecordStream,
  };
}

/** Reads the shard as a mapping from the oldest record does: so many records each time, after so many minutes. */
async function read(given: History, reads: readonly { readonly minutes: number; readonly count: number }[]) {
  vi.setSystemTime(REGISTERED);
  const { records, confirmed } = streamOf(given);
  const dynamodb = new MemoryTable().client(async () => "none");
  const { signal } = new AbortController();
  const options = optionsOf(dynamodb, async () => ({
    ...{ retentionMs: RETENTION, createdMs: 0, shards: [SHARD] },
  }));
  const position = at(confirmed, { ordinal: 0 }).replace(/.$/, "9");
  const starts = await startsOf(options, position, signal);
  await noteStarts(options, starts, signal);
  await registerConsumers(dynamodb, "t", "p", starts, position, signal);

  const effects: string[] = [];
  const reports: InvocationReport[] = [];
  const handler = consumer("c")
    .on("*", ALL_OPERATIONS, ({ id }) => void effects.push(id))
    .handler({
      environment: {
        ...{ TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" },
        ...{ TRIBUTARY_RETENTION_HOURS: "168", TRIBUTARY_TOPICS: "shop.*" },
      },
      dynamodb,
      shardParents: async () => [],
      observer: { invocation: (report) => void reports.push(report) },
      write: () => {},
    });
  let next = 0;
  let isHeld = false;
  let atPause = 0;
  for (let i = 0; next < records.length; i++) {
    // Then it catches up at once: what expires while it reads beside the edge is within the margin of rule 35.
    const { minutes, count } = reads[i] ?? { minutes: 1, count: 100 };
    if (minutes > 24 * 60) atPause = effects.length;
    vi.setSystemTime(Date.now() + minutes * MINUTE);
    while (records[next] && (records[next] as Arrived).atMs < Date.now() - RETENTION) next++;
    const batch = records.slice(next, next + count).filter(({ atMs }) => atMs <= Date.now());
    if (batch.length === 0) continue;
    await handler({ Records: batch.map(({ record }) => record) }, { getRemainingTimeInMillis: () => 60_000 });
    next += batch.length;
    isHeld ||= (reports.at(-1)?.heldPartitions ?? 0) > 0;
  }
  const wanted = [...new Set(records.flatMap((record) => record.wanted ?? []))].map((commit) => at(commit));
  return { effects, wanted, isHeld, atPause };
}

const slow = fc.array(
  fc.record({ minutes: fc.integer({ min: 1, max: 90 }), count: fc.integer({ min: 1, max: 4 }) }),
  {
    maxLength: 30,
  },
);

it("gets every change from its registration on, however old the stream is and however slowly it reads what was before", async () => {
  await fc.assert(
    fc.asyncProperty(history, slow, async (given, reads) => {
      const { effects, wanted, isHeld } = await read(given, reads);
      expect({ effects, isHeld }).toEqual({ effects: wanted, isHeld: false });
    }),
    { numRuns: 150 },
  );
});

it("once something took effect, passes over nothing that expired unread after its registration", async () => {
  const pauses = fc.record({
    // It may have read nothing yet that arrived behind its registration.
    first: fc.record({ minutes: fc.constantFrom(0.5, 90), count: fc.integer({ min: 1, max: 100 }) }),
    before: slow,
    days: fc.integer({ min: 5, max: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(history, pauses, async (given, { first, before, days }) => {
      const { effects, wanted, atPause } = await read(given, [
        first,
        ...before,
        { minutes: days * 24 * 60, count: 100 },
      ]);
      // A partition where nothing ever did has no checkpoint yet, and rule 35 asks nothing there.
      if (atPause === 0) return;
      // All that took effect, with nothing left out between.
      expect(effects).toEqual(wanted.slice(0, effects.length));
    }),
    { numRuns: 150 },
  );
});

it("finds what expired unread though nothing but copies from before its registration had been read", async () => {
  const restart = { hours: 30, restarts: true };
  const given = { old: [30, 2], unconfirmed: 1, changes: [{ hours: 1, restarts: false }, restart, restart] };
  const { effects, atPause } = await read(given, [
    { minutes: 0.5, count: 100 },
    { minutes: 8 * 24 * 60, count: 100 },
  ]);
  expect({ effects, atPause }).toEqual({ effects: [at(2)], atPause: 1 });
});

it("notes a time from before the consumer was found to be new", async () => {
  const extent = async () => {
    // Another task takes the lease, registers the consumer and writes meanwhile.
    vi.setSystemTime(REGISTERED + HOUR);
    return { retentionMs: RETENTION, createdMs: 0, shards: [SHARD] };
  };
  const options = optionsOf(
    new MemoryTable().client(async () => "none"),
    extent,
  );
  const [start] = await startsOf(options, at(1), new AbortController().signal);
  expect(start?.read).toEqual({ shards: [SHARD], sinceMs: REGISTERED });
});
