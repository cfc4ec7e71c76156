import { describe, expect, it } from "vitest";
import { shardBeatRecord } from "../../../lib/change/shard-beat.ts";
import { topicFilters } from "../../../lib/consume/api/topic-filters.ts";
import { topicPattern } from "../../../lib/definition/topic-pattern.ts";
import { compileFilters } from "../../../lib/local/event-source-mapping/filter.ts";

const topics = ["shop.public.orders", "shop.public.order_items", "shop.audit.orders", "other.public.orders"];

describe("filters made of a consumer's topics", () => {
  it.each([
    [["shop.public.orders"]],
    [["*.public.orders"]],
    [["shop.public.*"]],
    [["*.public.order_items", "*.audit.orders"]],
    [["shop.public.order*", "other.public.orders"]],
  ])("%j let exactly those topics through that the patterns match", (patterns) => {
    const matches = compileFilters(topicFilters(patterns) ?? []);
    for (const topic of topics) {
      const expected = patterns.some((pattern) => topicPattern(pattern)(topic));
      expect(matches(Buffer.from(JSON.stringify({ v: 1, topic, events: [] }))), topic).toBe(expected);
    }
  });

  it.each(topics)("%s passes unpacked too, as an event and as a claim check", (topic) => {
    const matches = compileFilters(topicFilters(["shop.public.*"], "none") ?? []);
    for (const record of [
      { op: "c", source: { topic } },
      { v: 1, topic, claim: {} },
    ]) {
      expect(matches(Buffer.from(JSON.stringify(record)))).toBe(topic.startsWith("shop.public."));
    }
  });

  it.each(["batch", "none"] as const)("let the beats of the shards through, packed or not: %s", (packing) => {
    const matches = compileFilters(topicFilters(["shop.public.orders"], packing) ?? []);
    const about = { name: "shop", writer: 1, nowMs: 1, packed: packing !== "none" };
    expect(matches(Buffer.from(shardBeatRecord({ shardId: "shardId-000000000006" }, about)))).toBe(true);
  });

  it("more patterns than a filter's text holds are several filters, until Lambda takes no more: then none", () => {
    const many = Array.from({ length: 1000 }, (_, i) => `shop.public.a_table_with_a_name_${i}`);
    const passes = (topics: string[], topic: string) => {
      const matches = compileFilters(topicFilters(topics) ?? []);
      return matches(Buffer.from(JSON.stringify({ v: 1, topic, events: [] })));
    };
    const counts = [50, 100, 200, 400, 500, 600].map((count) => topicFilters(many.slice(0, count))?.length);
    expect(counts).toEqual([1, 1, 2, 4, 5, undefined]);
    const most = many.slice(0, 500);
    for (const topic of most) expect(passes(most, topic), topic).toBe(true);
    expect(passes(most, many[500] as string)).toBe(false);
    expect(topicFilters(many.slice(0, 200), "none")).toHaveLength(4);
    expect(topicFilters(many.slice(0, 300), "none")).toBeUndefined();
  });

  it.each([[["*"]], [["shop.*.orders"]], [["*public*"]], [["shop.public.orders", "*"]]])(
    "%j cannot be said in the filter language: no filter, the library passes over what is not its own",
    (patterns) => {
      expect(topicFilters(patterns)).toBeUndefined();
    },
  );
});
