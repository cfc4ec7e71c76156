import { forTable, type TableName } from "../change/table-pattern.ts";
import type { Topic } from "../change/topic.ts";
import type { Pipeline } from "./definition.ts";

/** The topic and partition key of a table's changes. */
export interface TableRoute {
  readonly topic: Topic;
  /** Key columns that the definition chose, or undefined: the row's own key. */
  readonly key: readonly string[] | undefined;
}

/** Decides where the changes of a table go. Pure: the same table always has the same answer. */
export type RouteTable = (table: TableName) => TableRoute;

/**
 * Topics by the definition: `<prefix>.<schema>.<table>`, or what the first matching route of `topics.routes` makes
 * of `schema.table`. What would be ambiguous in a topic name or a list of them (a dot, slash, star, dollar, comma,
 * blank or per-cent sign inside an identifier) is per-cent encoded.
 */
export function routeTables(definition: Pick<Pipeline, "topics">): RouteTable {
  const { prefix, partitions, keys } = definition.topics;
  const routes = definition.topics.routes.map((route) => ({
    match: new RegExp(route.match, "u"),
    to: route.to,
  }));
  return (table) => {
    const own = `${encodeName(table.schema)}.${encodeName(table.table)}`;
    const route = routes.find((candidate) => candidate.match.test(own));
    const name = `${prefix}.${route ? own.replace(route.match, route.to) : own}`;
    return { topic: { name, partitions }, key: forTable(keys, table) };
  };
}

/** The topic of logical messages: one partition, in the order of the log. */
export function messageTopic(definition: Pick<Pipeline, "topics">): Topic {
  return { name: `${definition.topics.prefix}.$messages`, partitions: 1 };
}

function encodeName(identifier: string): string {
  return identifier.replace(
    /[.%/*$,\s\p{Cc}]/gu,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}
