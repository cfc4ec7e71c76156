import type { Server } from "node:http";
import db from "kinesalite/db/index.js";
import * as z from "zod";
import { interceptCalls } from "./json-calls.ts";

/** Arrival of the last record of each shard, in seconds since 1970 UTC, by stream and shard. */
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
  interceptCalls(
    server,
    ({ body, pass }) => pass(Buffer.from(answerable(body.toString(), arrivals))),
    (operation) => operation === "GetShardIterator",
  );
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
