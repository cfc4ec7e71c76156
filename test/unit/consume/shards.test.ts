import type { KinesisClient } from "@aws-sdk/client-kinesis";
import type { KinesisStreamRecord } from "aws-lambda";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { acceptGap, planAcceptance } from "../../../lib/admin/accept-gap.ts";
import { kinesisShardParents } from "../../../lib/aws/shard-parents.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { type ShardBeat, shardBeatRecord, shardNumber } from "../../../lib/change/shard-beat.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { noteShardsRead } from "../../../lib/consume/fence/shard-start.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import { MemoryTable } from "./memory-table.ts";
import { at, chain, kinesisRecord, packed, TOPIC } from "./records.ts";

/*
 * Rule 35: what stands behind a writer's start follows nothing, so a record before it that expired leaves no hole. The shard tells:
 * whether its last finished record arrived so long ago that what came behind it may have expired.
 */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.UTC(2026, 10, 30, 12);

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"], now: START }));
afterEach(() => void vi.useRealTimers());

const days = (count: number) => void vi.setSystemTime(Date.now() + count * DAY);

/** As it arrived now in a shard. */
function arriving(record: KinesisStreamRecord, shard = 0): KinesisStreamRecord {
  const shardId = `shardId-${String(shard).padStart(12, "0")}`;
  const kinesis = { ...record.kinesis, approximateArrivalTimestamp: Date.now() / 1000 };
  return { ...record, kinesis, eventID: `${shardId}:${kinesis.sequenceNumber}` };
}

function beat(content: Partial<ShardBeat> = {}, shard = 0): KinesisStreamRecord {
  const shardId = `shardId-${String(shard).padStart(12, "0")}`;
  const data = shardBeatRecord(
    { shardId, ...content },
    { name: "shop", writer: 1, nowMs: Date.now(), packed: true },
  );
  return arriving(kinesisRecord(data, `$shards/${shardNumber(shardId)}`), shard);
}

/** A consumer that reads a stream of seven days; each `instance` is a fresh function. */
async function bench({ retentionHours = "168" as string | null, topics = "shop.*" } = {}) {
  const table = new MemoryTable();
  const dynamodb = table.client(async () => "none");
  await registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);
  const effects: string[] = [];
  const reports: InvocationReport[] = [];
  const lines: string[] = [];
  const shards = {
    fails: false,
    list: [] as { ShardId: string; ParentShardId?: string; AdjacentParentShardId?: string }[],
  };
  const instance = () => {
    const handler = consumer("c")
      .on("*", ALL_OPERATIONS, ({ topic, partition, id }) => {
        expect(topic).toMatch(/^shop\./);
        effects.push(`${partition}:${id}`);
      })
      .handler({
        environment: {
          ...{ TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" },
          ...(retentionHours === null ? {} : { TRIBUTARY_RETENTION_HOURS: retentionHours }),
          TRIBUTARY_TOPICS: topics,
        },
        dynamodb,
        shardParents: kinesisShardParents(
          {},
          () =>
            ({
              send: async () => {
                if (shards.fails) throw new Error("no way to Kinesis");
                return { Shards: shards.list };
              },
            }) as unknown as KinesisClient,
        ),
        observer: { invocation: (report) => void reports.push(report) },
        write: (line) => void lines.push(line),
      });
    return async (...records: KinesisStreamRecord[]) => {
      const { batchItemFailures } = await handler(
        { Records: records },
        { getRemainingTimeInMillis: () => 60_000 },
      );
      expect(batchItemFailures).toEqual([]);
      return reports.at(-1)?.heldPartitions === 1 ? "held" : undefined;
    };
  };
  const stored = (partition = 0) => readPartition(table.item(`fence#${TOPIC}#0`), partition);
  /** As `accept-gap` does it. */
  const settle = async () => {
    const place = { dynamodb, table: "t", pipeline: "p", consumer: "c" };
    const signal = AbortSignal.timeout(10_000);
    const plan = await planAcceptance(place, { topic: TOPIC, partition: 0 }, [], signal);
    expect(plan.missing).toHaveLength(1);
    await acceptGap(place, plan, "test", signal);
  };
  const note = (arrivedMs: number) =>
    noteShardsRead(
      { dynamodb, table: "t", pipeline: "p", consumer: "c" },
      ["shardId-000000000000"],
      arrivedMs,
      new AbortController().signal,
    );
  return { note, settle, instance, invoke: instance(), effects, reports, lines, stored, table, shards };
}

const ids = (partition: number, ...commits: number[]) =>
  commits.map((commit) => `${partition}:${at(commit)}`);
/** A writer's start at a commit. */
const start = (commit: number, writer: number, partition = 0) =>
  packed(chain(commit, commit, null), { writer, partition });

describe("a writer's start", () => {
  it("is applied while the shard is read: however old its records, however idle its partitions", async () => {
    const { invoke, effects } = await bench();
    expect(await invoke(beat(), arriving(start(1, 1)))).toBeUndefined();
    for (let day = 0; day < 30; day++) {
      days(1);
      expect(await invoke(beat())).toBeUndefined();
    }
    expect(await invoke(arriving(start(2, 2)), arriving(start(1, 2, 5)))).toBeUndefined();
    expect(effects).toEqual([...ids(0, 1, 2), ...ids(5, 1)]);
  });

  it("holds its partition when nothing of the shard was read for as long as the stream keeps records", async () => {
    const { invoke, effects, stored, reports, lines } = await bench();
    await invoke(beat(), arriving(start(1, 1)), arriving(start(1, 1, 1)));
    days(7);
    expect(await invoke(arriving(start(5, 2)))).toBe("held");
    expect(effects).toEqual([...ids(0, 1), ...ids(1, 1)]);
    expect(reports.at(-1)).toMatchObject({ gaps: 1, heldPartitions: 1, failedPartitions: 0 });
    expect(lines.join()).toContain("GAP_EXPIRED");
    expect(stored()).toMatchObject({ position: at(1), lost: { state: "open" } });
  });

  it("is applied where the consumer is new and begins later than what may have expired (rule 65)", async () => {
    const { invoke, effects, note } = await bench();
    const oldest = [beat(), arriving(start(1, 1, 1))];
    days(1);
    const wanted = arriving(start(5, 2));
    // The stream is read from its oldest records on, which have almost expired, when the consumer is deployed.
    vi.setSystemTime(START + 7 * DAY - HOUR / 2);
    await note(START + DAY);
    expect(await invoke(...oldest)).toBeUndefined();
    vi.setSystemTime(Date.now() + 2 * 60_000);
    expect(await invoke(beat(), wanted)).toBeUndefined();
    expect(effects).toEqual([...ids(1, 1), ...ids(0, 5)]);
  });

  it("holds it later too, whatever else of the shard was read meanwhile", async () => {
    const { invoke, instance, effects } = await bench();
    await invoke(beat(), arriving(start(1, 1)), arriving(start(1, 1, 1)));
    days(7);
    // Partition 1 goes on and is whole; a beat was in front of it.
    expect(await invoke(beat(), arriving(packed(chain(2, 3), { partition: 1 })))).toBeUndefined();
    for (let day = 0; day < 3; day++) {
      days(1);
      expect(await instance()(beat())).toBeUndefined();
    }
    expect(await instance()(arriving(start(4, 2, 1)), arriving(start(5, 2)))).toBe("held");
    expect(effects).toEqual([...ids(0, 1), ...ids(1, 1, 2, 3, 4)]);
  });

  it("is applied when the time before was quiet: the capture task says so", async () => {
    const { invoke, effects } = await bench();
    await invoke(beat(), arriving(start(1, 1)));
    const quietSince = Date.now() + HOUR / 2;
    days(20);
    expect(await invoke(beat({ quietSince }), arriving(start(2, 2)))).toBeUndefined();
    expect(effects).toEqual(ids(0, 1, 2));
  });

  it("goes on when an invocation beside it has found that the time before was quiet", async () => {
    const { invoke, instance, effects } = await bench();
    await invoke(beat(), arriving(start(1, 1)));
    const quietSince = Date.now();
    days(20);
    const behind = arriving(start(2, 2));
    expect(await invoke(behind)).toBe("held");
    expect(await instance()(beat({ quietSince }))).toBeUndefined();
    // It is tried again.
    vi.setSystemTime(Date.now() + 60_000);
    expect(await instance()(behind)).toBeUndefined();
    expect(effects).toEqual(ids(0, 1, 2));
  });

  it("holds its partition when something was written after the last record that was read", async () => {
    const { invoke } = await bench();
    await invoke(beat(), arriving(start(1, 1)));
    days(3);
    const quietSince = Date.now();
    days(20);
    expect(await invoke(beat({ quietSince }), arriving(start(2, 2)))).toBe("held");
  });

  it("is applied by a new consumer, in a shard without beats, and where the retention is not known", async () => {
    const fresh = await bench();
    expect(await fresh.invoke(beat(), arriving(start(9, 4)))).toBeUndefined();
    const early = await bench();
    await early.invoke(arriving(start(1, 1)));
    days(30);
    expect(await early.invoke(arriving(start(2, 2)))).toBeUndefined();
    const unknown = await bench({ retentionHours: null });
    await unknown.invoke(beat(), arriving(start(1, 1)));
    days(30);
    expect(await unknown.invoke(arriving(start(2, 2)))).toBeUndefined();
  });

  it("is applied in a topic that is new since then", async () => {
    const { invoke, instance, effects } = await bench();
    await invoke(beat(), arriving(start(1, 1)));
    days(8);
    await invoke(beat());
    days(1);
    const fresh = (partition: number) => packed(chain(3, 3, null), { topic: "shop.public.new", partition });
    expect(await instance()(arriving(fresh(0)))).toBeUndefined();
    days(1);
    expect(await instance()(arriving(fresh(1)))).toBeUndefined();
    expect(effects).toEqual([...ids(0, 1), ...ids(0, 3), ...ids(1, 3)]);
    // One that was there and has said nothing since is another matter.
    expect(await instance()(arriving(start(2, 2)))).toBe("held");
  });

  it("is applied once that was accepted, by an invocation that brings the next change", async () => {
    const { invoke, instance, effects, settle, stored } = await bench();
    await invoke(beat(), arriving(start(1, 1)));
    days(8);
    const behind = arriving(start(5, 2));
    expect(await invoke(behind)).toBe("held");
    await settle();
    vi.setSystemTime(Date.now() + 60_000);
    expect(await instance()(arriving(packed(chain(6, 6), { writer: 2 })))).toBeUndefined();
    expect(effects).toEqual(ids(0, 1, 5, 6));
    expect(stored().hold).toBeUndefined();
  });

  it.each([
    ["there", 0],
    ["in an invocation of another shard", 1],
  ])(
    "stays held behind what was held before the shard was left unread, when that goes on %s",
    async (_, shard) => {
      const { invoke, instance, effects, shards } = await bench();
      shards.list = [{ ShardId: "shardId-000000000000" }, { ShardId: "shardId-000000000001" }];
      const missing = packed(chain(2, 2));
      await invoke(beat(), arriving(start(1, 1)));
      expect(await invoke(arriving(packed(chain(3, 3))))).toBe("held");
      const came = arriving(missing, shard);
      days(8);
      expect(await instance()(arriving(start(9, 2)))).toBe("held");
      expect(await instance()(came)).toBe("held");
      expect(effects).toEqual(ids(0, 1, 2, 3));
    },
  );

  it("stays held in an invocation of another shard", async () => {
    const { invoke, instance, effects, shards } = await bench();
    shards.list = [{ ShardId: "shardId-000000000000" }, { ShardId: "shardId-000000000001" }];
    await invoke(beat(), arriving(start(1, 1)));
    days(8);
    expect(await invoke(arriving(start(5, 2)))).toBe("held");
    vi.setSystemTime(Date.now() + 60_000);
    expect(await instance()(arriving(packed(chain(6, 6), { writer: 2 }), 1))).toBe("held");
    expect(effects).toEqual(ids(0, 1));
  });

  it("is a gap and not less where its record cannot be read", async () => {
    const { invoke } = await bench();
    await invoke(beat(), arriving(start(1, 1)));
    days(8);
    const whole = start(2, 2);
    const text = Buffer.from(whole.kinesis.data, "base64").toString().replace(/\]\}$/, "");
    const damaged = arriving(kinesisRecord(text));
    expect(await invoke(damaged)).toBe("held");
  });
});

describe("a shard that was made by resharding", () => {
  const child = "shardId-000000000001";
  const parent = "shardId-000000000000";

  it("has what is known of its parents", async () => {
    const { invoke, effects, shards } = await bench();
    shards.list = [{ ShardId: parent }, { ShardId: child, ParentShardId: parent }];
    await invoke(beat(), arriving(start(1, 1)));
    days(8);
    // What its parent still held when it was closed has expired.
    expect(await invoke(arriving(start(2, 2), 1))).toBe("held");
    expect(effects).toEqual(ids(0, 1));
  });

  it("has what its parents lost, of grandparents too where a parent held nothing", async () => {
    const { invoke, instance, effects, shards } = await bench();
    const between = "shardId-000000000007";
    shards.list = [
      { ShardId: parent },
      { ShardId: between, ParentShardId: parent },
      { ShardId: child, ParentShardId: between, AdjacentParentShardId: "shardId-000000000099" },
    ];
    await invoke(beat(), arriving(start(1, 1)));
    days(8);
    expect(await invoke(beat())).toBeUndefined();
    days(1);
    expect(await instance()(beat({}, 1), arriving(start(2, 2), 1))).toBe("held");
    expect(effects).toEqual(ids(0, 1));
  });

  it("is asked for under the stream's name, by a function that has a fan-out of its own too, and not for long", async () => {
    const asked: unknown[] = [];
    const { signal } = new AbortController();
    const kinesis = {
      send: async ({ input }: { input: unknown }, { abortSignal }: { abortSignal: AbortSignal }) => {
        asked.push(input, abortSignal === signal);
        return { Shards: [{ ShardId: child, ParentShardId: parent }] };
      },
    } as unknown as KinesisClient;
    const stream = "arn:aws:kinesis:eu-central-1:000000000000:stream/shop";
    for (const arn of [stream, `${stream}/consumer/orders:1604012345`])
      expect(await kinesisShardParents({}, () => kinesis)(arn, child, signal)).toEqual([parent]);
    expect(asked).toEqual([{ StreamName: "shop" }, false, { StreamName: "shop" }, false]);
  });

  it("begins as for a new consumer where the stream cannot be asked, and says so", async () => {
    const { instance, effects, lines, shards } = await bench();
    await instance()(beat(), arriving(start(1, 1)));
    shards.fails = true;
    expect(await instance()(arriving(start(2, 2), 1))).toBeUndefined();
    expect(effects).toEqual(ids(0, 1, 2));
    expect(lines.join()).toContain("shards cannot be listed");
  });

  it("alarms nobody where its parents were read to their end", async () => {
    const { invoke, effects, shards } = await bench();
    shards.list = [{ ShardId: parent }, { ShardId: child, ParentShardId: parent }];
    await invoke(beat(), arriving(start(1, 1)));
    days(1);
    expect(await invoke(arriving(start(2, 2), 1))).toBeUndefined();
    expect(effects).toEqual(ids(0, 1, 2));
  });
});

describe("the beat of a shard", () => {
  it("reaches no handler and no fence, whatever topics the consumer has", async () => {
    for (const topics of ["shop.*", "*"]) {
      const { invoke, reports, table } = await bench({ topics });
      expect(await invoke(beat())).toBeUndefined();
      expect(reports[0]).toMatchObject({ applied: 0, unhandled: 0, passed: 0, duplicates: 0 });
      expect(table.items("fence#")).toEqual([]);
    }
  });
});

describe("a partition that is held before what may have expired", () => {
  it("stays held where its shard is left unread once more: what comes then says nothing of the first time", async () => {
    const { instance, invoke, effects, stored, settle } = await bench();
    await invoke(beat(), arriving(packed(chain(1, 1))));
    days(9);
    expect(await instance()(beat(), arriving(start(3, 2)))).toBe("held");
    days(9);
    expect(await instance()(beat(), arriving(packed(chain(4, 4), { writer: 2 })))).toBe("held");
    expect(effects).toEqual(ids(0, 1));
    expect(stored().hold).toMatchObject({ cause: "ExpiredGapError", expired: [expect.any(Number)] });
    await settle();
    await instance()(beat(), arriving(packed(chain(5, 5), { writer: 2 })));
    expect(effects).toEqual(ids(0, 1, 3, 4, 5));
  });

  it("is held again before what expired the second time, where nothing was missing the first time", async () => {
    const { instance, invoke, effects, settle, stored } = await bench();
    await invoke(beat(), arriving(packed(chain(1, 1))));
    expect(await instance()(beat(), arriving(packed(chain(3, 3)))), "a gap, no matter of time").toBe("held");
    days(9);
    expect(await instance()(beat(), arriving(packed(chain(4, 4))))).toBe("held");
    days(9);
    expect(await instance()(beat(), arriving(start(7, 2)))).toBe("held");
    await settle();
    expect(await instance()(beat(), arriving(packed(chain(8, 8), { writer: 2 })))).toBe("held");
    expect(effects, "what came after the first time follows what is held").toEqual(ids(0, 1, 3, 4));
    expect(stored().hold).toMatchObject({ cause: "ExpiredGapError" });
  });
});
