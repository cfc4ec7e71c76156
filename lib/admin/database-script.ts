import type pg from "pg";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import { type ScriptPart, SERVER_SORTS, type ServerSort } from "../source/postgres/set-up/script.ts";

export { SERVER_SORTS, type ServerSort };

/** Options of `databaseScript`. */
export interface DatabaseScriptOptions {
  readonly pipeline: Pipeline;
  /** The role of the capture task. */
  readonly role: string;
  readonly server: ServerSort;
  /** A session with the database, where it can be asked. Left out: the definition must name each table. */
  readonly client?: pg.Client | undefined;
}

const HOSTS: Readonly<Record<ServerSort, string>> = {
  "self-hosted": "a server of your own",
  rds: "RDS",
  aurora: "Aurora",
};

/**
 * Writes a script for psql that makes a database ready for the capture of a pipeline: role, grants, publication, settings. It holds no
 * password. An administrator runs it in the captured database; running it again changes nothing.
 *
 * @throws ConfigurationError where only the database could tell what the definition means.
 */
export async function databaseScript({
  pipeline,
  role,
  server,
  client,
}: DatabaseScriptOptions): Promise<string> {
  const parts = await sourceKind(pipeline.source).setUp({ pipeline, role, server, client });
  const head: ScriptPart = {
    comments: [
      `What the pipeline ${pipeline.name} needs of its database, on ${HOSTS[server]}; written by tributary doctor --sql.`,
      "Run it with psql, as an administrator, in the database that is captured. Running it again changes nothing.",
    ],
    statements: [],
  };
  const [first, ...rest] = [head, ...parts].map(partText);
  return [`${first}\n\\set ON_ERROR_STOP on`, ...rest].join("\n\n");
}

/** Detects where a server is hosted: settings are given in another way there. */
export async function readServerSort(client: pg.Client): Promise<ServerSort> {
  const { rows } = await client.query<{ aurora: boolean; rds: boolean }>(
    `SELECT to_regproc('aurora_version') IS NOT NULL AS aurora,
            EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser') AS rds`,
  );
  const { aurora, rds } = rows[0] ?? {};
  return aurora ? "aurora" : rds ? "rds" : "self-hosted";
}

function partText({ comments, statements }: ScriptPart): string {
  // A name with a line break must not end its comment.
  const lines = comments.flatMap((comment) => comment.split(/[\r\n]+/)).map((line) => `-- ${line}`);
  return [...lines, ...statements.map((statement) => `${statement};`)].join("\n");
}
