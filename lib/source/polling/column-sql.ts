import { quoteIdentifier, quoteTable } from "../../change/sql-identifier.ts";
import { formatTable, parseTable } from "../../change/table-pattern.ts";
import type { PollingSource } from "./definition.ts";

/** Gives each table the column that polling reads, with an index, and a trigger that moves it with every update. */
export function polledColumnsSql({
  tables,
  column,
}: Pick<PollingSource, "tables" | "column">): readonly string[] {
  return [
    `CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN NEW.${quoteIdentifier(column)} := now(); RETURN NEW; END $$`,
    ...tables.flatMap((table) => polledColumn(table, column)),
  ];
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
