import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { ChildStartError, DevFileDamagedError } from "./local-errors.ts";

/** A Node process of ours that serves an HTTP endpoint on 127.0.0.1. */
export interface ServingChild {
  /** Such as `http://127.0.0.1:40123`. */
  readonly endpoint: string;
  readonly pid: number;
  /** Resolves when everything that it reported so far has arrived; at once when it has ended. */
  settled(): Promise<void>;
  /** Ends the process at once: what it holds is in memory alone. Idempotent. */
  stop(): Promise<void>;
}

const START_DEADLINE_MS = 60_000;
/** Sent in place of an endpoint. */
const damagedFile = z.object({ damaged: z.object({ path: z.string(), line: z.number().optional() }) });

/**
 * Starts a file of ours as a process with a CPU of its own. The file calls `serveFromChild`. The process ends
 * with ours, whatever ends ours: it notices the closed channel.
 *
 * @throws ChildStartError when it does not report an endpoint, with the end of what it printed; DevFileDamagedError when a file
 * that it keeps its content in cannot be read.
 */
export async function startServingChild(
  entry: URL,
  options: {
    environment?: Readonly<Record<string, string>>;
    signal?: AbortSignal;
    /** Gets what the process reports with `reportToParent`. */
    onReport?: (report: unknown) => void;
    /** The process has ended by itself; gets the end of what it printed. */
    onEnded?: (printed: string) => void;
  } = {},
): Promise<ServingChild> {
  options.signal?.throwIfAborted();
  const child = fork(fileURLToPath(entry), [], {
    // A group of its own: Ctrl-C in the terminal is for the host, which drains first.
    detached: true,
    env: { PATH: process.env.PATH, NODE_NO_WARNINGS: "1", ...options.environment },
    execArgv: [],
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let printed = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    printed = (printed + text).slice(-4096);
  });
  try {
    const endpoint = await firstMessage(child, options.signal);
    child.on("message", (message) => {
      if (message !== SETTLED) options.onReport?.(message);
    });
    const tellEnd = () => options.onEnded?.(printed.trim());
    child.once("close", tellEnd);
    const stop = () => {
      child.off("close", tellEnd);
      return end(child);
    };
    return { endpoint, pid: child.pid ?? 0, settled: () => settled(child), stop };
  } catch (cause) {
    await end(child);
    options.signal?.throwIfAborted();
    if (cause instanceof DevFileDamagedError) throw cause;
    throw new ChildStartError({
      message: `${fileURLToPath(entry)} did not start: ${printed.trim() || (cause as Error).message}`,
      remedy: "Run npm ci again; if it stays, report the message above.",
      cause,
    });
  }
}

/** Message that the parent sends, and that the child sends back behind its reports. */
const SETTLED = "settled?";

/** In the child: serves until the parent is gone. `serve` listens on 127.0.0.1 and gives its port. */
export async function serveFromChild(serve: () => Promise<number>): Promise<void> {
  process.once("disconnect", () => process.exit(0));
  process.on("message", (message) => {
    if (message === SETTLED) reportToParent(SETTLED);
  });
  try {
    const port = await serve();
    process.send?.(`http://127.0.0.1:${port}`);
  } catch (error) {
    if (!(error instanceof DevFileDamagedError)) throw error;
    const { path, line } = error;
    process.send?.({ damaged: { path, line } }, () => process.exit(1));
  }
}

/** In the child: reports something that JSON can hold to whoever started it. */
export function reportToParent(report: unknown): void {
  if (process.connected) process.send?.(report);
}

async function settled(child: ChildProcess): Promise<void> {
  if (!child.connected) return;
  const over = new AbortController();
  const answered = new Promise<void>((resolve) => {
    const onMessage = (message: unknown) => {
      if (message === SETTLED) resolve();
    };
    child.on("message", onMessage);
    over.signal.addEventListener("abort", () => child.off("message", onMessage));
  });
  child.send(SETTLED, () => {});
  const ended = once(child, "disconnect", { signal: over.signal }).catch(() => {});
  await Promise.race([answered, ended]);
  over.abort();
}

async function firstMessage(child: ChildProcess, signal: AbortSignal | undefined): Promise<string> {
  const deadline = AbortSignal.timeout(START_DEADLINE_MS);
  const until = signal ? AbortSignal.any([signal, deadline]) : deadline;
  const settled = new AbortController();
  const ended = once(child, "exit", { signal: settled.signal }).then(([code, by]) => {
    throw new Error(`it ended with ${code ?? by}`);
  });
  try {
    const [message] = await Promise.race([once(child, "message", { signal: until }), ended]);
    const { data } = damagedFile.safeParse(message);
    if (data) throw new DevFileDamagedError(data.damaged.path, data.damaged.line);
    return String(message);
  } finally {
    ended.catch(() => {});
    settled.abort();
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exit = once(child, "exit");
  child.kill("SIGKILL");
  await exit;
}
