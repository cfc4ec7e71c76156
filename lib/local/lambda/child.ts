import { Socket } from "node:net";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { Context } from "aws-lambda";
import { FrameReader, writeFrame } from "./frames.ts";
import { errorOf, MAX_PAYLOAD_BYTES } from "./invocation.ts";

/*
 * The main of a function's process: loads the handler file, then runs one invocation at a time until the host
 * closes the pipe. Started by process.ts with the file, the handler's name and the host's process id.
 */
const [entry = "", handlerName = "", hostPid = ""] = process.argv.slice(2);

type AsyncHandler = (event: unknown, context: Context) => unknown;

// The host drains on these, which a terminal, timeout or systemd send to all processes: only the host decides when this ends.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => {});
dieWithHost(Number(hostPid));

const pipe = new Socket({ fd: 3, readable: true, writable: true });
pipe.on("close", () => process.exit(0));
pipe.on("error", () => process.exit(0));

let handler: AsyncHandler;
try {
  const module = (await import(pathToFileURL(entry).href)) as Record<string, unknown>;
  const exported =
    module[handlerName] ?? (module.default as Record<string, unknown> | undefined)?.[handlerName];
  if (typeof exported === "function") {
    handler = exported as AsyncHandler;
    const reader = new FrameReader((head, body) => void run(head as InvokeHead, body));
    pipe.on("data", (chunk: Buffer) => reader.push(chunk));
    writeFrame(pipe, { type: "ready" });
  } else {
    writeFrame(pipe, { type: "no-export", exports: Object.keys(module) });
  }
} catch (error) {
  console.error(error);
  writeFrame(pipe, { type: "threw", error: errorOf(error) });
}

interface InvokeHead {
  readonly requestId: string;
  readonly functionArn: string;
  readonly timeoutMs: number;
}

async function run(head: InvokeHead, body: Buffer): Promise<void> {
  const deadline = performance.now() + head.timeoutMs;
  const { requestId } = head;
  let response: Buffer;
  try {
    const result = await handler(JSON.parse(body.toString("utf8")), contextOf(head, deadline));
    response = Buffer.from(JSON.stringify(result ?? null), "utf8");
    if (response.length > MAX_PAYLOAD_BYTES) {
      throw Object.assign(
        new Error(`the response has ${response.length} bytes, Lambda allows ${MAX_PAYLOAD_BYTES}`),
        {
          name: "Function.ResponseSizeTooLarge",
        },
      );
    }
  } catch (error) {
    writeFrame(pipe, { type: "failed", requestId, error: errorOf(error) });
    return;
  }
  writeFrame(pipe, { type: "answered", requestId }, response);
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
 * The pipe's end tells a waiting process that the host is gone; a handler in a busy loop never reads it. A
 * thread of its own looks at the parent's id and kills the process from inside.
 */
function dieWithHost(host: number): void {
  const source = `
    setInterval(() => { if (process.ppid !== ${host}) process.kill(process.pid, "SIGKILL"); }, 500);
  `;
  new Worker(source, {
    eval: true,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  }).unref();
}
