import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseExactJson, parseVerbatimJson } from "../../../lib/consume/json.ts";

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
    fc.assert(
      fc.property(digits, (text) => {
        const value = parseExactJson(`[${text}]`) as [number | bigint | string];
        const [only] = value;
        if (typeof only === "string") expect(only).toBe(text);
        else if (typeof only === "bigint") expect(only).toBe(BigInt(text));
        else expect(JSON.stringify(value)).toBe(JSON.stringify(JSON.parse(`[${text}]`)));
        if (typeof only === "number" && /^-?\d+$/.test(text)) expect(BigInt(only)).toBe(BigInt(text));
      }),
    );
  });
});

describe("parseVerbatimJson", () => {
  it("gives back every digit", () => {
    const text = '{"a":1.10,"b":[1e400,9007199254740993,1],"__proto__":0.0,"s":"1.10"}';
    expect(JSON.stringify(parseVerbatimJson(text))).toBe(text);
  });
});
