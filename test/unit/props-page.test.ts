import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { allProps, propsOf, withProps } from "../../docs/props-tables.ts";

const page = readFileSync(new URL("../../docs/10-deploy.md", import.meta.url), "utf8");

test("docs/10 has a row for each prop of CdcPipeline as its doc comment says it", () => {
  expect(withProps(page)).toBe(page);
  expect(allProps().length).toBeGreaterThan(60);
});

test("each prop has a doc comment", () => {
  expect(
    allProps()
      .filter(({ meaning }) => meaning === "")
      .map(({ of, name }) => `${of}.${name}`),
  ).toEqual([]);
});

test("no field is passed over: with and without comment, over several lines, with a type in braces", () => {
  const source =
    "export interface A extends B {\n  /** One. */\n  readonly a: string;\n  readonly b?: number;\n  /**\n   * Two\n   * lines.\n   */\n  readonly c?: Readonly<\n    Record<string, X>\n  >;\n}\n";
  expect(propsOf(source, "A")).toEqual([
    { name: "a", optional: false, type: "string", meaning: "One." },
    { name: "b", optional: true, type: "number", meaning: "" },
    { name: "c", optional: true, type: "Readonly< Record<string, X> >", meaning: "Two lines." },
  ]);
  for (const each of new Set(allProps().map(({ of }) => of)))
    expect(allProps().some(({ of }) => of === each)).toBe(true);
});

test("a page without a place for them is refused", () => {
  expect(() => withProps("nothing")).toThrow("no place");
});
