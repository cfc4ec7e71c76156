import type { KinesisStreamRecord } from "aws-lambda";
import { fittingJson, listOf, number, objectOf, type ShapeOf, text } from "../../change/shape.ts";
import { heldRecordsKey, type StateKey } from "../../state/state-key.ts";
import type { StateItem } from "../../state/state-table.ts";
import { runSideBySide } from "../api/concurrency.ts";
import { refuseItem } from "../consume-errors.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";
import { sequenceKey } from "./hold.ts";

/** The name of a hold. */
export interface HoldPlace {
  readonly topic: string;
  readonly partition: number;
  readonly id: string;
}

/** Records that were stored together. */
export interface HeldRecords {
  readonly keys: readonly StateKey[];
  /** Of the first record. */
  readonly first: string;
  readonly bytes: number;
  readonly records: readonly KinesisStreamRecord[];
}

/** DynamoDB takes items of 400 KB. */
const ITEM_BYTES = 256 * 1024;
/** Bytes of a record's facts beside its data, at most. */
const FACTS_BYTES = 400;
/** Items in a page: what DynamoDB gives at once is a megabyte. */
const PAGE = 8;
const SIDE_BY_SIDE = 8;

const facts = objectOf({
  ...{ sequenceNumber: text, shardId: text, partitionKey: text, arrival: number, bytes: number },
});
type RecordFacts = ShapeOf<typeof facts>;

/**
 * The held records of a consumer, in the state table: whole, as they came from the stream, in its order. Each item is
 * true whoever wrote it, a process that was superseded too: it is a copy of the stream at its place, and what took effect
 * is told by positions. What stands behind the last record that the fence names does not count.
 */
export class HoldTable {
  readonly #table: ConsumerTable;

  constructor(table: ConsumerTable) {
    this.#table = table;
  }

  /** Stores runs of records; `writer` names the invocation, so that two never write one item. */
  async put(
    place: HoldPlace,
    runs: readonly (readonly KinesisStreamRecord[])[],
    writer: string,
    signal: AbortSignal,
  ): Promise<void> {
    const items = runs.flatMap(pack).flatMap((records) => this.#items(place, records, writer));
    const table = this.#table.until(signal, "hold records");
    await runSideBySide(items, SIDE_BY_SIDE, async ({ key, attributes }) => {
      await table.put(key, attributes);
    });
  }

  /** Yields what is held up to a record (see `sequenceKey`), in the order of the stream. */
  async *records(place: HoldPlace, upTo: string, signal: AbortSignal): AsyncGenerator<HeldRecords> {
    const parts: StateItem[] = [];
    // Behind every writer's name.
    for await (const item of this.#query(place, `${upTo}#~`, signal)) {
      const [number, of] = [Number(item.part?.N), Number(item.parts?.N)];
      // A process that died left it in part.
      if (number !== parts.length || !isNext(parts.at(-1), item)) parts.length = 0;
      if (number !== parts.length) continue;
      parts.push(item);
      if (parts.length < of) continue;
      const whole = assemble(parts);
      parts.length = 0;
      yield whole;
    }
  }

  async remove(keys: readonly StateKey[], signal: AbortSignal): Promise<void> {
    const table = this.#table.until(signal, "remove held records");
    await runSideBySide(keys, SIDE_BY_SIDE, async (key) => {
      await table.delete(key);
    });
  }

  /** The hold is over: all that carries its name goes. */
  async removeAll(place: HoldPlace, signal: AbortSignal): Promise<void> {
    for await (const item of this.#query(place, "~", signal, ["pk", "sk"])) {
      await this.remove([keyOf(item)], signal);
    }
  }

  #items(
    place: HoldPlace,
    records: readonly KinesisStreamRecord[],
    writer: string,
  ): { readonly key: StateKey; readonly attributes: StateItem }[] {
    const data = Buffer.concat(records.map(({ kinesis }) => Buffer.from(kinesis.data, "base64")));
    const first = sequenceKey(records[0]?.kinesis.sequenceNumber ?? "");
    const parts = Math.max(1, Math.ceil(data.length / ITEM_BYTES));
    return Array.from({ length: parts }, (_, part) => {
      const key = this.#key(place, `${first}#${writer}#${String(part).padStart(3, "0")}`);
      const attributes = {
        ...{ part: { N: String(part) }, parts: { N: String(parts) } },
        data: { B: data.subarray(part * ITEM_BYTES, (part + 1) * ITEM_BYTES) },
        ...(part === 0 ? { records: { S: JSON.stringify(records.map(factsOf)) } } : {}),
      };
      return { key, attributes };
    });
  }

  #query(
    place: HoldPlace,
    upTo: string,
    signal: AbortSignal,
    attributes?: readonly string[],
  ): AsyncGenerator<StateItem> {
    const table = this.#table.until(signal, "read held records");
    const options = { between: ["", upTo] as const, pageSize: PAGE, ...(attributes ? { attributes } : {}) };
    return table.query(this.#key(place, ""), options);
  }

  #key({ topic, partition, id }: HoldPlace, record: string): StateKey {
    return heldRecordsKey(this.#table, topic, partition, id, record);
  }
}

/** Returns the bytes that a record takes of an item. */
export function heldBytes({ kinesis }: KinesisStreamRecord): number {
  return Math.ceil((kinesis.data.length * 3) / 4) + FACTS_BYTES;
}

/** Records that fit into one item; one that does not stands alone. */
function pack(records: readonly KinesisStreamRecord[]): KinesisStreamRecord[][] {
  const packs: KinesisStreamRecord[][] = [];
  let room = 0;
  for (const record of records) {
    const bytes = heldBytes(record);
    if (bytes > room || packs.length === 0) {
      packs.push([]);
      room = ITEM_BYTES;
    }
    packs.at(-1)?.push(record);
    room -= bytes;
  }
  return packs;
}

function factsOf({ eventID, kinesis }: KinesisStreamRecord): RecordFacts {
  const { sequenceNumber, partitionKey, approximateArrivalTimestamp, data } = kinesis;
  const shardId = eventID.split(":")[0] ?? "";
  const bytes = Buffer.from(data, "base64").length;
  return { sequenceNumber, shardId, partitionKey, arrival: approximateArrivalTimestamp, bytes };
}

/** Returns whether a part belongs to the one before. */
function isNext(before: StateItem | undefined, item: StateItem): boolean {
  const group = (sk: string | undefined) => sk?.slice(0, sk.lastIndexOf("#"));
  return before !== undefined && group(before.sk?.S) === group(item.sk?.S);
}

/** @throws StateItemError */
function assemble(parts: readonly StateItem[]): HeldRecords {
  const [first = {}] = parts;
  const data = Buffer.concat(parts.map((part) => part.data?.B ?? Buffer.alloc(0)));
  let at = 0;
  const records = fittingJson(listOf(facts), first.records?.S ?? "", refuseItem(first, "records")).map(
    (record) => {
      const bytes = data.subarray(at, at + record.bytes);
      at += record.bytes;
      return asRecord(record, bytes);
    },
  );
  const bytes = records.reduce((sum, record) => sum + heldBytes(record), 0);
  const from = sequenceKey(records[0]?.kinesis.sequenceNumber ?? "");
  return { keys: parts.map(keyOf), first: from, bytes, records };
}

/** As Lambda handed it over. */
function asRecord(
  { sequenceNumber, shardId, partitionKey, arrival }: RecordFacts,
  data: Buffer,
): KinesisStreamRecord {
  return {
    kinesis: {
      kinesisSchemaVersion: "1.0",
      ...{
        partitionKey,
        sequenceNumber,
        data: data.toString("base64"),
        approximateArrivalTimestamp: arrival,
      },
    },
    ...{ eventSource: "aws:kinesis", eventVersion: "1.0", eventName: "aws:kinesis:record" },
    eventID: `${shardId}:${sequenceNumber}`,
    ...{ invokeIdentityArn: "", awsRegion: "", eventSourceARN: "" },
  };
}

function keyOf({ pk, sk }: StateItem): StateKey {
  return { pk: pk?.S ?? "", sk: sk?.S ?? "" };
}
