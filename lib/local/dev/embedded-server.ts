import { createHash } from "node:crypto";
import { access, readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import pg from "pg";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { PortTakenError } from "../local-errors.ts";
import { type LocalParts, localParts } from "../local-parts.ts";
import { PASSWORD_FILE } from "../password-file.ts";
import { serverUser } from "../server-user.ts";
import { DevSchemaError } from "./dev-errors.ts";
import type { StateDirectory } from "./state-directory.ts";

/** The embedded server of a project. */
export interface ProjectServer {
  readonly url: string;
  /** Holds its password. */
  readonly passwordFile: string;
  stop(): Promise<void>;
}

/** Settings of `startProjectServer`. */
export interface ProjectServerOptions {
  /** On 127.0.0.1; left out: as the last time, or a free one. */
  readonly port: number | undefined;
  readonly signal: AbortSignal;
}

/** File of the schema that an embedded server begins with, beside the definition. */
const SCHEMA_FILE = "schema.sql";
/** Stands in the server itself, written with the schema: where it is, the schema is. */
const MARK = "tributary dev: schema ";

/** Starts the project's own PostgreSQL server; its data stay in the state directory. @throws what `startEmbeddedPostgres` throws */
export async function startProjectServer(
  directory: StateDirectory,
  { port, signal }: ProjectServerOptions,
): Promise<ProjectServer> {
  const dataDirectory = directory.state.dataDirectory ?? placeOfData(directory);
  await directory.update({ dataDirectory });
  await removeHalfMade(dataDirectory);
  const { startEmbeddedPostgres } = await localParts();
  const start = (on: number | undefined) =>
    startEmbeddedPostgres({ dataDirectory, ...(on && { port: on }), signal });
  const server = await start(port ?? directory.state.port).catch((error: unknown) => {
    // Nobody asked for this one.
    if (port === undefined && error instanceof PortTakenError) return start(undefined);
    throw error;
  });
  await directory.update({ port: server.port });
  return {
    url: server.url,
    passwordFile: join(dataDirectory, PASSWORD_FILE),
    stop: () => server.stop(),
  };
}

/** Ends a server that a killed run has left, and removes its data. */
export async function removeProjectServer(directory: StateDirectory, parts?: LocalParts): Promise<void> {
  const { dataDirectory } = directory.state;
  if (dataDirectory === undefined) return;
  const { removeEmbeddedPostgres } = parts ?? (await localParts());
  await removeEmbeddedPostgres(dataDirectory);
}

/** In the state directory; where we are root the server is another user's, who may not enter it. */
function placeOfData(directory: StateDirectory): string {
  if (serverUser().uid === undefined) return directory.file("postgres");
  return join("/var/tmp", `tributary-dev-${directory.state.id}`);
}

/** A first start that was cut off leaves a directory that no server can be started on, and that holds nothing. */
async function removeHalfMade(dataDirectory: string): Promise<void> {
  const content: string[] = await readdir(dataDirectory).catch(() => []);
  if (content.length > 0 && !content.includes(PASSWORD_FILE)) await rm(dataDirectory, { recursive: true });
}

/**
 * Finds the schema file: the one that was named, or `schema.sql` beside the definition or in the project.
 * @throws ConfigurationError when the one that was named is not there
 */
export async function findSchema(
  named: string | undefined,
  definitionFile: string,
  project: string,
): Promise<string | undefined> {
  const isThere = (file: string) =>
    access(file).then(
      () => true,
      () => false,
    );
  if (named !== undefined) {
    if (await isThere(named)) return named;
    throw new ConfigurationError("The command line", [
      { path: "--schema", value: named, remedy: "name a file that exists" },
    ]);
  }
  for (const folder of [dirname(definitionFile), project]) {
    const file = join(folder, SCHEMA_FILE);
    if (await isThere(file)) return file;
  }
  return undefined;
}

/**
 * Runs a schema file on a server that has none yet, whole or not at all, and then what the kind of source needs. Gives whether the
 * file has changed since it was run.
 * @throws DevSchemaError with the file's line
 */
export async function applySchema(
  url: string,
  file: string | undefined,
  prepare: readonly string[],
): Promise<"applied" | "was applied" | "changed since"> {
  const text = file === undefined ? "" : await readFile(file, "utf8");
  const hash = createHash("sha256").update(text).digest("hex");
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  try {
    const { rows } = await client.query<{ mark: string | null }>(
      "SELECT shobj_description(oid, 'pg_database') AS mark FROM pg_database WHERE datname = current_database()",
    );
    const mark = rows[0]?.mark ?? "";
    if (mark.startsWith(MARK)) return mark === MARK + hash ? "was applied" : "changed since";
    const { rows: named } = await client.query<{ name: string }>(
      "SELECT quote_ident(current_database()) AS name",
    );
    const comment = `COMMENT ON DATABASE ${named[0]?.name} IS '${MARK}${hash}'`;
    // Statements of one message are one transaction, where they hold none of their own.
    await client.query([withoutRestrict(text), ...prepare, comment].join("\n;\n")).catch((error: unknown) => {
      throw refused(file ?? SCHEMA_FILE, text, error);
    });
    return "applied";
  } finally {
    await client.end().catch(() => {});
  }
}

/** pg_dump writes two commands of psql's into each schema; a line each, so that line numbers stay. */
function withoutRestrict(text: string): string {
  return text.replaceAll(/^\\(un)?restrict .*$/gm, "");
}

function refused(file: string, text: string, error: unknown): Error {
  if (!(error instanceof pg.DatabaseError)) return error as Error;
  const at = Number(error.position ?? 0);
  const place = at > 0 && at <= text.length ? `${file}:${text.slice(0, at).split("\n").length}` : file;
  return new DevSchemaError({
    message: `${place}: ${error.message}`,
    remedy: "Correct the schema and start again: nothing of it was kept.",
    cause: error,
  });
}
