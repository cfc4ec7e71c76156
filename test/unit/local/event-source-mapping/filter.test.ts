import { describe, expect, test } from "vitest";
import type { ConfigurationError } from "../../../../lib/change/tributary-error.ts";
import { compileFilters, type FilterPattern } from "../../../../lib/local/event-source-mapping/filter.ts";

function passes(data: unknown, ...patterns: FilterPattern[]): boolean {
  const bytes = data instanceof Uint8Array ? data : Buffer.from(JSON.stringify(data));
  return compileFilters(patterns)(bytes);
}

function thrownBy(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}

const rules: readonly [rule: string, pattern: unknown, matching: unknown[], failing: unknown[]][] = [
  [
    "exact text",
    { a: ["x"] },
    [{ a: "x" }, { a: "x", b: 1 }],
    [{ a: "X" }, { a: "xy" }, {}, { a: null }, { a: { x: 1 } }],
  ],
  ["one of several", { a: ["x", "y"] }, [{ a: "x" }, { a: "y" }], [{ a: "z" }, { a: false }]],
  ["all fields", { a: ["x"], b: ["y"] }, [{ a: "x", b: "y" }], [{ a: "x" }, { b: "y" }, { a: "x", b: "z" }]],
  ["empty", { a: [""] }, [{ a: "" }], [{ a: null }, {}, { a: " " }]],
  [
    "prefix",
    { a: [{ prefix: "shop." }] },
    [{ a: "shop.orders" }],
    [{ a: "Shop.orders" }, { a: "x.shop." }, { a: 5 }],
  ],
  ["suffix", { a: [{ suffix: ".orders" }] }, [{ a: "shop.orders" }], [{ a: ".orders.x" }, { a: "orders" }]],
  ["an empty prefix", { a: [{ prefix: "" }] }, [{ a: "" }, { a: "x" }], [{}, { a: 1 }, { a: null }]],
  ["a text of digits", { a: ["5"] }, [{ a: "5" }], [{ a: 5 }]],
  [
    "nested",
    { a: { b: { c: ["x"] } } },
    [{ a: { b: { c: "x" } } }],
    [{ a: { b: "x" } }, { a: "x" }, { "a.b.c": "x" }],
  ],
  ["array element", { a: ["x"] }, [{ a: ["y", "x"] }, { a: [["x"]] }], [{ a: ["y"] }, { a: [] }]],
  [
    "array of objects, in one element",
    { events: { op: ["d"], table: ["orders"] } },
    [
      {
        events: [
          { op: "c", table: "orders" },
          { op: "d", table: "orders" },
        ],
      },
    ],
    [
      {
        events: [
          { op: "d", table: "items" },
          { op: "c", table: "orders" },
        ],
      },
      { events: [] },
    ],
  ],
  ["array as data", { a: ["x"] }, [[{ a: "y" }, { a: "x" }]], [[{ a: "y" }], []]],
  ["odd names", { constructor: ["x"] }, [{ constructor: "x" }], [{}]],
];

describe("a rule", () => {
  test.each(rules)("%s", (_, pattern, matching, failing) => {
    for (const data of matching) expect(passes(data, { data: pattern }), JSON.stringify(data)).toBe(true);
    for (const data of failing) expect(passes(data, { data: pattern }), JSON.stringify(data)).toBe(false);
  });
});

describe("filters", () => {
  test("none: everything passes, readable or not", () => {
    expect(passes(Buffer.from("not json"))).toBe(true);
  });

  test("what JSON leaves open", () => {
    const pattern = { data: { a: ["x"] } };
    expect(passes(Buffer.from('{"a":"y","a":"x"}'), pattern)).toBe(true);
    expect(passes(Buffer.from('{"a":"x","a":"y"}'), pattern)).toBe(false);
    expect(passes(Buffer.from('\ufeff{"a":"x"}'), pattern)).toBe(false);
  });

  test("a document of ten thousand levels beside a field that is asked for", () => {
    const deep = `${"[".repeat(10_000)}${"]".repeat(10_000)}`;
    expect(passes(Buffer.from(`{"deep":${deep},"a":"x"}`), { data: { a: ["x"] } })).toBe(true);
  });

  test("several: one is enough", () => {
    const filters = [{ data: { a: ["x"] } }, { data: { b: ["y"] } }];
    expect(passes({ b: "y" }, ...filters)).toBe(true);
    expect(passes({ b: "x" }, ...filters)).toBe(false);
  });

  test("data that is no JSON object is dropped", () => {
    const pattern = { data: { a: [{ prefix: "" }] } };
    expect(passes({ a: "" }, pattern)).toBe(true);
    const unreadable = ["plain text", '"text"', "5", "null", '{"b":', ""].map((text) => Buffer.from(text));
    for (const data of [...unreadable, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])]) {
      expect(passes(data, pattern), data.toString()).toBe(false);
    }
  });

  const wrong: readonly [what: string, patterns: unknown[], path: string][] = [
    ["six filters", Array(6).fill({ data: { a: ["x"] } }), "filters"],
    ["another key than data", [{ partitionKey: ["x"] }], "filters[0]"],
    ["data and another key", [{ data: { a: ["x"] }, partitionKey: ["x"] }], "filters[0]"],
    ["an empty pattern", [{ data: {} }], "filters[0].data"],
    ["a bare value", [{ data: { a: "x" } }], "filters[0].data.a"],
    ["no rule", [{ data: { a: [] } }], "filters[0].data.a"],
    ["an operator that is not here", [{ data: { a: ["y", { wildcard: "x*" }] } }], "filters[0].data.a[1]"],
    ["two operators", [{ data: { a: [{ prefix: "x", suffix: "y" }] } }], "filters[0].data.a[0]"],
    ["a prefix that is no text", [{ data: { a: [{ prefix: 5 }] } }], "filters[0].data.a[0]"],
    ["a pattern of 5,000 characters", [{ data: { a: ["x".repeat(5000)] } }], "filters[0]"],
  ];
  test.each(wrong)("%s is refused with its path", (_, patterns, path) => {
    const { problems } = thrownBy(() => compileFilters(patterns as FilterPattern[])) as ConfigurationError;
    expect(problems.map((problem) => problem.path)).toEqual([path]);
  });
});
