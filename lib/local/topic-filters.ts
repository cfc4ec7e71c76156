import type { FilterPattern } from "./event-source-mapping/filter.ts";

/**
 * Filters that let only a consumer's topics through, so that it is invoked for nothing else; undefined where the
 * filter language cannot say it (a `*` in the middle, more patterns than filters): the consumer library then passes
 * over what is not its own.
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax
 */
export function topicFilters(topics: readonly string[]): FilterPattern[] | undefined {
  const rules: unknown[] = [];
  for (const topic of topics) {
    const inner = topic.slice(1, -1);
    if (topic === "*" || inner.includes("*")) return undefined;
    if (topic.startsWith("*") && topic.endsWith("*")) return undefined;
    if (topic.startsWith("*")) rules.push({ suffix: topic.slice(1) });
    else if (topic.endsWith("*")) rules.push({ prefix: topic.slice(0, -1) });
    else rules.push(topic);
  }
  // All rules of one field are alternatives: one filter does for all.
  return [{ data: { topic: rules } }];
}
