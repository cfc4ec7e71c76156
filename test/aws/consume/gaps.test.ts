import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { DeleteItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import type { KinesisStreamRecord } from "aws-lambda";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { acceptGap, planAcceptance } from "../../../lib/admin/accept-gap.ts";
import { consumerStatus } from "../../../lib/admin/consumer-status.ts";
import { recordHead } from "../../../lib/change/record.ts";
import { shardBeatRecord } from "../../../lib/change/shard-beat.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { readBackfill, requestBackfill, writeBackfill } from "../../../lib/state/backfills.ts";
import { backfillKey, captureKey, type StateKey } from "../../../lib/state/state-key.ts";
import {
  at,
  backfillEnd,
  type Change,
  chain,
  kinesisRecord,
  packed,
  TOPIC,
} from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, failedAt, invoke } from "./consumer-bench.ts";

const aws = emulatedAws();
const signal = AbortSignal.timeout(600_000);
const ORDERS = "public.orders";

/** A consumer that notes what takes effect, and what operators do with it. */
async function gapBench() {
  const bench = await consumerBench(aws());
  const effects: string[] = [];
  const handler = bench.instance((c) =>
    c.on("*", ALL_OPERATIONS, ({ partition, id }) => void effects.push(`${partition}:${id}`)),
  );
  const place = { dynamodb: aws().dynamodb, table: bench.table, pipeline: "shop", consumer: bench.name };
  const store = { ...place, signal };
  return {
    ...{ bench, effects, place, store },
    deliver: (...records: KinesisStreamRecord[]) => invoke(handler, records),
    status: async () =>
      (await consumerStatus(place, signal)).filter(({ gap, unhealed }) => gap ?? unhealed[0]),
    accept: async (tables: readonly string[] = [ORDERS], partition?: number) =>
      acceptGap(
        place,
        await planAcceptance(place, { topic: TOPIC, partition }, tables, signal),
        "me@here",
        signal,
      ),
  };
}

/** The end of a backfill of `public.orders` at a commit; what it read began behind `began`. */
function ended(commit: number, began: number, content: Parameters<typeof backfillEnd>[1] = {}): Change {
  return { op: "m", at: commit, after: commit - 1, message: backfillEnd(at(began), content) };
}

const keyOf = ({ pk, sk }: StateKey) => ({ pk: { S: pk }, sk: { S: sk } });

/** What a capture task knows of a backfill that has begun at a position. */
function progressFrom(startPosition: string) {
  const counts = { chunk: 1, rows: 1, bytes: 1 };
  return { startPosition, startedAt: 1, lastKey: null, keyColumns: ["id"], updatedAt: 1, ...counts };
}

const ids = (partition: number, ...commits: number[]) =>
  commits.map((commit) => `${partition}:${at(commit)}`);

describe("a gap", () => {
  it("shows in the status, is passed when it is accepted, and heals with the end of a swept backfill", async () => {
    const { bench, deliver, effects, status, accept, store } = await gapBench();
    const behind = packed(chain(6, 7), { writer: 2 });
    expect(await deliver(packed(chain(1, 2)), behind)).toEqual(DONE);
    const place = { topic: TOPIC, partition: 0 };
    expect(await status()).toMatchObject([
      {
        ...place,
        checkpoint: at(2),
        gap: { cause: "gap", behind: at(2), upTo: at(5), writer: 2 },
        unhealed: [],
      },
    ]);

    expect(await accept()).toMatchObject([{ ...place, outcome: "passed" }]);
    expect(await readBackfill(store, ORDERS)).toMatchObject({
      run: 1,
      status: "requested",
      request: { consumer: bench.name, sweep: true },
    });
    expect(await deliver(behind)).toEqual(DONE);
    expect(effects).toEqual(ids(0, 1, 2, 6, 7));
    const accepted = { by: "me@here", tables: { [ORDERS]: 1 } };
    expect(await status()).toMatchObject([
      { ...place, gap: undefined, unhealed: [{ upTo: at(5), accepted }] },
    ]);

    // Not by one that is another's, does not sweep, or began before the changes that are missing.
    const others = [ended(8, 7, { consumer: "another" }), ended(9, 7, { sweep: false }), ended(10, 4)];
    const [another, ...rest] = others as [Change, Change, Change];
    const addressed = { ...another, source: { backfill: { run: 1, consumer: "another" } } };
    expect(await deliver(packed([addressed, ...rest], { writer: 2 }))).toEqual(DONE);
    expect(await status()).toHaveLength(1);
    expect(await deliver(packed([ended(11, 7)], { writer: 2 }))).toEqual(DONE);
    expect(await status()).toEqual([]);
  });

  it("is passed in the partition alone that is named, with one backfill for all", async () => {
    const { deliver, status, accept, store, effects } = await gapBench();
    const records = [0, 1].map((partition) => packed(chain(5, 5), { partition }));
    await deliver(...records);
    expect(await accept([ORDERS], 1)).toMatchObject([{ partition: 1, outcome: "passed" }]);
    expect(await status()).toMatchObject([
      { partition: 0, checkpoint: at(0, { epoch: 0, ordinal: 0 }), gap: { upTo: at(4) } },
      { partition: 1, gap: undefined },
    ]);
    expect(await deliver(...records)).toEqual(DONE);
    expect(effects).toEqual(ids(1, 5));
    expect(await accept()).toMatchObject([
      { partition: 0, outcome: "passed" },
      { partition: 1, outcome: "came" },
    ]);
    expect(await deliver(...records)).toEqual(DONE);
    expect(effects).toEqual([...ids(1, 5), ...ids(0, 5)]);
    expect(await readBackfill(store, ORDERS)).toMatchObject({ run: 1 });
  });

  it("is passed exactly: another one behind it holds the partition again", async () => {
    const { deliver, accept, effects, status } = await gapBench();
    const [first, second] = [packed(chain(5, 6)), packed(chain(9, 9))];
    await deliver(packed(chain(1, 2)), first);
    await accept();
    expect(await deliver(first, second)).toEqual(DONE);
    expect(effects).toEqual(ids(0, 1, 2, 5, 6));
    expect((await status())[0]).toMatchObject({ gap: { behind: at(6) } });
  });

  it("takes the generation of the record behind it: what an older writer still brings is dropped", async () => {
    const { deliver, accept, effects, bench } = await gapBench();
    const behind = packed(chain(6, 7), { writer: 3 });
    await deliver(packed(chain(1, 2)), behind);
    await accept();
    expect(await bench.stored()).toMatchObject({ position: at(2), writer: 3 });
    expect(await deliver(packed(chain(3, 5), { writer: 2 }), behind)).toEqual(DONE);
    expect(effects).toEqual(ids(0, 1, 2, 6, 7));
  });

  it("that is filled by itself is none any more", async () => {
    const { deliver, status, accept, effects, store } = await gapBench();
    const [missing, behind] = [packed(chain(3, 5)), packed(chain(6, 7))];
    await deliver(packed(chain(1, 2)), behind);
    expect(await deliver(missing, behind)).toEqual(DONE);
    expect(await status()).toEqual([]);
    expect(await accept()).toEqual([]);
    expect(await readBackfill(store, ORDERS)).toBeUndefined();
    expect(effects).toEqual(ids(0, 1, 2, 3, 4, 5, 6, 7));
  });

  it("is not accepted while a backfill is under way that does not bring what is missing", async () => {
    const { deliver, status, accept, store, place } = await gapBench();
    await deliver(packed(chain(1, 2)), packed(chain(6, 7)));
    await requestBackfill(store, ORDERS, { where: "id < 10", sweep: false, requestedAt: 1 });
    await expect(accept()).rejects.toMatchObject({ code: "BACKFILL_ACTIVE" });
    // One that began before them has read rows that they changed.
    const early = { table: ORDERS, run: 1, request: { sweep: true, requestedAt: 1 } };
    await place.dynamodb.send(
      new DeleteItemCommand({ TableName: place.table, Key: keyOf(backfillKey("shop", ORDERS)) }),
    );
    await requestBackfill(store, ORDERS, early.request);
    await writeBackfill(store, early, 1, { status: "running", epoch: 1, progress: progressFrom(at(4)) });
    await expect(accept()).rejects.toMatchObject({ code: "BACKFILL_ACTIVE" });
    expect(await status()).toMatchObject([{ gap: { upTo: at(5), accepted: undefined } }]);
  });

  it("uses a backfill that is asked for already, and may be accepted twice", async () => {
    const { deliver, status, accept, store } = await gapBench();
    await deliver(packed(chain(1, 2)), packed(chain(6, 7)));
    await requestBackfill(store, ORDERS, { sweep: true, requestedAt: 1 });
    await accept();
    await accept();
    expect(await readBackfill(store, ORDERS)).toMatchObject({ run: 1, request: { requestedAt: 1 } });
    expect(await status()).toMatchObject([{ unhealed: [{ accepted: { tables: { [ORDERS]: 1 } } }] }]);
  });

  it("survives an invocation that runs while it is accepted: that one gives the partition up", async () => {
    const { bench, accept, deliver, effects, status } = await gapBench();
    // What the invocation that is at work has done comes again.
    const [again, behind] = [packed(chain(3, 3)), packed(chain(6, 7))];
    await deliver(packed(chain(1, 2)), behind);
    let held = true;
    const slow = bench.instance((c) =>
      c.on("*", ALL_OPERATIONS, async () => {
        if (!held) return;
        held = false;
        await accept();
      }),
    );
    expect(await invoke(slow, [again])).toEqual(failedAt(again));
    expect(await deliver(behind)).toEqual(DONE);
    // A part of what was accepted as missing has come: what is missing now is something else.
    expect(effects).toEqual(ids(0, 1, 2, 3));
    await accept();
    expect(await deliver(behind)).toEqual(DONE);
    expect(effects).toEqual(ids(0, 1, 2, 3, 6, 7));
    expect(await status()).toHaveLength(1);
  });
});

describe("a record that cannot be read", () => {
  it("shows as unhealed until its rows were accepted as missing and have been read again", async () => {
    const { deliver, status, accept } = await gapBench();
    const range = { first: at(3), last: at(5), after: at(2) };
    const lost = kinesisRecord(`${recordHead({ topic: TOPIC, partition: 0, writer: 1 }, range)}--]}`);
    expect(await deliver(packed(chain(1, 2)), lost, packed(chain(6, 6)))).toEqual(DONE);
    expect(await status()).toMatchObject([
      {
        gap: undefined,
        unhealed: [{ cause: "unreadable", behind: at(2), upTo: at(5), accepted: undefined }],
      },
    ]);
    expect(await accept()).toMatchObject([{ outcome: "noted" }]);
    expect(await deliver(packed([ended(7, 6)]))).toEqual(DONE);
    expect(await status()).toEqual([]);
  });
});

describe("tributary consumer", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tributary-consumer-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("shows a gap, asks before it accepts it, and tells what becomes of it", async () => {
    const { bench, deliver, place } = await gapBench();
    const definition = join(folder, "pipeline.ts");
    await writeFile(
      definition,
      `import { definePipeline, postgres } from ${JSON.stringify(resolve("lib/definition/pipeline.ts"))};
       export default definePipeline({
         name: "shop", source: postgres({ tables: ["public.*"] }), topics: { prefix: "shop" },
         consumers: [{ name: "${bench.name}", topics: ["${TOPIC}"], entry: "functions/orders.ts" }],
       });`,
    );
    const { pk, sk } = captureKey("shop");
    const route = { topic: TOPIC, partitions: 64, key: null };
    const settings = { keyFormat: "murmur3/1", tables: { [ORDERS]: route, "gone.orders": route } };
    await place.dynamodb.send(
      new PutItemCommand({
        TableName: place.table,
        Item: { pk: { S: pk }, sk: { S: sk }, settings: { S: JSON.stringify(settings) } },
      }),
    );
    const run = async (...args: string[]) => {
      const child = execFile(
        process.execPath,
        ["lib/cli/main.ts", "consumer", ...args, "--pipeline", definition],
        { env: { ...process.env, ...bench.environment } },
      );
      let [out, error] = ["", ""];
      child.stdout?.on("data", (chunk) => (out += chunk));
      child.stderr?.on("data", (chunk) => (error += chunk));
      const [code] = await once(child, "close");
      return { code, out, error };
    };
    expect(await deliver(packed(chain(1, 2)))).toEqual(DONE);
    expect(await run("status")).toMatchObject({
      code: 0,
      out: expect.stringContaining("1 partitions, 0 held, 0 before a gap"),
    });
    const behind = packed(chain(6, 7));
    expect(await deliver(behind)).toEqual(DONE);

    const seen = await run("status", "--consumer", bench.name);
    expect(seen).toMatchObject({ code: 1 });
    expect(seen.out).toContain("stands before a gap: changes behind 0/2#1, up to 0/5#1");
    expect(seen.out).toMatch(/held since .*: GapError, \d+ KB: npm run -s tributary -- (dlq )?redrive/);
    const accept = ["accept-gap", "--consumer", bench.name, "--topic", TOPIC];
    const asked = await run(...accept);
    expect(asked).toMatchObject({ code: 2, error: expect.stringContaining("--yes") });
    expect(asked.out).toContain(`${ORDERS} is read again`);
    const elsewhere = await run(...accept, "--partition", "1");
    expect(elsewhere).toMatchObject({ code: 0, out: expect.stringContaining("Nothing is missing") });
    const done = await run(...accept, "--yes", "--by", "ann");
    expect(done).toMatchObject({ code: 0 });
    expect(done.out).toContain(`${TOPIC}/0: accepted, goes on`);
    expect(await deliver(behind)).toEqual(DONE);
    const unhealed = await run("status", "--json");
    expect(unhealed).toMatchObject({ code: 1 });
    expect(JSON.parse(unhealed.out)).toMatchObject({
      ...{ consumer: bench.name, topic: TOPIC, partition: 0, checkpoint: at(7) },
      unhealed: [{ accepted: { by: "ann", tables: { [ORDERS]: 1 } }, swept: [] }],
    });
    expect(await run("status", "--consumer", "nobody")).toMatchObject({ code: 2 });
    expect(await run("accept-gap", "--consumer", bench.name, "--topic", "shop.other")).toMatchObject({
      code: 2,
    });
  });
});

describe("records that may have expired unread", () => {
  it("show in the status, and are accepted for all partitions of the topic at once", async () => {
    const bench = await consumerBench(aws());
    const effects: string[] = [];
    const place = { dynamodb: aws().dynamodb, table: bench.table, pipeline: "shop", consumer: bench.name };
    const fresh = () => {
      const handler = bench.instance(
        (c) => c.on("*", ALL_OPERATIONS, ({ partition, id }) => void effects.push(`${partition}:${id}`)),
        { TRIBUTARY_RETENTION_HOURS: "24" },
      );
      return (...records: KinesisStreamRecord[]) => invoke(handler, records);
    };
    /** It arrived so many hours ago. */
    const ago = (hours: number, record: KinesisStreamRecord) => ({
      ...record,
      kinesis: { ...record.kinesis, approximateArrivalTimestamp: Date.now() / 1000 - hours * 3600 },
    });
    const shardId = "shardId-000000000000";
    const about = { name: "shop", writer: 1, nowMs: Date.now(), packed: true };
    const beat = kinesisRecord(shardBeatRecord({ shardId }, about), "$shards/0");
    const first = [0, 1].map((partition) => ago(30, packed(chain(1, 1), { partition })));
    expect(await fresh()(ago(30, beat), ...first)).toEqual(DONE);
    const [one, two] = [0, 1].map((partition) => packed(chain(5, 5, null), { partition, writer: 2 }));
    if (!one || !two) throw new Error("two records expected");
    // Its partition is held, the shard goes on.
    expect(await fresh()(one)).toEqual(DONE);
    expect(effects).toEqual([...ids(0, 1), ...ids(1, 1)]);
    expect((await consumerStatus(place, signal)).filter(({ gap }) => gap)).toMatchObject([
      { partition: 0, checkpoint: at(1), gap: { cause: "expired", behind: at(1), upTo: at(5), writer: 2 } },
    ]);
    const plan = await planAcceptance(place, { topic: TOPIC, partitions: 2 }, [ORDERS], signal);
    expect(await acceptGap(place, plan, "me@here", signal)).toMatchObject([
      { partition: 0, outcome: "passed" },
    ]);
    expect(await fresh()(one, two)).toEqual(DONE);
    expect(effects.toSorted()).toEqual([...ids(0, 1, 5), ...ids(1, 1, 5)]);
    expect(await consumerStatus(place, signal)).toMatchObject([
      { partition: 0, gap: undefined, unhealed: [{ cause: "expired" }] },
      { partition: 1, gap: undefined, unhealed: [] },
    ]);
  });
});
