import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { HandlerReports } from "../../../lib/local/handler-reports.ts";
import { errorLines, headline } from "../../../lib/local/shown-error.ts";

const POSITION = "0000000100000000020530480000000003";
const FILE = join(process.cwd(), "functions/orders.ts");
const STACK = [
  "RangeError: no such status",
  "no such status, really",
  `    at statusOf (${FILE}:12:9)`,
  "    at JSON.parse (<anonymous>)",
  `    at Object.handle (file://${FILE}:20:5)`,
  `    at callHandler (${join(process.cwd(), "lib/consume/api/handler-call.ts")}:53:22)`,
  "    at async Promise.all (index 0)",
  "    at process.processTicksAndRejections (node:internal/process/task_queues:105:5)",
  `Caused by: TypeError: x`,
  `    at ${join(process.cwd(), "node_modules/zod/index.js")}:1:2`,
  `    at /elsewhere/shared.ts:7:1`,
].join("\n");

const failed = (more: object = {}) =>
  JSON.stringify({
    ...{ level: "warn", message: "a handler failed", consumer: "orders", topic: "shop.public.orders" },
    ...{ partition: 7, position: POSITION, table: "public.orders", attempt: 1, attempts: 3 },
    ...{ error: "RangeError", errorMessage: "no such status", stack: STACK, ...more },
  });
const dead = (more: object = {}) =>
  failed({ message: "a change went to the dead letters", attempt: 3, ...more });
/** A change of its own each time. */
const at = (n: number) => ({ position: String(n).padStart(34, "0") });

function reports(canRedrive = true) {
  const printed: string[] = [];
  const clock = { ms: 0 };
  const told = new HandlerReports({
    ...{ consumer: "orders", canRedrive, timeoutSeconds: 2 },
    print: (text) => printed.push(text),
    now: () => clock.ms,
  });
  return { told, printed, clock, take: (line: string) => told.take(line) };
}

describe("what a handler threw is printed", () => {
  it("once for a change that is tried again, and once when it is given up", () => {
    const { take, printed } = reports();
    for (const attempt of [1, 2, 3]) expect(take(failed({ attempt }))).toBe(true);
    expect(take(dead())).toBe(true);
    expect(printed).toEqual([
      [
        `orders: a handler failed on public.orders, attempt 1 of 3 at ${POSITION}:`,
        "  RangeError: no such status",
        "      at statusOf (functions/orders.ts:12:9)",
        "      at Object.handle (functions/orders.ts:20:5)",
        "  Caused by: TypeError: x",
        "      at /elsewhere/shared.ts:7:1",
      ].join("\n"),
      [
        "orders: dead letter: public.orders after 3 attempts: RangeError: no such status",
        `  save the mended handler, and it is tried again; or: npx tributary-cdc redrive --consumer orders --position ${POSITION}`,
      ].join("\n"),
    ]);
  });

  it("with the time that the consumer has and what to do, where that was over", () => {
    const { take, printed } = reports();
    const late = {
      error: "HandlerTimeoutError",
      errorMessage: "the time was over",
      stack: "E\n    at f (/lib/a.ts:1:1)",
    };
    take(failed(late));
    expect(printed[0]).toMatch(
      /:\n {2}HandlerTimeoutError: the time was over \(timeoutSeconds is 2\): resolve every promise that it awaits, .*, or raise timeoutSeconds$/,
    );
  });

  it("without a command where no verb would find the run", () => {
    const { take, printed } = reports(false);
    take(dead());
    expect(printed[0]).not.toContain("redrive");
    expect(printed[0]).toContain(
      `it is gone with this run, at ${POSITION}; tributary dev keeps such changes`,
    );
  });

  it("each time that a redrive fails with it", () => {
    const { take, printed } = reports();
    const again = { message: "a redriven change failed again", attempts: undefined };
    for (const line of [failed(), dead(), failed({ ...again, attempt: 4 }), failed({ ...again, attempt: 5 })])
      take(line);
    expect(printed.slice(2)).toEqual(
      [4, 5].map(
        (attempt) =>
          `orders: a redrive failed on public.orders, attempt ${attempt}: RangeError: no such status at ${POSITION}`,
      ),
    );
  });

  it("in a line where it was thrown at the same place before", () => {
    const { take, printed } = reports();
    take(failed());
    take(failed({ ...at(2), errorMessage: "no such status: lost\nsecond line" }));
    expect(printed.slice(1)).toEqual([
      `orders: a handler failed on public.orders, attempt 1 of 3: RangeError: no such status: lost second line at ${at(2).position}`,
    ]);
  });

  it("with its stack in the dead letter where that comes first", () => {
    const { take, printed } = reports();
    take(dead({ attempt: 1 }));
    expect(printed[0]).toMatch(/^orders: dead letter: public\.orders after 1 attempt: .*\n.*orders\.ts:12:9/);
  });

  it("a few times a second in a storm, and the rest is counted", () => {
    const { told, take, printed, clock } = reports();
    for (let n = 0; n < 1000; n++) {
      take(failed(at(n)));
      take(dead(at(n)));
      clock.ms += 1;
    }
    expect(printed.length).toBeLessThan(50);
    const failures = printed.filter((text) => text.includes("a handler failed")).length;
    const letters = printed.filter((text) => text.includes("dead letter:")).length;
    told.close();
    expect(printed.at(-1)).toBe(
      `orders: ${1000 - failures} more failed changes and ${1000 - letters} more dead letters not shown`,
    );
    told.close();
    expect(printed.filter((text) => text.includes("not shown"))).toHaveLength(1);
    clock.ms += 60_000;
    take(dead(at(2000)));
    expect(printed.at(-1)).toContain("dead letter: public.orders");
  });

  it("also where it is the function that failed", () => {
    const { take, printed } = reports();
    const thrown = { errorType: "TypeError", errorMessage: "x is not a function", stack: STACK.split("\n") };
    expect(take(`2026-11-30T10:00:00.000Z\tid\tERROR\tInvoke Error \t${JSON.stringify(thrown)}`)).toBe(true);
    expect(printed[0]).toContain("orders: the function failed:\n  TypeError: x is not a function\n");
  });

  it("and a partition that stops at the same error again and again is told twice a minute", () => {
    const { take, clock } = reports();
    const stop = { message: "a partition stopped, its records come again", attempt: undefined };
    expect(take(failed(stop))).toBe(false);
    clock.ms += 1_000;
    expect(take(failed(stop))).toBe(true);
    expect(take(failed({ ...stop, partition: 8 }))).toBe(false);
    expect(take(failed({ ...stop, error: "GapError" }))).toBe(false);
    clock.ms += 30_000;
    expect(take(failed(stop))).toBe(false);
  });

  it.each(["plain", '{"level":"warn"', '{"level":"warn","message":"mine","error":"x"}', '{"level":"info"}'])(
    "no other line is taken for one: %s",
    (line) => {
      expect(reports().take(line)).toBe(false);
    },
  );
});

describe("an error in a terminal", () => {
  it("is bounded, and holds nothing that a terminal would obey", () => {
    const nasty = "\u001b[2J\u0007".repeat(10);
    const message = Array.from({ length: 1000 }, (_, n) => `${n}${nasty}${"x".repeat(2000)}`).join("\n");
    const stack = `${"    at f (/a/b.ts:1:1)\n".repeat(1000)}`;
    const lines = errorLines({ name: `E${nasty}`, message, stack });
    expect(lines.length).toBeLessThan(25);
    for (const line of [...lines, headline({ name: nasty, message, stack })]) {
      expect(line.length).toBeLessThan(500);
      expect(line).not.toMatch(/\p{Cc}/u);
    }
  });

  it("has some of its stack where none of it is the user's, and none where there is none", () => {
    const stack =
      "Error\n    at a (node:fs:1:1)\n    at b (node:fs:2:1)\n    at c (node:fs:3:1)\n    at d (node:fs:4:1)";
    expect(errorLines({ name: "Error", message: "", stack })).toEqual([
      "Error",
      "    at a (node:fs:1:1)",
      "    at b (node:fs:2:1)",
      "    at c (node:fs:3:1)",
    ]);
    expect(errorLines({ name: "number", message: "42", stack: "" })).toEqual(["number: 42"]);
  });
});
