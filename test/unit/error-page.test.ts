import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { withTables } from "../../docs/error-tables.ts";
import { allEntries, ERROR_SECTIONS, FINDING_SECTIONS } from "../../lib/explain/catalogue.ts";
import { pageOf } from "../../lib/explain/entry.ts";

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

/** A finding of preflight, or a warning that has a remedy. */
const FINDING = /\bcode: "[A-Z_]+"/g;

const sources = readdirSync(join(ROOT, "lib"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts") && !name.startsWith("explain/"))
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

const source = codesInSource();
const errors = ERROR_SECTIONS.flatMap(({ entries }) => entries);
const findings = FINDING_SECTIONS.flatMap(({ entries }) => entries);

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

test("the catalogue tells of each code once, and of none that there is not", () => {
  expect(errors.map(({ code }) => code).sort()).toEqual(source.map(({ code }) => code).sort());
});

test("the catalogue tells the directive that the class has", () => {
  const differing = source.filter(({ code, directive }) => {
    const told = errors.find((entry) => entry.code === code)?.retry;
    return directive === undefined ? told !== "retry or stop" : told !== directive;
  });
  expect(differing).toEqual([]);
});

test("the catalogue tells of each finding and warning that is no error, and of none that there is not", () => {
  const known = new Set(source.map(({ code }) => code));
  // What is told beside an error's code, or of a session that is refused before preflight begins, has the error's own entry.
  const found = new Set(matchesInSource(FINDING).map((match) => /"(\w+)"/.exec(match)?.[1] ?? ""));
  expect(found.size).toBeGreaterThan(30);
  const told = new Set(findings.map(({ code }) => code));
  expect([...found].filter((code) => !told.has(code) && !known.has(code))).toEqual([]);
  expect([...told].filter((code) => !found.has(code))).toEqual([]);
});

test("docs/08 has the tables of the catalogue as they are now", () => {
  const page = readFileSync(join(ROOT, "docs/08-errors.md"), "utf8");
  expect(withTables(page)).toBe(page);
});

test("each entry says all that is asked of it, and names a section that the docs have", () => {
  for (const { code, kind, meaning, why, remedy, ifNothing, page } of allEntries()) {
    const texts = [meaning, remedy, ifNothing, ...(kind === "alarm" ? [] : [why ?? ""])];
    expect([code, texts.filter((text) => text.trim().length < 3)]).toEqual([code, []]);
    expect([code, /docs\//.test(texts.join(" "))]).toEqual([code, false]);
    const [file = "", anchor = ""] = page.split("#");
    const headings = [...readFileSync(join(ROOT, file), "utf8").matchAll(/^#+ (.*)$/gm)];
    const anchors = headings.map(([, text = ""]) => pageOf("", text).split("#")[1]);
    expect([code, anchors.includes(anchor)]).toEqual([code, true]);
  }
});
