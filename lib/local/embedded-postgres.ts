import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { appendFile, chown, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { PortTakenError, PostgresBinariesError, PostgresStartError } from "./errors.ts";
import { findPostgresBinaries, type PostgresBinaries, serverUser } from "./postgres-binaries.ts";
import { claimDirectory, readPostmaster, releaseDirectory, stopStalePostmaster } from "./postmaster.ts";
import { type Watchdog, watchOver } from "./watchdog.ts";

const run = promisify(execFile);

/** What a server is started with. */
export interface EmbeddedPostgresOptions {
  /** Kept across starts; without it a temporary one, removed by `stop`. */
  readonly dataDirectory?: string;
  /** On 127.0.0.1; without it a free one. */
  readonly port?: number;
  /** Lines of postgresql.conf; `ALTER SYSTEM` overrides them. */
  readonly settings?: Readonly<Record<string, string>>;
  /** More arguments to initdb, the last of a kind counts: `["--encoding=SQL_ASCII"]`. */
  readonly initdbArguments?: readonly string[];
  /** Default: the npm package's. */
  readonly binaries?: PostgresBinaries;
  /** `false`: nothing is synced to disk, for servers that may be lost. Default: true with `dataDirectory`. */
  readonly durable?: boolean;
  /** Gives the start up; a server that came up is ended by `stop` alone. */
  readonly signal?: AbortSignal;
}

/** A PostgreSQL server of our own, a child process that ends with us. */
export interface EmbeddedPostgres {
  /** Of the superuser `postgres` and the database `postgres`; stays the same across `restart`. */
  readonly url: string;
  readonly host: "127.0.0.1";
  readonly port: number;
  readonly version: string;
  readonly major: number;
  readonly dataDirectory: string;
  /**
   * Ends the server and removes a temporary data directory. `fast` (the default) lets it write a checkpoint;
   * `immediate` is a crash. A fast stop that takes more than 20 s becomes an immediate one. Idempotent.
   */
  stop(mode?: "fast" | "immediate"): Promise<void>;
  /** `kill -9` of the postmaster: the data directory stays, `restart` recovers it. */
  kill(): Promise<void>;
  /** Stops the server if it runs and starts it again on the same port and data, with more settings if given. */
  restart(options?: {
    mode?: "fast" | "immediate";
    settings?: Readonly<Record<string, string>>;
  }): Promise<void>;
}

const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 20_000;
const PASSWORD_FILE = "tributary.password";
const SETTINGS_FILE = "tributary.conf";

/** Replication needs these; everything else is PostgreSQL's own default. */
const DEFAULT_SETTINGS = { wal_level: "logical", max_replication_slots: "20", max_wal_senders: "20" };
/** Committing stays synchronous: only the disk is left out. */
const THROWAWAY_SETTINGS = { fsync: "off", full_page_writes: "off", shared_buffers: "32MB" };

/**
 * Starts a PostgreSQL server on 127.0.0.1 with scram-sha-256 and a random password, without Docker, as root too.
 * It ends with our process, even with `kill -9`. A server left on `dataDirectory` by a process that is gone is
 * stopped first.
 *
 * @throws PortTakenError, DataDirectoryInUseError, PostgresBinariesError, PostgresStartError.
 */
export async function startEmbeddedPostgres(
  options: EmbeddedPostgresOptions = {},
): Promise<EmbeddedPostgres> {
  const binaries = options.binaries ?? (await embeddedBinaries());
  const temporary = options.dataDirectory === undefined;
  const durable = options.durable ?? !temporary;
  const user = serverUser();
  const dataDirectory = await prepareDirectory(options.dataDirectory, user);
  let settings: Record<string, string> = {
    ...DEFAULT_SETTINGS,
    ...(durable ? {} : THROWAWAY_SETTINGS),
    ...options.settings,
  };
  let watchdog: Watchdog | undefined;
  let server: ChildProcess | undefined;
  let port = options.port ?? 0;
  let password: string;
  let claimed = false;

  try {
    await stopStalePostmaster(dataDirectory, STOP_DEADLINE_MS);
    claimed = true;
    watchdog = watchOver(dataDirectory, temporary, user);
    password = await initialize(binaries, dataDirectory, durable, options);
    await claimDirectory(dataDirectory);
    await start();
  } catch (error) {
    if (claimed) await releaseDirectory(dataDirectory);
    watchdog?.dismiss();
    if (temporary) await removeDirectory(dataDirectory);
    throw error;
  }

  async function start(): Promise<void> {
    const file = join(dataDirectory, SETTINGS_FILE);
    await writeFile(file, settingsFile(settings), { mode: 0o600 });
    await giveTo(file, user);
    const deadline = Date.now() + START_DEADLINE_MS;
    for (;;) {
      const attempt = port === 0 ? await freePort() : port;
      try {
        server = await startPostmaster(binaries, dataDirectory, attempt, options.signal, deadline);
        port = attempt;
        return;
      } catch (error) {
        const another = error instanceof PortTakenError ? port === 0 : isSharedMemoryInUse(error);
        if (!another || Date.now() > deadline) throw error;
        await delay(50, undefined, { signal: options.signal });
      }
    }
  }

  async function end(mode: "fast" | "immediate"): Promise<void> {
    if (server === undefined || hasEnded(server)) return;
    const ended = once(server, "exit");
    server.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
    const impatient = setTimeout(() => server?.kill("SIGQUIT"), STOP_DEADLINE_MS);
    const last = setTimeout(() => server?.kill("SIGKILL"), 2 * STOP_DEADLINE_MS);
    await ended;
    clearTimeout(impatient);
    clearTimeout(last);
  }

  return {
    url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
    host: "127.0.0.1",
    port,
    version: binaries.version,
    major: binaries.major,
    dataDirectory,
    async stop(mode = "fast") {
      await end(mode);
      await releaseDirectory(dataDirectory);
      if (temporary) await removeDirectory(dataDirectory);
      watchdog?.dismiss();
    },
    async kill() {
      if (server === undefined || hasEnded(server)) return;
      const ended = once(server, "exit");
      server.kill("SIGKILL");
      await ended;
    },
    async restart(again = {}) {
      await end(again.mode ?? "fast");
      settings = { ...settings, ...again.settings };
      await start();
    },
  };
}

async function embeddedBinaries(): Promise<PostgresBinaries> {
  const found = await findPostgresBinaries("embedded");
  if (found) return found;
  throw new PostgresBinariesError({
    message: `No PostgreSQL binaries are installed for ${process.platform}-${process.arch}`,
    remedy: "Run npm ci without --omit=optional, or give --database-url of a PostgreSQL of your own.",
  });
}

async function prepareDirectory(
  wanted: string | undefined,
  user: { uid?: number; gid?: number },
): Promise<string> {
  let directory: string;
  if (wanted === undefined) {
    directory = await mkdtemp(join(tmpdir(), "tributary-data-"));
  } else {
    directory = resolve(wanted);
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  await giveTo(directory, user);
  return directory;
}

async function giveTo(path: string, user: { uid?: number; gid?: number }): Promise<void> {
  if (user.uid !== undefined && user.gid !== undefined) await chown(path, user.uid, user.gid);
}

/** Runs initdb unless it was done before; gives the password of `postgres`. */
async function initialize(
  binaries: PostgresBinaries,
  directory: string,
  durable: boolean,
  options: EmbeddedPostgresOptions,
): Promise<string> {
  const user = serverUser();
  const file = join(directory, PASSWORD_FILE);
  const initialized = await readFile(join(directory, "PG_VERSION"), "utf8").catch(() => undefined);
  if (initialized !== undefined) {
    return await readFile(file, "utf8").catch((cause) => {
      throw new PostgresStartError({
        message: `The data directory ${directory} was not made by Tributary (no ${PASSWORD_FILE} in it)`,
        remedy:
          "Choose another data directory; to capture from that server start it yourself and give --database-url.",
        cause,
      });
    });
  }
  const password = randomBytes(16).toString("hex");
  const draft = await mkdtemp(join(tmpdir(), "tributary-password-"));
  const passwordFile = join(draft, "password");
  try {
    await writeFile(passwordFile, password, { mode: 0o600 });
    await giveTo(passwordFile, user);
    await giveTo(draft, user);
    const args = ["-D", directory, "-U", "postgres", "--auth=scram-sha-256", `--pwfile=${passwordFile}`];
    args.push("--encoding=UTF8", "--locale=C", ...(durable ? [] : ["--no-sync"]));
    args.push(...(options.initdbArguments ?? []));
    await run(join(binaries.directory, "initdb"), args, {
      ...user,
      cwd: "/",
      env: serverEnvironment(),
      timeout: START_DEADLINE_MS,
      signal: options.signal,
    });
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
  await writeFile(file, password, { mode: 0o600 });
  await appendFile(join(directory, "postgresql.conf"), `\ninclude_if_exists '${SETTINGS_FILE}'\n`);
  return password;
}

async function startPostmaster(
  binaries: PostgresBinaries,
  directory: string,
  port: number,
  signal: AbortSignal | undefined,
  deadline: number,
): Promise<ChildProcess> {
  signal?.throwIfAborted();
  const network = ["listen_addresses=127.0.0.1", `port=${port}`, "unix_socket_directories="];
  const server = spawn(
    join(binaries.directory, "postgres"),
    ["-D", directory, ...network.flatMap((setting) => ["-c", setting])],
    {
      ...serverUser(),
      cwd: "/",
      env: serverEnvironment(),
      detached: true,
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  let printed = "";
  server.stderr?.setEncoding("utf8").on("data", (text: string) => {
    printed = (printed + text).slice(-8192);
  });
  let spawnError: unknown;
  server.on("error", (error) => {
    spawnError = error;
  });
  const closed = once(server, "close").catch(() => undefined);

  while (!hasEnded(server) && spawnError === undefined) {
    const state = await readPostmaster(directory);
    if (state?.pid === server.pid && state?.ready) return server;
    if (signal?.aborted || Date.now() > deadline) {
      server.kill("SIGKILL");
      await closed;
      signal?.throwIfAborted();
      break;
    }
    await delay(10);
  }
  await closed;
  if (/could not bind .*Address already in use/.test(printed)) throw new PortTakenError(port, printed);
  throw new PostgresStartError({
    message: `PostgreSQL did not start on ${directory}: ${lastLines(printed || String(spawnError))}`,
    remedy: "Correct what the server complains of and start again.",
    cause: spawnError,
  });
}

/** After a kill -9 the old backends hold the shared memory for a moment. */
function isSharedMemoryInUse(error: unknown): boolean {
  return error instanceof PostgresStartError && /pre-existing shared memory block/.test(error.message);
}

/** Nothing of ours leaks in: PGDATA, PGPORT, LC_ALL and credentials stay outside. */
function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, TZ: "UTC", LC_ALL: "C" };
}

function settingsFile(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} = '${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'\n`)
    .join("");
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-6).join("\n");
}

async function removeDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}

/** A port nobody listens on now; another may take it before we do, so callers try again. */
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, "close");
  return port;
}
