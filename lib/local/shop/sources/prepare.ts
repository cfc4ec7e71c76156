import type pg from "pg";
import { formatTable, parseTable } from "../../../change/table-pattern.ts";
import type { Pipeline } from "../../../definition/pipeline.ts";
import { outboxPlan } from "../../../publish/install.ts";
import { quoteIdentifier, quoteTable } from "../../../source/postgres/preflight/captured-tables.ts";
import { auditSchemaSql, tableTriggersSql } from "../../../source/triggers/audit-sql.ts";

/** Makes what the definition's source needs in the shop's database. */
export async function prepareSource(client: pg.ClientBase, definition: Pipeline): Promise<void> {
  for (const statement of preparation(definition)) await client.query(statement);
}

function preparation(definition: Pipeline): readonly string[] {
  const { source } = definition;
  switch (source.kind) {
    case "triggers":
      return [
        ...auditSchemaSql(source.schema),
        ...source.tables.flatMap((table) => tableTriggersSql(source.schema, parseTable(table))),
      ];
    case "polling":
      return [
        `CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.${quoteIdentifier(source.column)} := now(); RETURN NEW; END $$`,
        ...source.tables.flatMap((table) => polledColumn(table, source.column)),
      ];
    default:
      return outboxPlan(definition)?.install ?? [];
  }
}

function polledColumn(table: string, column: string): readonly string[] {
  const name = parseTable(table);
  const [on, by] = [quoteTable(name), quoteIdentifier(column)];
  return [
    `ALTER TABLE ${on} ADD COLUMN ${by} timestamptz NOT NULL DEFAULT now()`,
    `CREATE INDEX ON ${on} (${by})`,
    `CREATE TRIGGER ${quoteIdentifier(`touch ${formatTable(name)}`)} BEFORE UPDATE ON ${on} FOR EACH ROW EXECUTE FUNCTION touch()`,
  ];
}
