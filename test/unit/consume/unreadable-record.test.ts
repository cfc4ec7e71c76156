import type { KinesisStreamRecord } from "aws-lambda";
import { describe, expect, it } from "vitest";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { recordHead } from "../../../lib/change/record.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import type { InvocationReport } from "../../../lib/consume/run/observer.ts";
import { memoryQueue } from "./memory-queue.ts";
import { MemoryTable } from "./memory-table.ts";
import { at, chain, kinesisRecord, packed, TOPIC } from "./records.ts";

/*
 * Rule 34: a record whose events cannot be read becomes a dead letter as a whole; what it held is known from its header, and
 * explains a missing predecessor if, and only if, that is the record's last event.
 */

/** Large records are read in their turn, small ones as soon as they come. */
const SIZES = [
  ["small", 0],
  ["large", 20_000],
] as const;

/** A record of the changes `from` … `to`, none of which can be read. */
function unreadableRecord(
  padding: number,
  from: number,
  to: number,
  {
    after = from === 1 ? null : from - 1,
    writer = 1,
    partition = 0,
  }: { after?: number | null; writer?: number; partition?: number } = {},
): KinesisStreamRecord {
  const range = { first: at(from), last: at(to), after: after === null ? null : at(after) };
  const head = recordHead({ topic: TOPIC, partition, writer }, range);
  return kinesisRecord(`${head}{"op":"c","after":{"n":--${" ".repeat(padding)}}}]}`, `${TOPIC}/${partition}`);
}

/** A consumer in memory; its state and its letters outlive its invocations. */
async function bench({ poison = "park", batch = false } = {}) {
  const table = new MemoryTable();
  const dynamodb = table.client(async () => "none");
  await registerConsumers(dynamodb, "t", "p", [{ name: "c", topics: ["*"] }], START_OF_HISTORY);
  const effects: string[] = [];
  const letters: Record<string, unknown>[] = [];
  const reports: InvocationReport[] = [];
  const sink = { away: false };
  const sqs = memoryQueue((body) => letters.push(JSON.parse(body)));
  const apply = (ids: readonly string[]) => {
    if (sink.away) throw new SinkUnavailableError("the sink");
    effects.push(...ids);
  };
  const begun = consumer("c");
  const registered = batch
    ? begun.onBatch("*", { operations: ALL_OPERATIONS }, (events) => apply(events.map(({ id }) => id)))
    : begun.on("*", ALL_OPERATIONS, ({ id }) => apply([id]));
  const handler = registered.handler({
    environment: {
      TRIBUTARY_STATE_TABLE: "t",
      TRIBUTARY_PIPELINE_NAME: "p",
      TRIBUTARY_POISON: poison,
      TRIBUTARY_DEAD_LETTER_QUEUE_URL: "https://sqs.us-east-1.amazonaws.com/1/q",
    },
    dynamodb,
    sqs,
    observer: { invocation: (report) => void reports.push(report) },
    write: () => {},
  });
  /** Places of the records from which the batch comes again. */
  const invoke = async (...records: KinesisStreamRecord[]) => {
    const answer = await handler({ Records: records }, { getRemainingTimeInMillis: () => 60_000 });
    const [failed] = answer.batchItemFailures;
    return failed && records.findIndex(({ kinesis }) => kinesis.sequenceNumber === failed.itemIdentifier);
  };
  const stored = () => readPartition(table.item(`fence#${TOPIC}#0`), 0);
  return { invoke, effects, letters, reports, stored, table, sink };
}

type Rest = Parameters<typeof unreadableRecord> extends [number, ...infer R] ? R : never;

const ids = (...commits: number[]) => commits.map((commit) => at(commit));

describe.each(SIZES)("a %s record whose events cannot be read", (_size, padding) => {
  const unreadable = (...rest: Rest) => unreadableRecord(padding, ...rest);

  it("is a dead letter that says what it held, and what follows it goes on", async () => {
    const { invoke, effects, letters, stored, reports } = await bench();
    const lost = unreadable(3, 5);
    expect(await invoke(packed(chain(1, 2)), lost, packed(chain(6, 7)))).toBeUndefined();
    expect(effects).toEqual(ids(1, 2, 6, 7));
    expect(stored()).toMatchObject({ position: at(7), writer: 1 });
    expect(reports[0]).toMatchObject({ deadLettered: 1, gaps: 0, failedPartitions: 0 });
    const place = { topic: TOPIC, partition: 0, partitionKey: `${TOPIC}/0`, record: lost.kinesis.data };
    expect(letters).toMatchObject([{ ...place, first: at(3), last: at(5), after: at(2) }]);
  });

  it("does not explain that a record behind it is missing too", async () => {
    const { invoke, effects, letters, stored, reports } = await bench();
    // 6 and 7 have expired.
    expect(await invoke(packed(chain(1, 2)), unreadable(3, 5), packed(chain(8, 9)))).toBeUndefined();
    expect(effects).toEqual(ids(1, 2));
    expect(letters).toHaveLength(1);
    expect(reports[0]).toMatchObject({ gaps: 1, heldPartitions: 1 });
    expect(stored()).toMatchObject({ position: at(2), explained: at(5), hold: { cause: "GapError" } });
  });

  it("explains as much when it was the last of its batch", async () => {
    const goesOn = await bench();
    expect(await goesOn.invoke(packed(chain(1, 2)), unreadable(3, 5))).toBeUndefined();
    expect(await goesOn.invoke(packed(chain(6, 7)))).toBeUndefined();
    expect(goesOn.effects).toEqual(ids(1, 2, 6, 7));

    const stops = await bench();
    expect(await stops.invoke(packed(chain(1, 2)), unreadable(3, 5))).toBeUndefined();
    expect(await stops.invoke(packed(chain(8, 9)))).toBeUndefined();
    expect(stops.stored()).toMatchObject({ hold: { cause: "GapError" } });
    expect(stops.effects).toEqual(ids(1, 2));
  });

  it("does not explain that a record before it is missing", async () => {
    const { invoke, letters, reports } = await bench();
    expect(await invoke(packed(chain(1, 2)), unreadable(4, 5))).toBeUndefined();
    expect(letters).toEqual([]);
    expect(reports[0]).toMatchObject({ gaps: 1, heldPartitions: 1 });
  });

  it("explains together with others that follow it", async () => {
    const { invoke, effects, letters } = await bench();
    expect(await invoke(packed(chain(1, 1)), unreadable(2, 3), unreadable(4, 4))).toBeUndefined();
    expect(await invoke(unreadable(5, 6), packed(chain(7, 7)))).toBeUndefined();
    expect(effects).toEqual(ids(1, 7));
    expect(letters.map(({ last }) => last)).toEqual(ids(3, 4, 6));
  });

  it("is passed when it comes again, and is the same letter when its invocation died", async () => {
    const { invoke, effects, letters, stored, table } = await bench();
    const [before, lost, behind] = [packed(chain(1, 2)), unreadable(3, 5), packed(chain(6, 7))];
    expect(await invoke(before)).toBeUndefined();
    expect(await invoke(lost)).toBeUndefined();
    expect(await invoke(lost)).toBeUndefined();
    expect(letters).toHaveLength(1);
    // As if its invocation had died before it could write where it stands.
    delete table.item(`fence#${TOPIC}#0`)?.e0;
    expect(await invoke(lost, behind)).toBeUndefined();
    expect(await invoke(lost, behind)).toBeUndefined();
    expect(letters.map(({ sequenceNumber }) => sequenceNumber)).toEqual(
      Array(2).fill(lost.kinesis.sequenceNumber),
    );
    expect(effects).toEqual(ids(1, 2, 6, 7));
    expect(stored()).toMatchObject({ position: at(7) });
  });

  it("comes again itself when what waits before it could not take effect: no letter before its turn", async () => {
    const { invoke, letters, sink, effects } = await bench({ batch: true });
    const records = [packed(chain(1, 2)), unreadable(3, 5), packed(chain(6, 7))];
    sink.away = true;
    expect(await invoke(...records)).toBe(0);
    expect(letters).toEqual([]);
    sink.away = false;
    expect(await invoke(...records)).toBeUndefined();
    expect(effects).toEqual(ids(1, 2, 6, 7));
  });

  it("stays explained while what follows it waits for its sink", async () => {
    const { invoke, letters, sink, effects, stored } = await bench({ batch: true });
    expect(await invoke(packed(chain(1, 2)))).toBeUndefined();
    const records = [unreadable(3, 5), packed(chain(6, 7))];
    sink.away = true;
    expect(await invoke(...records)).toBe(1);
    expect(stored()).toMatchObject({ position: at(2), explained: at(5) });
    sink.away = false;
    expect(await invoke(...records.slice(1))).toBeUndefined();
    expect(effects).toEqual(ids(1, 2, 6, 7));
    expect(letters).toHaveLength(1);
  });

  it("gives way to a newer writer that brings the same changes once more", async () => {
    const { invoke, effects } = await bench();
    expect(await invoke(packed(chain(1, 2)), unreadable(3, 5))).toBeUndefined();
    expect(await invoke(packed(chain(3, 7, null), { writer: 2 }))).toBeUndefined();
    expect(effects).toEqual(ids(1, 2, 3, 4, 5, 6, 7));
  });

  it("is replaced by a newer writer's, which may hold less", async () => {
    const { invoke, effects, letters } = await bench();
    expect(await invoke(packed(chain(1, 2)), unreadable(3, 5))).toBeUndefined();
    const again = unreadable(3, 4, { after: null, writer: 2 });
    expect(await invoke(again, packed(chain(5, 6), { writer: 2 }))).toBeUndefined();
    expect(effects).toEqual(ids(1, 2, 5, 6));
    expect(letters).toHaveLength(2);
  });

  it("of a superseded writer is dropped", async () => {
    const { invoke, letters, reports } = await bench();
    expect(await invoke(packed(chain(1, 2), { writer: 2 }), unreadable(3, 5))).toBeUndefined();
    expect(letters).toEqual([]);
    expect(reports[0]).toMatchObject({ staleWriter: 1 });
  });

  it("holds its own partition alone under the policy stop", async () => {
    const { invoke, effects, letters, reports } = await bench({ poison: "stop" });
    const records = [unreadable(1, 2), packed(chain(3, 3)), packed(chain(1, 2), { partition: 1 })];
    expect(await invoke(...records)).toBeUndefined();
    expect(effects).toEqual(ids(1, 2));
    expect(letters).toEqual([]);
    expect(reports[0]).toMatchObject({ held: 1, heldPartitions: 1, failedPartitions: 0 });
  });

  it("explains nothing when its header is of another partition than its key, or of an earlier version", async () => {
    const { invoke, letters, reports } = await bench();
    const foreign = kinesisRecord(Buffer.from(unreadable(3, 5).kinesis.data, "base64"), `${TOPIC}/1`);
    const early = kinesisRecord(`${recordHead({ topic: TOPIC, partition: 0, writer: 1 })}--]}`);
    for (const lost of [foreign, early]) {
      expect(await invoke(packed(chain(1, 2)), lost, packed(chain(6, 7)))).toBeUndefined();
    }
    expect(reports[0]).toMatchObject({ gaps: 1, heldPartitions: 1 });
    expect(letters).toHaveLength(2);
    expect(letters.map(({ last }) => last)).toEqual([undefined, undefined]);
  });

  it("explains nothing any more when an earlier library has moved the mark meanwhile", async () => {
    const { invoke, effects, table, stored } = await bench();
    expect(await invoke(packed(chain(1, 2)), unreadable(3, 5))).toBeUndefined();
    const item = table.item(`fence#${TOPIC}#0`);
    if (item) item.m0 = { S: at(4) };
    expect(stored()).toMatchObject({ position: at(4), explained: undefined });
    expect(await invoke(packed(chain(6, 7)))).toBeUndefined();
    expect(stored()).toMatchObject({ hold: { cause: "GapError" } });
    expect(effects).toEqual(ids(1, 2));
  });
});
