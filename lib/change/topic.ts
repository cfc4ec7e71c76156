import { createHash } from "node:crypto";

/** An ordered channel of change events with a fixed number of partitions. */
export interface Topic {
  readonly name: string;
  /** Number of logical partitions of the topic; stored at first start and never changed after. */
  readonly partitions: number;
}

/** The `partition` of a change that goes to every partition of its topic (truncate). */
export const EVERY_PARTITION = -1;

/**
 * The logical partition of a key. `keyText` is the canonical text of the key: the values' canonical texts
 * joined by NUL, which no PostgreSQL text can hold. A row without a key has the empty text.
 * MurmurHash3 (x86, 32 bit, seed 0) over UTF-8; changing it would move every key, so golden tests hold it.
 */
export function partitionOf(keyText: string, partitions: number): number {
  return partitions === 1 ? 0 : murmur3(keyText) % partitions;
}

/** Kinesis partition key of a logical partition. The same for packed and unpacked records (rule 6). */
export function partitionKey(topic: string, partition: number): string {
  return `${topic}/${partition}`;
}

const HASH_SPACE = 1n << 128n;

/** Hash at which the first partition of a topic begins: computed once for all its partitions, of which there may be thousands. */
const STARTS = new WeakMap<Topic, bigint>();

/**
 * ExplicitHashKey of a logical partition: `(md5(topic) + i · 2^128 / N) mod 2^128`, in decimal.
 * Partitions of one topic spread evenly over the shards; equal numbers of two topics do not meet.
 * https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html
 */
export function explicitHashKey(topic: Topic, partition: number): string {
  let start = STARTS.get(topic);
  if (start === undefined) {
    start = BigInt(`0x${createHash("md5").update(topic.name).digest("hex")}`);
    STARTS.set(topic, start);
  }
  return ((start + (BigInt(partition) * HASH_SPACE) / BigInt(topic.partitions)) % HASH_SPACE).toString();
}

/** MurmurHash3 x86 32 bit of the UTF-8 bytes of `text`, as an unsigned number. */
export function murmur3(text: string): number {
  const bytes = Buffer.from(text, "utf8");
  return murmur3Bytes(bytes, 0, bytes.length);
}

/** MurmurHash3 x86 32 bit of `bytes[start, end)`, as an unsigned number. */
export function murmur3Bytes(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  const blocks = start + (length & ~3);
  let h = 0;
  for (let i = start; i < blocks; i += 4) {
    h ^= scramble(
      (bytes[i] as number) |
        ((bytes[i + 1] as number) << 8) |
        ((bytes[i + 2] as number) << 16) |
        ((bytes[i + 3] as number) << 24),
    );
    h = (h << 13) | (h >>> 19);
    h = (Math.imul(h, 5) + 0xe6546b64) | 0;
  }
  let tail = 0;
  for (let i = end - 1; i >= blocks; i--) tail = (tail << 8) | (bytes[i] as number);
  if (end > blocks) h ^= scramble(tail);
  h ^= length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function scramble(block: number): number {
  const k = Math.imul(block, 0xcc9e2d51);
  return Math.imul((k << 15) | (k >>> 17), 0x1b873593);
}
