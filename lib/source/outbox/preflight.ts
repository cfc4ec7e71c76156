import type pg from "pg";
import type { TableName } from "../../change/table-pattern.ts";
import { formatTable } from "../../change/table-pattern.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { outboxTableName } from "../../definition/outbox-table.ts";
import { lanesOf, relayTables } from "../../publish/relay-sql.ts";
import { withConnection } from "../postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../postgres/link/connection-options.ts";
import { PreflightError, type PreflightProblem } from "../postgres/postgres-errors.ts";
import type { OutboxSource } from "./definition.ts";

/** Options of `checkOutbox`. */
export interface OutboxCheck {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: Omit<Pick<Pipeline, "topics">, "source"> & { readonly source: OutboxSource };
  readonly signal?: AbortSignal;
}

interface Facts {
  readonly encoding: string;
  readonly columns: readonly string[];
  readonly lane: string | null;
  readonly lanes: string | null;
  readonly relays: string | null;
}

/**
 * Looks whether the outbox is as relays need it, and gives the database's name; touches nothing.
 * @throws PreflightError with all problems, and the errors of `connect`.
 */
export async function checkOutbox({ connection, pipeline, signal }: OutboxCheck): Promise<string> {
  const { source, topics } = pipeline;
  const table = outboxTableName(source.table);
  return await withConnection(connection, { signal }, async (client) => {
    const names = relayTables(table);
    const { rows } = await client.query<Facts & { readonly database: string }>(
      `SELECT current_database() AS database, getdatabaseencoding() AS encoding, to_regclass($2)::text AS lanes, to_regclass($3)::text AS relays,
         (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute a ON a.attrelid = adrelid AND a.attnum = adnum
          WHERE adrelid = to_regclass($1) AND attname = 'lane') AS lane,
         ARRAY(SELECT attname::text FROM pg_attribute
               WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped) AS columns`,
      [names.outbox, names.lanes, names.relays],
    );
    const { database, ...facts } = rows[0] as (typeof rows)[number];
    const problems = problemsOf(facts, table, topics.partitions);
    if (problems.length === 0) problems.push(...(await lanesProblem(client, names.lanes, topics.partitions)));
    if (problems.length > 0) throw new PreflightError(problems);
    return database;
  });
}

async function lanesProblem(
  client: pg.Client,
  lanes: string,
  partitions: number,
): Promise<PreflightProblem[]> {
  const wanted = lanesOf(partitions);
  const { rows } = await client.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${lanes}`);
  return rows[0]?.count === wanted
    ? []
    : [problem(`${lanes} has ${rows[0]?.count} lanes, and ${partitions} partitions have ${wanted}`)];
}

const NEEDED = [
  ...["id", "aggregate_type", "aggregate_id", "type", "payload", "headers", "created_at"],
  ...["seq", "published_at", "lane"],
];

function problemsOf(facts: Facts, table: TableName, partitions: number): PreflightProblem[] {
  const name = formatTable(table);
  if (facts.encoding === "SQL_ASCII")
    return [
      {
        code: "SQL_ASCII",
        message: "the database's encoding is SQL_ASCII: nobody says how its text is to be read",
        remedy:
          "Convert the database, or let the outbox be read from the log, which has source.sqlAsciiEncoding.",
      },
    ];
  if (facts.columns.length === 0) return [problem(`there is no table ${name}`)];
  const missing = NEEDED.filter((column) => !facts.columns.includes(column));
  if (missing.length > 0) return [problem(`${name} has no ${missing.join(", ")}`)];
  if (facts.lanes === null || facts.relays === null)
    return [problem(`the tables in which the relays of ${name} agree are missing`)];
  // ((murmur3(aggregate_id) % (64)::bigint) % (16)::bigint)::smallint
  const moduli = [...(facts.lane ?? "").matchAll(/% \(?(\d+)/g)].map(([, digits]) => Number(digits));
  if (moduli[0] === partitions && moduli[1] === lanesOf(partitions)) return [];
  return [
    {
      code: "OUTBOX_TABLE",
      message: `the column lane of ${name} was made for ${moduli[0] ?? "other"} partitions, and topics.partitions is ${partitions}`,
      remedy: `Put topics.partitions back. Or, with every event told and no relay running: ALTER TABLE ${relayTables(table).outbox} DROP COLUMN lane; DROP TABLE ${relayTables(table).lanes}; then tributary outbox install, and begin a new epoch.`,
    },
  ];
}

function problem(message: string): PreflightProblem {
  return {
    code: "OUTBOX_TABLE",
    message,
    remedy: "Run what tributary outbox plan prints; tributary outbox install does it.",
  };
}
