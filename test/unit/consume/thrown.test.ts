import { describe, expect, it } from "vitest";
import { jsonLogger } from "../../../lib/consume/api/context.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { causeOf, factsOf } from "../../../lib/consume/run/thrown.ts";
import { chain, invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

const refuse = () => {
  throw new Error("a trap");
};
const traps = new Proxy({}, { get: () => refuse });
const withGetter = (name: string) => Object.defineProperty(new Error("x"), name, { get: refuse });
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

/** What JavaScript lets a handler throw. */
const THROWN: readonly (readonly [string, () => unknown])[] = [
  ["undefined", () => undefined],
  ["null", () => null],
  ["a symbol", () => Symbol("x")],
  ["a bigint", () => 5n],
  ["a function", () => () => {}],
  ["an object without prototype", () => Object.create(null)],
  ["an object whose toString throws", () => ({ toString: refuse })],
  ["a revoked proxy", revoked],
  ["a proxy whose traps all throw", () => new Proxy({}, traps)],
  ["an error behind such a proxy", () => new Proxy(new Error("x"), traps)],
  ["an error without a name", () => Object.assign(new Error("x"), { name: undefined })],
  ["an error with an empty name", () => Object.assign(new Error("x"), { name: "" })],
  ["an error whose name is a number", () => Object.assign(new Error("x"), { name: 404 })],
  ["an error whose message is an object", () => Object.assign(new Error("x"), { message: { a: 1 } })],
  [
    "an error whose message has no text",
    () => Object.assign(new Error("x"), { message: Object.create(null) }),
  ],
  ["an error without a message", () => Object.assign(new Error("x"), { message: null })],
  ["an error whose stack is a list", () => Object.assign(new Error("x"), { stack: [] })],
  ["an error whose code is a bigint", () => Object.assign(new Error("x"), { code: 1n })],
  ...["name", "message", "code", "stack", "cause", "retry"].map(
    (name) => [`an error whose ${name} throws`, () => withGetter(name)] as const,
  ),
  ["an error whose prototype is gone", () => Object.setPrototypeOf(new Error("x"), null)],
  [
    "an error that is its own cause",
    () => {
      const error = new Error("x");
      error.cause = error;
      return error;
    },
  ],
  ["an error caused by a proxy", () => new Error("x", { cause: new Proxy({}, traps) })],
  ["an error with a stack of megabytes", () => Object.assign(new Error("x"), { stack: "s".repeat(20e6) })],
  ["an error with a name of megabytes", () => Object.assign(new Error("x"), { name: "n".repeat(2e6) })],
  ["an error with a message of megabytes", () => new Error("m".repeat(2e6))],
  ["half a surrogate pair", () => new Error("x\ud800")],
];

describe("whatever a handler throws", () => {
  it.each(THROWN)("%s: its change is a dead letter, its neighbours take effect", async (_what, make) => {
    for (const asynchronous of [false, true]) {
      const done: string[] = [];
      const { handler, letters } = await rig(
        (c) =>
          c.on("*", Operation.Create, ({ partition, after }) => {
            if (partition === 0 && after.id === "1") {
              if (asynchronous) return Promise.reject(make());
              throw make();
            }
            done.push(`${partition}/${after.id}`);
            return undefined;
          }),
        { attempts: 1 },
      );
      const event = invocationOf(packed(chain(1, 3)), packed(chain(1, 3), { partition: 1 }));
      for (const _ of [1, 2])
        expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
      expect(done.sort()).toEqual(["0/2", "0/3", "1/1", "1/2", "1/3"]);
      expect(letters).toHaveLength(1);
      const { name, message, stack } = letters[0]?.error ?? {};
      expect([typeof name, typeof message, typeof stack]).toEqual(["string", "string", "string"]);
      expect(JSON.stringify(letters[0]).length).toBeLessThan(64 * 1024);
    }
  });

  it("is told with its causes", () => {
    const cause = Object.assign(new Error("inner"), { stack: "inner stack" });
    const error = Object.assign(new TypeError("outer", { cause }), { stack: "outer stack" });
    const stack = "outer stack\nCaused by: inner stack";
    expect(factsOf(error)).toEqual({ name: "TypeError", message: "outer", stack });
    expect(factsOf({ message: "like one", name: "Odd" })).toMatchObject({ name: "Odd", message: "like one" });
    expect(factsOf(null)).toEqual({ name: "object", message: "null", stack: "" });
  });

  it("is an outage of the sink also where that is only its cause", async () => {
    const sink = new SinkUnavailableError("s");
    expect(causeOf(new Error("x", { cause: new Error("y", { cause: sink }) }), SinkUnavailableError)).toBe(
      sink,
    );
    const { handler, letters } = await rig(
      (c) => c.on("*", Operation.Create, () => Promise.reject(new Error("x", { cause: sink }))),
      { attempts: 1 },
    );
    const { batchItemFailures } = await handler(invocationOf(packed(chain(1, 1))), lambdaContext());
    expect([batchItemFailures.length, letters]).toEqual([1, []]);
  });
});

describe("a log line", () => {
  it("leaves out what cannot be written, and no more", () => {
    const lines: string[] = [];
    const ring: Record<string, unknown> = {};
    ring.self = ring;
    const fields = { ring, big: 5n, ok: "yes", toJSON: undefined, bad: { toJSON: refuse }, none: undefined };
    jsonLogger((line) => lines.push(line), { consumer: "c" }).info("m", fields);
    const unreadable = "(unreadable)";
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      { level: "info", message: "m", consumer: "c", ring: unreadable, big: "5", ok: "yes", bad: unreadable },
    ]);
  });

  it("that cannot be written at all fails nobody", () => {
    const logger = jsonLogger(refuse, {});
    expect(() => logger.info("m")).not.toThrow();
    expect(() => jsonLogger(() => {}, {}).warn("m", revoked())).not.toThrow();
  });
});
