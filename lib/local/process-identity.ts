import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import * as z from "zod";

/** A process, told apart from a later one that was given the same id. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Time of its start, in the system's own words; empty where that is not known. */
  readonly started: string;
}

/** A process as a file names it. */
export const processIdentity = z.object({ pid: z.int().positive(), started: z.string() });

/** Our own process. */
export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, started: startOf(process.pid) ?? "" };
}

/** Tells whether that very process is alive: another one with its id is not. */
export function isAlive({ pid, started }: ProcessIdentity): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // Another user's is alive too.
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  const now = startOf(pid);
  return now !== undefined && (started === "" || now === "" || now === started);
}

/** Returns when a process was started; undefined where it is gone or a zombie, empty where the system does not tell. */
function startOf(pid: number): string | undefined {
  if (process.platform === "linux") {
    try {
      // `pid (name) state ppid …`; the name may hold anything, so it is read from behind.
      const text = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
    } catch {
      return undefined;
    }
  }
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim() || undefined;
  } catch {
    return undefined;
  }
}
