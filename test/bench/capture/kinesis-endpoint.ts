import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { cbor } from "@smithy/core/cbor";
import { serveFromChild } from "../../../lib/local/child.ts";
import { type Answer, type PlainRequest, plainHttpServer } from "./plain-http.ts";

/*
 * A Kinesis endpoint for measuring: answers PutRecords correctly and at once (or `?delay` milliseconds later), and keeps
 * what it got, unless told otherwise (`/keep/false`). What is dear (reading the records, checking their order) it does when it is asked for `/report`,
 * after the clock has stopped.
 */

/** What an endpoint got since the last report. */
export interface EndpointReport {
  readonly requests: number;
  readonly records: number;
  /** Of the request bodies. */
  readonly bytes: number;
  readonly events: number;
  /** Events that did not name their predecessor in their partition (ours do), or did not stand behind it. */
  readonly disorder: number;
  readonly partitions: number;
  /** When the last request was answered, milliseconds since 1970. */
  readonly lastAnswerAt: number;
  /** CPU seconds of the endpoint's process meanwhile. */
  readonly cpuSeconds: number;
}

/** When an event's request was whole at the endpoint, milliseconds since 1970 with fractions. */
export interface Arrival {
  /** The row's column `id`. */
  readonly id: string;
  readonly at: number;
}

const SHARD = "shardId-000000000000";

interface Event {
  readonly after: { readonly id: string } | null;
  readonly source:
    | {
        readonly epoch: number;
        readonly commitLsn: string;
        readonly ordinal: number;
        readonly after: string | null;
      }
    // Debezium's: it names no predecessor.
    | { readonly lsn: number; readonly commitLsn?: undefined; readonly after?: undefined };
}

/** How requests and answers are written: the SDKs for JavaScript take JSON, those for Java CBOR. */
interface Protocol {
  readonly contentType: string;
  /** Stands once in each record. */
  readonly record: string;
  /** `Data` is base64 in JSON and bytes in CBOR. */
  read(body: Buffer): { readonly Records: readonly EndpointRecord[] };
  /** Put together as text: it is done while the clock runs. */
  answer(sequenceNumbers: readonly string[]): string | Buffer;
}

interface EndpointRecord {
  readonly PartitionKey: string;
  readonly Data: string | Uint8Array;
}

/** https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html */
const JSON_PROTOCOL: Protocol = {
  contentType: "application/x-amz-json-1.1",
  record: '"PartitionKey"',
  read: (body) => JSON.parse(body.toString()),
  answer: (numbers) => {
    const records = numbers.map((number) => `{"SequenceNumber":"${number}","ShardId":"${SHARD}"}`);
    return `{"EncryptionType":"NONE","FailedRecordCount":0,"Records":[${records.join()}]}`;
  },
};

/**
 * The same in CBOR, https://www.rfc-editor.org/rfc/rfc8949: before a short text stands the byte of 0x60 and its length
 * (`l` for 12), before a map of two 0xa2, around a list 0x9f and 0xff.
 */
const CBOR_PROTOCOL: Protocol = {
  contentType: "application/x-amz-cbor-1.1",
  record: "lPartitionKey",
  read: (body) => cbor.deserialize(body),
  answer: (numbers) => {
    const records = numbers.map((number) => `\xa2nSequenceNumbert${number}gShardIdt${SHARD}`);
    const head = "\xa3nEncryptionTypedNONEqFailedRecordCount\x00gRecords";
    return Buffer.from(`${head}\x9f${records.join("")}\xff`, "latin1");
  },
};

interface Body {
  readonly protocol: Protocol;
  /** As they came. */
  readonly pieces: readonly Buffer[];
}

let bodies: Body[] = [];
let arrivedAt: number[] = [];
let records = 0;
let lastAnswerAt = 0;
let delayMs = 0;
let keep = true;
let requests = 0;
let bytes = 0;
let sequence = 0;
let cpu = process.cpuUsage();

await serveFromChild(async () => {
  const server = plainHttpServer(serve);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
});

function serve({ path, header, body }: PlainRequest, answer: Answer): void {
  const target = header("x-amz-target");
  if (path === "/report") {
    try {
      answer(200, JSON.stringify(report()));
    } catch (error) {
      answer(500, JSON.stringify({ message: (error as Error).message }));
    }
  } else if (path === "/received") {
    answer(200, JSON.stringify({ records, lastAnswerAt }));
  } else if (path === "/arrivals") {
    answer(200, JSON.stringify(arrivals()));
  } else if (path.startsWith("/delay/")) {
    delayMs = Number(path.slice("/delay/".length));
    answer(200, "{}");
  } else if (path.startsWith("/keep/")) {
    keep = path === "/keep/true";
    answer(200, "{}");
  } else if (target === "Kinesis_20131202.PutRecords") {
    const cbor = header("content-type") === CBOR_PROTOCOL.contentType;
    const protocol = cbor ? CBOR_PROTOCOL : JSON_PROTOCOL;
    const found = protocol.answer(putRecords({ protocol, pieces: body }));
    const send = () => {
      lastAnswerAt = Date.now();
      answer(200, found, protocol.contentType);
    };
    if (delayMs === 0) send();
    else setTimeout(send, delayMs);
  } else {
    answer(400, JSON.stringify({ __type: "UnknownOperationException", message: target }));
  }
}

/** Gives the sequence numbers, one a record. */
function putRecords(body: Body): readonly string[] {
  requests++;
  for (const piece of body.pieces) bytes += piece.length;
  if (keep) {
    bodies.push(body);
    arrivedAt.push(performance.timeOrigin + performance.now());
  }
  const count = countOf(body.protocol.record, body.pieces);
  records += count;
  return Array.from({ length: count }, () => String(++sequence).padStart(20, "0"));
}

/** How often a text stands in the pieces, across their borders too. */
function countOf(text: string, pieces: readonly Buffer[]): number {
  let found = 0;
  let end: Buffer = Buffer.alloc(0);
  for (const piece of pieces) {
    const border = Buffer.concat([end, piece.subarray(0, text.length - 1)]);
    if (border.includes(text)) found++;
    for (let at = piece.indexOf(text); at !== -1; at = piece.indexOf(text, at + text.length)) found++;
    // A piece may be shorter than the text.
    end = (piece.length < text.length ? border : piece).subarray(1 - text.length);
  }
  return found;
}

function report(): EndpointReport {
  const used = process.cpuUsage(cpu);
  const last = new Map<string, string>();
  let events = 0;
  let disorder = 0;
  for (const body of bodies) {
    for (const { PartitionKey, Data } of recordsOf(body)) {
      for (const { source } of eventsOf(Data)) {
        events++;
        const before = last.get(PartitionKey) ?? null;
        const position = positionText(source);
        const named = source.after === undefined || source.after === before;
        if (!named || (before !== null && position <= before)) disorder++;
        last.set(PartitionKey, position);
      }
    }
  }
  const found = {
    requests,
    records,
    bytes,
    events,
    disorder,
    partitions: last.size,
    lastAnswerAt,
    cpuSeconds: (used.user + used.system) / 1e6,
  };
  bodies = [];
  arrivedAt = [];
  records = 0;
  requests = 0;
  bytes = 0;
  cpu = process.cpuUsage();
  return found;
}

/** Gives the events that came since the last time, and forgets them. */
function arrivals(): Arrival[] {
  const found = bodies.flatMap((body, i) =>
    recordsOf(body)
      .flatMap(({ Data }) => eventsOf(Data))
      .map(({ after }) => ({ id: after?.id ?? "", at: arrivedAt[i] as number })),
  );
  bodies = [];
  arrivedAt = [];
  return found;
}

function recordsOf({ protocol, pieces }: Body): readonly EndpointRecord[] {
  return protocol.read(Buffer.concat(pieces)).Records;
}

function eventsOf(data: EndpointRecord["Data"]): readonly Event[] {
  const bytes = typeof data === "string" ? Buffer.from(data, "base64") : Buffer.from(data);
  const record = JSON.parse(bytes.toString());
  if (record.op !== undefined) return [record];
  if (record.encoding === "gzip")
    return JSON.parse(gunzipSync(Buffer.from(record.events, "base64")).toString());
  return record.events;
}

/** Written anew, not by the product's own function: the format of docs/07. */
function positionText(source: Event["source"]): string {
  if (source.commitLsn === undefined) return String(source.lsn).padStart(20, "0");
  const { epoch, commitLsn, ordinal } = source;
  const [high = "", low = ""] = commitLsn.split("/");
  const hex = (text: string) => text.padStart(8, "0");
  return hex(epoch.toString(16).toUpperCase()) + hex(high) + hex(low) + String(ordinal).padStart(10, "0");
}
