import { randomBytes } from "node:crypto";
import { link, readFile, realpath, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import * as z from "zod";
import { isAlive, ownIdentity, type ProcessIdentity, processIdentity } from "../process-identity.ts";

/** A file that names the one process that may go on. */
export interface RunLock {
  /** True where the process that had it was killed. */
  readonly wasHeld: boolean;
  /** Gives it up, where it is still ours. Idempotent. */
  release(): Promise<void>;
}

const holderSchema = processIdentity.extend({
  token: z.string().regex(/^[0-9a-f]{8}$/),
  /** The folder it was made in: a folder may be copied, and the lock with it. Missing where an earlier version made it. */
  path: z.string().optional(),
});
type Holder = z.infer<typeof holderSchema>;

const TAKE_OVER_MS = 10_000;

/**
 * Takes a lock file, or that of a process that is gone; gives the living process that has it otherwise. It is made whole or not at
 * all (a link to a file that is written), and two that find the same dead holder take turns: see `takeFromDead`.
 */
export async function takeRunLock(path: string): Promise<RunLock | ProcessIdentity> {
  const place = join(await realpath(dirname(path)), basename(path));
  const own = { ...ownIdentity(), token: randomBytes(4).toString("hex"), path: place };
  const draft = `${path}.${own.pid}-${own.token}`;
  let wasHeld = false;
  await writeFile(draft, JSON.stringify(own), { mode: 0o600 });
  try {
    const deadline = performance.now() + TAKE_OVER_MS;
    for (;;) {
      const holder = await claim(path, draft);
      if (holder === undefined) break;
      if (isAlive(holder) && !(await isCopy(holder, place)))
        return { pid: holder.pid, started: holder.started };
      wasHeld = await takeFromDead(path, holder, draft, deadline);
      if (wasHeld) break;
    }
  } finally {
    await rm(draft, { force: true });
  }
  return {
    wasHeld,
    async release() {
      if ((await read(path))?.token === own.token) await rm(path, { force: true });
    },
  };
}

/** Makes the lock file ours, or returns who has it. */
async function claim(path: string, draft: string): Promise<Holder | undefined> {
  for (;;) {
    try {
      await link(draft, path);
      return undefined;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const holder = await read(path);
    // It went meanwhile.
    if (holder) return holder;
  }
}

/**
 * Puts our file in the place of a dead holder's; gives whether it is ours then. Only one process at a time may, who has a lock named
 * after that very holder: whoever comes later finds that the file is another's by then, and leaves it alone.
 */
async function takeFromDead(path: string, dead: Holder, draft: string, deadline: number): Promise<boolean> {
  const grave = `${path}.${dead.token}`;
  const digger = await claim(grave, draft);
  if (digger) {
    if (performance.now() > deadline) throw new Error(`${grave} is held by process ${digger.pid}`);
    if (isAlive(digger)) {
      await delay(10);
      return false;
    }
    if (!(await takeFromDead(grave, digger, draft, deadline))) return false;
  }
  try {
    if ((await read(path))?.token !== dead.token) return false;
    const copy = `${draft}.copy`;
    await link(draft, copy);
    await rename(copy, path);
    return true;
  } finally {
    await rm(grave, { force: true });
  }
}

/** Tells whether its process has its lock elsewhere; a folder that was moved while it ran is still its own. */
async function isCopy({ path, token }: Holder, place: string): Promise<boolean> {
  return path !== undefined && path !== place && (await read(path))?.token === token;
}

async function read(path: string): Promise<Holder | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const parsed = holderSchema.safeParse(parse(text));
  // Not written by us: nobody that could be asked whether it lives.
  return parsed.data ?? { pid: 0x7fffffff, started: "?", token: "00000000" };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
