import { SHARD_TOPIC } from "../../change/shard-beat.ts";

/** One filter pattern of an event source mapping, as the object behind FilterCriteria's `Pattern` text. */
export interface TopicFilter {
  readonly data: Readonly<Record<string, unknown>>;
  readonly [field: string]: unknown;
}

/** A pattern's text is refused above this: https://docs.aws.amazon.com/lambda/latest/api/API_Filter.html */
const LONGEST_PATTERN = 4096;
/** Filters of one mapping: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-basics */
const MOST_PATTERNS = 5;

/**
 * Filters that let only a consumer's topics through, and the beats of the shards, so that it is invoked for nothing else; undefined where the
 * filter language cannot say it (a `*` in the middle, more patterns than a filter holds): the consumer library then
 * passes over what is not its own. `cdk deploy` and the local host both take them from here.
 * https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax
 */
export function topicFilters(
  topics: readonly string[],
  packing: "batch" | "gzip" | "none" = "batch",
): TopicFilter[] | undefined {
  const rules: unknown[] = [];
  for (const topic of topics) {
    const inner = topic.slice(1, -1);
    if (topic === "*" || inner.includes("*")) return undefined;
    if (topic.startsWith("*") && topic.endsWith("*")) return undefined;
    if (topic.startsWith("*")) rules.push({ suffix: topic.slice(1) });
    else if (topic.endsWith("*")) rules.push({ prefix: topic.slice(0, -1) });
    else rules.push(topic);
  }
  // However idle its topics are, a consumer hears from each shard (rule 35).
  rules.push(SHARD_TOPIC);
  const filters = [
    ...patternsOf(rules, (some) => ({ data: { topic: some } })),
    // Unpacked events name their topic in `source`; claim checks among them at the top as ever.
    ...(packing === "none" ? patternsOf(rules, (some) => ({ data: { source: { topic: some } } })) : []),
  ];
  const fit = filters.every((filter) => JSON.stringify(filter).length <= LONGEST_PATTERN);
  return fit && filters.length <= MOST_PATTERNS ? filters : undefined;
}

/** All rules of one field are alternatives, as all filters are: as many rules in each as its text holds. */
function patternsOf(rules: readonly unknown[], filterOf: (some: unknown[]) => TopicFilter): TopicFilter[] {
  const empty = JSON.stringify(filterOf([])).length;
  const filters: unknown[][] = [];
  let room = 0;
  for (const rule of rules) {
    const characters = JSON.stringify(rule).length + 1;
    if (characters > room) {
      filters.push([]);
      room = LONGEST_PATTERN - empty;
    }
    filters.at(-1)?.push(rule);
    room -= characters;
  }
  return filters.map(filterOf);
}
