import { type OutboxTableName, quoteOutboxTable } from "../definition/outbox-table.ts";
import { AGGREGATE_TYPE } from "./event.ts";

/**
 * The outbox table, as SQL that may run twice. Its constraints refuse what could not become an event: the
 * application's own statement fails then, and nothing malformed is ever committed.
 */
export function outboxTableSql(name: OutboxTableName): readonly string[] {
  return [
    `CREATE TABLE IF NOT EXISTS ${quoteOutboxTable(name)} (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  aggregate_type text NOT NULL CHECK (aggregate_type ~ '${AGGREGATE_TYPE}'),
  aggregate_id text NOT NULL CHECK (length(aggregate_id) BETWEEN 1 AND 512),
  type text NOT NULL CHECK (length(type) BETWEEN 1 AND 255),
  payload json NOT NULL,
  headers json NOT NULL DEFAULT '{}' CHECK (json_typeof(headers) = 'object'),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);`,
  ];
}
