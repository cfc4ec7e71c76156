import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { serveFromChild } from "../../../lib/local/child.ts";

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
let bodies: Buffer[] = [];
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
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => serve(request, Buffer.concat(chunks), response));
  });
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
});

function serve(request: IncomingMessage, body: Buffer, response: ServerResponse): void {
  const target = request.headers["x-amz-target"];
  if (request.url?.startsWith("/report")) {
    try {
      response.end(JSON.stringify(report()));
    } catch (error) {
      response.writeHead(500).end(JSON.stringify({ message: (error as Error).message }));
    }
  } else if (request.url === "/arrivals") {
    response.end(JSON.stringify(arrivals()));
  } else if (request.url?.startsWith("/delay/")) {
    delayMs = Number(request.url.slice("/delay/".length));
    response.end("{}");
  } else if (request.url?.startsWith("/keep/")) {
    keep = request.url === "/keep/true";
    response.end("{}");
  } else if (target === "Kinesis_20131202.PutRecords") {
    const answer = putRecords(body);
    if (delayMs === 0) send(response, answer);
    else setTimeout(() => send(response, answer), delayMs);
  } else {
    response
      .writeHead(400)
      .end(JSON.stringify({ __type: "UnknownOperationException", message: `${target}` }));
  }
}

function putRecords(body: Buffer): string {
  requests++;
  bytes += body.length;
  if (keep) {
    bodies.push(body);
    arrivedAt.push(performance.timeOrigin + performance.now());
  }
  const answers: string[] = [];
  for (let at = body.indexOf(RECORD); at !== -1; at = body.indexOf(RECORD, at + RECORD.length)) {
    sequence++;
    answers.push(`{"SequenceNumber":"${sequence}","ShardId":"shardId-000000000000"}`);
  }
  records += answers.length;
  return `{"EncryptionType":"NONE","FailedRecordCount":0,"Records":[${answers.join()}]}`;
}

function send(response: ServerResponse, answer: string): void {
  lastAnswerAt = Date.now();
  response.writeHead(200, {
    "content-type": "application/x-amz-json-1.1",
    "content-length": Buffer.byteLength(answer),
    "x-amzn-requestid": String(sequence),
  });
  response.end(answer);
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

function recordsOf(body: Buffer): readonly { readonly PartitionKey: string; readonly Data: string }[] {
  return JSON.parse(body.toString()).Records;
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
