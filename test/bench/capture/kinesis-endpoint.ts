import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
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
  /** Events that did not name their predecessor in their partition, or did not stand behind it. */
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

interface Event {
  readonly after: { readonly id: string } | null;
  readonly source: {
    readonly epoch: number;
    readonly commitLsn: string;
    readonly ordinal: number;
    readonly after: string | null;
  };
}

const RECORD = '"PartitionKey"';
/** As they came, in pieces. */
let bodies: (readonly Buffer[])[] = [];
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
  } else if (path === "/arrivals") {
    answer(200, JSON.stringify(arrivals()));
  } else if (path.startsWith("/delay/")) {
    delayMs = Number(path.slice("/delay/".length));
    answer(200, "{}");
  } else if (path.startsWith("/keep/")) {
    keep = path === "/keep/true";
    answer(200, "{}");
  } else if (target === "Kinesis_20131202.PutRecords") {
    const found = putRecords(body);
    const send = () => {
      lastAnswerAt = Date.now();
      answer(200, found, "application/x-amz-json-1.1");
    };
    if (delayMs === 0) send();
    else setTimeout(send, delayMs);
  } else {
    answer(400, JSON.stringify({ __type: "UnknownOperationException", message: target }));
  }
}

function putRecords(body: readonly Buffer[]): string {
  requests++;
  for (const piece of body) bytes += piece.length;
  if (keep) {
    bodies.push(body);
    arrivedAt.push(performance.timeOrigin + performance.now());
  }
  const answers: string[] = [];
  for (let i = countOf(RECORD, body); i > 0; i--) {
    sequence++;
    answers.push(`{"SequenceNumber":"${sequence}","ShardId":"shardId-000000000000"}`);
  }
  records += answers.length;
  return `{"EncryptionType":"NONE","FailedRecordCount":0,"Records":[${answers.join()}]}`;
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
      for (const { source } of eventsOf(Buffer.from(Data, "base64"))) {
        events++;
        const before = last.get(PartitionKey) ?? null;
        const position = positionText(source);
        if (source.after !== before || (before !== null && position <= before)) disorder++;
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
      .flatMap(({ Data }) => eventsOf(Buffer.from(Data, "base64")))
      .map(({ after }) => ({ id: after?.id ?? "", at: arrivedAt[i] as number })),
  );
  bodies = [];
  arrivedAt = [];
  return found;
}

function recordsOf(
  body: readonly Buffer[],
): readonly { readonly PartitionKey: string; readonly Data: string }[] {
  return JSON.parse(Buffer.concat(body).toString()).Records;
}

function eventsOf(data: Buffer): readonly Event[] {
  const record = JSON.parse(data.toString());
  if (record.op !== undefined) return [record];
  if (record.encoding === "gzip")
    return JSON.parse(gunzipSync(Buffer.from(record.events, "base64")).toString());
  return record.events;
}

/** Written anew, not by the product's own function: the format of docs/07. */
function positionText({ epoch, commitLsn, ordinal }: Event["source"]): string {
  const [high = "", low = ""] = commitLsn.split("/");
  const hex = (text: string) => text.padStart(8, "0");
  return hex(epoch.toString(16).toUpperCase()) + hex(high) + hex(low) + String(ordinal).padStart(10, "0");
}
