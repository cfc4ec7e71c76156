import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PAGE = "docs/09-local.md";
const HEADING = "## When something is wrong at first\n";

/** The table's rows, as their cells. */
function rowsOf(page: string): string[][] {
  const [, section = ""] = page.split(HEADING);
  const [own = ""] = section.split(/^## /m);
  return own
    .split("\n")
    .filter((line) => line.startsWith("| "))
    .slice(1)
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .map((cells) => cells.slice(1, -1));
}

const rows = rowsOf(readFileSync(join(ROOT, PAGE), "utf8"));

/** What is wrong with the test that a row names; undefined where it is there. */
function wrongIn([mistake = "", printed = "", remedy = "", held = ""]: readonly string[]):
  | string
  | undefined {
  if (mistake === "" || printed === "" || remedy === "") return `${mistake}: a cell is empty`;
  const [, file = "", title = ""] = /^`(test\/[^`]+\.test\.ts)` "([^"]+)"$/.exec(held) ?? [];
  if (!existsSync(join(ROOT, file)) || file === "") return `${mistake}: no such file in ${held}`;
  const isThere = readFileSync(join(ROOT, file), "utf8").includes(`it("${title}"`);
  return isThere ? undefined : `${mistake}: ${file} has no test "${title}"`;
}

test("each mistake of the first hour is on the page once, with a test that exists", () => {
  expect(rows.length).toBeGreaterThanOrEqual(20);
  expect(new Set(rows.map(([mistake]) => mistake)).size).toBe(rows.length);
  expect(rows.map(wrongIn).filter((wrong) => wrong !== undefined)).toEqual([]);
});

test("a row without a test, or with one that is not there, is found", () => {
  const of = (held: string) => wrongIn(["a mistake", "words", "a remedy", held]);
  const file = "test/pipeline/first-hour.test.ts";
  expect(of("")).toContain("no such file");
  expect(of('`test/pipeline/none.test.ts` "x"')).toContain("no such file");
  expect(of(`\`${file}\` "a test that nobody wrote"`)).toContain("has no test");
  expect(wrongIn(["a mistake", "", "a remedy", ""])).toContain("a cell is empty");
});
