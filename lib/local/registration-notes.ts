import { formatTable, type TableName } from "../change/table-pattern.ts";
import { topicOrTable } from "../consume/api/registry.ts";
import type { Pipeline } from "../definition/definition.ts";
import { messageTopic, routeTables } from "../definition/route.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { sourceKind } from "../source/index.ts";
import { connectionFromUrl } from "../source/postgres/link/connection.ts";
import type { RegisteredHandlers } from "./lambda/process.ts";
import { suggestion } from "./suggestion.ts";

/** A consumer as it runs: what its function said of its handlers when it was loaded, if it said anything. */
export interface LoadedConsumer {
  readonly name: string;
  readonly registered: RegisteredHandlers | undefined;
}

/** Time limit of the question which tables are captured. */
const LOOK_MS = 10_000;

/** Asks the database which tables are captured, and holds the names against them. Never throws: it gives notes, and may have none. */
export async function lookAtRegistrations(
  { definition, databaseUrl, captureEnvironment }: LookedAt,
  consumers: readonly LoadedConsumer[],
): Promise<string[]> {
  try {
    const connection = connectionFromUrl(databaseUrl, { ...process.env, ...captureEnvironment });
    const signal = AbortSignal.timeout(LOOK_MS);
    const { tables } = await sourceKind(definition.source).check({
      connection,
      pipeline: definition,
      signal,
    });
    return registrationNotes(definition, tables, consumers);
  } catch {
    // What is wrong there capture itself tells.
    return [];
  }
}

/** A pipeline that runs on this machine. */
interface LookedAt {
  readonly definition: Pipeline;
  readonly databaseUrl: string;
  /** Variables by which capture reaches the database, beside the URL. */
  readonly captureEnvironment?: Readonly<Record<string, string>>;
}

/** A topic that changes come on, with the table it is of. */
interface KnownTopic {
  readonly topic: string;
  readonly table: TableName;
}

/** Tables that are named in a line, at most. */
const NAMED = 5;
/** Schema of the events that applications publish: their tables are named by the applications alone. */
const PUBLISHED = /^(?:\*\.|[^.]+\.)?outbox\./;
const NO_TABLE: TableName = { schema: "", table: "" };

/** What handlers and definition name that does not fit the tables that are captured. */
export interface RegistrationFindings {
  /** A pattern that nothing matches, or a handler whose consumer does not read the topic, in a line each. */
  readonly unmatched: readonly { readonly consumer: string; readonly text: string }[];
  /** Tables that no consumer takes, in a line. */
  readonly untaken: readonly string[];
}

/**
 * Holds what handlers and definition name against the tables that are captured, and says in a line each what does not fit: a
 * pattern that nothing matches, a handler whose consumer does not read the topic, a table that no consumer takes. A table may
 * still come, so these are notes and no errors.
 */
export function registrationNotes(
  definition: Pipeline,
  tables: readonly TableName[],
  consumers: readonly LoadedConsumer[],
): string[] {
  const { unmatched, untaken } = compareRegistrations(definition, tables, consumers);
  return [...unmatched.map(({ text }) => text), ...untaken];
}

/** Does the same, with the consumer of each pattern. */
export function compareRegistrations(
  definition: Pipeline,
  tables: readonly TableName[],
  consumers: readonly LoadedConsumer[],
): RegistrationFindings {
  const kind = sourceKind(definition.source);
  // Which topics there are the applications alone know.
  if (kind.can.give === "events") return { unmatched: [], untaken: [] };
  const events = kind.events(definition.source);
  const route = routeTables(definition);
  const captured = tables
    .filter((table) => formatTable(table) !== events.table)
    .map((table): KnownTopic => ({ table, topic: route(table).topic.name }));
  const known = [...captured];
  if (events.messages) known.push({ topic: messageTopic(definition).name, table: NO_TABLE });
  const candidates = [...new Set(captured.flatMap(namesOf))];
  const unmatched: { readonly consumer: string; readonly text: string }[] = [];
  const unknown = (consumer: string, where: string, pattern: string) => {
    if (isOfTheLibrary(pattern) || PUBLISHED.test(pattern)) return;
    const meant = suggestion(pattern, candidates) ?? namesake(pattern, captured);
    // With an outbox it may be a topic of the applications.
    if (meant === undefined && events.outbox) return;
    const hint = meant === undefined ? "" : `; did you mean "${meant}"?`;
    const text = `consumer ${consumer}, ${where}: no captured table matches "${pattern}"${hint}`;
    unmatched.push({ consumer, text });
  };

  const taken = new Set<KnownTopic>();
  for (const { name, topics, entry } of definition.consumers) {
    for (const pattern of topics) {
      const matches = topicPattern(pattern);
      const own = known.filter(({ topic }) => matches(topic));
      for (const one of own) taken.add(one);
      if (own.length === 0) unknown(name, "topics in the definition", pattern);
    }
    const reads = topics.map(topicPattern);
    const { patterns = [] } = consumers.find((consumer) => consumer.name === name)?.registered ?? {};
    for (const pattern of patterns) {
      const matches = topicOrTable(pattern);
      const found = known.filter(({ topic, table }) => matches(topic, table));
      const [first] = found;
      if (first === undefined) unknown(name, entry, pattern);
      else if (!found.some(({ topic }) => reads.some((isRead) => isRead(topic))))
        unmatched.push({
          consumer: name,
          text: `consumer ${name}, ${entry}: "${pattern}" is captured, but its topic "${first.topic}" is none of the consumer's topics in the definition`,
        });
    }
  }
  const left = captured.filter((one) => !taken.has(one)).map(({ table }) => formatTable(table));
  if (left.length === 0) return { unmatched, untaken: [] };
  const more = left.length > NAMED ? ` and ${left.length - NAMED} more` : "";
  return {
    unmatched,
    untaken: [`no consumer takes the changes of ${left.slice(0, NAMED).join(", ")}${more}`],
  };
}

/** A table and its topic, as patterns would name them. */
function namesOf({ topic, table }: KnownTopic): string[] {
  const name = formatTable(table);
  const [prefix] = topic.split(".");
  return [
    ...[name, topic, `*.${name}`, `*.${table.table}`, `${table.schema}.*`],
    ...[`${prefix}.${table.schema}.*`, `*.${table.schema}.*`],
  ];
}

/** The table of another schema, or without its schema. */
function namesake(pattern: string, captured: readonly KnownTopic[]): string | undefined {
  const name = pattern.split(".").at(-1);
  const found = captured.filter(({ table }) => table.table === name);
  return found.length === 1 && found[0] ? formatTable(found[0].table) : undefined;
}

/** Topics with a dollar sign are no table's: messages, and what the outbox could not take. */
function isOfTheLibrary(pattern: string): boolean {
  return pattern.includes("$");
}
