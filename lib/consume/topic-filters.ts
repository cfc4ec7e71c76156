/** One filter pattern of an event source mapping, as the object behind FilterCriteria's `Pattern` text. */
export interface TopicFilter {
  readonly data: Readonly<Record<string, unknown>>;
  readonly [field: string]: unknown;
}

/** A pattern's text is refused above this: https://docs.aws.amazon.com/lambda/latest/api/API_Filter.html */
const LONGEST_PATTERN = 4096;

/**
 * Filters that let only a consumer's topics through, so that it is invoked for nothing else; undefined where the
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
  // All rules of one field are alternatives: one filter does for all.
  const filters = [{ data: { topic: rules } }];
  // Unpacked events name their topic in `source`; claim checks among them at the top as ever.
  const all = packing === "none" ? [...filters, { data: { source: { topic: rules } } }] : filters;
  return all.some((filter) => JSON.stringify(filter).length > LONGEST_PATTERN) ? undefined : all;
}
