import {
  namedTables,
  readingPart,
  rolePart,
  type ScriptPart,
  type SetUpOptions,
} from "../postgres/set-up/script.ts";
import { auditSchemaSql, readerGrantsSql, tableTriggersSql } from "./audit-sql.ts";
import type { TriggersSource } from "./definition.ts";
import { planTriggers } from "./triggers.ts";

/** Writes what the owner of the tables runs so that a role can read what triggers write. @throws ConfigurationError, PreflightError */
export async function triggersSetUp(options: SetUpOptions<TriggersSource>): Promise<readonly ScriptPart[]> {
  const { pipeline, role, client } = options;
  const { schema } = pipeline.source;
  const comments = [`The audit table in the schema ${schema}, and triggers that write each change to it.`];
  if (client) {
    const { tables, sql } = await planTriggers(client, pipeline, role);
    return [rolePart(role), readingPart(role, tables), { comments, statements: sql }];
  }
  const tables = namedTables(pipeline);
  const statements = [
    ...auditSchemaSql(schema),
    ...tables.flatMap((table) => tableTriggersSql(schema, table)),
    ...readerGrantsSql(schema, role),
  ];
  return [
    rolePart(role),
    readingPart(role, tables),
    {
      comments: [...comments, "Of partitioned tables the database must be asked: give --database-url."],
      statements,
    },
  ];
}
