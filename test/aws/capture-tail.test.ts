import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { expect, test } from "vitest";
import type { CaptureOptions } from "../../lib/capture/capture-options.ts";
import { settleTail } from "../../lib/capture/stored-tail.ts";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { formatPosition, START_OF_HISTORY } from "../../lib/change/position.ts";
import { definePipeline, postgres } from "../../lib/definition/pipeline.ts";
import type { LogPlace, SlotState } from "../../lib/source/postgres/slot/slot-record.ts";
import { CaptureState } from "../../lib/state/capture-state.ts";
import { holdRecord } from "../../lib/state/holds.ts";
import { fenceKey } from "../../lib/state/state-key.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import { change, sourceOf } from "../stream/changes.ts";
import { writeKinesis } from "../stream/kinesis.ts";
import { emulatedAws } from "./emulated.ts";

const aws = emulatedAws();
const signal = new AbortController().signal;
const log = { info: () => {}, warn: () => {}, error: () => {} };
const orders = { name: "shop.public.orders", partitions: 8 };
const position = (commitLsn: bigint, epoch = 1) => formatPosition({ epoch, commitLsn, ordinal: 1 });
const HOURS = 3_600_000;

const slot: SlotState = {
  ...{ epoch: 1, slot: "s", publication: "p", database: "shop", systemId: "7", timeline: 1 },
  ...{ confirmedLsn: 100n, recentCommits: [] },
};

/** What the next task finds: the record, the stream, what consumers and holds have. */
async function world(sent: SlotState["sent"]) {
  const { dynamodb, kinesis, freshTable, freshStream } = aws();
  const [table, streamName] = [await freshTable(), await freshStream(1)];
  const state = await CaptureState.take({
    dynamodb,
    table,
    pipeline: "shop",
    leaseMs: 60_000,
    signal,
    log: () => {},
  });
  await state.write({ ...slot, sent });
  const pipeline = definePipeline({
    name: "shop",
    source: postgres({ tables: ["public.*"], acceptUnboundedWal: true }),
    consumers: [{ name: "c", entry: "none", topics: ["*"] }],
  });
  const options = {
    pipeline,
    dynamodb,
    stream: kinesisStream(kinesis, streamName),
    stateTable: table,
    log,
  } as unknown as CaptureOptions;
  return {
    state,
    writes: async (writer: number, ...lsns: bigint[]) => {
      const messages = lsns.map((lsn): SourceMessage[] => {
        const made = change(orders, 0, lsn, 1);
        return [
          { ...made, json: `${made.json},"txId":"${lsn}","ts_ms":5` },
          { kind: "commit", endPlace: lsn, commitTimeMs: 0 },
        ];
      });
      await writeKinesis(sourceOf(messages), { kinesis, streamName, writer, packing: "batch", log }, signal);
    },
    marks: async (marks: Readonly<Record<string, readonly [mark: string, writer: number]>>) => {
      const { pk, sk } = fenceKey({ pipeline: "shop", consumer: "c" }, orders.name, 0);
      const Item = Object.entries(marks).flatMap(([p, [mark, writer]]) => [
        [`m${p}`, { S: mark }],
        [`w${p}`, { N: String(writer) }],
      ]);
      await dynamodb.send(
        new PutItemCommand({
          TableName: table,
          Item: { pk: { S: pk }, sk: { S: sk }, ...Object.fromEntries(Item) },
        }),
      );
    },
    holds: async (writer: number, last: string, drained = START_OF_HISTORY, by?: number) => {
      const reason = {
        code: "TEXT_ENCODING",
        message: "m",
        remedy: "r",
        table: "public.orders",
        position: last,
      };
      const counts = { first: 0, next: 1, changes: 1, bytes: 1 };
      await holdRecord({ dynamodb, table, pipeline: "shop", signal }, writer).write({
        ...{ topic: `t${writer}${last}`, reason, since: 0, from: last, last, drained, by },
        ...counts,
      });
    },
    /** The places, and whether anyone still counts as writing. */
    settled: async () => {
      await settleTail(options, state, signal);
      const { sent: found } = (await state.read()) as SlotState;
      return { places: found?.places, writer: found?.writer };
    },
  };
}

const place = (lsn: bigint): LogPlace => ({ lsn, commit: { xid: Number(lsn), timeMs: 5 } });

test("what a task that died left in the stream is noted once, beside what was known", async () => {
  const w = await world({ places: [place(105n)], writer: 7, sinceMs: Date.now() });
  await w.writes(6, 190n);
  await w.writes(7, 90n, 110n, 130n);
  expect(await w.settled()).toEqual({ places: [place(105n), place(130n)], writer: undefined });
  // Nobody writes meanwhile, so there is nothing to be read again.
  await w.writes(7, 150n);
  expect((await w.settled()).places).toEqual([place(105n), place(130n)]);
});

test("after one that ended in order, and one of before this was kept, nothing is looked at", async () => {
  const inOrder = await world({ places: [] });
  await inOrder.writes(7, 130n);
  await inOrder.marks({ 0: [position(130n), 7] });
  expect((await inOrder.settled()).places).toEqual([]);
  const older = await world(undefined);
  await older.writes(7, 130n);
  expect((await older.settled()).places).toBeUndefined();
});

test("what may have expired is known by the consumers' marks, and only then", async () => {
  for (const [hours, found] of [
    [20, []],
    [24, [{ lsn: 150n }]],
  ] as const) {
    const w = await world({ places: [], writer: 7, sinceMs: Date.now() - hours * HOURS });
    await w.marks({
      0: [position(150n), 7],
      1: [position(140n), 7],
      // Of another slot's task, of another epoch, and where no change stands.
      2: [position(190n), 8],
      3: [position(180n, 2), 8],
      4: [formatPosition({ epoch: 1, commitLsn: 185n, ordinal: 0 }), 7],
    });
    expect((await w.settled()).places).toEqual(found);
  }
  const confirmed = await world({ places: [], writer: 7, sinceMs: 0 });
  await confirmed.marks({ 0: [position(99n), 7] });
  expect((await confirmed.settled()).places).toEqual([]);
});

test("changes that were held instead of written count, unless their release had begun", async () => {
  const w = await world({ places: [], writer: 7, sinceMs: Date.now() });
  await w.holds(7, position(140n));
  await w.holds(7, position(99n));
  await w.holds(6, position(150n));
  await w.holds(7, position(160n), position(155n));
  expect((await w.settled()).places).toEqual([{ lsn: 140n }]);
});

test("changes that were held count for the task that stored them, also where their release had stopped halfway", async () => {
  const w = await world({ places: [], writer: 7, sinceMs: Date.now() });
  await w.holds(7, position(160n), position(155n), 7);
  // Of a topic that came from another slot: its log is not this one's.
  await w.holds(7, position(170n), START_OF_HISTORY, 6);
  expect((await w.settled()).places).toEqual([{ lsn: 160n }]);
});
