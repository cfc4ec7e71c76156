import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { PostgresStartError } from "./local-errors.ts";
import { PASSWORD_FILE } from "./password-file.ts";
import type { PostgresBinaries } from "./postgres-binaries.ts";
import { giveToServer, serverUser, temporaryPlace } from "./server-user.ts";

const run = promisify(execFile);

const INITDB_DEADLINE_MS = 60_000;

const SETTINGS_FILE = "tributary.conf";

/**
 * A directory that is empty and the server's, or that we initialized before: nothing else is ever taken over. With
 * nothing wanted a temporary one.
 *
 * @throws PostgresStartError when something else is in it.
 */
export async function prepareDirectory(wanted: string | undefined): Promise<string> {
  if (wanted === undefined) {
    const directory = await mkdtemp(join(await temporaryPlace(), "tributary-data-"));
    await giveToServer(directory);
    return directory;
  }
  const directory = resolve(wanted);
  await mkdir(dirname(directory), { recursive: true });
  await mkdir(directory, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  const content = await readdir(directory);
  if (content.length === 0) await giveToServer(directory);
  else if (!content.includes(PASSWORD_FILE)) {
    throw new PostgresStartError({
      message: `The directory ${directory} is not empty and not a data directory made by Tributary`,
      remedy:
        "Choose another data directory (or empty this one if a first start was cut off); to capture from a server of your own start it yourself and give --database-url.",
    });
  }
  return directory;
}

/**
 * Runs initdb unless it was done before; gives the password of the superuser `postgres`.
 *
 * @throws PostgresStartError with what initdb said.
 */
export async function initialize(
  binaries: PostgresBinaries,
  directory: string,
  options: { durable: boolean; initdbArguments?: readonly string[]; signal?: AbortSignal },
): Promise<string> {
  const file = join(directory, PASSWORD_FILE);
  const kept = await readFile(file, "utf8").catch(() => undefined);
  if (kept !== undefined) return kept;
  const password = randomBytes(16).toString("hex");
  const draft = await mkdtemp(join(await temporaryPlace(), "tributary-password-"));
  const passwordFile = join(draft, "password");
  try {
    await writeFile(passwordFile, password, { mode: 0o600 });
    await giveToServer(passwordFile);
    await giveToServer(draft);
    const args = ["-D", directory, "-U", "postgres", "--auth=scram-sha-256", `--pwfile=${passwordFile}`];
    args.push("--encoding=UTF8", "--locale=C", ...(options.durable ? [] : ["--no-sync"]));
    args.push(...(options.initdbArguments ?? []));
    options.signal?.throwIfAborted();
    const initdb = run(join(binaries.directory, "initdb"), args, {
      ...serverUser(),
      cwd: "/",
      env: serverEnvironment(),
      timeout: INITDB_DEADLINE_MS,
    });
    // Its own `signal` option would not wait for initdb to clear away what it made.
    const abort = () => initdb.child.kill("SIGINT");
    options.signal?.addEventListener("abort", abort, { once: true });
    await initdb.finally(() => options.signal?.removeEventListener("abort", abort));
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new PostgresStartError({
      message: `initdb failed on ${directory}: ${lastLines((error as { stderr?: string }).stderr ?? String(error))}`,
      remedy: "Check that the directory is empty, writable, and reachable by the user of the server.",
      cause: error,
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  await appendFile(join(directory, "postgresql.conf"), `\ninclude_if_exists '${SETTINGS_FILE}'\n`);
  // Last: it marks the directory as initialized.
  await writeFile(file, password, { mode: 0o600 });
  return password;
}

/** Writes the lines of postgresql.conf that are ours; they count from the next start. */
export async function writeSettings(
  directory: string,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const lines = Object.entries(settings)
    .map(([name, value]) => `${name} = '${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'\n`)
    .join("");
  const file = join(directory, SETTINGS_FILE);
  await writeFile(file, lines, { mode: 0o600 });
  await giveToServer(file);
}

/** Removes a data directory, also while the last backends of a killed server write to it. */
export async function removeDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}

/** Nothing of ours leaks in: PGDATA, PGPORT, LC_ALL and credentials stay outside. */
export function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, TZ: "UTC", LC_ALL: "C" };
}

/** The end of what a program printed, for messages. */
export function lastLines(text: string): string {
  return text.trim().split("\n").slice(-6).join("\n");
}
