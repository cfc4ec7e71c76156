import { randomBytes } from "node:crypto";
import { chmod, mkdir, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { join, sep } from "node:path";
import * as z from "zod";
import {
  DevRunningError,
  DevStateOtherError,
  DevStateUnwritableError,
  DevStateVersionError,
} from "./dev-errors.ts";
import { DEV_FILE, STATE_DIRECTORY } from "./dev-file-format.ts";
import { type RunLock, takeRunLock } from "./run-lock.ts";

/*
 * `.tributary/`: what `tributary dev` keeps of a project. `state.json` says which version wrote it, and what it belongs to;
 * everything else in it has a file or a directory of its own.
 */

/** Grows when an older tributary dev could not go on with what is written. */
export const STATE_VERSION = 1;
const STATE_FILE = "state.json";
const LOCK_FILE = "lock";
/** Names that tributary dev keeps beside these; whatever else is there is somebody else's. */
const CONTENT = ["aws", "build", "checkpoints", "postgres", DEV_FILE, `${DEV_FILE}.new`];

const stateSchema = z.object({
  version: z.literal(STATE_VERSION),
  /** Part of the names of what is made in databases. */
  id: z.string().regex(/^[0-9a-f]{6}$/),
  /** The pipeline that it is the state of. */
  pipeline: z.string().optional(),
  /** Path of this directory when it was last opened: a copy of it is told apart from one that was moved. */
  home: z.string().optional(),
  /** Whose database: `host:port/database`, or `embedded`. */
  database: z.string().optional(),
  /** Streams, tables and queues are made: before, nothing is in them. */
  ready: z.boolean().default(false),
  /** We have dropped the slot ourselves: the next start begins a new epoch. */
  slotDropped: z.boolean().default(false),
  /** Port of the embedded server, so that it stays the same. */
  port: z.int().optional(),
  /** Path of the embedded server's data, if not in here. */
  dataDirectory: z.string().optional(),
  /** Hash of the code that each consumer ran last. */
  code: z.record(z.string(), z.string()).default({}),
});

/** The content of `state.json`. */
export type DevState = z.output<typeof stateSchema>;

/** The project's state directory, ours alone until it is closed. */
export class StateDirectory {
  readonly path: string;
  /** True where the last run was killed: parts of it may live for a moment. */
  readonly wasKilled: boolean;
  #state: DevState;
  readonly #release: () => Promise<void>;

  private constructor(path: string, state: DevState, { wasHeld, release }: RunLock) {
    this.path = path;
    this.wasKilled = wasHeld;
    this.#state = state;
    this.#release = release;
  }

  /**
   * Makes or opens the state directory of a project, which is nobody else's to read (mode 0700).
   * `anyVersion`: for whoever removes what is there; of another version's state the id alone is taken over.
   *
   * @throws DevRunningError, DevStateVersionError, DevStateUnwritableError
   */
  static async open(project: string, { anyVersion = false } = {}): Promise<StateDirectory> {
    const path = join(project, STATE_DIRECTORY);
    try {
      await mkdir(path, { mode: 0o700 }).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
        await chmod(path, 0o700);
      });
      // A copy of the id would have its slot read by two.
      await writeFile(join(path, ".gitignore"), "*\n", { mode: 0o600 });
      const home = await realpath(path);
      const original = await originalOf(path, home);
      if (original !== undefined && !anyVersion) throw copied(path, original);
      const lock = await takeRunLock(join(path, LOCK_FILE));
      if (!("release" in lock)) throw new DevRunningError(project, lock.pid);
      try {
        // What a copy names belongs to the original: its data, its slot.
        const state =
          original !== undefined
            ? fresh()
            : ((await readState(path, anyVersion)) ?? { ...fresh(), ...(await idOf(path)) });
        const directory = new StateDirectory(path, state, lock);
        await directory.update(at(home, state));
        return directory;
      } catch (error) {
        await lock.release().catch(() => {});
        throw error;
      }
    } catch (error) {
      throw explainUnwritable(path, error);
    }
  }

  get state(): DevState {
    return this.#state;
  }

  /** Path of a file or directory in it. */
  file(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** Writes what has changed; whole or not at all. @throws DevStateUnwritableError */
  async update(changes: Partial<DevState>): Promise<void> {
    this.#state = { ...this.#state, ...changes };
    await writeWhole(this.file(STATE_FILE), `${JSON.stringify(this.#state, undefined, 2)}\n`).catch(
      (error) => {
        throw explainUnwritable(this.path, error);
      },
    );
  }

  /** Removes files or directories in it. */
  async remove(...names: readonly string[]): Promise<void> {
    for (const name of names) await rm(this.file(name), { recursive: true, force: true });
  }

  /** Removes what is tributary dev's but the lock and what is named; the next state has an id of its own. @throws DevStateUnwritableError */
  async begin(keep: readonly string[] = []): Promise<void> {
    try {
      // First of all: what is left of a removal that was cut off is no state.
      await this.update({ ready: false });
      await this.remove(...CONTENT.filter((name) => !keep.includes(name)));
      const { home } = this.#state;
      this.#state = fresh();
      await this.update({ home });
    } catch (error) {
      throw explainUnwritable(this.path, error);
    }
  }

  /** Lets the next one in. Idempotent. */
  async close(): Promise<void> {
    await this.#release();
  }
}

/** Writes a file so that it is there whole, or as it was before. */
export async function writeWhole(path: string, text: string): Promise<void> {
  const draft = `${path}.new`;
  await writeFile(draft, text, { mode: 0o600, flush: true });
  await rename(draft, path);
}

/** The path that a state directory was copied from, and where it still is; undefined where it was not. */
async function originalOf(path: string, home: string): Promise<string | undefined> {
  const here = await rawState(path);
  if (here?.home === undefined || here.home === home) return undefined;
  const there = await rawState(here.home);
  if (there?.id !== here.id || there.home !== here.home) return undefined;
  // One directory may have two paths: mounted in a container, or in another case.
  const [one, other] = await Promise.all([stat(home), stat(here.home)]);
  return one.ino === other.ino && one.dev === other.dev ? undefined : here.home;
}

function copied(path: string, original: string): DevStateOtherError {
  return new DevStateOtherError({
    message: `${path} is a copy of ${original}: the slot and the database that it goes on from are that one's`,
    remedy: "Remove the copy, or tributary dev --fresh begins anew here; the original stays as it is.",
  });
}

/** Returns a state as it is once opened at `home`: data that it holds have moved with it. */
function at(home: string, { home: before, dataDirectory }: DevState): Partial<DevState> {
  const inside = before !== undefined && dataDirectory?.startsWith(before + sep);
  return { home, ...(inside && { dataDirectory: home + dataDirectory?.slice(before.length) }) };
}

function fresh(): DevState {
  return stateSchema.parse({ version: STATE_VERSION, id: randomBytes(3).toString("hex") });
}

/** @throws DevStateVersionError */
async function readState(path: string, anyVersion: boolean): Promise<DevState | undefined> {
  const text = await readFile(join(path, STATE_FILE), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  // A directory that others have put files into (an editor's, init's) is none of another version.
  if (text === undefined) return undefined;
  const value = parse(text);
  const parsed = stateSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  if (anyVersion) return undefined;
  const { data } = z.object({ version: z.number() }).safeParse(value);
  throw new DevStateVersionError(
    path,
    data ? `version ${data.version}` : "state.json cannot be read",
    STATE_VERSION,
  );
}

/** The id in a state that is not read otherwise: what it named in databases is dropped by it. */
async function idOf(path: string): Promise<{ id?: string }> {
  const state = await rawState(path);
  return state ? { id: state.id } : {};
}

async function rawState(path: string): Promise<{ id: string; home?: string | undefined } | undefined> {
  const text = await readFile(join(path, STATE_FILE), "utf8").catch(() => "");
  const { id, home } = stateSchema.shape;
  return z.object({ id, home }).safeParse(parse(text)).data;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const UNWRITABLE = [
  "EACCES",
  "EPERM",
  "EROFS",
  "ENOSPC",
  "EDQUOT",
  "ENOTDIR",
  "EISDIR",
  "EIO",
  "ELOOP",
  "EMFILE",
];

/** Returns what was thrown, as a DevStateUnwritableError where it is of the disk or of rights. */
export function explainUnwritable(path: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? "";
  return UNWRITABLE.includes(code) ? new DevStateUnwritableError(path, error) : error;
}
