import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import db from "kinesalite/db/index.js";
import * as z from "zod";

/** When the last record of each shard came, in seconds since 1970 UTC, by stream and shard. */
export type ArrivalsOf = Map<string, ReadonlyMap<string, number>>;

const asked = z.object({
  StreamName: z.string(),
  ShardId: z.string(),
  ShardIteratorType: z.literal("AT_TIMESTAMP"),
  Timestamp: z.number(),
});

/**
 * The emulator never answers who asks for a shard from a time on after which nothing came: such a one is given the shard from
 * its start, which has no more of what comes later.
 */
export function answersAtTimestamp(server: Server, arrivals: ArrivalsOf): Server {
  const listeners = server.listeners("request") as ((request: unknown, response: unknown) => void)[];
  server.removeAllListeners("request");
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    const pass = (given: unknown) => {
      for (const listener of listeners) listener.call(server, given, response);
    };
    if (!String(request.headers["x-amz-target"]).endsWith(".GetShardIterator")) return pass(request);
    const chunks: Buffer[] = [];
    request.on("error", () => response.destroy());
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.from(answerable(Buffer.concat(chunks).toString(), arrivals));
      const { method, url, headers, rawHeaders, httpVersion, socket } = request;
      const more = { method, url, headers, rawHeaders, httpVersion, socket };
      pass(Object.assign(Readable.from([body], { objectMode: false }), more));
    });
  });
  return server;
}

function answerable(body: string, arrivals: ArrivalsOf): string {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return body;
  }
  const { data } = asked.safeParse(value);
  if (!data || data.Timestamp * 1000 > Date.now()) return body;
  const shard = db.shardIxToHex(Number(/\d+$/.exec(data.ShardId)?.[0] ?? "0"));
  const last = arrivals.get(data.StreamName)?.get(shard);
  if (last !== undefined && last >= data.Timestamp) return body;
  const { Timestamp: _, ...rest } = value as object & { Timestamp: number };
  return JSON.stringify({ ...rest, ShardIteratorType: "TRIM_HORIZON" });
}
