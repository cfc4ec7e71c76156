import { type ChildProcess, spawn } from "node:child_process";
import { extname, resolve, sep } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { FrameReader, writeFrame } from "./frames.ts";
import type { FunctionError, InvocationResult } from "./invocation.ts";
import { FunctionEntryError, FunctionInitTimeoutError } from "./lambda-errors.ts";
import { forwardLines } from "./log-lines.ts";

/** Settings of a function's process. */
export interface ProcessSpec {
  readonly entry: string;
  readonly handlerName: string;
  readonly arn: string;
  readonly timeoutMs: number;
  readonly memoryMB: number;
  /** True where stack traces are told by source maps. */
  readonly sourceMaps: boolean;
  readonly environment: Readonly<Record<string, string>>;
  readonly onLine: (line: string, stream: "stdout" | "stderr") => void;
}

/** Beside this file, which is TypeScript here and JavaScript where the package is installed. */
const CHILD = fileURLToPath(new URL(`./child${extname(import.meta.filename)}`, import.meta.url));
/** Of the function's memory, as AWS's runtime gives to the JavaScript heap. */
const HEAP_SHARE = 0.9;
/** Time after a process' end in which its last answer may still be in the pipe. */
const LAST_WORDS_MS = 1_000;

const functionError = z.object({ type: z.string(), message: z.string(), stack: z.string().optional() });
const registeredHandlers = z.object({
  consumer: z.string(),
  /** Not told by earlier versions of the library. */
  patterns: z.array(z.string()).optional(),
});
/** The consumer that a handler says it is, and the patterns that it registered handlers for. */
export type RegisteredHandlers = z.infer<typeof registeredHandlers>;

const headFromChild = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("ready"),
    // Another library's handler may have anything there.
    registered: registeredHandlers.optional().catch(undefined),
  }),
  z.object({ type: z.literal("no-export"), exports: z.array(z.string()) }),
  z.object({ type: z.literal("threw"), error: functionError }),
  z.object({ type: z.literal("answered"), requestId: z.string() }),
  z.object({ type: z.literal("failed"), requestId: z.string(), error: functionError }),
]);

interface CurrentInvocation {
  readonly requestId: string;
  /** Set when we kill the process for a reason: it fails with that once the process is gone, not before. */
  epitaph: FunctionError | undefined;
  readonly settle: (result: InvocationResult) => void;
}

/** The error of an invocation that took too long. */
export function timedOut(timeoutMs: number): FunctionError {
  const message = `Task timed out after ${(timeoutMs / 1000).toFixed(2)} seconds`;
  return { type: "Sandbox.Timedout", message };
}

/** One warm process of a function: runs one invocation at a time, is gone after a timeout or a crash. */
export class FunctionProcess {
  readonly #spec: ProcessSpec;
  readonly #child: ChildProcess;
  readonly #pipe: Duplex;
  readonly #started = Promise.withResolvers<RegisteredHandlers | undefined>();
  readonly #gone = Promise.withResolvers<void>();
  #alive = true;
  #current: CurrentInvocation | undefined;

  /** Starts the process, which has `initMs` to load the handler; it can be invoked once `ready` has resolved. */
  constructor(spec: ProcessSpec, initMs: number) {
    this.#spec = spec;
    const hung = setTimeout(() => {
      this.#fail(`does not finish loading within ${initMs / 1000} s`, FunctionInitTimeoutError);
      void this.kill();
    }, initMs);
    this.#started.promise.catch(() => void this.kill()).finally(() => clearTimeout(hung));
    const args = [
      `--max-old-space-size=${Math.floor(spec.memoryMB * HEAP_SHARE)}`,
      ...(spec.sourceMaps ? ["--enable-source-maps"] : []),
      CHILD,
      spec.entry,
      spec.handlerName,
      `${process.pid}`,
      `${spec.memoryMB}`,
    ];
    this.#child = spawn(process.execPath, args, {
      env: spec.environment,
      stdio: ["ignore", "pipe", "pipe", "pipe"],
    });
    this.#pipe = this.#child.stdio[3] as Duplex;
    const reader = new FrameReader((head, body) => this.#onFrame(headFromChild.parse(head), body));
    this.#pipe.on("data", (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch {
        void this.kill();
      }
    });
    this.#pipe.on("error", () => {});
    forwardLines(this.#child.stdout as Readable, (line) => spec.onLine(line, "stdout"));
    forwardLines(this.#child.stderr as Readable, (line) => spec.onLine(line, "stderr"));
    this.#child.once("error", (error) => this.#onExit(`cannot be started: ${error.message}`));
    this.#child.once("exit", (code, signal) => {
      this.#alive = false;
      const how = signal ? `signal: ${signal}` : `exit status ${code}`;
      const lastWords = setTimeout(() => this.#onExit(how), LAST_WORDS_MS);
      const closed = () => {
        clearTimeout(lastWords);
        this.#onExit(how);
      };
      if (this.#pipe.destroyed) closed();
      else this.#pipe.once("close", closed);
    });
  }

  /**
   * Resolves when the handler is loaded, with what it says of itself. Rejects with FunctionEntryError when the file has no such export, or
   * throws or ends while it loads, with FunctionInitTimeoutError when it hangs; the process is then killed.
   */
  get ready(): Promise<RegisteredHandlers | undefined> {
    return this.#started.promise;
  }

  /** True if it can take another invocation. */
  get alive(): boolean {
    return this.#alive;
  }

  /** Resolves when the process has ended. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** The file that it runs. */
  get entry(): string {
    return this.#spec.entry;
  }

  /** Process id. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /**
   * Runs the handler on an event given as JSON bytes. Always resolves: an exception, a crash and a timeout (which
   * kills the process) are results. An answer to another request id is not an answer.
   */
  invoke(requestId: string, event: Buffer): Promise<InvocationResult> {
    const { timeoutMs, arn } = this.#spec;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        current.epitaph = timedOut(timeoutMs);
        void this.kill();
      }, timeoutMs);
      const current: CurrentInvocation = {
        requestId,
        epitaph: undefined,
        settle: (result) => {
          clearTimeout(timer);
          resolve(result);
        },
      };
      this.#current = current;
      writeFrame(this.#pipe, { type: "invoke", requestId, functionArn: arn, timeoutMs }, event);
    });
  }

  /** Kills the process and waits for its end. Idempotent. */
  async kill(): Promise<void> {
    this.#alive = false;
    this.#child.kill("SIGKILL");
    await this.#gone.promise;
  }

  #onFrame(head: z.infer<typeof headFromChild>, body: Buffer): void {
    switch (head.type) {
      case "ready":
        this.#started.resolve(head.registered);
        return;
      case "no-export":
        this.#fail(
          `exports no function "${this.#spec.handlerName}" (it exports: ${head.exports.join(", ") || "nothing"})`,
        );
        return;
      case "threw":
        this.#fail(`throws while it loads: ${head.error.type}: ${head.error.message}${placeIn(head.error)}`);
        return;
      case "failed":
        if (head.requestId === this.#current?.requestId) this.#settle({ ok: false, ...head });
        return;
      case "answered":
        if (head.requestId === this.#current?.requestId) {
          const response: unknown = JSON.parse(body.toString("utf8"));
          this.#settle({ ok: true, requestId: head.requestId, response });
        }
    }
  }

  #onExit(how: string): void {
    this.#alive = false;
    this.#fail(`ends while it loads (${how})`);
    if (this.#current) {
      const { requestId, epitaph } = this.#current;
      const message = `Runtime exited with error: ${how}`;
      this.#settle({ ok: false, requestId, error: epitaph ?? { type: "Runtime.ExitError", message } });
    }
    this.#gone.resolve();
  }

  #settle(result: InvocationResult): void {
    const current = this.#current;
    this.#current = undefined;
    current?.settle(result);
  }

  /** Only counts before the process said that it is ready. */
  #fail(what: string, kind: typeof FunctionEntryError = FunctionEntryError): void {
    this.#started.reject(
      new kind({
        message: `The handler file ${this.#spec.entry} ${what}`,
        remedy: `Correct the file; it has to export an async function "${this.#spec.handlerName}".`,
      }),
    );
  }
}

/** The directory of our own code: what is thrown there is most often another's mistake. */
const OWN_CODE = resolve(import.meta.dirname, "../..");

/** The first line of the stack that names a place outside of packages. */
function placeIn({ stack = "" }: FunctionError): string {
  const line = stack
    .split("\n")
    .filter((text) => /^\s+at .*[/\\][^/\\]+:\d+:\d+\)?$/.test(text))
    .find((text) => !/node:|node_modules/.test(text) && !text.includes(`${OWN_CODE}${sep}`));
  return line === undefined ? "" : `\n  ${line.trim()}`;
}
