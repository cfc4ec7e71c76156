import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalNumber, parseExactJson } from "../../../lib/consume/run/json.ts";

describe("parseExactJson", () => {
  it.each([
    ["9007199254740991", 9007199254740991],
    ["9007199254740992", 9007199254740992n],
    ["9007199254740993", 9007199254740993n],
    ["-9007199254740993", -9007199254740993n],
    ["100000000000000000000", 100000000000000000000n],
    ["1.10", 1.1],
    ["0.1", 0.1],
    ["-0", -0],
    ["0.0000000000000000000", 0],
    ["1e+20", 1e20],
    ["1.2345678901234568e+17", 123456789012345680],
    ["0.30000000000000004", 0.30000000000000004],
    ["0.12345678901234567890", "0.12345678901234567890"],
    ["12345678901234567.5", "12345678901234567.5"],
    ["1e400", "1e400"],
    ["1e+400", "1e+400"],
    ["1E400", "1E400"],
    ["1e-400", "1e-400"],
    ["5e-324", 5e-324],
    ["1.7976931348623157e+308", 1.7976931348623157e308],
  ])("%s", (text, value) => {
    expect(parseExactJson(text.padStart(text.length + 1))).toStrictEqual(value);
    expect(parseExactJson(`{"a":[1,${text}],"s":"${text}"}`)).toStrictEqual({ a: [1, value], s: text });
  });

  it("keeps __proto__ as a key like any other", () => {
    for (const number of ["1", "9007199254740993"]) {
      const value = parseExactJson(`{"__proto__":{"x":${number}},"constructor":2}`) as object;
      expect(Object.keys(value)).toEqual(["__proto__", "constructor"]);
      expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    }
  });

  it("is JSON.parse for everything that doubles hold", () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        const plain: unknown = JSON.parse(text);
        const exact = JSON.stringify(parseExactJson(text), (_k, v) =>
          typeof v === "bigint" ? Number(v) : v,
        );
        expect(exact).toBe(JSON.stringify(plain));
      }),
    );
  });

  it("never changes a number", () => {
    const digits = fc.stringMatching(/^-?(0|[1-9]\d{0,25})(\.\d{1,25})?(e[+-]?\d{1,3})?$/);
    const around = fc.constantFrom(
      "[N]",
      '{"a":N}',
      "[N,1]",
      "[\nN\t]",
      "[ N ]",
      '{"a": N ,"b":[]}',
      "[[],N]",
    );
    fc.assert(
      fc.property(digits, around, (text, document) => {
        const value = parseExactJson(document.replace("N", text)) as Record<string, number | bigint | string>;
        const only = Object.values(value).find((one) => typeof one !== "object" && one !== 1) ?? 1;
        if (typeof only === "string") expect(only).toBe(text);
        else if (typeof only === "bigint") expect(only).toBe(BigInt(text));
        else expect(canonicalNumber(String(only))).toBe(canonicalNumber(text));
        if (typeof only === "number" && /^-?\d+$/.test(text)) expect(BigInt(only)).toBe(BigInt(text));
      }),
    );
  });

  it.each(["1", "9007199254740993", "1e400"])("reads %s below a hundred thousand levels", (number) => {
    const levels = 100_000;
    let value = parseExactJson(`${'{"a":['.repeat(levels)}0,${number}${"]}".repeat(levels)}`);
    for (let i = 0; i < levels; i++) value = (value as { a: unknown[] }).a.at(-1);
    expect(value).toStrictEqual((parseExactJson(`[0,${number}]`) as unknown[])[1]);
  });

  it("takes no time that grows with the square of the digits", () => {
    const zeros = "0".repeat(300_000);
    for (const number of [`0.1${zeros}1`, `1${zeros}1.5`, `1${zeros}1`]) {
      const [value] = parseExactJson(`[ ${number}]`) as [bigint | string];
      expect(String(value).length).toBe(number.length);
    }
  });

  it("tells numbers in strings from numbers, wherever quotes and backslashes stand", () => {
    const token = fc.constantFrom(
      '"',
      "\\",
      ",",
      ": ",
      "12345678901234567",
      "1e400",
      "bigint:",
      "\ud800",
      "x",
    );
    fc.assert(
      fc.property(fc.array(fc.array(token).map((parts) => parts.join(""))), (texts) => {
        const json = JSON.stringify(texts.flatMap((text) => [text, 0])).replaceAll(
          ",0",
          ",12345678901234567",
        );
        expect(parseExactJson(json)).toStrictEqual(
          (JSON.parse(json) as unknown[]).map((v) => (typeof v === "number" ? 12345678901234567n : v)),
        );
      }),
    );
  });

  it.each([
    "{12345678901234567:1}",
    '{"a":1,12345678901234567 :1}',
    "[012345678901234567]",
    "[12345678901234567.]",
    "[1e]",
    '[12345678901234567"a"]',
    '["a" 12345678901234567]',
    '["12345678901234567',
    "[- 12345678901234567]",
  ])("refuses %s as JSON.parse does", (text) => {
    expect(() => JSON.parse(text)).toThrow(SyntaxError);
    expect(() => parseExactJson(text)).toThrow(SyntaxError);
  });
});
