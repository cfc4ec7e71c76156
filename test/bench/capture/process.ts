import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

/** Ticks a second of /proc: 100 on every Linux that Node runs on. */
const TICKS = 100;
const LOOK_MS = 100;
const MB = 1024 * 1024;

/** A program that is measured: what it prints, its highest resident memory, its CPU time. */
export class MeasuredProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | NodeJS.Signals>;
  readonly #watch: NodeJS.Timeout;
  readonly #printed: string[] = [];
  #peakMB = 0;
  #cpuSeconds = 0;

  constructor(
    command: string,
    args: readonly string[],
    options: { env: Record<string, string>; cwd?: string; onLine?: (line: string) => void },
  ) {
    this.#child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    for (const output of [this.#child.stdout, this.#child.stderr] as readonly Readable[]) {
      createInterface({ input: output }).on("line", (line) => {
        this.#printed.push(line);
        if (this.#printed.length > 50) this.#printed.shift();
        options.onLine?.(line);
      });
    }
    this.#ended = once(this.#child, "close").then(([code, signal]) => code ?? signal);
    this.#ended.catch(() => {});
    this.#watch = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Resolves with the exit code or signal, once it has ended. */
  get ended(): Promise<number | NodeJS.Signals> {
    return this.#ended.finally(() => clearInterval(this.#watch));
  }

  /** Highest resident memory so far (VmHWM); 0 on systems without /proc. */
  get peakMB(): number {
    this.#look();
    return this.#peakMB;
  }

  get cpuSeconds(): number {
    this.#look();
    return this.#cpuSeconds;
  }

  /** The end of what it printed. */
  get printed(): string {
    return this.#printed.join("\n");
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    const impatient = setTimeout(() => this.#child.kill("SIGKILL"), 20_000);
    await this.ended;
    clearTimeout(impatient);
  }

  /** https://man7.org/linux/man-pages/man5/proc_pid_status.5.html */
  #look(): void {
    try {
      const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
      const kilobytes = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0);
      this.#peakMB = Math.max(this.#peakMB, (kilobytes * 1024) / MB);
      this.#cpuSeconds = Math.max(this.#cpuSeconds, cpuSecondsOf(this.#child.pid ?? 0));
    } catch {
      // It has ended.
    }
  }
}

/** CPU seconds that a process has used. Throws where it has ended, or the system has no /proc. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The second field is a name in brackets that may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}
