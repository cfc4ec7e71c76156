import { describe, expect, it } from "vitest";
import {
  fittingJson,
  flag,
  listOf,
  mapOf,
  number,
  objectOf,
  oneOf,
  optional,
  position,
  sha256,
  text,
  tryFittingJson,
  wholeFrom,
} from "../../../lib/change/shape.ts";

const POSITION = "000000010000000000000010" + "0000000001";

describe("a shape", () => {
  it.each([
    ["text", text, ["", "a"], [1, null, undefined, {}, ["a"]]],
    ["number", number, [0, -1.5], ["1", Number.NaN, Number.POSITIVE_INFINITY, 1n, null]],
    ["flag", flag, [true, false], ["true", 0, null]],
    ["whole number", wholeFrom(1), [1, 2 ** 53 - 1], [0, 1.5, 2 ** 53, "1", 1n]],
    ["position", position, [POSITION], [POSITION.slice(1), POSITION.toLowerCase().replace("1", "a"), 1]],
    ["hash", sha256, ["0a".repeat(32)], ["0A".repeat(32), "0a".repeat(31), 1]],
    ["one of", oneOf(["a", 1]), ["a", 1], ["b", "1", undefined]],
    ["optional", optional(text), [undefined, "a"], [null, 1]],
    ["list", listOf(text), [[], ["a"]], [["a", 1], "a", { 0: "a", length: 1 }, null]],
    ["map", mapOf(number), [{}, { a: 1 }], [{ a: "1" }, [], null, 1]],
    ["object", objectOf({ a: text }), [{ a: "a" }, { a: "a", b: 1 }], [{}, { a: 1 }, ["a"], null, "a"]],
  ] as const)("of a %s takes what it says and nothing else", (_name, shape, good, bad) => {
    for (const value of good) expect(shape(value), JSON.stringify(value)).toEqual([]);
    for (const value of bad) expect(shape(value), String(value)).toHaveLength(1);
  });

  it("names every place that is wrong, by its path and never by its value", () => {
    const shape = objectOf({ a: listOf(objectOf({ b: text })), c: optional(wholeFrom(1)), d: mapOf(flag) });
    expect(shape({ a: [{ b: "x" }, { b: 7 }, 8], c: 0, d: { e: "secret" } })).toEqual([
      ["a.1.b", "expected a text"],
      ["a.2", "expected an object"],
      ["c", "expected a whole number from 1"],
      ["d.e", "expected true or false"],
    ]);
  });

  it("refuses a JSON text with the first thing that is wrong", () => {
    const refuse = (path: string, problem: string) => new RangeError(`${path}|${problem}`);
    const shape = objectOf({ a: text, b: text });
    expect(fittingJson(shape, '{"a":"x","b":"y","c":1}', refuse)).toEqual({ a: "x", b: "y", c: 1 });
    expect(() => fittingJson(shape, '{"a":"x"}', refuse)).toThrow(new RangeError("b|expected a text"));
    expect(() => fittingJson(shape, "{", refuse)).toThrow(new RangeError("|is not JSON"));
    expect(['{"a":"x","b":"y"}', '{"a":"x"}', "{"].map((json) => tryFittingJson(shape, json)?.b)).toEqual([
      "y",
      undefined,
      undefined,
    ]);
  });
});
