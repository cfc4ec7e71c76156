import { setTimeout as delay } from "node:timers/promises";
import { DescribeStreamCommand, MergeShardsCommand, SplitShardCommand } from "@aws-sdk/client-kinesis";
import pg from "pg";
import { dynamodbClient } from "../../lib/aws/clients.ts";
import { formatTable } from "../../lib/change/table-pattern.ts";
import { between, type SeededRandom } from "../../lib/local/shop/catalog.ts";
import { hasEnded, readBackfills, requestBackfill } from "../../lib/state/backfills.ts";
import { CaptureTask } from "../../lib/testing/checker/capture-task.ts";
import type { FaultyService } from "../../lib/testing/checker/faulty-aws.ts";
import type { Mischief } from "../../lib/testing/checker/mischief.ts";
import type { Rig } from "../../lib/testing/checker/rig.ts";
import { CHECKED_TABLES } from "../../lib/testing/checker/tables.ts";
import type { AwsCall, AwsFault } from "../../lib/testing/fault/aws-proxy.ts";
import { entriesOf, failEntries } from "../../lib/testing/fault/put-records.ts";
import type { FaultLink } from "../../lib/testing/fault/tcp-proxy.ts";
import { eventually } from "../eventually.ts";
import { ASIDE_FAULTS } from "./aside-faults.ts";

/** One kind of fault. */
export interface Fault {
  readonly name: string;
  /** History begins anew in it: rows alone are checked, and the pipeline is given up behind it. */
  readonly beginsAnew?: boolean;
  /** Injects it while the workload runs, heals it, and tells how often it was injected. */
  readonly inject: (rig: Rig, random: SeededRandom, strength: number) => Promise<number>;
}

/** How long faults of a rate last, in milliseconds at strength 1. */
const WHILE_MS = 3_000;

/** Cuts replication links, each when it has carried something. */
function cutLinks(cut: (link: FaultLink, random: SeededRandom) => void): Fault["inject"] {
  return async (rig, random, strength) => {
    let cuts = 0;
    while (cuts < 4 * strength) {
      const links = await eventually(
        () => (rig.link.replicationLinks.length > 0 ? rig.link.replicationLinks : undefined),
        {
          what: "a replication link",
        },
      );
      const link = pick(random, links);
      await delay(between(random, 50, 500));
      cut(link, random);
      await Promise.race([link.closed.then(() => cuts++), delay(10_000)]);
    }
    return cuts;
  };
}

/** Goes wrong with some calls of a service for a while. */
function calls(
  service: FaultyService,
  share: number,
  fault: (call: AwsCall, random: SeededRandom) => AwsFault | undefined,
  ms = WHILE_MS,
): Fault["inject"] {
  return async (rig, random, strength) => {
    let injected = 0;
    rig.aws.choose(service, (call) => {
      if (random() >= share) return undefined;
      const chosen = fault(call, random);
      if (chosen) injected++;
      return chosen;
    });
    await delay(ms * strength);
    rig.aws.choose(service, undefined);
    return injected;
  };
}

const puts =
  (fault: (call: AwsCall, random: SeededRandom) => AwsFault) =>
  (call: AwsCall, random: SeededRandom): AwsFault | undefined =>
    call.operation === "PutRecords" ? fault(call, random) : undefined;

const refused = (status: number, code: string): AwsFault => ({ kind: "error", status, code });

/** One of several: of the capture tasks, of the links. */
export function pick<T>(random: SeededRandom, values: readonly T[]): T {
  return values[between(random, 0, values.length - 1)] as T;
}

/** Waits until a capture task streams. */
export async function streaming(capture: CaptureTask): Promise<void> {
  await eventually(() => capture.streaming, { what: "the capture task to stream" });
}

/** Every capture task is connected: as many replication links as slots. */
async function linked(rig: Rig): Promise<void> {
  await eventually(() => rig.link.replicationLinks.length >= rig.captures.length, {
    what: "the capture tasks to be back",
  });
}

/** Ends the capture task by a failpoint, again and again. */
function captureKilledAt(failpoint: string, hits: (random: SeededRandom) => number): Fault["inject"] {
  return async (rig, random, strength) => {
    let kills = 0;
    for (let i = 0; i < 2 * strength; i++) {
      const capture = pick(random, rig.captures);
      await streaming(capture);
      const ends = capture.ends.length;
      capture.arm(`${failpoint}=kill@${hits(random)}`);
      capture.kill();
      // The kill that starts it anew is one end, the failpoint the next.
      await eventually(() => capture.ends.length >= ends + 2, { what: `${failpoint} to be reached` });
      kills += 2;
    }
    return kills;
  };
}

/** Lets handlers go wrong some times. */
function handlers(mischief: Mischief): Fault["inject"] {
  return async (rig, _random, strength) => {
    const before = await rig.mischiefMet();
    await rig.mischief(mischief);
    await eventually(async () => (await rig.mischiefMet()) - before >= 3 * strength, { what: "mischief" });
    await rig.mischief(undefined);
    return (await rig.mischiefMet()) - before;
  };
}

async function shardsOf(rig: Rig) {
  const StreamName = rig.resources.stream;
  const { StreamDescription } = await rig.kinesis.send(new DescribeStreamCommand({ StreamName }));
  const shards = StreamDescription?.Shards ?? [];
  const open = shards.filter((shard) => shard.SequenceNumberRange?.EndingSequenceNumber === undefined);
  const range = (shard: (typeof open)[number]) => ({
    id: shard.ShardId ?? "",
    from: BigInt(shard.HashKeyRange?.StartingHashKey ?? "0"),
    to: BigInt(shard.HashKeyRange?.EndingHashKey ?? "0"),
  });
  const ranges = open.map(range).sort((a, b) => (a.from < b.from ? -1 : 1));
  return { active: StreamDescription?.StreamStatus === "ACTIVE", ranges };
}

/** Splits a shard and merges two, under load. */
async function reshard(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  const StreamName = rig.resources.stream;
  const active = { what: "the stream to be active" };
  let changes = 0;
  for (let i = 0; i < 2 * strength; i++) {
    const { ranges } = await eventually(async () => {
      const shards = await shardsOf(rig);
      return shards.active && shards;
    }, active);
    const widest = ranges.reduce((a, b) => (b.to - b.from > a.to - a.from ? b : a));
    const share = BigInt(between(random, 20, 80));
    const NewStartingHashKey = (widest.from + ((widest.to - widest.from) * share) / 100n).toString();
    await rig.kinesis.send(
      new SplitShardCommand({ StreamName, ShardToSplit: widest.id, NewStartingHashKey }),
    );
    changes++;
    await delay(between(random, 200, 900));
    const after = await eventually(async () => {
      const shards = await shardsOf(rig);
      return shards.active && shards;
    }, active);
    const at = between(random, 0, after.ranges.length - 2);
    const [left, right] = [after.ranges[at], after.ranges[at + 1]];
    if (!left || !right) continue;
    const merge = { StreamName, ShardToMerge: left.id, AdjacentShardToMerge: right.id };
    await rig.kinesis.send(new MergeShardsCommand(merge));
    changes++;
    await delay(between(random, 200, 900));
  }
  return changes;
}

/** A second capture task beside the first; the first one is stopped in an orderly way, and the second takes over. */
async function handOver(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  let handOvers = 0;
  for (let i = 0; i < strength; i++) {
    const capture = pick(random, rig.captures);
    const second = new CaptureTask(capture.environment);
    second.start();
    try {
      await delay(between(random, 500, 2_000));
      await capture.stop();
      await eventually(() => second.log.some((line) => line.includes("took the capture lease")), {
        what: "the second capture task to take over",
      });
      await delay(500);
      handOvers++;
    } finally {
      capture.start();
      await delay(500);
      await second.stop();
    }
  }
  return handOvers;
}

/** The capture task freezes until another has taken over, and then thaws: it must see that it has lost. */
async function zombie(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  let zombies = 0;
  for (let i = 0; i < strength; i++) {
    const capture = pick(random, rig.captures);
    const second = new CaptureTask(capture.environment);
    capture.freeze(true);
    second.start();
    try {
      const ends = capture.ends.length;
      await eventually(() => second.log.some((line) => line.includes("took the capture lease")), {
        what: "the second capture task to take over",
        deadlineMs: 120_000,
      });
      capture.freeze(false);
      zombies++;
      await eventually(() => capture.ends.length > ends, { what: "the zombie to end" });
    } finally {
      capture.freeze(false);
      await second.stop();
    }
  }
  return zombies;
}

/** Batches are given to their functions again: at the same time twice, and old ones after new ones. */
async function again(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  let invocations = 0;
  const until = performance.now() + WHILE_MS * strength;
  while (performance.now() < until) {
    await Promise.all(
      rig.consumers.map(async ({ lastBatches, function: lambda }) => {
        const batches = lastBatches();
        const newest = batches.at(-1);
        const old = batches[between(random, 0, Math.max(0, batches.length - 1))];
        if (newest === undefined || old === undefined) return;
        await Promise.all([lambda.invoke(newest), lambda.invoke(newest), lambda.invoke(old)]);
        invocations += 3;
      }),
    );
    await delay(200);
  }
  return invocations;
}

/** `kill -9` of the capture task at random times, and of handlers around random effects, so often each. */
export function kills(count: number): Fault {
  return {
    name: `${count} kills of capture, ${count} of handlers`,
    async inject(rig, random) {
      let captureKills = 0;
      // From inside, so that each one ends an invocation: a kill of an idle process proves nothing.
      const before = await rig.mischiefMet();
      const handlerKills = async () => (await rig.mischiefMet()) - before;
      const killHandlers = async () => {
        while ((await handlerKills()) < count) {
          await rig.mischief({ kind: "kill", share: 0.01, when: random() < 0.5 ? "before" : "after" });
          await delay(500);
        }
        await rig.mischief(undefined);
      };
      const killCapture = async () => {
        while (captureKills < count) {
          const capture = pick(random, rig.captures);
          await streaming(capture);
          await delay(between(random, 0, 1_500));
          if (capture.kill()) captureKills++;
          await eventually(() => !capture.streaming, { what: "the kill" });
        }
      };
      await Promise.all([killHandlers(), killCapture()]);
      return captureKills + (await handlerKills());
    },
  };
}

/** Backfills of all tables under the workload, one after the other; the capture task is killed in the middle of each. */
async function backfillsKilled(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  const dynamodb = dynamodbClient(rig.aws.environment);
  const signal = AbortSignal.timeout(15 * 60_000);
  const store = { dynamodb, table: rig.resources.stateTable, pipeline: rig.definition.name, signal };
  const names = CHECKED_TABLES.map(formatTable);
  const request = (table: string) => requestBackfill(store, table, { sweep: false, requestedAt: Date.now() });
  /** How many chunks have been acknowledged, and whether anything is left; ended ones begin again where `again`. */
  const look = async (again: boolean) => {
    const found = await readBackfills(store);
    const refused = found.find(({ status }) => status === "refused");
    if (refused) throw new Error(`the backfill of ${refused.table} is refused: ${refused.progress?.reason}`);
    const ended = found.filter(hasEnded);
    if (again && ended.length > 0) await Promise.all(ended.map(({ table }) => request(table)));
    const done = found.map(({ run, progress }) => `${run}/${progress?.chunk ?? 0}`).join();
    return { done, left: found.length - ended.length };
  };
  try {
    await Promise.all(names.map(request));
    for (let i = 0; i < 4 * strength; i++) {
      const capture = pick(random, rig.captures);
      await streaming(capture);
      const before = await look(true);
      await eventually(async () => (await look(true)).done !== before.done, { what: "a chunk to be done" });
      await delay(between(random, 0, 600));
      capture.kill();
      await eventually(() => !capture.streaming, { what: "the kill" });
    }
    await eventually(async () => (await look(false)).left === 0, {
      what: "the backfills",
      deadlineMs: 120_000,
    });
    return 4 * strength;
  } finally {
    dynamodb.destroy();
  }
}

/** Truncates a table while one of its partitions lags behind the others (rule 14). */
async function truncateWhileLagging(rig: Rig, random: SeededRandom, strength: number): Promise<number> {
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  try {
    for (let i = 0; i < 2 * strength; i++) {
      const lagging = `checked.public.accounts/${between(random, 0, rig.definition.topics.partitions - 1)}`;
      rig.aws.choose("kinesis", (call) =>
        call.operation === "PutRecords"
          ? failEntries(call, ({ PartitionKey }) => PartitionKey === lagging)
          : undefined,
      );
      await delay(1_000);
      await client.query("TRUNCATE accounts");
      await delay(1_000);
      rig.aws.choose("kinesis", undefined);
      await delay(500);
    }
  } finally {
    rig.aws.choose("kinesis", undefined);
    await client.end();
  }
  return 2 * strength;
}

/**
 * The sessions beside the replication links hang, and the capture task needs the catalog: a table's relation is told anew, and
 * its identity is full.
 */
async function halfOpenSideConnections(rig: Rig): Promise<number> {
  await linked(rig);
  const sides = () => {
    const replication = new Set(rig.link.replicationLinks);
    return rig.link.links.filter((link) => !replication.has(link));
  };
  const before = await eventually(() => (sides().length > 0 ? sides() : undefined), { what: "a session" });
  for (const link of before) link.halfOpen();
  const client = new pg.Client({ connectionString: rig.databaseUrl });
  await client.connect();
  try {
    await client.query("ALTER TABLE orders REPLICA IDENTITY FULL");
    await eventually(() => sides().some((link) => !before.includes(link)), {
      what: "another session to replace a dead one",
      deadlineMs: 90_000,
    });
  } finally {
    for (const link of before) link.cut();
    await client.end();
  }
  return before.length;
}

async function restart(rig: Rig, mode: "fast" | "immediate", strength: number): Promise<number> {
  for (let i = 0; i < strength; i++) {
    await delay(500);
    await rig.source.restart({ mode });
    await linked(rig);
    await delay(500);
  }
  return strength;
}

/** Everything that the checker throws at the pipeline. */
export const FAULTS: readonly Fault[] = [
  { name: "link reset", inject: cutLinks((link) => link.cut("rst")) },
  { name: "link closed", inject: cutLinks((link) => link.cut("fin")) },
  {
    name: "link cut inside a message",
    inject: cutLinks((link, random) => link.cutInsideCopyData(between(random, 1, 30))),
  },
  {
    name: "link cut after n bytes",
    inject: cutLinks((link, random) => link.cutAfterBytes(between(random, 1, 20_000), "fin")),
  },
  {
    name: "link half-open",
    async inject(rig, random) {
      await linked(rig);
      const before = rig.link.replicationLinks;
      const link = pick(random, before);
      link.halfOpen();
      await eventually(() => rig.link.replicationLinks.some((other) => !before.includes(other)), {
        what: "another link to replace the dead one",
        deadlineMs: 90_000,
      });
      link.cut();
      return 1;
    },
  },
  {
    name: "link slow",
    async inject(rig, _random, strength) {
      const slow = (link: FaultLink) => link.slow({ bytesPerSecond: 40_000, delayMs: 20 });
      rig.link.onLink = slow;
      for (const link of rig.link.links) slow(link);
      await delay(WHILE_MS * strength);
      rig.link.onLink = undefined;
      for (const link of rig.link.links) link.slow({});
      return 1;
    },
  },
  {
    name: "server refuses",
    async inject(rig, _random, strength) {
      for (let i = 0; i < strength; i++) {
        await rig.link.refuse();
        for (const link of rig.link.links) link.cut("rst");
        await delay(WHILE_MS);
        await rig.link.accept();
        await linked(rig);
      }
      return strength;
    },
  },
  { name: "server restarts", inject: (rig, _random, strength) => restart(rig, "fast", strength) },
  { name: "server crashes", inject: (rig, _random, strength) => restart(rig, "immediate", strength) },
  {
    name: "Kinesis throttles",
    inject: calls(
      "kinesis",
      0.5,
      puts(() => refused(400, "ProvisionedThroughputExceededException")),
    ),
  },
  {
    name: "Kinesis fails entries",
    inject: calls(
      "kinesis",
      0.7,
      puts((call, random) => {
        const unlucky = entriesOf(call).map(() => random() < 0.3);
        return failEntries(call, (_, i) => unlucky[i] ?? false);
      }),
    ),
  },
  {
    name: "Kinesis loses answers",
    inject: calls(
      "kinesis",
      0.3,
      puts(() => ({ kind: "loseAnswer" })),
    ),
  },
  {
    name: "Kinesis does it twice",
    inject: calls(
      "kinesis",
      0.5,
      puts(() => ({ kind: "duplicate" })),
    ),
  },
  {
    name: "Kinesis stores late",
    inject: calls(
      "kinesis",
      0.3,
      puts((_, random) => ({ kind: "late", ms: between(random, 50, 800) })),
    ),
  },
  { name: "Kinesis fails (500)", inject: calls("kinesis", 0.5, () => refused(500, "InternalFailure")) },
  { name: "credentials expire", inject: calls("kinesis", 1, () => refused(400, "ExpiredTokenException")) },
  {
    name: "Kinesis slow",
    inject: calls(
      "kinesis",
      1,
      puts((_, random) => ({ kind: "slow", ms: between(random, 100, 1_500) })),
    ),
  },
  {
    name: "capture killed",
    async inject(rig, random, strength) {
      for (let i = 0; i < 3 * strength; i++) {
        const capture = pick(random, rig.captures);
        await streaming(capture);
        await delay(between(random, 0, 1_500));
        capture.kill();
        await eventually(() => !capture.streaming, { what: "the kill" });
      }
      return 3 * strength;
    },
  },
  { name: "backfills, capture killed", inject: backfillsKilled },
  {
    name: "capture killed inside a transaction",
    inject: captureKilledAt("inside-transaction", (random) => between(random, 2, 200)),
  },
  {
    name: "capture killed before PutRecords' answer",
    async inject(rig, random, strength) {
      for (let i = 0; i < 2 * strength; i++) {
        const capture = pick(random, rig.captures);
        await streaming(capture);
        const ends = capture.ends.length;
        let at = between(random, 1, 6);
        rig.aws.choose("kinesis", (call) => {
          if (!capture.sent(call) || --at !== 0) return undefined;
          return { kind: "loseAnswer", meanwhile: () => capture.kill() };
        });
        await eventually(() => capture.ends.length > ends, { what: "the kill" });
      }
      rig.aws.choose("kinesis", undefined);
      return 2 * strength;
    },
  },
  {
    name: "capture killed at PutRecords' answer",
    inject: captureKilledAt("put-records-answered", (random) => between(random, 1, 10)),
  },
  {
    name: "capture killed before its record",
    inject: captureKilledAt("before-slot-record", (random) => between(random, 1, 2)),
  },
  {
    name: "capture killed before feedback",
    inject: captureKilledAt("before-feedback", (random) => between(random, 1, 2)),
  },
  { name: "two capture tasks, hand-over", inject: handOver },
  { name: "two capture tasks, zombie", inject: zombie },
  { name: "handler throws", inject: handlers({ kind: "throw", share: 0.02, when: "before" }) },
  { name: "handler killed before effect", inject: handlers({ kind: "kill", share: 0.02, when: "before" }) },
  { name: "handler killed after effect", inject: handlers({ kind: "kill", share: 0.02, when: "after" }) },
  { name: "handler exits", inject: handlers({ kind: "exit", share: 0.02, when: "after" }) },
  { name: "handler out of memory", inject: handlers({ kind: "memory", share: 0.02, when: "after" }) },
  {
    name: "handler hangs before its effect",
    inject: handlers({ kind: "hang", share: 0.02, when: "before" }),
  },
  { name: "handler hangs after its effect", inject: handlers({ kind: "hang", share: 0.02, when: "after" }) },
  {
    name: "handler blocks until its timeout",
    inject: handlers({ kind: "block", share: 0.02, when: "after" }),
  },
  { name: "batches given again, at once and late", inject: again },
  {
    name: "DynamoDB throttles",
    inject: calls("dynamodb", 0.3, () => refused(400, "ProvisionedThroughputExceededException")),
  },
  { name: "DynamoDB loses answers", inject: calls("dynamodb", 0.1, () => ({ kind: "loseAnswer" })) },
  { name: "DynamoDB fails (500)", inject: calls("dynamodb", 0.3, () => refused(500, "InternalServerError")) },
  {
    name: "DynamoDB away",
    inject: calls("dynamodb", 1, () => ({ kind: "cut" }), 12_000),
  },
  { name: "SQS away", inject: calls("sqs", 1, () => ({ kind: "cut" }), 6_000) },
  { name: "shards split and merge", inject: reshard },
  { name: "truncate while a partition lags", inject: truncateWhileLagging },
  { name: "half-open side connection", inject: halfOpenSideConnections },
  ...ASIDE_FAULTS,
];
