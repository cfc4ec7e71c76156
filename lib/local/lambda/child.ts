import { Worker } from "node:worker_threads";
import type { Context } from "aws-lambda";
import { importFile } from "../../definition/import-file.ts";
import { readFrameSync, writeFrameSync } from "./frames.ts";
import { errorOf, type FunctionError, MAX_PAYLOAD_BYTES } from "./invocation.ts";

/*
 * The main of a function's process: loads the handler file, then runs one invocation at a time until the host closes the pipe.
 * Started by process.ts with the file, the handler's name, the host's process id and the memory it may have.
 *
 * Like AWS's runtime client, nothing here keeps the event loop alive while a handler runs: one that waits for what cannot come any
 * more ends the process. And nothing runs between two invocations: AWS freezes the environment behind an answer, here the
 * thread stands still in reading the next event.
 */
const [entry = "", handlerName = "", hostPid = "", memoryMB = ""] = process.argv.slice(2);
const PIPE = 3;

type AsyncHandler = (event: unknown, context: Context) => unknown;

interface InvokeHead {
  readonly requestId: string;
  readonly functionArn: string;
  readonly timeoutMs: number;
}

// The host drains on these, which a terminal, timeout or systemd send to all processes: only the host decides when this ends.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => {});
watchOver(Number(hostPid), Number(memoryMB));
void main();

async function main(): Promise<void> {
  const handler = await load();
  if (!handler) return;
  writeFrameSync(PIPE, { type: "ready", registered: registeredOf(handler) });
  for (;;) {
    const frame = readFrameSync(PIPE);
    if (!frame) process.exit(0);
    await run(handler, frame.head as InvokeHead, frame.body);
  }
}

async function load(): Promise<AsyncHandler | undefined> {
  try {
    const module = await importFile(entry);
    const exported =
      module[handlerName] ?? (module.default as Record<string, unknown> | undefined)?.[handlerName];
    if (typeof exported === "function") return exported as AsyncHandler;
    writeFrameSync(PIPE, { type: "no-export", exports: Object.keys(module) });
  } catch (error) {
    console.error(error);
    writeFrameSync(PIPE, { type: "threw", error: errorOf(error) });
  }
  return undefined;
}

/** Property that `consumer(…).handler()` puts on the function that it returns: `HandlerOrigin` in lib/consume/api/consumer.ts. */
const ORIGIN = Symbol.for("tributary.handler-origin");

/** Tells the consumer and its patterns; undefined where it is another handler, or stands behind a wrapper. */
function registeredOf(handler: AsyncHandler): object | undefined {
  const origin = (handler as { readonly [ORIGIN]?: { consumer: unknown; patterns: unknown } })[ORIGIN];
  return origin && { consumer: origin.consumer, patterns: origin.patterns };
}

async function run(handler: AsyncHandler, head: InvokeHead, body: Buffer): Promise<void> {
  const deadline = performance.now() + head.timeoutMs;
  const { requestId } = head;
  let response: Buffer;
  try {
    const result = await handler(JSON.parse(body.toString("utf8")), contextOf(head, deadline));
    response = Buffer.from(JSON.stringify(result ?? null), "utf8");
  } catch (error) {
    return fail(requestId, errorOf(error));
  }
  if (response.length > MAX_PAYLOAD_BYTES) {
    const message = `Response payload size exceeded maximum allowed payload size (${MAX_PAYLOAD_BYTES} bytes).`;
    return fail(requestId, { type: "Function.ResponseSizeTooLarge", message });
  }
  writeFrameSync(PIPE, { type: "answered", requestId }, response);
}

/** Prints the error as AWS's runtime client does, so that what a handler threw is in the log. */
function fail(requestId: string, error: FunctionError): void {
  const { type: errorType, message: errorMessage, stack = "" } = error;
  const printed = JSON.stringify({ errorType, errorMessage, stack: stack.split("\n") });
  process.stderr.write(`${new Date().toISOString()}\t${requestId}\tERROR\tInvoke Error \t${printed}\n`);
  writeFrameSync(PIPE, { type: "failed", requestId, error });
}

/** https://docs.aws.amazon.com/lambda/latest/dg/nodejs-context.html */
function contextOf(head: InvokeHead, deadline: number): Context {
  const env = process.env;
  const unsupported = () => {
    throw new Error("done, fail and succeed are gone from Lambda's Node.js runtimes: return a promise");
  };
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName: env.AWS_LAMBDA_FUNCTION_NAME ?? "",
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION ?? "",
    invokedFunctionArn: head.functionArn,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE ?? "",
    awsRequestId: head.requestId,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME ?? "",
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME ?? "",
    getRemainingTimeInMillis: () => Math.max(0, Math.floor(deadline - performance.now())),
    done: unsupported,
    fail: unsupported,
    succeed: unsupported,
  };
}

/**
 * Kills this process when the host is gone (a handler in a busy loop never sees the pipe's end), and when it holds more memory
 * than the function has: AWS counts all of the process, not the JavaScript heap alone. A thread of its own looks, and kills
 * from inside.
 */
function watchOver(host: number, megabytes: number): void {
  const source = `
    const { writeSync } = require("node:fs");
    // What strips types is not there in AWS.
    const FORGIVEN = 24 * 1024 * 1024;
    setInterval(() => {
      if (process.ppid !== ${host}) process.kill(process.pid, "SIGKILL");
      const used = process.memoryUsage.rss() - FORGIVEN;
      if (used <= ${megabytes} * 1024 * 1024) return;
      writeSync(2, "Memory Size: ${megabytes} MB, used: " + Math.ceil(used / 1024 / 1024) + " MB: the process is killed\\n");
      process.kill(process.pid, "SIGKILL");
    }, 100);
  `;
  new Worker(source, {
    eval: true,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  }).unref();
}
