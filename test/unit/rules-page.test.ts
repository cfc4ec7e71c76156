import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PAGE = "docs/internals/rules.md";
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");

interface Rule {
  readonly number: number;
  readonly text: string;
  /** What the part "Held by" names: files, and the titles that are quoted behind each. */
  readonly tests: readonly { readonly file: string; readonly titles: readonly string[] }[];
}

/** The rules that the page defines, each up to the next heading. */
function rulesOf(page: string): Rule[] {
  return page
    .split(/^(?=##)/m)
    .filter((section) => section.startsWith("### "))
    .map((section) => {
      const number = /^### Rule (\d+): \S/.exec(section)?.[1];
      if (number === undefined) throw new Error(`no number in ${section.split("\n")[0]}`);
      const [text = "", heldBy = ""] = section.split("**Held by:**");
      const tests = [...heldBy.matchAll(/^- `([^`]+)`(.*)$/gm)].map(([, file = "", titles = ""]) => ({
        file,
        titles: [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => title),
      }));
      return { number: Number(number), text, tests };
    });
}

/** The numbers that a text cites as rules; a comment may break its line in front of one. */
function citedIn(text: string): number[] {
  const joined = text.replace(/\n\s*(?:\/\/|\*|#|--)?\s*/g, " ");
  const lists = joined.matchAll(/\brules?\s+(\d+(?:\s*(?:,|and|or|to|–|-)\s*(?:and\s+)?\d+)*)/gi);
  return [...lists].flatMap(([, list = ""]) =>
    [...list.matchAll(/(\d+)(?:\s*(?:to|–|-)\s*(\d+))?/g)].flatMap(([, from, to]) =>
      Array.from({ length: Number(to ?? from) - Number(from) + 1 }, (_, i) => Number(from) + i),
    ),
  );
}

/** Where a rule is cited in the tree, as `number file`. */
function citations(): string[] {
  const files = ["lib", "functions", "cdk", "package", "test", "docs"].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).map((name) => `${folder}/${name}`),
  );
  return files
    .filter(
      (file) => /\.(?:m?ts|md|mjs|sh|py|sql)$/.test(file) && !/\/(?:node_modules|cdk\.out)\//.test(file),
    )
    .flatMap((file) => citedIn(read(file)).map((number) => `${number} ${file}`));
}

const rules = rulesOf(read(PAGE));

test.each([
  ["// Rule 1: so", [1]],
  ["(rules 1 and 2)", [1, 2]],
  ["rules 1, 2 and 5; rule 7", [1, 2, 5, 7]],
  ["rules 1–3", [1, 2, 3]],
  [" * (rule\n * 4).", [4]],
  ["a rule of 5 lines; ruler 6", []],
])("%j cites %j", (text, numbers) => {
  expect(citedIn(text)).toEqual(numbers);
});

test("every rule that is cited is on the page", () => {
  const cited = citations();
  const outside = cited.filter((citation) => !citation.endsWith(PAGE));
  expect(outside.length).toBeGreaterThan(60);
  const known = new Set(rules.map(({ number }) => number));
  expect(cited.filter((citation) => !known.has(Number.parseInt(citation, 10)))).toEqual([]);
});

test("rules stand in the order of their numbers, each once, with what happens without it", () => {
  const numbers = rules.map(({ number }) => number);
  expect(numbers.length).toBeGreaterThan(40);
  expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  const silent = rules.filter(({ text }) => !/^\*\*Without it:\*\* \S/m.test(text));
  expect(silent.map(({ number }) => number)).toEqual([]);
});

test("every rule names tests that exist, by titles that stand in them", () => {
  expect(rules.filter(({ tests }) => tests.length === 0).map(({ number }) => number)).toEqual([]);
  const wrong = rules.flatMap(({ number, tests }) =>
    tests.flatMap(({ file, titles }) => {
      if (!/^test\/.+\.test\.ts$/.test(file) || !existsSync(join(ROOT, file))) return `${number}: ${file}`;
      if (titles.length === 0) return `${number}: ${file}: no title`;
      const source = read(file);
      return titles.filter((title) => !source.includes(title)).map((title) => `${number}: ${file}: ${title}`);
    }),
  );
  expect(wrong).toEqual([]);
});
