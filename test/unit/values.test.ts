import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { canonicalText, joinKeyText } from "../../lib/source/postgres/decode/key-text.ts";
import { arrayEncoder } from "../../lib/source/postgres/decode/values/array.ts";
import { BUILTIN_TYPES } from "../../lib/source/postgres/decode/values/builtin-types.ts";
import { ColumnTypes } from "../../lib/source/postgres/decode/values/column-type.ts";
import {
  NotText,
  type ValueEncoder,
  ValueMismatch,
} from "../../lib/source/postgres/decode/values/encoder.ts";
import { hstoreEncoder } from "../../lib/source/postgres/decode/values/hstore.ts";
import { textForm } from "../../lib/source/postgres/decode/values/text.ts";

const utf8 = textForm("utf-8");
const types = new ColumnTypes(utf8);

/** The type of a built-in name, or of arrays of it. */
function encoderOf(name: string, array = false): ValueEncoder {
  const [oid, arrayOid] = BUILTIN_TYPES.find((type) => type[2] === name) ?? [0, 0];
  return types.get(array ? arrayOid : oid).encode;
}

/** Encodes text that stands in the middle of other bytes, as a value does in a message. */
function encode(encoder: ValueEncoder, text: string | Uint8Array): string {
  const value = Buffer.from(text as string);
  const buffer = Buffer.concat([Buffer.from('t"{,'), value, Buffer.from('"},5NULL')]);
  return encoder(buffer, 4, 4 + value.length);
}

/** Text as PostgreSQL takes it: no zero character, no lone surrogate. */
const text = fc.string({ unit: "binary" }).map((s) => s.replaceAll("\0", ""));

const quoted = (s: string) => `"${s.replace(/["\\]/g, "\\$&")}"`;

describe("JSON nulls", () => {
  type Nested = string | null | Nested[];
  const element = fc.oneof(
    fc.constantFrom("null", " null ", '"null"', "[null]", '{"a":null}', '"\\\\"', "1"),
    fc.constant(null),
  );
  const nested: fc.Arbitrary<Nested[]> = fc.oneof(
    fc.array(element, { minLength: 1, maxLength: 4 }),
    fc.array(fc.array(element, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 3 }),
  );
  const asText = (value: Nested): string =>
    value === null
      ? "NULL"
      : Array.isArray(value)
        ? `{${value.map(asText).join()}}`
        : quotedWhereItMust(value);
  const quotedWhereItMust = (s: string) => (/^[0-9]+$/.test(s) ? s : quoted(s));
  const nulls = (value: Nested, path: number[]): number[][] =>
    Array.isArray(value)
      ? value.flatMap((inner, i) => nulls(inner, [...path, i]))
      : value?.trim() === "null"
        ? [path]
        : [];
  const find = (name: string, array: boolean, text: string) => {
    const [oid, arrayOid] = BUILTIN_TYPES.find((type) => type[2] === name) ?? [0, 0];
    const value = Buffer.from(text);
    const buffer = Buffer.concat([Buffer.from('null"{'), value, Buffer.from(',"null"}')]);
    return types.get(array ? arrayOid : oid).jsonNulls?.(buffer, 6, 6 + value.length);
  };

  test.each(["json", "jsonb"])("of %s are found, in arrays of any depth, and NULL is none", (name) => {
    fc.assert(
      fc.property(nested, fc.constantFrom("", "[2:9]="), (value, bounds) => {
        expect(find(name, true, bounds + asText(value))).toEqual(nulls(value, []));
      }),
    );
    for (const text of ["null", " null", "\n\tnull "]) expect(find(name, false, text)).toEqual([[]]);
    for (const text of ["1", '"null"', "[null]", '{"null":null}', "true"])
      expect(find(name, false, text)).toEqual([]);
  });

  test("are of json alone", () => {
    for (const name of ["text", "int4", "bool"]) {
      expect(find(name, false, "null")).toBeUndefined();
      expect(find(name, true, '{"null"}')).toBeUndefined();
    }
  });
});

describe("text", () => {
  test("every text comes back from its JSON", () => {
    fc.assert(
      fc.property(text, (s) => {
        expect(JSON.parse(encode(utf8.json, s))).toBe(s);
        expect(JSON.parse(encode(encoderOf("text", true), `{${quoted(s)},${quoted(s)}}`))).toEqual([s, s]);
      }),
    );
  });

  test("bytes that are not UTF-8 are refused, never replaced; latin1 takes each byte as its character", () => {
    for (const bytes of [[0xe9], [0x61, 0xc3], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xc0, 0x80]]) {
      expect(() => encode(utf8.json, Uint8Array.from(bytes))).toThrow(NotText);
      expect(encode(textForm("latin1").json, Uint8Array.from(bytes))).toBe(
        JSON.stringify(String.fromCharCode(...bytes)),
      );
    }
  });

  test("JSON from random bytes, or a typed refusal, for every type but json", () => {
    const encoders = BUILTIN_TYPES.filter(([, , , form]) => form !== "json").flatMap(([oid, array]) =>
      array === 0 ? [types.get(oid)] : [types.get(oid), types.get(array)],
    );
    const piece = fc.oneof(
      fc.constantFrom(
        "{",
        "}",
        ",",
        '"',
        "\\",
        "NULL",
        "[1:2]=",
        "-",
        "1",
        ".5",
        "e+3",
        "infinity",
        " BC",
        "\\x0a",
        "P1D",
      ),
      fc.string({ maxLength: 3 }),
    );
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 30 }),
      fc.array(piece, { maxLength: 8 }).map((pieces) => Buffer.from(pieces.join(""))),
    );
    fc.assert(
      fc.property(fc.constantFrom(...encoders), bytes, ({ encode: encoder }, value) => {
        try {
          JSON.parse(encode(encoder, value));
        } catch (error) {
          if (!(error instanceof ValueMismatch || error instanceof NotText)) throw error;
        }
      }),
      { numRuns: 20_000 },
    );
  });
});

test('"char" above 127: as PostgreSQL 14 prints it, the bare byte, it is what newer versions print', () => {
  expect(encode(encoderOf("char"), Uint8Array.of(0xc3))).toBe(encode(encoderOf("char"), "\\303"));
  expect(encode(encoderOf("char", true), Uint8Array.of(0x7b, 0xc3, 0x7d))).toBe('["\\\\303"]');
});

describe("arrays and hstore", () => {
  test("nested as deep as PostgreSQL nests, with null elements", () => {
    const level = (inner: fc.Arbitrary<unknown>) => fc.array(inner, { minLength: 1, maxLength: 3 });
    const element = fc.option(text, { nil: null });
    const arrays = fc.oneof(
      fc.constant([]),
      level(element),
      level(level(element)),
      level(level(level(element))),
    );
    const print = (value: unknown): string =>
      Array.isArray(value)
        ? `{${value.map(print).join()}}`
        : value === null
          ? "NULL"
          : quoted(value as string);
    fc.assert(
      fc.property(arrays, fc.boolean(), (value, shifted) => {
        const printed = `${shifted ? "[-5:-2][0:9]=" : ""}${print(value)}`;
        expect(JSON.parse(encode(encoderOf("text", true), printed))).toEqual(value);
      }),
    );
  });

  test.each([
    "",
    "{",
    "}",
    "{1",
    "{1,",
    "{1,}",
    "{,1}",
    "{1}2",
    "{{1}",
    '{"a}',
    '{"a"b}',
    '{a"b"}',
    "{}{}",
    "1",
    "[1:2]",
    "{1}}",
    "{\\a}",
    "{{}",
  ])("what is no array is refused: %s", (printed) => {
    expect(() => encode(arrayEncoder(utf8.json, ","), printed)).toThrow(ValueMismatch);
  });

  test("hstore of any keys and values", () => {
    const entries = fc.uniqueArray(fc.tuple(text, fc.option(text, { nil: null })), {
      selector: (entry) => entry[0],
    });
    fc.assert(
      fc.property(entries, (pairs) => {
        const printed = pairs.map(([k, v]) => `${quoted(k)}=>${v === null ? "NULL" : quoted(v)}`).join(", ");
        const json = encode(hstoreEncoder(utf8), printed);
        const members = pairs.map(([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`).join();
        expect(json).toBe(`{${members}}`);
      }),
    );
    for (const printed of ['"a"', '"a"=>', '"a"=>"b",', '"a"=>"b" "c"=>"d"', "a=>b", '"a"=>NULL2']) {
      expect(() => encode(hstoreEncoder(utf8), printed), printed).toThrow(ValueMismatch);
    }
  });
});

describe("a session that is not pinned is noticed", () => {
  test.each([
    ["date", "23/11/2026"],
    ["timestamp", "11/23/2026 10:15:30"],
    ["timestamptz", "2026-11-23 10:15:30+05:45"],
    ["timestamptz", "2026-11-23 10:15:30"],
    ["interval", "@ 1 year 2 mons"],
    ["interval", "1 day 02:03:04"],
    ["interval", "1-2"],
    ["bytea", "abc\\000"],
    ["bytea", "\\x0"],
    ["bytea", "\\x0g"],
    ["bool", "true"],
    ["int4", "1,000"],
    ["float8", "1,5"],
  ])("%s %s", (type, printed) => {
    expect(() => encode(encoderOf(type), printed)).toThrow(ValueMismatch);
  });
});

describe("key text", () => {
  test.each([
    ["numeric", "1.500", "1.5"],
    ["numeric", "1.00", "1"],
    ["numeric", "100", "100"],
    ["numeric", "100.0", "100"],
    ["numeric", "0.00", "0"],
    ["numeric", "-0.010", "-0.01"],
    ["numeric", "NaN", "NaN"],
    ["bpchar", "ab   ", "ab"],
    ["bpchar", "   ", ""],
    ["float", "-0", "0"],
    ["float", "1e+20", "1e+20"],
    ["text", "a ", "a "],
    ["text", "1.0", "1.0"],
  ] as const)("%s %j is %j", (form, printed, canonical) => {
    expect(canonicalText(form, printed)).toBe(canonical);
  });

  test("values are joined by a character that no value holds; no key is the empty text", () => {
    expect(joinKeyText(["a", "b"])).toBe("a\0b");
    expect(joinKeyText([])).toBe("");
  });
});
