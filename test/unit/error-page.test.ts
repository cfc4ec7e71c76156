import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

interface SourceCode {
  readonly code: string;
  /** Undefined: each error of the class has its own. */
  readonly directive: string | undefined;
}

/** A class that names code and directive itself, or by `defineError`. */
const CODE =
  /readonly code = "(?<own>[A-Z0-9_]+)";\s*readonly retry(?:: RetryDirective)?(?: = "(?<ownDirective>\w+)")?|^(?:export )?class \w+\s+extends defineError\(\s*"(?<code>[A-Z0-9_]+)",\s*"(?<directive>\w+)"/gm;
/** Every class of the base, or of what `defineError` returns. */
const ERROR_CLASS = /^(?:export )?(?:default )?class (\w+)\s+extends (?:TributaryError|defineError)\b/gm;
/** Calls, but for the declaration, and the example in its comment. */
const DEFINED = /(?<!function |\* .*)\bdefineError\b[(<]/g;

const sources = readdirSync(join(ROOT, "lib"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => readFileSync(join(ROOT, "lib", name), "utf8"));

/** The codes in lib, with the directive of their class where it is one. */
function codesInSource(): SourceCode[] {
  return sources.flatMap((text) =>
    [...text.matchAll(CODE)].map(({ groups = {} }) => ({
      code: groups.own ?? groups.code ?? "",
      directive: groups.ownDirective ?? groups.directive,
    })),
  );
}

function matchesInSource(pattern: RegExp): string[] {
  return sources.flatMap((text) => [...text.matchAll(pattern)].map(([match]) => match));
}

/** The rows of docs/08 that begin with a code and a directive. */
function rowsOfPage(): { code: string; directive: string }[] {
  const page = readFileSync(join(ROOT, "docs/08-errors.md"), "utf8");
  return [...page.matchAll(/^\| `([A-Z0-9_]+)` +\| ([a-z ]+?) +\|/gm)].map(
    ([, code = "", directive = ""]) => ({
      code,
      directive,
    }),
  );
}

const source = codesInSource();
const page = rowsOfPage();

test("each class of errors was found here, with its code", () => {
  expect(matchesInSource(ERROR_CLASS)).toHaveLength(source.length);
  const defined = matchesInSource(ERROR_CLASS).filter((text) => text.includes("defineError"));
  expect(matchesInSource(DEFINED)).toHaveLength(defined.length);
});

test("each code means one thing: no two classes share one", () => {
  const codes = source.map(({ code }) => code);
  expect(codes.length).toBeGreaterThan(50);
  expect(codes.filter((code, i) => codes.indexOf(code) !== i)).toEqual([]);
});

test("docs/08 tells of each code once, and of none that there is not", () => {
  expect(page.map(({ code }) => code).sort()).toEqual(source.map(({ code }) => code).sort());
});

test("docs/08 tells the directive that the class has", () => {
  const differing = source.filter(({ code, directive }) => {
    const told = page.find((row) => row.code === code)?.directive;
    return directive === undefined ? !told?.includes(" or ") : told !== directive;
  });
  expect(differing).toEqual([]);
});
