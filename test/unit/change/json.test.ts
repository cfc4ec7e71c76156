import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { jsonElements, jsonMembers } from "../../../lib/change/json-members.ts";
import { printJson } from "../../../lib/change/json-print.ts";

describe("printJson", () => {
  it("prints what JSON.stringify prints", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(printJson(value)).toBe(JSON.stringify(value));
      }),
    );
  });

  it("prints members by name where the order does not count, and leaves as asked", () => {
    const value = { b: [1, { d: null, c: 12345678901234567n }], a: "x" };
    expect(printJson(value)).toBe('{"b":[1,{"d":null,"c":"12345678901234567"}],"a":"x"}');
    const leaf = (inner: unknown) => (inner === null ? "nothing" : inner);
    expect(printJson(value, { sorted: true, leaf })).toBe(
      '{"a":"x","b":[1,{"c":"12345678901234567","d":"nothing"}]}',
    );
  });

  it("prints any depth", () => {
    const text = `${'[{"a":'.repeat(100_000)}1${"}]".repeat(100_000)}`;
    expect(printJson(JSON.parse(text)) === text).toBe(true);
  });
});

describe("the parts of a JSON text", () => {
  it("are found whatever blanks are between them", () => {
    const blanks = fc.stringMatching(/^[ \t\r\n]{0,2}$/);
    fc.assert(
      fc.property(fc.array(fc.jsonValue()), blanks, (values, blank) => {
        const texts = values.map((value) => JSON.stringify(value, undefined, blank));
        const array = `x[${blank}${texts.map((text) => `${blank}${text}${blank}`).join(",")}]`;
        const found = jsonElements(array, 1).map(({ valueStart, end }) => array.slice(valueStart, end));
        expect(found).toEqual(texts);
        const object = `x{${blank}${texts.map((text, i) => `${blank}"${i}"${blank}:${blank}${text}${blank}`).join(",")}}`;
        const members = jsonMembers(object, 1).map(({ name, valueStart, end }) => [
          name,
          object.slice(valueStart, end),
        ]);
        expect(members).toEqual(texts.map((text, i) => [String(i), text]));
      }),
    );
  });
});
