import pg from "pg";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { parseTable, type TableName } from "../../../change/table-pattern.ts";
import { ConfigurationError } from "../../../change/tributary-error.ts";
import type { PipelineOf, SourceDefinition } from "../../../definition/definition.ts";

/** Hosts of a server: settings and the right to replicate are given in another way on each. */
export const SERVER_SORTS = ["self-hosted", "rds", "aurora"] as const;
/** One of them. */
export type ServerSort = (typeof SERVER_SORTS)[number];

/** A part of a script: what is said of it, then its statements, each of which may be run again. */
export interface ScriptPart {
  readonly comments: readonly string[];
  /** Without the semicolon at their end. */
  readonly statements: readonly string[];
}

/** Options of writing the script of a pipeline. */
export interface SetUpOptions<D extends SourceDefinition = SourceDefinition> {
  readonly pipeline: PipelineOf<D>;
  /** The role of the capture task. */
  readonly role: string;
  readonly server: ServerSort;
  /** A session with the database, where it can be asked: it alone knows the tables that a pattern means. */
  readonly client: pg.Client | undefined;
}

/** The role, with the right to sign in. */
export function rolePart(role: string, more: readonly string[] = []): ScriptPart {
  const name = quoteIdentifier(role);
  return {
    comments: [`The role of the capture task. Give it a password by the prompt of psql: \\password ${role}`],
    statements: [
      block(
        `IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${pg.escapeLiteral(role)}) THEN CREATE ROLE ${name}; END IF;`,
      ),
      `ALTER ROLE ${name} WITH LOGIN`,
      block(
        `EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), ${pg.escapeLiteral(role)});`,
      ),
      ...more,
    ],
  };
}

/** The right to read tables; of some, only these columns. */
export function readingPart(
  role: string,
  tables: readonly TableName[],
  columnsOf: (table: TableName) => readonly string[] | undefined = () => undefined,
): ScriptPart {
  const name = quoteIdentifier(role);
  const schemas = [...new Set(tables.map(({ schema }) => schema))];
  return {
    comments: ["It reads the captured tables, and writes to none."],
    statements: [
      ...schemas.map((schema) => `GRANT USAGE ON SCHEMA ${quoteIdentifier(schema)} TO ${name}`),
      ...tables.map((table) => {
        const columns = columnsOf(table);
        const these = columns ? ` (${columns.map(quoteIdentifier).join(", ")})` : "";
        return `GRANT SELECT${these} ON ${quoteTable(table)} TO ${name}`;
      }),
    ],
  };
}

/** The tables of a definition that names each by its whole name. @throws ConfigurationError where a pattern needs the database */
export function namedTables({ source }: { readonly source: SourceDefinition }): readonly TableName[] {
  const isPattern = (text: string) => text.replace(/"(?:[^"]|"")*"/g, "").includes("*");
  const patterns = [...source.tables, ...source.exclude].filter(isPattern);
  if (patterns.length === 0 && source.exclude.length === 0) return source.tables.map(parseTable);
  throw needsDatabase(
    "source.tables",
    [...source.tables, ...source.exclude.map((text) => `!${text}`)].join(", "),
  );
}

/** A setting of the definition that only the database can resolve. */
export function needsDatabase(path: string, value: unknown): ConfigurationError {
  const remedy =
    "only the database knows what that means there: give --database-url of a role that may sign in (any may read the catalog), or name each table";
  return new ConfigurationError("The pipeline definition", [{ path, value, remedy }]);
}

/** Statements that only run under a condition. The text stays as it is: a line break may be a part of a name. */
export function block(body: string): string {
  let tag = "$tributary$";
  for (let i = 1; body.includes(tag); i++) tag = `$tributary${i}$`;
  return `DO ${tag} BEGIN\n${body}\nEND ${tag}`;
}
