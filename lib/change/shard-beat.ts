import { OWN_PREFIX } from "./control-event.ts";
import type { ChangeEventJson } from "./event.ts";
import { formatLsn } from "./lsn.ts";
import { formatPosition } from "./position.ts";
import { eventTail, RECORD_TAIL, recordHead, unpackedEventTail } from "./record.ts";
import { number, objectOf, optional, text, tryFittingJson } from "./shape.ts";

/** The topic of shard beats: no table's and no consumer's. Its partitions are the numbers of the stream's shards. */
export const SHARD_TOPIC = "$shards";

/** `message.prefix` of a shard beat. */
export const SHARD_BEAT = `${OWN_PREFIX}shard-beat`;

/** Interval between two beats in each shard, in milliseconds. */
export const SHARD_BEAT_MS = 3_600_000;

/** Content of a beat: a record that every consumer is given, however idle the shard. */
export interface ShardBeat {
  /** The shard that it was written for; a shard that was split since has given it to one of its children. */
  readonly shardId: string;
  /** In the first beat of a capture task: since when nothing was written, in milliseconds since 1970 UTC, at the latest. */
  readonly quietSince?: number | undefined;
}

/** The number in a shard's name: `shardId-000000000006` is 6. */
export function shardNumber(shardId: string): number {
  return Number(/(\d+)$/.exec(shardId)?.[1] ?? "0");
}

/**
 * The record of a beat. It follows nothing and stands before everything (epoch 0), so that it concerns no fence; a reader
 * that does not know it sees a control event of a foreign topic.
 */
export function shardBeatRecord(
  beat: ShardBeat,
  { name, writer, nowMs, packed }: { name: string; writer: number; nowMs: number; packed: boolean },
): string {
  const header = { topic: SHARD_TOPIC, partition: shardNumber(beat.shardId), writer };
  const commitLsn = BigInt(nowMs);
  const position = formatPosition({ epoch: 0, commitLsn, ordinal: 1 });
  const lsn = formatLsn(commitLsn);
  const event = {
    op: "m",
    before: null,
    after: null,
    message: {
      prefix: SHARD_BEAT,
      content: Buffer.from(JSON.stringify(beat)).toString("base64"),
      transactional: false,
    },
    ts_ms: nowMs,
    source: {
      ...{ connector: "postgresql", name, db: "", schema: "", table: "", txId: "0", lsn, commitLsn: lsn },
      ...{ ordinal: 1, epoch: 0, ts_ms: nowMs, snapshot: "false", schemaVersion: "", key: [] },
    },
  };
  const open = JSON.stringify(event).slice(0, -2);
  if (!packed) return open + unpackedEventTail(null, header, position);
  return (
    recordHead(header, { first: position, last: position, after: null }) +
    open +
    eventTail(null) +
    RECORD_TAIL
  );
}

const beat = objectOf({ shardId: text, quietSince: optional(number) });

/** Reads a beat; undefined for every other event, and for one that cannot be read: it only tells that something came. */
export function readShardBeat({ message }: Pick<ChangeEventJson, "message">): ShardBeat | undefined {
  if (message?.prefix !== SHARD_BEAT) return undefined;
  return tryFittingJson(beat, Buffer.from(message.content, "base64").toString());
}
