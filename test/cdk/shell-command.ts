import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../eventually.ts";
import { shellEnvironment } from "./new-user.ts";

const ENDS_WITHIN_MS = 30_000;

/** A command that runs until its user stops it, in a shell of its own. */
export class ShellCommand {
  readonly #line: string;
  readonly #process: ChildProcess;
  readonly #closed: Promise<unknown>;
  #isClosed = false;
  #printed = "";
  #seen = 0;

  constructor(folder: string, command: string, ...args: string[]) {
    this.#line = [command, ...args].join(" ");
    // A group of its own, so that all of it can be ended.
    this.#process = spawn(command, args, {
      ...{ cwd: folder, env: shellEnvironment(), detached: true },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.#process.stdout, this.#process.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#printed += text;
      });
    this.#closed = once(this.#process, "close").then(() => {
      this.#isClosed = true;
    });
  }

  /** All that it has printed so far, on both streams. */
  get printed(): string {
    return this.#printed;
  }

  /** Waits until it has printed a text, behind what was seen before. @throws Error where it ends before that */
  async prints(text: string | RegExp): Promise<void> {
    let isFound = false;
    await eventually(
      () => {
        // Asked first: what it printed last is there when it has ended.
        const hasEnded = this.#isClosed;
        const fresh = this.#printed.slice(this.#seen);
        const [index, length] =
          typeof text === "string"
            ? [fresh.indexOf(text), text.length]
            : [fresh.search(text), text.exec(fresh)?.[0].length ?? 0];
        isFound = index >= 0;
        if (isFound) this.#seen += index + length;
        return isFound || hasEnded;
      },
      { what: () => `${text} in:\n${this.#printed.slice(this.#seen)}` },
    );
    if (!isFound) throw new Error(`${this.#line} has ended: ${this.#printed}`);
  }

  /** Ends it as Ctrl-C does; returns its exit code, or the signal it ended by. @throws Error where it does not end, or had ended before */
  async interrupt(): Promise<number | NodeJS.Signals | null> {
    this.#signal("SIGINT");
    await eventually(() => this.#isClosed, {
      what: () => `the end of ${this.#line}:\n${this.#printed}`,
      deadlineMs: ENDS_WITHIN_MS,
    });
    return this.#process.exitCode ?? this.#process.signalCode;
  }

  /** Ends it in any case; what ended before is left alone. */
  async end(): Promise<void> {
    const patience = new AbortController();
    const impatient = delay(ENDS_WITHIN_MS, undefined, { signal: patience.signal }).catch(() => {});
    for (const name of ["SIGTERM", "SIGKILL"] as const) {
      if (this.#isClosed) break;
      try {
        this.#signal(name);
      } catch {
        // It has ended meanwhile.
      }
      await Promise.race([this.#closed, ...(name === "SIGTERM" ? [impatient] : [])]);
    }
    patience.abort();
  }

  /** To the whole group, as a terminal does. */
  #signal(name: NodeJS.Signals): void {
    process.kill(-(this.#process.pid as number), name);
  }
}
