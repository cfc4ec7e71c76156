import { describe, expect, it } from "vitest";
import { topicPattern } from "../../../lib/consume/topic-pattern.ts";
import { compileFilters } from "../../../lib/local/event-source-mapping/filter.ts";
import { topicFilters } from "../../../lib/local/topic-filters.ts";

const topics = ["shop.public.orders", "shop.public.order_items", "shop.audit.orders", "other.public.orders"];

describe("filters made of a consumer's topics", () => {
  it.each([
    [["shop.public.orders"]],
    [["*.public.orders"]],
    [["shop.public.*"]],
    [["*.public.order_items", "*.audit.orders"]],
    [["shop.public.order*", "other.public.orders"]],
  ])("%j let exactly those topics through that the patterns match", (patterns) => {
    const filters = compileFilters(topicFilters(patterns) ?? []);
    if (filters.problems) throw new Error(JSON.stringify(filters.problems));
    for (const topic of topics) {
      const expected = patterns.some((pattern) => topicPattern(pattern)(topic));
      expect(filters.matches(Buffer.from(JSON.stringify({ v: 1, topic, events: [] }))), topic).toBe(expected);
    }
  });

  it.each([[["*"]], [["shop.*.orders"]], [["*public*"]], [["shop.public.orders", "*"]]])(
    "%j cannot be said in the filter language: no filter, the library passes over what is not its own",
    (patterns) => {
      expect(topicFilters(patterns)).toBeUndefined();
    },
  );
});
