import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The codes in lib, with the directive of their class where it is one. */
function codesInSource(): { code: string; directive: string | undefined }[] {
  return readdirSync(join(ROOT, "lib"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .flatMap((name) => {
      const text = readFileSync(join(ROOT, "lib", name), "utf8");
      return [
        ...text.matchAll(
          /readonly code = "([A-Z0-9_]+)";\s*readonly retry(?:: RetryDirective)?(?: = "(\w+)")?/g,
        ),
      ].map(([, code = "", directive]) => ({ code, directive }));
    });
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
