import fc from "fast-check";
import { expect, test } from "vitest";
import { parseRecord } from "../../lib/source/batch/record-text.ts";

/** As `record_out` of PostgreSQL prints a row. */
function print(values: readonly (string | null)[]): string {
  const field = (value: string | null) => {
    if (value === null) return "";
    if (value !== "" && !/[\s"\\(),]/.test(value)) return value;
    return `"${value.replace(/["\\]/g, (c) => c + c)}"`;
  };
  return `(${values.map(field).join(",")})`;
}

test("reads what PostgreSQL prints, whatever the values hold", () => {
  const value = fc.option(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'"\\(),a \n') })));
  fc.assert(
    fc.property(fc.array(value, { minLength: 1 }), (values) => {
      expect(parseRecord(print(values))).toEqual(values);
    }),
  );
  expect(parseRecord('(1,"a ""b"" \\\\ c",,"")')).toEqual(["1", 'a "b" \\ c', null, ""]);
  expect(parseRecord("()")).toEqual([null]);
});

test.each(["", "1,2", "(1", '("a)', '("a"b,c)'])("refuses %j", (text) => {
  expect(() => parseRecord(text)).toThrow(RangeError);
});
