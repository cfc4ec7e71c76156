import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { entriesOf } from "../../lib/explain/catalogue.ts";
import { type OnCallRow, onCallRows, patternOf } from "../pipeline/on-call/on-call-table.ts";

const CLI = fileURLToPath(new URL("../../lib/cli/main.ts", import.meta.url));
const TESTS = fileURLToPath(new URL("../pipeline/on-call/", import.meta.url));

/** Numbers of the rows that a test of the folder names. */
const tested = (existsSync(TESTS) ? readdirSync(TESTS) : [])
  .filter((name) => name.endsWith(".test.ts"))
  .flatMap((name) => [...readFileSync(join(TESTS, name), "utf8").matchAll(/^ *onCall\((\d+),/gm)])
  .map(([, number]) => Number(number));

/** What is wrong with a row; undefined where nothing is. */
function wrongIn({ number, what, status, doctor, codes, command }: OnCallRow): string | undefined {
  if ([what, status, doctor, command].includes("")) return `${number}: a cell is empty`;
  if (codes.length === 0) return `${number}: no code for tributary explain`;
  const unknown = codes.filter((code) => entriesOf(code).length === 0);
  if (unknown.length > 0) return `${number}: no such code: ${unknown.join()}`;
  const tests = tested.filter((each) => each === number).length;
  return tests === 1 ? undefined : `${number}: ${tests} tests name it`;
}

test("each failure of the table has a test of its own, codes that tributary explain knows, and one command", () => {
  const numbers = onCallRows.map(({ number }) => number);
  expect(numbers.length).toBeGreaterThanOrEqual(25);
  expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
  expect(onCallRows.map(wrongIn).filter((wrong) => wrong !== undefined)).toEqual([]);
  expect(tested.filter((number) => !numbers.includes(number))).toEqual([]);
});

test("tributary explain says of each code what happened and what to do", async () => {
  const codes = [...new Set(onCallRows.flatMap((row) => row.codes))];
  const { stdout } = await promisify(execFile)(process.execPath, [CLI, "explain", ...codes]);
  const told = stdout
    .split("\n\n")
    .filter((text) => text.includes("What happened:") && text.includes("What to do:"));
  expect(codes.filter((code) => !told.some((text) => text.startsWith(`${code} (`)))).toEqual([]);
});

test("a row without a test, with an unknown code or without a command is found", () => {
  const row = { number: 0, what: "w", status: "s", doctor: "d", codes: ["SLOT_LOST"], command: "c" };
  expect(wrongIn(row)).toBe("0: 0 tests name it");
  expect(wrongIn({ ...row, codes: ["NO_SUCH"] })).toBe("0: no such code: NO_SUCH");
  expect(wrongIn({ ...row, codes: [] })).toContain("no code");
  expect(wrongIn({ ...row, command: "" })).toContain("a cell is empty");
});

test("what a cell quotes is found as it is printed, with its commands as they are typed and a word for each <word>", () => {
  const printed = "What to do:\n    npx tributary-cdc capture release --topic shop.public.orders";
  expect(patternOf("tributary capture release --topic <topic>").exec(printed)?.[0]).toBe(
    "npx tributary-cdc capture release --topic shop.public.orders",
  );
  expect(patternOf("tributary capture release --topic <topic>").exec(`${printed}. Or wait`)?.[0]).toMatch(
    /orders$/,
  );
  expect(patternOf("tributary capture release --table <table>").test(printed)).toBe(false);
  expect(patternOf("SELECT pg_terminate_backend(<pid>);").exec("SELECT pg_terminate_backend(12);")?.[0]).toBe(
    "SELECT pg_terminate_backend(12);",
  );
});
