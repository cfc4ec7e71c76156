import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { type DevFile, findDevRun } from "../local/dev/dev-file-format.ts";
import { DEFINITION_VARIABLE } from "../local/dev/variables.ts";
import { connectionFromEnvironment } from "../source/postgres/link/connection-environment.ts";
import { note } from "./say.ts";
import { verbOf } from "./verb-of.ts";

/** Variables of another place: a verb with one of them set is not meant for this machine. */
const SETTINGS =
  /^(AWS_(ACCESS_KEY_ID|PROFILE|ENDPOINT_URL.*|ROLE_ARN|WEB_IDENTITY_TOKEN_FILE|CONTAINER_CREDENTIALS_.*)|TRIBUTARY_(?!TLS).*)$/;

type Environment = Record<string, string | undefined>;

/**
 * Has a verb speak to the `tributary dev` that runs in this folder or above it, where nothing says that it should speak to
 * anything else: neither its options nor the environment, which is added to.
 */
export async function speakToDev(
  command: Command,
  { folder = process.cwd(), environment = process.env as Environment } = {},
): Promise<void> {
  const run = await findDevRun(folder);
  if (run === undefined) return;
  const why = meansAnother(command, run, folder, environment);
  if (why !== undefined) {
    note(`tributary dev runs here (process ${run.pid}), but ${why}: this does not speak to it`);
    return;
  }
  note(`speaking to tributary dev (process ${run.pid}) in ${run.project}`);
  Object.assign(environment, run.environment);
  // The definition as it is run there, with its own slot.
  command.setOptionValue("pipeline", undefined);
  await nameDatabase(run, environment);
  nameFunction(command, run, environment);
}

/** Returns the setting that means another place for the verb, or undefined. */
function meansAnother(
  command: Command,
  { environment: theirs, database }: DevFile,
  folder: string,
  environment: Environment,
): string | undefined {
  const set = Object.keys(environment).find((name) => environment[name] && SETTINGS.test(name));
  if (set !== undefined) return `${set} is set`;
  const option = (name: string) => command.getOptionValue(name) as string | undefined;
  const pipeline = option("pipeline");
  const isOtherPipeline = pipeline !== undefined && resolve(folder, pipeline) !== theirs[DEFINITION_VARIABLE];
  const elsewhere = ["stateTable", "function", "region"].some((name) => option(name) !== undefined);
  if (elsewhere || isOtherPipeline) return "the command line names another place";
  const its = placeIn({ DATABASE_URL: database.url });
  const url = option("databaseUrl");
  if (url !== undefined && placeIn({ DATABASE_URL: url }) !== its)
    return "--database-url names another database";
  const { DATABASE_URL, PGHOST, PGPORT, PGDATABASE, PGUSER } = environment;
  if (
    !url &&
    (DATABASE_URL || PGHOST) &&
    placeIn({ DATABASE_URL, PGHOST, PGPORT, PGDATABASE, PGUSER }) !== its
  )
    return `${DATABASE_URL ? "DATABASE_URL" : "PGHOST"} names another database`;
  return undefined;
}

/** Server and database that settings name; undefined where they name none. */
function placeIn(environment: Environment): string | undefined {
  try {
    const { host, port, database } = connectionFromEnvironment(environment);
    return `${host}:${port}/${database}`;
  } catch {
    return undefined;
  }
}

/** Its own password is in a file; that of another server only its user has. */
async function nameDatabase({ database }: DevFile, environment: Environment): Promise<void> {
  if (environment.DATABASE_URL || environment.PGHOST) return;
  const { url, passwordFile, needsPassword } = database;
  if (needsPassword && !environment.PGPASSWORD) {
    note("for the database set DATABASE_URL or PGPASSWORD: tributary dev writes no password down");
    return;
  }
  environment.DATABASE_URL = url;
  if (passwordFile !== undefined) environment.PGPASSWORD = await readFile(passwordFile, "utf8");
}

/** Dead letters are tried with the code that runs there. */
function nameFunction(command: Command, { consumers }: DevFile, environment: Environment): void {
  const consumer = consumers[String(command.getOptionValue("consumer"))];
  if (!["redrive", "dlq"].includes(verbOf(command)) || consumer === undefined) return;
  environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL = consumer.deadLetterQueue;
  if (command.getOptionValue("entry") === undefined) command.setOptionValue("entry", consumer.entry);
}
