import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import {
  initialize,
  lastLines,
  prepareDirectory,
  removeDirectory,
  serverEnvironment,
  writeSettings,
} from "./data-directory.ts";
import { PortTakenError, PostgresBinariesError, PostgresStartError } from "./local-errors.ts";
import { findPostgresBinaries, type PostgresBinaries } from "./postgres-binaries.ts";
import {
  claimDirectory,
  killPostmaster,
  readPostmaster,
  releaseDirectory,
  stopStalePostmaster,
} from "./postmaster.ts";
import { serverUser } from "./server-user.ts";
import { type Watchdog, watchOver } from "./watchdog.ts";

/** Settings of `startEmbeddedPostgres`. */
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
  /** `kill -9` of the server, all its processes: the data directory stays, `restart` recovers it. */
  kill(): Promise<void>;
  /** Stops the server if it runs and starts it again on the same port and data, with more settings if given. */
  restart(options?: {
    mode?: "fast" | "immediate";
    settings?: Readonly<Record<string, string>>;
  }): Promise<void>;
}

const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 20_000;

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
  const dataDirectory = await prepareDirectory(options.dataDirectory);
  let settings: Record<string, string> = {
    ...DEFAULT_SETTINGS,
    ...(durable ? {} : THROWAWAY_SETTINGS),
    ...options.settings,
  };
  let watchdog: Watchdog | undefined;
  let server: ChildProcess | undefined;
  let port = options.port ?? 0;
  let password: string;

  try {
    await stopStalePostmaster(dataDirectory, STOP_DEADLINE_MS);
    watchdog = watchOver(dataDirectory, temporary);
    password = await initialize(binaries, dataDirectory, { durable, ...options });
    await start(options.signal);
    await claimDirectory(dataDirectory);
  } catch (error) {
    watchdog?.dismiss();
    if (temporary) await removeDirectory(dataDirectory);
    throw error;
  }

  async function start(signal?: AbortSignal): Promise<void> {
    await writeSettings(dataDirectory, settings);
    const deadline = Date.now() + START_DEADLINE_MS;
    for (;;) {
      const attempt = port === 0 ? await freePort() : port;
      try {
        server = await startPostmaster(binaries, dataDirectory, attempt, signal, deadline);
        port = attempt;
        return;
      } catch (error) {
        const another = error instanceof PortTakenError ? port === 0 : isSharedMemoryInUse(error);
        if (!another || Date.now() > deadline) throw error;
        await delay(50, undefined, { signal });
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
      if (server?.pid === undefined || hasEnded(server)) return;
      const ended = once(server, "exit");
      await killPostmaster(server.pid, STOP_DEADLINE_MS);
      await ended;
    },
    async restart(again = {}) {
      await end(again.mode ?? "fast");
      settings = { ...settings, ...again.settings };
      await start();
    },
  };
}

/** Removes a data directory of ours; a server that its starter has left behind is stopped first. @throws DataDirectoryInUseError */
export async function removeEmbeddedPostgres(dataDirectory: string): Promise<void> {
  await stopStalePostmaster(dataDirectory, STOP_DEADLINE_MS);
  await removeDirectory(dataDirectory);
}

async function embeddedBinaries(): Promise<PostgresBinaries> {
  const found = await findPostgresBinaries("embedded");
  if (found) return found;
  throw new PostgresBinariesError({
    message: `No PostgreSQL binaries are installed for ${process.platform}-${process.arch}`,
    remedy: "Run npm ci without --omit=optional, or give --database-url of a PostgreSQL of your own.",
  });
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

/** After a crash of the postmaster alone its busy backends hold the shared memory for a while. */
function isSharedMemoryInUse(error: unknown): boolean {
  return error instanceof PostgresStartError && /pre-existing shared memory block/.test(error.message);
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/**
 * A port nobody listens on now; another may take it before we do, so callers try again. It is below the range of
 * outgoing connections, one of which could take it while the server restarts.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(15_000, 32_000);
    const probe = createServer();
    const isFree = await new Promise<boolean>((settle) => {
      probe.once("error", () => settle(false));
      probe.listen(port, "127.0.0.1", () => settle(true));
    });
    if (!isFree) continue;
    probe.close();
    await once(probe, "close");
    return port;
  }
}
