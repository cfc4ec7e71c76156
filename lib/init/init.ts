import { spawn } from "node:child_process";
import { once } from "node:events";
import { relative, resolve } from "node:path";
import { createInterface } from "node:readline/promises";
import { formatTable } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { connectionFromUrl, withConnection } from "../source/postgres/link/connection.ts";
import { type Ask, askForTables, tableList, tablesByDefault, tablesByPattern } from "./choose-tables.ts";
import { listTables, type Table } from "./database-tables.ts";
import { planManifest } from "./package-manifest.ts";
import { EXAMPLE_TABLE, type Project, projectFiles } from "./project-files.ts";
import { projectName } from "./project-name.ts";
import { TargetFolder } from "./target-folder.ts";

/** The arguments of `init`. */
export interface InitOptions {
  /** Default: the working directory. */
  readonly directory?: string | undefined;
  /** Without it the project runs on the embedded server. */
  readonly databaseUrl?: string | undefined;
  /** Patterns; default: asked for on a terminal, else all that can be captured. */
  readonly tables?: readonly string[] | undefined;
  readonly name?: string | undefined;
  /** Run `npm install`. */
  readonly install: boolean;
  /** Ask nothing. */
  readonly yes: boolean;
}

/** The terminal of `init`'s user. */
export interface InitTerminal {
  readonly say: (line: string) => void;
  /** Undefined: there is nobody to ask. */
  readonly ask: Ask | undefined;
}

const LOOK_DEADLINE_MS = 30_000;

/**
 * Makes a project that works at once. Everything that could stand in the way is looked at before the first file is written.
 * @throws ConfigurationError, and the errors of connecting.
 */
export async function init(options: InitOptions, terminal: InitTerminal): Promise<void> {
  const { say } = terminal;
  const folder = new TargetFolder(resolve(options.directory ?? "."));
  await folder.check();
  const existing = await folder.manifest();
  const name = projectName(options.name, asText(existing?.manifest.name), folder.directory);
  const ask = options.yes ? undefined : terminal.ask;
  const databaseUrl = options.databaseUrl ?? (await askForDatabase(options, ask));
  const project: Project = databaseUrl
    ? await projectOnDatabase(name, databaseUrl, options, { say, ask })
    : { name, tables: [EXAMPLE_TABLE], database: undefined };
  const files = projectFiles(project);
  const hasSources = existing !== undefined && (await folder.hasSources(files.keys()));
  const { manifest, kept } = planManifest(existing?.manifest, name, { hasSources });
  if (JSON.stringify(manifest) !== JSON.stringify(existing?.manifest))
    files.set("package.json", `${JSON.stringify(manifest, undefined, existing?.indent ?? 2)}\n`);
  const planned = await folder.plan(files);
  const place = placeOf(folder.directory);
  if (planned.length === 0) {
    say(`The project "${name}" is in ${place} already, just as it would be made: nothing was changed.`);
    return;
  }
  await folder.write(planned);
  say(`The project "${name}" is in ${place}:`);
  for (const { path, isNew } of planned) say(`  ${isNew ? "new     " : "extended"}  ${path}`);
  for (const line of kept) say(`  ${line}`);
  const installed = options.install && (await install(folder.directory, say));
  sayNext(place, installed, say);
}

/** As it may follow `cd`: relative where it is below. */
function placeOf(directory: string): string {
  const place = relative(process.cwd(), directory) || ".";
  return place.startsWith("..") ? directory : place;
}

function sayNext(place: string, installed: boolean, say: (line: string) => void): void {
  say("");
  say("Next:");
  if (place !== ".") say(`  cd ${place}`);
  if (!installed) say("  npm install");
  say("  npm run dev      # the whole pipeline on this machine");
  say("  npm test         # the handler's test");
  say("  npx cdk synth    # what npm run deploy would make");
}

async function askForDatabase(options: InitOptions, ask: Ask | undefined): Promise<string | undefined> {
  if (options.tables) {
    const remedy = "say --database-url too: the example has its own table";
    throw new ConfigurationError("The command line", [{ path: "--tables", value: options.tables, remedy }]);
  }
  const answer = await ask?.(
    "URL of your database, postgres://user:password@host:5432/database (Enter: an embedded PostgreSQL with an example) ",
  );
  return answer?.trim() || undefined;
}

async function projectOnDatabase(
  name: string,
  url: string,
  options: InitOptions,
  { say, ask }: InitTerminal,
): Promise<Project> {
  const connection = connectionFromUrl(url, process.env);
  const signal = AbortSignal.timeout(LOOK_DEADLINE_MS);
  const all = await withConnection(connection, { signal }, listTables);
  const tables = await chooseTables(all, options, { say, ask });
  const [first, ...others] = tables;
  if (!first) {
    const remedy =
      all.length === 0
        ? `the database "${connection.database}" has no table that the role "${connection.user}" can see: name another one, or leave the option out and begin with an example`
        : `no table of "${connection.database}" can be captured as it is:\n${tableList(all).join("\n")}\n `;
    throw new ConfigurationError("The database", [{ path: "--database-url", value: undefined, remedy }]);
  }
  return { name, tables: [first, ...others], database: { url, name: connection.database } };
}

async function chooseTables(
  all: readonly Table[],
  { tables: patterns }: InitOptions,
  { say, ask }: InitTerminal,
): Promise<Table[]> {
  if (patterns && all.length > 0) return tablesByPattern(all, patterns);
  const { chosen, left } = tablesByDefault(all);
  if (chosen.length === 0) return [];
  if (ask) return await askForTables(all, ask, say);
  for (const line of tableList(all)) say(line);
  say(`Chosen: ${chosen.map(formatTable).join(", ")}`);
  if (left > 0) say(`${left} more can be captured: name tables with --tables, or in tributary.config.ts`);
  return chosen;
}

async function install(directory: string, say: (line: string) => void): Promise<boolean> {
  say("");
  say("npm install …");
  const npm = spawn("npm", ["install", "--no-audit", "--no-fund"], {
    cwd: directory,
    stdio: "inherit",
    // npm is a script there.
    shell: process.platform === "win32",
  });
  const [code] = await once(npm, "exit").catch(() => [1]);
  if (code !== 0) say("npm install failed: see above, and run it again.");
  return code === 0;
}

/** Returns how to ask on a terminal, by default this process's; undefined where there is none. */
export function terminalAsk(
  input: NodeJS.ReadableStream & { readonly isTTY?: boolean } = process.stdin,
  output: NodeJS.WritableStream & { readonly isTTY?: boolean } = process.stdout,
): Ask | undefined {
  if (!input.isTTY || !output.isTTY) return undefined;
  return async (question) => {
    const lines = createInterface({ input, output });
    // Ctrl-C and Ctrl-D close it, and then nothing answers any more.
    const closed = once(lines, "close").then(() => {
      const remedy = "it was not answered, and nothing was written; --yes asks nothing";
      throw new ConfigurationError("The command line", [{ path: "the question", value: undefined, remedy }]);
    });
    closed.catch(() => {});
    try {
      return await Promise.race([lines.question(question).catch(() => closed), closed]);
    } finally {
      lines.close();
    }
  };
}

function asText(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
