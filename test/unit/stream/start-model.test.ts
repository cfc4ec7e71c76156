import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  type KinesisClient,
  ListShardsCommand,
} from "@aws-sdk/client-kinesis";
import fc from "fast-check";
import { expect, test } from "vitest";
import { formatLsn } from "../../../lib/change/lsn.ts";
import { formatPosition, type PositionText } from "../../../lib/change/position.ts";
import { claimRecord, eventTail, RECORD_TAIL, recordHead } from "../../../lib/change/record.ts";
import { classifyEvent } from "../../../lib/consume/fence/classify-event.ts";
import { findStart } from "../../../lib/stream/kinesis/stream-start.ts";
import { StartSearch } from "../../../lib/stream/start-search.ts";

/*
 * Rule 65: a stream of several shards that are split, whose oldest records are gone, in which partitions arrive in any order and later than they
 * were committed. The real search reads it; then a consumer's fence decides on all that is left.
 */

const MINUTE = 60_000;
const TOPIC = "shop.public.orders";
/** What arrived before has expired; the search may rely on what came later than this. */
const TRIMMED = 600 * MINUTE;
const KEPT_FROM = TRIMMED + 20 * MINUTE;

interface Commit {
  /** Since the one before, in minutes. */
  readonly pause: number;
  /** Partitions with a change of it. */
  readonly partitions: readonly number[];
  /** Further minutes until a partition's change arrives. */
  readonly jitter: number;
  readonly kind: "row" | "claim" | "backfill";
  /** Capture starts anew: what it writes next follows nothing. */
  readonly restarts: boolean;
}

interface Stored {
  readonly partition: number;
  readonly position: PositionText;
  readonly after: PositionText | null;
  readonly committedMs: number;
  readonly arrivedMs: number;
  readonly kind: Commit["kind"];
}

interface World {
  readonly commits: readonly Commit[];
  /** How far capture is behind, in minutes. */
  readonly lag: number;
  /** When the first commit is made, in minutes. */
  readonly begins: number;
  /** When each shard is split, in minutes. */
  readonly splitAt: number;
}

const PARTITIONS = 4;

function written({ commits, lag, begins }: World): Stored[] {
  const stored: Stored[] = [];
  const last = new Map<number, { position: PositionText; arrivedMs: number }>();
  const isFirst = new Map<number, boolean>();
  let committedMs = begins * MINUTE;
  for (const [i, { pause, partitions, jitter, kind, restarts }] of commits.entries()) {
    committedMs += pause * MINUTE + 1;
    if (restarts) isFirst.clear();
    for (const [n, partition] of [...new Set(partitions)].entries()) {
      const known = last.get(partition);
      const position = formatPosition({ epoch: 1, commitLsn: BigInt(i + 1) * 100n, ordinal: n + 1 });
      const late = (lag + (n === 0 ? jitter : 0)) * MINUTE;
      const arrivedMs = Math.max(committedMs + late, (known?.arrivedMs ?? 0) + 1);
      const after = isFirst.get(partition) === false ? (known?.position ?? null) : null;
      stored.push({ partition, position, after, committedMs, arrivedMs, kind });
      last.set(partition, { position, arrivedMs });
      isFirst.set(partition, false);
    }
  }
  return stored;
}

function data({ partition, position, after, committedMs, kind }: Stored): Buffer {
  const header = { topic: TOPIC, partition, writer: 1 };
  const claim = { bucket: "b", key: "k", bytes: 1, sha256: "0".repeat(64) };
  if (kind === "claim") return Buffer.from(claimRecord(header, claim, position, after));
  const commitLsn = formatLsn(BigInt(`0x${position.slice(8, 24)}`));
  const source = {
    ...{ connector: "postgresql", schema: "public", table: "orders", commitLsn, epoch: 1, key: ["id"] },
    ...{ ordinal: Number(position.slice(24)), ts_ms: committedMs, txId: kind === "backfill" ? "" : "7" },
  };
  const op = kind === "backfill" ? "r" : "c";
  const open = `{"op":"${op}","before":null,"after":{"id":"1"},"ts_ms":1,"source":${JSON.stringify(source).slice(0, -1)}`;
  return Buffer.from(
    recordHead(header, { first: position, last: position, after }) + open + eventTail(after) + RECORD_TAIL,
  );
}

/** Kinesis over what is left: two shards, of which each has two children from its split on. */
function kinesisOf(left: readonly Stored[], { splitAt }: World) {
  const shardOf = ({ partition, arrivedMs }: Stored) =>
    `${partition % 2}${arrivedMs >= splitAt * MINUTE ? `-${partition < 2 ? 0 : 1}` : ""}`;
  const shards = new Map<string, Stored[]>();
  for (const one of left.toSorted((a, b) => a.arrivedMs - b.arrivedMs))
    shards.set(shardOf(one), [...(shards.get(shardOf(one)) ?? []), one]);
  const parse = (iterator: string) => iterator.split("@") as [string, string];
  const send = async (command: unknown) => {
    if (command instanceof ListShardsCommand)
      return { Shards: [...shards.keys()].map((ShardId) => ({ ShardId })) };
    if (command instanceof GetShardIteratorCommand) {
      const { ShardId = "", Timestamp } = command.input;
      const records = shards.get(ShardId) ?? [];
      const from = records.findIndex(({ arrivedMs }) => arrivedMs >= (Timestamp?.getTime() ?? 0));
      return { ShardIterator: `${ShardId}@${from < 0 ? records.length : from}` };
    }
    if (!(command instanceof GetRecordsCommand)) throw new Error("not asked for");
    const [shard, from] = parse(command.input.ShardIterator ?? "");
    const records = shards.get(shard) ?? [];
    const page = records.slice(Number(from), Number(from) + 2);
    const to = Number(from) + page.length;
    return {
      Records: page.map((one) => ({
        ...{ Data: data(one), PartitionKey: "p", SequenceNumber: String(one.arrivedMs) },
        ApproximateArrivalTimestamp: new Date(one.arrivedMs),
      })),
      MillisBehindLatest: to < records.length ? 1 : 0,
      NextShardIterator: `${shard}@${to}`,
    };
  };
  return { send } as unknown as KinesisClient;
}

async function play(world: World, timeMs: number) {
  const all = written(world);
  const left = all.filter(({ arrivedMs }) => arrivedMs >= TRIMMED);
  const found = await findStart({
    ...{ kinesis: kinesisOf(left, world), streamName: "s", topicPrefix: "shop" },
    ...{ keptFromMs: KEPT_FROM, timeMs, signal: new AbortController().signal },
    log: { info: () => {}, warn: () => {} },
  });
  const wanted = all.filter(({ committedMs }) => committedMs >= timeMs);
  if (!found) {
    expect(wanted, "nothing was found, and something was committed since").toEqual([]);
    return { found, all, left };
  }
  const { position: start, sinceMs } = found;
  for (const { position } of wanted) expect(position > start, `${position} is wanted`).toBe(true);
  const behind = all.filter(({ position }) => position > start);
  for (const { arrivedMs } of behind) {
    expect(arrivedMs, "it is still in the stream").toBeGreaterThanOrEqual(TRIMMED);
    expect(arrivedMs).toBeGreaterThanOrEqual(sinceMs);
  }
  // The fence, partition by partition.
  const applied: PositionText[] = [];
  for (let partition = 0; partition < PARTITIONS; partition++) {
    let seen = { position: start, writer: 1 };
    for (const { position, after } of left.filter((one) => one.partition === partition)) {
      const decided = classifyEvent(seen, position, after);
      expect(decided, `${position} follows ${after}`).not.toBe("gap");
      if (decided === "duplicate") continue;
      applied.push(position);
      seen = { position, writer: 1 };
    }
  }
  expect(applied.sort()).toEqual(behind.map(({ position }) => position).sort());
  return { found, all, left };
}

const commit = fc.record({
  pause: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 90 })),
  partitions: fc.array(fc.nat(PARTITIONS - 1), { minLength: 1, maxLength: 3 }),
  jitter: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 9 })),
  kind: fc.constantFrom<Commit["kind"]>("row", "row", "row", "row", "backfill"),
  restarts: fc.nat(9).map((n) => n === 0),
});
const worlds = fc.record({
  commits: fc.array(commit, { minLength: 15, maxLength: 60 }),
  begins: fc.integer({ min: 300, max: 640 }),
  lag: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 400 })),
  splitAt: fc.integer({ min: 500, max: 1000 }),
});

test("a consumer that begins there gets each change behind it once, all that were committed since the time, and no false gap", async () => {
  await fc.assert(
    fc.asyncProperty(worlds, fc.integer({ min: 15, max: 300 }), async (world, minutes) => {
      await play(world, KEPT_FROM + minutes * MINUTE);
    }),
    { numRuns: 400 },
  );
}, 60_000);

const row = (
  pause: number,
  partitions: readonly number[],
  jitter = 0,
  more: Partial<Commit> = {},
): Commit => ({
  ...{ pause, partitions, jitter, kind: "row", restarts: false, ...more },
});
const T = KEPT_FROM + 60 * MINUTE;

test("the last change before the time is begun behind, not the first that is left", async () => {
  const commits = [row(630, [0]), row(20, [1]), row(25, [2]), row(10, [3])];
  const { found, all } = await play({ commits, lag: 0, begins: 0, splitAt: 0 }, T);
  expect(found?.position).toBe(all[2]?.position);
});

test("where nothing was committed for long, it is begun before the first change behind, whichever arrives first", async () => {
  const commits = [row(10, [0, 1, 2, 3]), row(700, [0], 9), row(0, [1])];
  const { found, all } = await play({ commits, lag: 0, begins: 0, splitAt: 0 }, T);
  expect(found && found.position < (all[4]?.position as string)).toBe(true);
  expect(found && found.position > (all[3]?.position as string)).toBe(true);
});

test("and it is looked for behind others of its shard, for as long as it may be late", async () => {
  const commits = [row(10, [0, 2]), row(700, [0], 9), ...[0, 1, 1, 1, 1].map((pause) => row(pause, [2]))];
  const { found, all } = await play({ commits, lag: 0, begins: 0, splitAt: 2000 }, T);
  expect(found && found.position < (all[2]?.position as string)).toBe(true);
});

test("a change by claim check is not left out, though nobody knows when it was committed", async () => {
  const commits = [row(10, [0, 1, 2, 3]), row(700, [0], 0, { kind: "claim" }), row(5, [1])];
  const { found, all } = await play({ commits, lag: 0, begins: 0, splitAt: 0 }, T);
  expect(found && found.position < (all[4]?.position as string)).toBe(true);
});

test("what was committed before it expired and came late is never begun behind", async () => {
  // Capture is hours behind: what arrives before the time was committed before the oldest record.
  const commits = Array.from({ length: 40 }, (_, i) => row(20, [i % PARTITIONS]));
  const { found, all } = await play({ commits, lag: 300, begins: 0, splitAt: 700 }, T);
  const begun = all.find(({ position }) => position === found?.position);
  expect(begun?.committedMs).toBeGreaterThanOrEqual(KEPT_FROM);
});

test("a change of which nobody knows when it was committed is not begun before where a later one is too old", () => {
  const search = new StartSearch({ topicPrefix: "shop", keptFromMs: KEPT_FROM, timeMs: T });
  const [claim, late] = written({
    ...{ commits: [row(500, [0], 0, { kind: "claim" }), row(1, [1])], lag: 200, begins: 0, splitAt: 0 },
  }) as [Stored, Stored];
  search.take(data(claim), claim.arrivedMs);
  expect(search.start).toBeDefined();
  search.take(data(late), late.arrivedMs);
  expect(search.start).toBeUndefined();
});

test("nothing since: there is no start to be found", async () => {
  const { found } = await play({ commits: [row(10, [0]), row(3, [1])], lag: 0, begins: 0, splitAt: 0 }, T);
  expect(found).toBeUndefined();
});
