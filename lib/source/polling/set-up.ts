import type pg from "pg";
import { quoteIdentifier, quoteTable } from "../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import { PreflightError } from "../postgres/postgres-errors.ts";
import { captureTables } from "../postgres/preflight/captured-tables.ts";
import { readRelations } from "../postgres/preflight/table-facts.ts";
import {
  block,
  namedTables,
  readingPart,
  rolePart,
  type ScriptPart,
  type SetUpOptions,
} from "../postgres/set-up/script.ts";
import type { PollingSource } from "./definition.ts";

/** Writes what the owner of the tables runs so that a role can poll them. @throws ConfigurationError, PreflightError */
export async function pollingSetUp(options: SetUpOptions<PollingSource>): Promise<readonly ScriptPart[]> {
  const { pipeline, role, client } = options;
  const { source } = pipeline;
  const tables = client ? await capturedTables(client, source) : namedTables(pipeline);
  return [
    rolePart(role),
    readingPart(role, tables),
    ...(source.longestTransactionSeconds === undefined ? [transactionsPart(role)] : []),
    {
      comments: [
        `The column ${source.column} of each table, with an index, and a trigger that moves it with every update. A table that has`,
        "the column is left as it is: see that every update moves it.",
      ],
      statements: tables.map((table) => columnBlock(table, source.column)),
    },
  ];
}

/** How old the oldest transaction is decides up to where it is safe to read. */
function transactionsPart(role: string): ScriptPart {
  return {
    comments: [
      "It sees when transactions of others began (not needed where the definition has source.longestTransactionSeconds).",
    ],
    statements: [`GRANT pg_read_all_stats TO ${quoteIdentifier(role)}`],
  };
}

async function capturedTables(client: pg.Client, source: PollingSource): Promise<readonly TableName[]> {
  const { tables, problems } = captureTables(source, await readRelations(client));
  if (problems.length > 0) throw new PreflightError(problems);
  return tables;
}

function columnBlock(table: TableName, column: string): string {
  const [on, by] = [quoteTable(table), quoteIdentifier(column)];
  const touch = `${quoteIdentifier(table.schema)}.${quoteIdentifier(`tributary_touch_${column}`.slice(0, 63))}`;
  const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;
  return block(
    [
      `IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = ${literal(on)}::regclass AND attname = ${literal(column)} AND NOT attisdropped) THEN`,
      `  CREATE OR REPLACE FUNCTION ${touch}() RETURNS trigger LANGUAGE plpgsql AS`,
      `    $touch$ BEGIN NEW.${by} := now(); RETURN NEW; END $touch$;`,
      `  ALTER TABLE ${on} ADD COLUMN ${by} timestamptz NOT NULL DEFAULT now();`,
      `  CREATE INDEX ON ${on} (${by});`,
      `  CREATE TRIGGER ${quoteIdentifier(`touch ${formatTable(table)}`)} BEFORE UPDATE ON ${on} FOR EACH ROW EXECUTE FUNCTION ${touch}();`,
      "END IF;",
    ].join("\n"),
  );
}
