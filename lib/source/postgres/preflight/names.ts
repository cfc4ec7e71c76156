import { isUtf8 } from "node:buffer";
import { formatTable } from "../../../change/table-pattern.ts";
import { showBytes } from "../decode/pgoutput/reader.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "./findings.ts";
import type { TableFacts } from "./table-facts.ts";

/** Names of captured tables, and of their columns, that are no text: a database without an encoding (SQL_ASCII) may hold such. */
export function checkNames(tables: readonly TableFacts[]): CheckResult {
  const problems: PreflightProblem[] = [];
  for (const table of tables) {
    const { oid, nameBytes } = table;
    if (!nameBytes) continue;
    const [schema, name] = [bytesOf(nameBytes.schema), bytesOf(nameBytes.table)];
    if (isUtf8(schema) && isUtf8(name)) continue;
    problems.push({
      code: "NAME_ENCODING",
      message: `the name of the table ${showBytes(schema)}.${showBytes(name)} (OID ${oid}) is not valid UTF-8`,
      remedy: `Leave it out with source.exclude: [${JSON.stringify(formatTable(table))}]. Or rename it${
        isUtf8(schema)
          ? `: DO $$BEGIN EXECUTE 'ALTER TABLE ' || ${oid}::regclass || ' RENAME TO table_${oid}'; END$$;`
          : " and its schema."
      }`,
    });
  }
  for (const table of tables) {
    for (const { number, nameBytes } of table.columns) {
      if (nameBytes === null || isUtf8(bytesOf(nameBytes))) continue;
      problems.push({
        code: "NAME_ENCODING",
        message: `the name of column ${number} of ${formatTable(table)}, ${showBytes(bytesOf(nameBytes))}, is not valid UTF-8`,
        remedy: `DO $$BEGIN EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO column_${number}', ${table.oid}::regclass, (SELECT attname FROM pg_attribute WHERE attrelid = ${table.oid} AND attnum = ${number})); END$$; or leave the table out with source.exclude: [${JSON.stringify(formatTable(table))}].`,
      });
    }
  }
  return { problems, warnings: [] };
}

function bytesOf(hex: string): Buffer {
  return Buffer.from(hex, "hex");
}
