import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";

/** How a run of `npm start` ended. */
export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A run of `npm start` under way. */
export interface Started {
  readonly finished: Promise<Finished>;
  /** What it has printed so far on both streams. */
  printed(): string;
  /** Of npm's own process: signals to it reach the host as Ctrl-C would. */
  kill(signal: NodeJS.Signals): void;
  readonly pid: number;
}

/** Starts `npm start -- …` as a user does, with a process group of its own. */
export function npmStart(...args: string[]): Started {
  const child = spawn("npm", ["start", "--silent", "--", ...args], {
    cwd: new URL("../..", import.meta.url),
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      printed += chunk;
    });
  }
  const pid = child.pid as number;
  const finished = Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]).then(
    ([[code], stdout, stderr]): Finished => ({ code: code as number | null, stdout, stderr }),
  );
  return { finished, pid, printed: () => printed, kill: (signal) => process.kill(-pid, signal) };
}
