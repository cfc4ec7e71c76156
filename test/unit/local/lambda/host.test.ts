import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Context } from "aws-lambda";
import { describe, expect, onTestFinished, test } from "vitest";
import { ConfigurationError } from "../../../../lib/change/tributary-error.ts";
import {
  type LambdaFunction,
  type LambdaFunctionOptions,
  startLambdaFunction,
} from "../../../../lib/local/lambda/host.ts";
import { FunctionEntryError } from "../../../../lib/local/lambda/lambda-errors.ts";
import { eventually } from "../../../eventually.ts";

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const HANDLERS = file("./handlers.ts");

async function start(options: Partial<LambdaFunctionOptions> = {}): Promise<LambdaFunction> {
  const fn = await startLambdaFunction({ entry: HANDLERS, timeoutMs: 60_000, concurrency: 1, ...options });
  onTestFinished(() => fn.stop());
  return fn;
}

interface Answer {
  readonly pid: number;
  readonly event: unknown;
  readonly context: Context & { remaining: number };
}

async function answer(fn: LambdaFunction, event: unknown = {}): Promise<Answer> {
  const result = await fn.invoke(event);
  if (!result.ok) throw new Error(result.error.message);
  return result.response as Answer;
}

async function failure(fn: LambdaFunction, event: unknown): Promise<string> {
  const result = await fn.invoke(event);
  if (result.ok) throw new Error("the invocation succeeded");
  return result.error.type;
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A killed process whose parent is gone may wait for being reaped.
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("a loaded handler", () => {
  test.each([
    ["handler", { consumer: "orders", patterns: ["public.orders", "shop.sales.*"] }],
    ["wrapped", undefined],
    ["earlier", { consumer: "orders" }],
    ["foreign", undefined],
  ])("tells its consumer and its patterns, if it has them: %s", async (handlerName, registered) => {
    const fn = await start({ entry: file("./registered.ts"), handlerName });
    expect(fn.registered).toEqual(registered);
  });
});

describe("an invocation", () => {
  test("gives the event as it is and a context like Lambda's, in a process that stays warm", async () => {
    const fn = await start({ name: "orders", memoryMB: 256, timeoutMs: 30_000 });
    const event = { Records: [{ text: "Grüße \u{1F600} \u2028", number: 1.5, none: null }] };
    const first = await answer(fn, event);
    const second = await answer(fn, event);
    expect(first.event).toEqual(event);
    expect(second.pid).toBe(first.pid);
    expect(first.pid).not.toBe(process.pid);
    expect(first.context).toMatchObject({
      functionName: "orders",
      functionVersion: "$LATEST",
      invokedFunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:orders",
      memoryLimitInMB: "256",
      logGroupName: "/aws/lambda/orders",
      awsRequestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(first.context.awsRequestId).not.toBe(second.context.awsRequestId);
    expect(first.context.remaining).toBeGreaterThan(0);
    expect(first.context.remaining).toBeLessThanOrEqual(30_000);
  });

  test("of 6 MB arrives, above that it fails without reaching the handler", async () => {
    const fn = await start();
    const empty = JSON.stringify({ act: "length", text: "" }).length;
    const text = "x".repeat(6 * 1024 * 1024 - empty);
    expect(await answer(fn, { act: "length", text })).toBe(text.length);
    expect(await failure(fn, { act: "length", text: `${text}x` })).toBe("RequestEntityTooLarge");
  });

  const failures: readonly [act: string, type: string][] = [
    ["throw", "RangeError"],
    ["exit", "Runtime.ExitError"],
    ["kill", "Runtime.ExitError"],
    ["memory", "Runtime.ExitError"],
    ["reject-later", "Runtime.ExitError"],
    ["never", "Runtime.ExitError"],
    ["never, with a timer that holds nothing", "Runtime.ExitError"],
    ["odd", "object"],
    ["big", "Function.ResponseSizeTooLarge"],
    ["bigint", "TypeError"],
  ];
  test.each(failures)("that fails by %s is a result, and the next one works", async (act, type) => {
    const fn = await start({ memoryMB: 64 });
    expect(await failure(fn, { act })).toBe(type);
    expect((await answer(fn, { n: 1 })).event).toEqual({ n: 1 });
  });

  test("whose buffers are more than the function's memory fails, however small the JavaScript heap", async () => {
    const lines: string[] = [];
    const fn = await start({ memoryMB: 256, onLog: (line) => lines.push(line) });
    expect(await failure(fn, { act: "buffers" })).toBe("Runtime.ExitError");
    await eventually(() => lines.some((line) => line.startsWith("Memory Size: 256 MB")), {
      what: "the log to say why",
    });
  });

  test("that fails has its error in the log, as AWS's runtime prints it", async () => {
    const lines: string[] = [];
    const fn = await start({ onLog: (line) => lines.push(line) });
    await failure(fn, { act: "throw" });
    await eventually(
      () =>
        lines.some((line) =>
          /ERROR\tInvoke Error \t{"errorType":"RangeError","errorMessage":"told to"/.test(line),
        ),
      { what: "the error in the log" },
    );
  });

  test.each(["spin", "wait"])(
    "that takes too long by %s: the process is gone before the result is there",
    async (act) => {
      const fn = await start({ timeoutMs: 1_000 });
      const [pid = 0] = fn.pids();
      const result = await fn.invoke({ act, ms: 60_000 });
      expect(result).toMatchObject({
        ok: false,
        error: { type: "Sandbox.Timedout", message: "Task timed out after 1.00 seconds" },
      });
      expect(alive(pid)).toBe(false);
      expect((await answer(fn)).pid).not.toBe(pid);
    },
  );

  test("runs beside others up to the concurrency; further ones wait", async () => {
    const fn = await start({ concurrency: 2 });
    const results = await Promise.all(Array.from({ length: 6 }, () => fn.invoke({ act: "wait", ms: 50 })));
    expect(results.every(({ ok }) => ok)).toBe(true);
    expect(fn.pids()).toHaveLength(2);
  });

  test("killed from outside is a result", async () => {
    const fn = await start();
    const directory = mkdtempSync(join(tmpdir(), "tributary-lambda-"));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const announce = join(directory, "pid");
    const failing = failure(fn, { act: "wait", ms: 60_000, announce });
    const pid = await eventually(() => Number(readFileSync(announce, "utf8")) || undefined, {
      what: "the process id",
    });
    process.kill(pid, "SIGKILL");
    expect(await failing).toBe("Runtime.ExitError");
  });
});

test("an answer to another request is not an answer", async () => {
  const fn = await start();
  expect(await answer(fn, { act: "impostor", ms: 100 })).toBe("mine");
});

test("nothing of an invocation runs behind its answer, until the process is invoked again", async () => {
  const fn = await start();
  const other = await start();
  const directory = mkdtempSync(join(tmpdir(), "tributary-lambda-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const mark = join(directory, "ran");
  expect(await answer(fn, { act: "later", text: mark })).toBe("before it ran");
  // Time for its timer of a millisecond to run, if it could.
  await answer(other, { act: "wait", ms: 300 });
  expect(existsSync(mark)).toBe(false);
  await answer(fn, { act: "wait", ms: 50 });
  expect(existsSync(mark)).toBe(true);
});

describe("loading", () => {
  const loads = (name: string) => {
    const directory = mkdtempSync(join(tmpdir(), "tributary-lambda-"));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    return { entry: file(name), environment: { LOADS: join(directory, "loads") } };
  };

  test("that takes longer than AWS gives it is tried once more", async () => {
    const lines: string[] = [];
    const fn = await start({
      ...loads("./loads-slowly-once.ts"),
      initMs: 2_000,
      onLog: (line) => lines.push(line),
    });
    expect(await answer(fn)).toBe("loaded at the second try");
    expect(lines.join()).toContain("INIT_REPORT");
  });

  test("that takes too long twice in an invocation is its time-out", async () => {
    const fn = await start({ ...loads("./loads-slowly-later.ts"), initMs: 2_000, timeoutMs: 1_000 });
    const [pid = 0] = fn.pids();
    process.kill(pid, "SIGKILL");
    await eventually(() => fn.pids().length === 0, { what: "the host to notice" });
    expect(await failure(fn, {})).toBe("Sandbox.Timedout");
  });
});

test("a process killed between invocations is not used again", async () => {
  const fn = await start();
  const { pid } = await answer(fn);
  process.kill(pid, "SIGKILL");
  await eventually(() => !fn.pids().includes(pid), { what: "the host to notice" });
  expect((await answer(fn)).pid).not.toBe(pid);
});

describe("a function", () => {
  test("has its own environment, not the host's", async () => {
    process.env.TRIBUTARY_TEST_SECRET = "of the host";
    onTestFinished(() => void delete process.env.TRIBUTARY_TEST_SECRET);
    const fn = await start({
      handlerName: "environment",
      environment: { TABLE: "state", AWS_REGION: "eu-west-1" },
    });
    const result = await fn.invoke({});
    expect(result.ok && result.response).toMatchObject({
      TABLE: "state",
      AWS_REGION: "eu-west-1",
      AWS_LAMBDA_FUNCTION_NAME: "handlers",
      TZ: "UTC",
    });
    expect(result.ok && result.response).not.toHaveProperty("TRIBUTARY_TEST_SECRET");
  });

  test("has 4 KB of environment, counted as AWS does, beside what surrounds it", async () => {
    const empty = JSON.stringify({ TEXT: "" }).length;
    const surroundings = { AWS_ENDPOINT_URL: "x".repeat(5_000) };
    const variables = (bytes: number) => ({ TEXT: "x".repeat(bytes - empty) });
    const fn = await start({ handlerName: "environment", surroundings, environment: variables(4096) });
    const result = await fn.invoke({});
    expect(result.ok && result.response).toMatchObject({ ...surroundings, ...variables(4096) });
    const refused = await start({ environment: variables(4097) }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ConfigurationError);
    expect(String(refused)).toContain("4KB");
  });

  test("forwards what the handler prints, line by line", async () => {
    const lines: string[] = [];
    const fn = await start({ onLog: (line, stream) => lines.push(`${stream} ${line}`) });
    await fn.invoke({ act: "print" });
    await eventually(() => lines.length === 3, { what: "three lines" });
    expect(lines.toSorted()).toEqual(["stderr third", "stdout first", "stdout second"]);
  });

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "ignores %s: its host decides when it ends",
    async (signal) => {
      const fn = await start();
      const { pid } = await answer(fn);
      const waiting = fn.invoke({ act: "wait", ms: 200 });
      process.kill(pid, signal);
      expect(await waiting).toMatchObject({ ok: true, response: "waited" });
    },
  );

  test("stopped: its processes are gone, and what was under way or waited has failed", async () => {
    const fn = await start();
    const [pid = 0] = fn.pids();
    const results = [fn.invoke({ act: "wait", ms: 60_000 }), fn.invoke({})];
    await fn.stop();
    expect(alive(pid)).toBe(false);
    expect((await Promise.all(results)).map(({ ok }) => ok)).toEqual([false, false]);
    expect(fn.pids()).toEqual([]);
  });

  test.each(["spin", "wait"])("dies with its host, also when it is busy (%s)", async (act) => {
    const directory = mkdtempSync(join(tmpdir(), "tributary-lambda-"));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const announce = join(directory, "pid");
    const event = JSON.stringify({ act, ms: 600_000, announce });
    const host = spawn(process.execPath, [file("./host-process.ts"), HANDLERS, event], { stdio: "ignore" });
    onTestFinished(() => void host.kill("SIGKILL"));
    const pid = await eventually(() => Number(readFileSync(announce, "utf8")) || undefined, {
      what: "the process id",
    });
    onTestFinished(() => {
      if (alive(pid)) process.kill(pid, "SIGKILL");
    });
    expect(alive(pid)).toBe(true);
    host.kill("SIGKILL");
    await eventually(() => !alive(pid), { what: "the function's process to end" });
  });
});

describe("a wrong handler file is found at the start, by name", () => {
  const wrong: readonly [what: string, entry: string, handlerName: string, message: RegExp][] = [
    ["missing", "./no-such-file.ts", "handler", /no-such-file\.ts does not exist/],
    ["a directory", ".", "handler", /is not a file/],
    [
      "no such export",
      "./handlers.ts",
      "orders",
      /handlers\.ts exports no function "orders" \(it exports: .*handler/,
    ],
    ["not a function", "./handlers.ts", "notAFunction", /handlers\.ts exports no function "notAFunction"/],
    [
      "throws",
      "./throws-while-loading.ts",
      "handler",
      /throws-while-loading\.ts throws while it loads: TypeError/,
    ],
  ];
  test.each(wrong)("%s", async (_, entry, handlerName, message) => {
    const error = await start({ entry: file(entry), handlerName }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FunctionEntryError);
    expect((error as FunctionEntryError).message).toMatch(message);
    expect((error as FunctionEntryError).remedy).not.toBe("");
  });
});
