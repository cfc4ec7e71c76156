import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { MUTATIONS } from "../fault/mutations/all.ts";

const root = resolve(import.meta.dirname, "../..");

/** `npm run test:mutations` takes hours; that its breakages still break something is seen here. */
describe("the deliberate breakages", () => {
  test("change what stands in their file once", () => {
    const stale = MUTATIONS.filter(({ file, from, to }) => {
      const text = readFileSync(resolve(root, file), "utf8");
      return text.split(from).length !== 2 || from === to;
    });
    expect(stale.map(({ name, file }) => `${file}: ${name}`)).toEqual([]);
  });

  test("name tests that exist", () => {
    const missing = MUTATIONS.flatMap(({ tests }) => tests).filter(
      (path) => !existsSync(resolve(root, path)),
    );
    expect(missing).toEqual([]);
  });

  test("have names of their own", () => {
    const names = MUTATIONS.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });
});
