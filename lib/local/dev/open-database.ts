import type { Pipeline } from "../../definition/definition.ts";
import { sourceKind } from "../../source/index.ts";
import { connectionFromUrl } from "../../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import type { Display } from "../display.ts";
import type { DevArguments } from "./arguments.ts";
import { type DevDatabase, placeOf } from "./database.ts";
import { applySchema, startProjectServer } from "./embedded-server.ts";
import type { Project } from "./project.ts";
import { isThisMachine } from "./server-traces.ts";
import type { StateDirectory } from "./state-directory.ts";

/** Settings of `openDatabase`. */
export interface OpenDatabaseOptions {
  readonly args: DevArguments;
  /** The user's own database; undefined for the embedded one. */
  readonly own: PostgresConnectionOptions | undefined;
  /** File that is run once on a new embedded server. */
  readonly schema: string | undefined;
  readonly project: Project;
  readonly directory: StateDirectory;
  readonly display: Display;
  /** Takes the end of a server that is started here. */
  readonly parts: AsyncDisposableStack;
  readonly signal: AbortSignal;
}

/** The user's own database, or the project's embedded one, started and with its schema. */
export async function openDatabase(options: OpenDatabaseOptions): Promise<DevDatabase> {
  const { args, own, schema, project, directory, display, parts, signal } = options;
  if (own) {
    return {
      url: args.databaseUrl as string,
      connection: own,
      place: placeOf(own),
      here: isThisMachine(own),
      passwordFile: undefined,
    };
  }
  display.say("starting PostgreSQL …");
  const server = await startProjectServer(directory, { port: args.port, signal });
  parts.defer(() => server.stop());
  const { url, passwordFile } = server;
  display.say(`  psql '${url}'`);
  await prepareServer(url, schema, project.definition, display);
  return { url, connection: connectionFromUrl(url), place: "embedded", here: true, passwordFile };
}

async function prepareServer(
  url: string,
  schema: string | undefined,
  definition: Pipeline,
  display: Display,
): Promise<void> {
  const kind = sourceKind(definition.source);
  const prepare = kind.throughSlots ? [] : await kind.prepare(definition);
  const outcome = await applySchema(url, schema, prepare);
  if (schema === undefined) return;
  if (outcome === "applied") display.say(`  ran ${schema}`);
  if (outcome === "changed since")
    display.say(
      `  ${schema} has changed since it was run: run the difference with psql, or begin anew with --fresh`,
    );
}
