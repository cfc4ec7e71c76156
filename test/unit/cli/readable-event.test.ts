import { expect, test } from "vitest";
import { changedLine } from "../../../lib/cli/changed-line.ts";
import { prettyLine } from "../../../lib/cli/pretty-line.ts";
import { readableEvent } from "../../../lib/cli/readable-event.ts";

/** An update of `d`, in a column of type json, as the event's text holds it. */
function update(before: string, after: string): string {
  const source = { schema: "public", table: "orders", key: ["id"], ts_ms: 0 };
  return `{"op":"u","before":{"id":1,"d":${before}},"after":{"id":1,"d":${after}},"source":${JSON.stringify(source)}}`;
}

const deep = (inner: string) => `${"[".repeat(6_000)}${inner}${"]".repeat(6_000)}`;

test.each([
  ['{"n": 12345678901234567890}', '{"n": 12345678901234567891}'],
  ["1.0", "1.00"],
  ["[1e400]", "[2e400]"],
])("every digit of a number is shown, and tells: %s → %s", (before, after) => {
  const event = readableEvent(update(before, after));
  expect(changedLine(event)).toBe(`public.orders 1  d: ${before} → ${after}`);
  expect(prettyLine(event)).toContain(`id=1 d: ${before} → ${after}`);
});

test("documents are compared however deep they are", () => {
  expect(changedLine(readableEvent(update(deep("1"), deep("2"))))).toMatch(/ {2}d: \[+… → \[+…$/);
  expect(changedLine(readableEvent(update(deep("1"), deep("1"))))).toBe("public.orders 1  no value changed");
});

test("what differs behind what is shown is a change", () => {
  const long = (end: string) => JSON.stringify("x".repeat(90) + end);
  const shown = `d: ${"x".repeat(59)}… → ${"x".repeat(59)}…`;
  const event = readableEvent(update(long("a"), long("b")));
  expect(changedLine(event)).toBe(`public.orders 1  ${shown}`);
  expect(prettyLine(event)).toContain(shown);
});

test("no value says anything to the terminal", () => {
  const hostile = JSON.stringify("a\u001b[2J\u0007\u009bb\nc\u007f");
  const event = readableEvent(update('"x"', hostile));
  expect(changedLine(event)).toBe(String.raw`public.orders 1  d: x → a\x1b[2J\x07\x9bb c\x7f`);
  expect(prettyLine(event)).not.toMatch(/\p{Cc}/u);
  const content = Buffer.from("\u001b]0;title\u0007 two\nlines").toString("base64");
  const message = { ...event, op: "m" as const, before: null, after: null };
  const shown = changedLine({ ...message, message: { prefix: "p\u001b", content } } as typeof event);
  expect(shown).toBe(String.raw`message p\x1b: \x1b]0;title\x07 two lines`);
});
