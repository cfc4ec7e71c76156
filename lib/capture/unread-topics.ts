import { formatTable, type TableName } from "../change/table-pattern.ts";
import type { Pipeline } from "../definition/definition.ts";
import { outboxTableName } from "../definition/outbox-table.ts";
import { messageTopic, routeTables } from "../definition/route.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { sourceKind } from "../source/index.ts";

/**
 * Returns notes on topic patterns that no captured table goes to: most often a slip (the prefix was left out), and a
 * consumer that hears nothing says nothing.
 */
export function unreadTopics(
  pipeline: Pick<Pipeline, "topics" | "source" | "consumers">,
  tables: readonly TableName[],
): readonly { readonly message: string; readonly remedy: string }[] {
  const route = routeTables(pipeline);
  const { table, outbox, messages } = sourceKind(pipeline.source).events(pipeline.source);
  const outboxTable = table === undefined ? undefined : formatTable(outboxTableName(table));
  const captured = tables.filter((each) => formatTable(each) !== outboxTable);
  const topics = [...new Set(captured.map((each) => route(each).topic.name))];
  if (messages) topics.push(messageTopic(pipeline).name);
  return pipeline.consumers.flatMap(({ name, topics: patterns }) =>
    patterns
      // Which aggregate types there are, only the applications know.
      .filter((pattern) => !(outbox && /outbox/.test(pattern)) && !topics.some(topicPattern(pattern)))
      .map((pattern) => ({
        message: `consumer "${name}" reads the topic "${pattern}", and no captured table goes there`,
        remedy: `Captured tables go to ${topics.slice(0, 3).join(", ")}${topics.length > 3 ? ", …" : ""}.`,
      })),
  );
}
