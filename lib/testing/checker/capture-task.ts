import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { FAILPOINTS_VARIABLE } from "../../failpoint.ts";
import type { AwsCall } from "../fault/aws-proxy.ts";
import { entriesOf } from "../fault/put-records.ts";

const MAIN = fileURLToPath(new URL("../../../functions/capture/main.ts", import.meta.url));
const RESTART_MS = 50;
const LOG_LINES = 200;
/** Exit code of a capture task that an operator must look at. */
const OPERATOR = 2;

/** One end of a capture task. */
export interface CaptureEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly at: number;
}

/** The capture task as its host runs it: a process that is started again whenever it ends, until `stop`. */
export class CaptureTask {
  /** Of its processes. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #ends: CaptureEnd[] = [];
  readonly #lines: string[] = [];
  #child: ChildProcess | undefined;
  #failpoints: string | undefined;
  #variables: Readonly<Record<string, string>> = {};
  #stopping = false;
  /** Ends before the last `start`. */
  #endsBefore = 0;
  #streaming = false;
  #generation: number | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(environment: Readonly<Record<string, string>>) {
    this.environment = environment;
  }

  /** Starts it and keeps it running. */
  start(): void {
    this.#stopping = false;
    this.#endsBefore = this.#ends.length;
    this.#running = this.#keepRunning();
  }

  /** Returns true if a call is a PutRecords of its own: packed records carry the generation of their writer, new with each lease. */
  sent(call: AwsCall): boolean {
    const [entry] = entriesOf(call);
    if (!entry) return false;
    const { writer } = JSON.parse(Buffer.from(entry.Data, "base64").toString()) as { writer?: number };
    return writer !== undefined && writer === this.#generation;
  }

  /** Its process, while it has one. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** True once its process streams. */
  get streaming(): boolean {
    return this.#streaming;
  }

  /** All its ends so far. */
  get ends(): readonly CaptureEnd[] {
    return this.#ends;
  }

  /** True while it waits for an operator: it is not started again but by `start`. */
  get gaveUp(): boolean {
    return this.#ends.length > this.#endsBefore && this.#ends.at(-1)?.code === OPERATOR;
  }

  /** The last lines that it printed. */
  get log(): readonly string[] {
    return this.#lines;
  }

  /** The next process starts with these failpoints (`lib/failpoint.ts`), the ones after it with none. */
  arm(failpoints: string): void {
    this.#failpoints = failpoints;
  }

  /** The next processes start with these variables too. */
  configure(variables: Readonly<Record<string, string>>): void {
    this.#variables = variables;
  }

  /** `kill -9`. False where there was no process to kill. */
  kill(): boolean {
    return this.#child?.kill("SIGKILL") ?? false;
  }

  /** Stops the process without ending it, and lets it go on: a zombie, a frozen machine. */
  freeze(frozen: boolean): void {
    this.#child?.kill(frozen ? "SIGSTOP" : "SIGCONT");
  }

  /** SIGTERM, and no new start. After 30 s SIGKILL. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const child = this.#child;
    child?.kill("SIGTERM");
    child?.kill("SIGCONT");
    const impatient = setTimeout(() => child?.kill("SIGKILL"), 30_000);
    await this.#running;
    clearTimeout(impatient);
  }

  async #keepRunning(): Promise<void> {
    while (!this.#stopping && !this.gaveUp) {
      const failpoints = this.#failpoints;
      this.#failpoints = undefined;
      const child = spawn(process.execPath, [MAIN], {
        env: {
          ...this.environment,
          ...this.#variables,
          ...(failpoints ? { [FAILPOINTS_VARIABLE]: failpoints } : {}),
        },
        stdio: ["ignore", "pipe", "pipe", "ipc"],
      });
      this.#child = child;
      for (const output of [child.stdout, child.stderr]) {
        if (output) createInterface({ input: output }).on("line", (line) => this.#print(line));
      }
      const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
      this.#child = undefined;
      this.#streaming = false;
      this.#ends.push({ code, signal, at: performance.now() });
      if (!this.#stopping) await delay(RESTART_MS);
    }
  }

  #print(line: string): void {
    // Metrics come all the time and say nothing about a fault.
    if (line.startsWith(`{"tributary":"capture`)) return;
    if (/streaming from slot|relays the outbox|reading changes by/.test(line)) this.#streaming = true;
    const generation = /took the capture lease.*"generation":(\d+)/.exec(line)?.[1];
    if (generation) this.#generation = Number(generation);
    this.#lines.push(line);
    if (this.#lines.length > LOG_LINES) this.#lines.shift();
  }
}
