import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

/*
 * `npm ci` on the oldest Node that package.json's engines name prints no EBADENGINE: npm itself runs on the machine's Node,
 * whatever runs the scripts.
 */

const ROOT = new URL("../../", import.meta.url);
const OLDEST = "20.20.0";

interface LockedPackage {
  readonly version?: string;
  readonly optional?: boolean;
  readonly engines?: { readonly node?: string } | readonly string[];
}

/** Whether a version is in a range of npm's; enough of its grammar for what engines say. */
function isIn(version: string, range: string): boolean {
  return range.split("||").some((alternative) =>
    alternative
      .replace(/(>=|<=|>|<|=|\^|~)\s+/g, "$1")
      .trim()
      .split(/\s+/)
      .every((comparator) => fits(numbersOf(version), comparator)),
  );
}

function fits(version: readonly number[], comparator: string): boolean {
  const [, operator = "", text = ""] = /^(>=|<=|>|<|=|\^|~)?v?(.*)$/.exec(comparator) ?? [];
  const bound = numbersOf(text);
  const against = order(version, bound);
  if (operator === ">=") return against >= 0;
  if (operator === ">") return against > 0;
  if (operator === "<=") return against <= 0;
  if (operator === "<") return against < 0;
  // As far as it is written out: `20.x` is any 20, `^20.1.0` one from 20.1.0 on, `*` and nothing are all.
  const same = operator === "^" ? 1 : operator === "~" ? 2 : bound.length;
  return bound.slice(0, same).every((part, i) => part === version[i]) && against >= 0;
}

function numbersOf(text: string): number[] {
  return text.split(/[-+]/, 1)[0]?.match(/\d+/g)?.map(Number) ?? [];
}

function order(a: readonly number[], b: readonly number[]): number {
  for (const [i, part] of b.entries()) if (a[i] !== part) return (a[i] ?? 0) - part;
  return 0;
}

test("every locked package that npm must install takes the oldest Node", () => {
  const lock = JSON.parse(readFileSync(new URL("package-lock.json", ROOT), "utf8")) as {
    packages: Record<string, LockedPackage>;
  };
  const all = Object.entries(lock.packages);
  expect(all.length).toBeGreaterThan(300);
  const wrong = all.flatMap(([path, { version, optional, engines }]) => {
    const node = engines && "node" in engines ? engines.node : undefined;
    return node === undefined || optional || isIn(OLDEST, node) ? [] : [`${path} ${version}: ${node}`];
  });
  expect(wrong).toEqual([]);
});

test("ranges are read as npm reads them", () => {
  for (const range of [
    ">=20",
    "*",
    "",
    "^20.0.0 || ^22.0.0 || >=24.0.0",
    "20.x",
    ">= 18.18.0",
    ">=14 <21",
    "20 || >=22",
  ])
    expect(isIn(OLDEST, range), range).toBe(true);
  for (const range of [
    ">=22",
    ">= 22.22",
    "^22.12.0 || ^24.0.0 || >=26.0.0",
    "18.x",
    ">=14 <20",
    "^20.21.0",
    "~20.19.0",
  ])
    expect(isIn(OLDEST, range), range).toBe(false);
});
