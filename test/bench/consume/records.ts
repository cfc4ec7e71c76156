import { gzipSync } from "node:zlib";
import type { KinesisStreamEvent, KinesisStreamRecord } from "aws-lambda";
import { formatLsn } from "../../../lib/change/lsn.ts";
import { formatPosition, type PositionText } from "../../../lib/change/position.ts";
import {
  COMPRESSED_TAIL,
  compressedHead,
  eventTail,
  RECORD_TAIL,
  type RecordHeader,
  type RecordRange,
  recordHead,
  unpackedEventTail,
} from "../../../lib/change/record.ts";
import { partitionKey, partitionOf } from "../../../lib/change/topic.ts";
import { seededRandom } from "../../../lib/local/shop/catalog.ts";

/** How the changes of a batch stand in its records: see `Packing`; `gzip` is `batch` with its events compressed. */
export type Shape = "batch" | "gzip" | "none";

export const TOPIC = "bench.public.orders";
export const PARTITIONS = 64;

/** Keys: so many rows, each changed again and again. */
const ROWS = 50_000;
/** Changes of a transaction. */
const TRANSACTION = 10;
const STATUS = ["placed", "paid", "packed", "shipped", "returned"];

/**
 * Endless changes of one table in 64 partitions, as capture writes them: 70% inserts, 25% updates, 5% deletes. Every
 * call continues where the last one ended, so a consumer that has seen all of them finds no gap.
 */
export class Batches {
  readonly #shape: Shape;
  readonly #random = seededRandom(7);
  readonly #last = new Map<number, PositionText>();
  #change = 0;
  #sequence = 0;

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  /** One invocation's records of so many changes. */
  next(changes: number): KinesisStreamEvent {
    const waiting = new Map<number, { readonly events: string[]; range: RecordRange }>();
    const records: KinesisStreamRecord[] = [];
    for (let i = 0; i < changes; i++) {
      const { partition, open, position } = this.#open();
      const header = { topic: TOPIC, partition, writer: 1 };
      const after = this.#last.get(partition) ?? null;
      this.#last.set(partition, position);
      if (this.#shape === "none") {
        records.push(this.#record(open + unpackedEventTail(after, header), header));
        continue;
      }
      const record = waiting.get(partition);
      if (record) {
        record.events.push(open + eventTail(after));
        record.range = { ...record.range, last: position };
      } else {
        const range = { first: position, last: position, after };
        waiting.set(partition, { events: [open + eventTail(after)], range });
      }
    }
    for (const [partition, { events, range }] of waiting) {
      const header = { topic: TOPIC, partition, writer: 1 };
      records.push(this.#record(this.#packed(header, events, range), header));
    }
    return { Records: records };
  }

  /** As capture writes it. */
  #packed(header: RecordHeader, events: readonly string[], range: RecordRange): string {
    if (this.#shape === "batch") return recordHead(header, range) + events.join(",") + RECORD_TAIL;
    const compressed = gzipSync(`[${events.join(",")}]`, { level: 1 }).toString("base64");
    return compressedHead(header, range) + compressed + COMPRESSED_TAIL;
  }

  #open(): { partition: number; open: string; position: PositionText } {
    const change = this.#change++;
    const id = Math.floor(this.#random() * ROWS);
    const share = this.#random();
    const op = share < 0.7 ? "c" : share < 0.95 ? "u" : "d";
    const commitLsn = 0x1_0000_0000n + BigInt(Math.floor(change / TRANSACTION)) * 2048n;
    const ordinal = (change % TRANSACTION) * 2 + 1;
    const row = op === "d" ? `{"id":"${id}"}` : this.#row(id);
    const before = op === "d" ? row : "null";
    const after = op === "d" ? "null" : row;
    const at = 1_795_445_984_000 + Math.floor(change / 100);
    const source =
      `"connector":"postgresql","name":"bench","db":"shop","schema":"public","table":"orders","txId":"${756 + Math.floor(change / TRANSACTION)}",` +
      `"lsn":"${formatLsn(commitLsn - 1024n + BigInt(ordinal))}","commitLsn":"${formatLsn(commitLsn)}","epoch":1,"ts_ms":${at},` +
      `"ordinal":${ordinal},"snapshot":"false","schemaVersion":"8b5ce0f6","key":["id"]`;
    return {
      partition: partitionOf(String(id), PARTITIONS),
      open: `{"op":"${op}","before":${before},"after":${after},"ts_ms":${at + 20},"source":{${source}`,
      position: formatPosition({ epoch: 1, commitLsn, ordinal }),
    };
  }

  #row(id: number): string {
    const status = STATUS[Math.floor(this.#random() * STATUS.length)];
    const cents = String(Math.floor(this.#random() * 100)).padStart(2, "0");
    const customer = Math.floor(this.#random() * 10_000);
    return (
      `{"id":"${id}","customer_id":"${customer}","status":"${status}","total":"${id % 500}.${cents}","paid":true,` +
      `"note":"leave it with the neighbours, second floor","meta":{"gift":false,"channel":"web"},"updated_at":"2026-11-23T10:15:30.123456Z"}`
    );
  }

  #record(data: string, { topic, partition }: RecordHeader): KinesisStreamRecord {
    const sequenceNumber = `4959${String(++this.#sequence).padStart(52, "0")}`;
    return {
      kinesis: {
        kinesisSchemaVersion: "1.0",
        partitionKey: partitionKey(topic, partition),
        sequenceNumber,
        data: Buffer.from(data).toString("base64"),
        approximateArrivalTimestamp: 1_795_445_984,
      },
      eventID: `shardId-000000000000:${sequenceNumber}`,
      eventSource: "aws:kinesis",
      eventVersion: "1.0",
      eventName: "aws:kinesis:record",
      invokeIdentityArn: "arn:aws:iam::000000000000:role/bench",
      awsRegion: "us-east-1",
      eventSourceARN: "arn:aws:kinesis:us-east-1:000000000000:stream/bench",
    };
  }
}
