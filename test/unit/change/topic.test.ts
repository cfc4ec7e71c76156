import { expect, test } from "vitest";
import { explicitHashKey, murmur3, partitionKey, partitionOf } from "../../../lib/change/topic.ts";

test.each([
  ["", 0x0],
  ["a", 0x3c2569b2],
  ["ab", 0x9bbfd75f],
  ["abc", 0xb3dd93fa],
  ["hello", 0x248bfa47],
  ["hello, world", 0x149bbb7f],
  ["The quick brown fox jumps over the lazy dog", 0x2e4ff723],
  ["zażółć", 0x100d9e48],
])("murmur3(%j) is the reference implementation's", (text, hash) => {
  expect(murmur3(text)).toBe(hash);
});

test.each([
  ["17", 64, 4],
  ["5\u0000x", 64, 2],
  ["", 64, 0],
  ["hello", 1, 0],
  ["hello", 4096, 0xa47],
])("the key %j stays in its partition of %d for ever", (key, partitions, partition) => {
  expect(partitionOf(key, partitions)).toBe(partition);
});

test.each([
  ["shop.public.orders", 0, 64, "169849707429002608959322022559195737638"],
  ["shop.public.orders", 12, 64, "233652651226678570858704761452652277286"],
  ["shop.public.orders", 63, 64, "164532795445862945467706794318074359334"],
  ["shop.public.customers", 12, 64, "114293154976579296796259930688547060461"],
  ["shop.public.zażółć", 2, 3, "58596117053735235410004481837625297936"],
])("the hash key of %s/%d of %d stays", (name, partition, partitions, hashKey) => {
  expect(explicitHashKey({ name, partitions }, partition)).toBe(hashKey);
});

/** The shard of a hash key in a stream whose shards share the hash space evenly. */
function shardOf(hashKey: string, shards: number): number {
  return Number((BigInt(hashKey) * BigInt(shards)) >> 128n);
}

test("equal partition numbers of different topics do not share a shard", () => {
  const topics = Array.from({ length: 32 }, (_, i) => ({ name: `shop.public.t${i}`, partitions: 64 }));
  for (const partition of [0, 1, 63]) {
    const shards = new Set(topics.map((topic) => shardOf(explicitHashKey(topic, partition), 64)));
    expect(shards.size).toBeGreaterThan(16);
  }
});

test("the partitions of a topic spread evenly over the shards", () => {
  const topic = { name: "shop.public.orders", partitions: 64 };
  const count = new Array<number>(4).fill(0);
  for (let i = 0; i < 64; i++) {
    const shard = shardOf(explicitHashKey(topic, i), 4);
    count[shard] = (count[shard] as number) + 1;
  }
  expect(count).toEqual([16, 16, 16, 16]);
});

test("a partition key is topic/partition", () => {
  expect(partitionKey("shop.public.orders", 12)).toBe("shop.public.orders/12");
});
