import { randomUUID } from "node:crypto";
import { stat } from "node:fs/promises";
import { basename, dirname, extname, resolve } from "node:path";
import { lambdaEnvironmentRefusal } from "../../aws/lambda-limits.ts";
import { ConfigurationError } from "../../change/tributary-error.ts";
import { errorOf, type InvocationResult, MAX_PAYLOAD_BYTES } from "./invocation.ts";
import { FunctionEntryError, FunctionInitTimeoutError } from "./lambda-errors.ts";
import { FunctionProcess, type ProcessSpec, type RegisteredHandlers, timedOut } from "./process.ts";

/** AWS's time limit for loading a handler. */
const INIT_MS = 10_000;
/** At the start of the host, on a loaded machine. */
const START_MS = 60_000;

/** Settings of `startLambdaFunction`. */
export interface LambdaFunctionOptions {
  /** A .ts or .js file; relative paths are taken from the working directory. */
  readonly entry: string;
  /** Name of the exported async function. */
  readonly handlerName?: string;
  /** Name of the function; default the file's name without its ending. */
  readonly name?: string;
  readonly timeoutMs: number;
  /** Memory of the whole process, which is killed above it. Default 512. */
  readonly memoryMB?: number;
  /** For the first try to load the handler; default 10,000, as AWS gives. */
  readonly initMs?: number;
  /** For the second try of the first process; default 60,000, since the machine may be busy. */
  readonly startMs?: number;
  /** Invocations at once at most, each in a process of its own; further ones wait for their turn. */
  readonly concurrency: number;
  /** The function's variables, 4 KB at most. Like in Lambda, the host's own environment is not inherited. */
  readonly environment?: Readonly<Record<string, string>>;
  /** More variables of its process, for what is otherwise around a function in AWS: endpoints, credentials. */
  readonly surroundings?: Readonly<Record<string, string>>;
  /** True where stack traces name the lines of the sources, by the code's source map. Default false. */
  readonly sourceMaps?: boolean;
  /** Gets each line that the handler prints. */
  readonly onLog?: (line: string, stream: "stdout" | "stderr") => void;
}

/** A running function: its processes stay warm between invocations. */
export interface LambdaFunction {
  readonly name: string;
  readonly arn: string;
  /** Description that the handler gave of itself when it was loaded; undefined of one that is not made by the library, or is wrapped. */
  readonly registered: RegisteredHandlers | undefined;
  /**
   * Invokes the handler with an event (anything that JSON can hold). Always resolves: an exception, a crash, a
   * timeout and a payload above 6 MB are results.
   */
  invoke(event: unknown): Promise<InvocationResult>;
  /**
   * Loads another file, and runs that one from the next invocation on. Those under way end as they began.
   * @throws FunctionEntryError where it cannot be loaded, and what `check` throws: nothing has changed then.
   */
  reload(entry: string, check?: (registered: RegisteredHandlers | undefined) => void): Promise<void>;
  /** Process ids of the living processes. */
  pids(): number[];
  /** Kills all processes; invocations under way fail. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts a Lambda function from its file, apart from this process: a handler that hangs, exits or eats its memory takes
 * nothing else along. One process is started at once, so that a wrong file is found here.
 * @throws FunctionEntryError naming the file when it is missing, exports no such function, or cannot be loaded;
 *   ConfigurationError where AWS refuses the environment.
 */
export async function startLambdaFunction(options: LambdaFunctionOptions): Promise<LambdaFunction> {
  checkEnvironment(options);
  const host = new FunctionHost({ ...options, entry: await existing(options.entry) });
  await host.warmUp();
  return host;
}

/** @throws FunctionEntryError */
async function existing(file: string): Promise<string> {
  const entry = resolve(file);
  const found = await stat(entry).catch(() => undefined);
  if (found?.isFile()) return entry;
  throw new FunctionEntryError({
    message: `The handler file ${file} ${found ? "is not a file" : "does not exist"} (looked for ${entry})`,
    remedy: "Create the file, or correct the consumer's entry in the pipeline definition.",
  });
}

function checkEnvironment({ name = "", entry, environment = {} }: LambdaFunctionOptions): void {
  const refusal = lambdaEnvironmentRefusal(environment);
  if (!refusal) return;
  throw new ConfigurationError(`The function ${name || entry}`, [
    {
      path: "environment",
      value: Object.keys(environment).join(", "),
      remedy: `${refusal.message} (${refusal.page}): give it less`,
    },
  ]);
}

class FunctionHost implements LambdaFunction {
  readonly name: string;
  readonly arn: string;
  registered: RegisteredHandlers | undefined;
  #spec: ProcessSpec;
  readonly #processes = new Set<FunctionProcess>();
  readonly #idle: FunctionProcess[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly #initMs: number;
  readonly #startMs: number;
  #places: number;
  #stopped = false;

  constructor(options: LambdaFunctionOptions) {
    const { entry, handlerName = "handler", environment = {}, surroundings = {}, memoryMB = 512 } = options;
    this.name = options.name ?? basename(entry, extname(entry));
    const region = surroundings.AWS_REGION ?? environment.AWS_REGION ?? "us-east-1";
    this.arn = `arn:aws:lambda:${region}:000000000000:function:${this.name}`;
    this.#places = options.concurrency;
    this.#initMs = options.initMs ?? INIT_MS;
    this.#startMs = options.startMs ?? START_MS;
    const onLog = options.onLog;
    this.#spec = {
      entry,
      handlerName,
      arn: this.arn,
      timeoutMs: options.timeoutMs,
      memoryMB,
      sourceMaps: options.sourceMaps === true,
      onLine: (line, stream) => onLog?.(line, stream),
      environment: {
        ...lambdaEnvironment(this.name, region, memoryMB, entry, handlerName),
        ...surroundings,
        ...environment,
      },
    };
  }

  async warmUp(): Promise<void> {
    const process = await this.#newProcess(this.#spec, this.#startMs);
    this.registered = await process.ready;
    this.#idle.push(process);
  }

  async reload(file: string, check = (_: RegisteredHandlers | undefined) => {}): Promise<void> {
    const entry = await existing(file);
    const { environment, handlerName } = this.#spec;
    const spec = { ...this.#spec, entry, environment: { ...environment, ...placeOf(entry, handlerName) } };
    const process = await this.#newProcess(spec, START_MS);
    const registered = await process.ready;
    if (this.#stopped) return void process.kill();
    try {
      check(registered);
    } catch (error) {
      await process.kill();
      throw error;
    }
    this.registered = registered;
    this.#spec = spec;
    const old = this.#idle.splice(0);
    this.#idle.push(process);
    await Promise.all(old.map((idle) => idle.kill()));
  }

  async invoke(event: unknown): Promise<InvocationResult> {
    const requestId = randomUUID();
    const body = Buffer.from(JSON.stringify(event), "utf8");
    if (body.length > MAX_PAYLOAD_BYTES) {
      const message = `${body.length} byte payload is too large for the invocation (limit ${MAX_PAYLOAD_BYTES} bytes)`;
      return { ok: false, requestId, error: { type: "RequestEntityTooLarge", message } };
    }
    await this.#takePlace();
    try {
      if (this.#stopped) return stopped(requestId);
      const spec = this.#spec;
      const process = this.#idleProcess() ?? (await this.#newProcess(spec, spec.timeoutMs));
      const result = await process.invoke(requestId, body);
      if (process.alive && process.entry === this.#spec.entry) this.#idle.push(process);
      else void process.kill();
      return result;
    } catch (error) {
      if (error instanceof FunctionInitTimeoutError) {
        return { ok: false, requestId, error: timedOut(this.#spec.timeoutMs) };
      }
      return { ok: false, requestId, error: { ...errorOf(error), type: "Runtime.InitError" } };
    } finally {
      this.#givePlace();
    }
  }

  pids(): number[] {
    return [...this.#processes].filter((process) => process.alive).map((process) => process.pid);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#processes].map((process) => process.kill()));
  }

  /**
   * Gives loading 10 s, and where they do not suffice a second time of its own: in AWS that is a part of the invocation.
   * https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
   */
  async #newProcess(spec: ProcessSpec, secondMs: number): Promise<FunctionProcess> {
    const first = this.#startProcess(spec, this.#initMs);
    try {
      await first.ready;
      return first;
    } catch (error) {
      if (!(error instanceof FunctionInitTimeoutError) || this.#stopped) throw error;
    }
    spec.onLine(`INIT_REPORT Init Duration: ${this.#initMs} ms Phase: init Status: timeout`, "stderr");
    const second = this.#startProcess(spec, secondMs);
    await second.ready;
    return second;
  }

  #startProcess(spec: ProcessSpec, initMs: number): FunctionProcess {
    const process = new FunctionProcess(spec, initMs);
    this.#processes.add(process);
    void process.gone.then(() => this.#processes.delete(process));
    return process;
  }

  #idleProcess(): FunctionProcess | undefined {
    for (;;) {
      const process = this.#idle.pop();
      if (!process || process.alive) return process;
    }
  }

  async #takePlace(): Promise<void> {
    if (this.#places > 0) {
      this.#places--;
      return;
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #givePlace(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#places++;
  }
}

function stopped(requestId: string): InvocationResult {
  const error = { type: "Runtime.ExitError", message: "The function was stopped" };
  return { ok: false, requestId, error };
}

/** https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html */
function lambdaEnvironment(
  name: string,
  region: string,
  memoryMB: number,
  entry: string,
  handlerName: string,
): Record<string, string> {
  const inherited = Object.entries(process.env).filter(([key]) => ["PATH", "HOME", "TMPDIR"].includes(key));
  return {
    ...(Object.fromEntries(inherited) as Record<string, string>),
    TZ: "UTC",
    ...placeOf(entry, handlerName),
    AWS_REGION: region,
    // Says that the process is Lambda's: one that ends is replaced. Nobody listens there, the pipe is the runtime's.
    AWS_LAMBDA_RUNTIME_API: "127.0.0.1:9001",
    AWS_LAMBDA_FUNCTION_NAME: name,
    AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(memoryMB),
    AWS_LAMBDA_LOG_GROUP_NAME: `/aws/lambda/${name}`,
    AWS_LAMBDA_LOG_STREAM_NAME: `local/[$LATEST]${randomUUID()}`,
  };
}

/** Variables that say where the code is. */
function placeOf(entry: string, handlerName: string): Record<string, string> {
  return {
    _HANDLER: `${basename(entry, extname(entry))}.${handlerName}`,
    LAMBDA_TASK_ROOT: dirname(entry),
  };
}
