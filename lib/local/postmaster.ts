import { execFile } from "node:child_process";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { DataDirectoryInUseError, PostgresStartError } from "./local-errors.ts";

const run = promisify(execFile);

/** The process of ours that runs the server on a data directory. */
const OWNER_FILE = "tributary.owner";

/**
 * Reads a data directory's `postmaster.pid`; undefined where there is none.
 * https://www.postgresql.org/docs/current/storage-file-layout.html
 */
export async function readPostmaster(
  directory: string,
): Promise<{ pid: number; ready: boolean } | undefined> {
  const text = await readFile(join(directory, "postmaster.pid"), "utf8").catch(() => undefined);
  const lines = text?.split("\n") ?? [];
  const pid = Number(lines[0]);
  return pid > 0 ? { pid, ready: lines[7]?.trim() === "ready" } : undefined;
}

/**
 * Takes a data directory over: a server that still runs on it is stopped when the process that started it is
 * gone.
 *
 * @throws DataDirectoryInUseError when that process lives, PostgresStartError when the server does not end.
 */
export async function stopStalePostmaster(directory: string, deadlineMs: number): Promise<void> {
  const ownerFile = join(directory, OWNER_FILE);
  const stale = await readPostmaster(directory);
  if (stale && (await isPostmasterOf(stale.pid, directory))) {
    const owner = Number(await readFile(ownerFile, "utf8").catch(() => "0"));
    if (owner > 0 && isAlive(owner)) throw new DataDirectoryInUseError(directory, owner);
    process.kill(stale.pid, "SIGINT");
    const deadline = Date.now() + deadlineMs;
    while (isAlive(stale.pid)) {
      if (Date.now() > deadline) process.kill(stale.pid, "SIGQUIT");
      if (Date.now() > deadline + deadlineMs) {
        throw new PostgresStartError({
          message: `An old server (process ${stale.pid}) on ${directory} does not stop`,
          remedy: `End it: kill -9 ${stale.pid}`,
        });
      }
      await delay(20);
    }
  }
}

/** Notes us as the process that runs the server on the directory. */
export async function claimDirectory(directory: string): Promise<void> {
  await writeFile(join(directory, OWNER_FILE), String(process.pid));
}

/** The server was stopped properly. */
export async function releaseDirectory(directory: string): Promise<void> {
  await rm(join(directory, OWNER_FILE), { force: true });
}

/**
 * `kill -9` of a postmaster and all its processes, as a crash of the machine would: a busy backend would outlive the
 * postmaster and hold the shared memory that the next one wants.
 */
export async function killPostmaster(pid: number, deadlineMs: number): Promise<void> {
  const family = [pid, ...(await childrenOf(pid))];
  for (const member of family) {
    if (isAlive(member)) process.kill(member, "SIGKILL");
  }
  const deadline = Date.now() + deadlineMs;
  while (family.some(isAlive) && Date.now() < deadline) await delay(5);
}

async function childrenOf(parent: number): Promise<number[]> {
  const { stdout } =
    process.platform === "linux"
      ? {
          stdout: (
            await Promise.all((await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(pidAndParent))
          ).join("\n"),
        }
      : await run("ps", ["-axo", "pid=,ppid="]);
  return stdout
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, ppid]) => ppid === parent)
    .map(([pid]) => pid as number);
}

/** From `/proc/<pid>/stat`: `pid (name) state ppid …`; the name may hold anything, so it is read from behind. */
async function pidAndParent(pid: string): Promise<string> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const ppid = text.slice(text.lastIndexOf(")") + 2).split(" ")[1];
  return `${pid} ${ppid}`;
}

/** Process ids are used again: the command line must name PostgreSQL and the directory. */
async function isPostmasterOf(pid: number, directory: string): Promise<boolean> {
  if (!isAlive(pid)) return false;
  const command =
    process.platform === "linux"
      ? await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")
      : await run("ps", ["-o", "args=", "-p", String(pid)]).then(
          ({ stdout }) => stdout,
          () => "",
        );
  return command.includes("postgres") && command.includes(directory);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
