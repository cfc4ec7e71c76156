import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { forwardLines } from "../../lib/local/lambda/log-lines.ts";

/*
 * A shell that leads a process group, runs the command in it, and waits for the end of its standard input, which comes
 * with `stop` or with the end of our process, whatever ended it. Then it removes the directory and kills the group: the
 * command and everything it started. The command's exit status is told on descriptor 3, before the group is killed.
 */
const SCRIPT = `
scratch="$1"; shift
{ "$@" 3>&-; echo $? >&3; rm -rf "$scratch"; kill -9 0; } < /dev/null &
exec 3>&-
read -r _
rm -rf "$scratch"
kill -9 0
`;

/** A command and all its descendants. */
export interface ProcessGroup {
  /** The command's exit status; undefined where it was stopped. */
  readonly ended: Promise<number | undefined>;
  /** The last lines of what it printed on both outputs. */
  printed(): string;
  /** Kills all of them and removes the directory. Idempotent. */
  stop(): Promise<void>;
}

/** How a command is run. */
export interface ProcessGroupOptions {
  /** The whole environment: nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
  readonly workingDirectory: string;
  /** Removed at the end, whatever ends it. */
  readonly scratchDirectory: string;
  readonly onLine?: (line: string) => void;
}

const KEPT_LINES = 200;

/** Starts a command that ends with our process, together with every process it has started. */
export function startProcessGroup(command: readonly string[], options: ProcessGroupOptions): ProcessGroup {
  const shell: ChildProcess = spawn("/bin/sh", ["-c", SCRIPT, "sh", options.scratchDirectory, ...command], {
    cwd: options.workingDirectory,
    env: options.environment,
    detached: true,
    stdio: ["pipe", "pipe", "pipe", "pipe"],
  });
  shell.stdin?.on("error", () => {});
  const lines: string[] = [];
  const keep = (line: string) => {
    lines.push(line);
    if (lines.length > KEPT_LINES) lines.shift();
    options.onLine?.(line);
  };
  forwardLines(shell.stdout as Readable, keep);
  forwardLines(shell.stderr as Readable, keep);
  let status = "";
  (shell.stdio[3] as Readable).setEncoding("utf8").on("data", (text: string) => {
    status += text;
  });
  const closed = once(shell, "close");
  return {
    ended: closed.then(() => (status === "" ? undefined : Number(status))),
    printed: () => lines.join("\n"),
    async stop() {
      shell.stdin?.end();
      await closed;
    },
  };
}
