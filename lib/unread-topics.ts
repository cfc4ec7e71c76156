import { messageTopic, routeTables } from "./change/route.ts";
import type { TableName } from "./change/table-pattern.ts";
import { topicPattern } from "./consume/topic-pattern.ts";
import type { Pipeline } from "./pipeline.ts";

/**
 * What to tell of topic patterns that no captured table goes to: most often a slip (the prefix was left out), and a
 * consumer that hears nothing says nothing.
 */
export function unreadTopics(
  pipeline: Pick<Pipeline, "topics" | "source" | "consumers">,
  tables: readonly TableName[],
): readonly { readonly message: string; readonly remedy: string }[] {
  const route = routeTables(pipeline);
  const topics = [...new Set(tables.map((table) => route(table).topic.name))];
  if (pipeline.source.kind === "postgres" && pipeline.source.messages.length > 0) topics.push(messageTopic(pipeline).name);
  return pipeline.consumers.flatMap(({ name, topics: patterns }) =>
    patterns
      .filter((pattern) => !topics.some(topicPattern(pattern)))
      .map((pattern) => ({
        message: `consumer "${name}" reads the topic "${pattern}", and no captured table goes there`,
        remedy: `Captured tables go to ${topics.slice(0, 3).join(", ")}${topics.length > 3 ? ", …" : ""}.`,
      })),
  );
}
