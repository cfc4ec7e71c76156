import { quoteTable } from "../change/sql-identifier.ts";
import { ConfigurationError } from "../change/tributary-error.ts";

/** A table by its parts, as the catalog holds them. */
export interface OutboxTableName {
  readonly schema: string;
  readonly table: string;
}

/** The longest suffix of the table's name (`_murmur3`): the whole must be a name that PostgreSQL does not cut. */
const LONGEST_TABLE = 48;
const PART = String.raw`([\p{L}_][\p{L}\p{N}_$]*|"(?:[^"\0]|"")+")`;
const NAME = new RegExp(`^${PART}\\.${PART}$`, "u");

/**
 * `public.outbox` or `app."Outbox"`: schema and table, quoted where the name needs it.
 * @throws ConfigurationError
 */
export function outboxTableName(text: string): OutboxTableName {
  const match = NAME.exec(text);
  if (!match) throw wrong(text, 'write schema.table, such as public.outbox or app."Outbox"');
  const [, schema, table] = match.map(unquote) as [string, string, string];
  if (new TextEncoder().encode(table).length > LONGEST_TABLE)
    throw wrong(text, `name the table with at most ${LONGEST_TABLE} bytes`);
  return { schema, table };
}

/** As it may stand in SQL: each part quoted. */
export function quoteOutboxTable({ schema, table }: OutboxTableName, suffix = ""): string {
  return quoteTable({ schema, table: table + suffix });
}

function unquote(part: string): string {
  return part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part;
}

function wrong(value: string, remedy: string): ConfigurationError {
  return new ConfigurationError("The outbox", [{ path: "table", value, remedy }]);
}
