import { type OutboxTableName, outboxTableName, quoteOutboxTable } from "../definition/outbox-table.ts";
import { dropOutboxSql, relaySql, relayTables } from "./relay-sql.ts";
import { outboxTableSql } from "./table-sql.ts";

/** The SQL of an outbox. */
export interface OutboxPlan {
  /** Undefined where events are messages: they need no table. */
  readonly table: OutboxTableName | undefined;
  /** Statements that may run twice. */
  readonly install: readonly string[];
  /** Removes all of it, events that were not told among it. */
  readonly uninstall: readonly string[];
  /** Grants for the roles; `application` and `tributary` stand for their names. */
  readonly grants: readonly string[];
  /** Counts the rows that nobody has told yet, as `n`; undefined where none waits. */
  readonly waiting: string | undefined;
}

/** The SQL of an outbox that relays read. */
export function relayOutboxPlan(name: string, partitions: number): OutboxPlan {
  const table = outboxTableName(name);
  const { outbox, lanes, relays } = relayTables(table);
  return {
    table,
    install: relaySql(table, partitions),
    uninstall: dropOutboxSql(table),
    grants: [
      // Not published_at: a row that an application marked itself would never be told.
      `GRANT INSERT (id, aggregate_type, aggregate_id, type, payload, headers, created_at) ON ${outbox} TO application;`,
      `GRANT SELECT, DELETE, UPDATE (published_at) ON ${outbox} TO tributary;`,
      `GRANT SELECT, UPDATE ON ${lanes} TO tributary;`,
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ${relays} TO tributary;`,
    ],
    waiting: `SELECT count(*)::int AS n FROM ${outbox} WHERE published_at IS NULL`,
  };
}

/** The SQL of an outbox that is caught from the log; without a table its events are messages. */
export function logOutboxPlan(name: string | undefined): OutboxPlan {
  if (name === undefined)
    return { table: undefined, install: [], uninstall: [], grants: [], waiting: undefined };
  const table = outboxTableName(name);
  const outbox = quoteOutboxTable(table);
  return {
    table,
    install: outboxTableSql(table),
    uninstall: dropOutboxSql(table),
    grants: [
      `GRANT INSERT ON ${outbox} TO application;`,
      `GRANT SELECT (id), DELETE ON ${outbox} TO application; -- where it deletes at once`,
    ],
    waiting: undefined,
  };
}
