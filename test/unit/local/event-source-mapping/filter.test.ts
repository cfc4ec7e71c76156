import { describe, expect, test } from "vitest";
import { compileFilters, type FilterPattern } from "../../../../lib/local/event-source-mapping/filter.ts";

function passes(data: unknown, ...patterns: FilterPattern[]): boolean {
  const filters = compileFilters(patterns);
  if (filters.problems) throw new Error(JSON.stringify(filters.problems));
  const bytes = data instanceof Uint8Array ? data : Buffer.from(JSON.stringify(data));
  return filters.matches(bytes);
}

const rules: readonly [rule: string, pattern: unknown, matching: unknown[], failing: unknown[]][] = [
  [
    "exact text",
    { a: ["x"] },
    [{ a: "x" }, { a: "x", b: 1 }],
    [{ a: "X" }, { a: "xy" }, {}, { a: null }, { a: { x: 1 } }],
  ],
  ["one of several", { a: ["x", 7, true] }, [{ a: "x" }, { a: 7 }, { a: true }], [{ a: "7" }, { a: false }]],
  ["all fields", { a: ["x"], b: ["y"] }, [{ a: "x", b: "y" }], [{ a: "x" }, { b: "y" }, { a: "x", b: "z" }]],
  ["null", { a: [null] }, [{ a: null }], [{ a: "" }, {}, { a: "null" }, { a: 0 }]],
  ["empty", { a: [""] }, [{ a: "" }], [{ a: null }, {}, { a: " " }]],
  [
    "prefix",
    { a: [{ prefix: "shop." }] },
    [{ a: "shop.orders" }],
    [{ a: "Shop.orders" }, { a: "x.shop." }, { a: 5 }],
  ],
  ["suffix", { a: [{ suffix: ".orders" }] }, [{ a: "shop.orders" }], [{ a: ".orders.x" }, { a: "orders" }]],
  ["ignore case", { a: [{ "equals-ignore-case": "aBc" }] }, [{ a: "AbC" }], [{ a: "abcd" }, { a: null }]],
  ["anything but", { a: [{ "anything-but": "x" }] }, [{ a: "y" }, { a: 1 }, { a: null }], [{ a: "x" }, {}]],
  [
    "anything but any of",
    { a: [{ "anything-but": ["x", "y"] }] },
    [{ a: "z" }, { a: 1 }, { a: null }, { a: true }],
    [{ a: "x" }, { a: "y" }, {}, { a: { x: 1 } }],
  ],
  [
    "anything but numbers",
    { a: [{ "anything-but": [1, 2.5] }] },
    [{ a: 2 }, { a: "1" }, { a: null }, { a: 7e9 }],
    [{ a: 1 }, { a: 2.5 }, {}],
  ],
  [
    "anything but a wildcard",
    { a: [{ "anything-but": { wildcard: "x*" } }] },
    [{ a: "y" }, { a: 1 }, { a: null }],
    [{ a: "x" }, { a: "xy" }, {}],
  ],
  [
    "anything but, ignoring case",
    { a: [{ "anything-but": { "equals-ignore-case": ["x", "Y"] } }] },
    [{ a: "z" }, { a: 1 }],
    [{ a: "X" }, { a: "y" }],
  ],
  [
    "wildcard",
    { a: [{ wildcard: "x*z" }] },
    [{ a: "xz" }, { a: "xyz" }, { a: "x\nz" }, { a: "xzz" }],
    [{ a: "xyza" }, { a: "axz" }, { a: "XZ" }, { a: 5 }, { a: null }],
  ],
  [
    "wildcard with characters of its own and of expressions",
    { a: [{ wildcard: "\\\\a\\*.(b)*" }] },
    [{ a: "\\a*.(b)" }, { a: "\\a*.(b)c" }],
    [{ a: "\\ab.(b)" }, { a: "\\a*x(b)" }],
  ],
  [
    "prefix and suffix, ignoring case",
    { a: [{ prefix: { "equals-ignore-case": "AB" } }], b: [{ suffix: { "equals-ignore-case": "Yz" } }] },
    [{ a: "abc", b: "xyZ" }],
    [
      { a: "bc", b: "xyz" },
      { a: "abc", b: "xy" },
    ],
  ],
  ["an empty prefix", { a: [{ prefix: "" }] }, [{ a: "" }, { a: "x" }], [{}, { a: 1 }, { a: null }]],
  [
    "addresses of a network",
    { a: [{ cidr: "10.0.0.0/24" }] },
    [{ a: "10.0.0.0" }, { a: "10.0.0.255" }],
    [{ a: "10.0.1.0" }, { a: "text" }, { a: "::1" }, {}],
  ],
  [
    "addresses of version 6",
    { a: [{ cidr: "2001:db8::/32" }] },
    [{ a: "2001:DB8::1" }],
    [{ a: "2001:db9::1" }],
  ],
  ["anything but prefix", { a: [{ "anything-but": { prefix: "x" } }] }, [{ a: "yx" }], [{ a: "xy" }, {}]],
  [
    "anything but suffixes",
    { a: [{ "anything-but": { suffix: ["x", "y"] } }] },
    [{ a: "xz" }],
    [{ a: "zx" }, { a: "zy" }],
  ],
  [
    "exists",
    { a: [{ exists: true }] },
    [{ a: 1 }, { a: null }, { a: "" }],
    [{}, { b: 1 }, { a: { b: 1 } }, { a: [] }],
  ],
  [
    "does not exist",
    { a: [{ exists: false }] },
    [{}, { b: 1 }, { a: { b: 1 } }, { a: [] }],
    [{ a: 1 }, { a: null }],
  ],
  ["a text of digits", { a: ["5"] }, [{ a: "5" }], [{ a: 5 }]],
  ["number", { a: [{ numeric: ["=", 5] }] }, [{ a: 5 }, { a: 5.0 }], [{ a: "5" }, { a: 4 }]],
  [
    "range",
    { a: [{ numeric: [">", 0, "<=", 5] }] },
    [{ a: 0.1 }, { a: 5 }],
    [{ a: 0 }, { a: 5.1 }, { a: "3" }, {}],
  ],
  [
    "nested",
    { a: { b: { c: ["x"] } } },
    [{ a: { b: { c: "x" } } }],
    [{ a: { b: "x" } }, { a: "x" }, { "a.b.c": "x" }],
  ],
  ["nested, not there", { a: { b: [{ exists: false }] } }, [{}, { a: 1 }, { a: {} }], [{ a: { b: 1 } }]],
  ["either field", { $or: [{ a: ["x"] }, { b: ["y"] }] }, [{ a: "x" }, { b: "y" }], [{ a: "y" }, {}]],
  [
    "either and",
    { c: ["z"], $or: [{ a: ["x"] }, { b: ["y"] }] },
    [{ a: "x", c: "z" }],
    [{ a: "x" }, { c: "z" }],
  ],
  ["array element", { a: ["x"] }, [{ a: ["y", "x"] }, { a: [["x"]] }], [{ a: ["y"] }, { a: [] }]],
  ["array, anything but", { a: [{ "anything-but": "x" }] }, [{ a: ["x", "y"] }], [{ a: ["x"] }, { a: [] }]],
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
  [
    "odd names",
    { __proto__x: ["x"], constructor: [{ exists: false }] },
    [{ __proto__x: "x" }],
    [{ __proto__x: "x", constructor: 1 }],
  ],
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

  const numbers: readonly [data: string, rule: unknown, passes: boolean][] = [
    ["1.0", 1, true],
    ["1e0", 1, true],
    ["-0", 0, true],
    ["100e-2", { numeric: ["=", 1] }, true],
    // Six digits behind the point count.
    ["1.0000001", 1, true],
    ["1.000001", { numeric: ["=", 1] }, false],
    ["5e9", { numeric: ["<=", 5e9] }, true],
    // Beyond 5.0e9 a number is compared as text, and not by size.
    ["7e9", { numeric: [">", 1] }, false],
    ["7000000000", 7e9, true],
    ["7e9", 7e9, false],
    ["9007199254740993", 9007199254740992, false],
    ["9007199254740992", 9007199254740992, true],
  ];
  test.each(numbers)("the number %s, by the rule %j: %s", (data, rule, wanted) => {
    expect(passes(Buffer.from(`{"a":${data}}`), { data: { a: [rule] } })).toBe(wanted);
  });

  test("what JSON leaves open", () => {
    const pattern = { data: { a: ["x"] } };
    expect(passes(Buffer.from('{"a":"y","a":"x"}'), pattern)).toBe(true);
    expect(passes(Buffer.from('{"a":"x","a":"y"}'), pattern)).toBe(false);
    expect(passes(Buffer.from('\ufeff{"a":"x"}'), pattern)).toBe(false);
  });

  test("a document of ten thousand levels beside a field that is asked for", () => {
    const deep = `${"[".repeat(10_000)}${"]".repeat(10_000)}`;
    for (const [value, rule] of [
      ['"x"', "x"],
      ["5", 5],
    ]) {
      expect(passes(Buffer.from(`{"deep":${deep},"a":${value}}`), { data: { a: [rule] } })).toBe(true);
    }
  });

  test("several: one is enough", () => {
    const filters = [{ data: { a: ["x"] } }, { data: { b: ["y"] } }];
    expect(passes({ b: "y" }, ...filters)).toBe(true);
    expect(passes({ b: "x" }, ...filters)).toBe(false);
  });

  test("data that is no JSON object is dropped, even where a field may be missing", () => {
    const pattern = { data: { a: [{ exists: false }] } };
    expect(passes({}, pattern)).toBe(true);
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
    ["an unknown operator", [{ data: { a: ["y", { like: "x" }] } }], "filters[0].data.a[1]"],
    ["two operators", [{ data: { a: [{ prefix: "x", suffix: "y" }] } }], "filters[0].data.a[0]"],
    ["a prefix that is no text", [{ data: { a: [{ prefix: 5 }] } }], "filters[0].data.a[0].prefix"],
    ["a network that is none", [{ data: { a: [{ cidr: "10.0.0.0/33" }] } }], "filters[0].data.a[0].cidr"],
    ["two wildcards in a row", [{ data: { a: [{ wildcard: "x**" }] } }], "filters[0].data.a[0].wildcard"],
    ["a stray backslash", [{ data: { a: [{ wildcard: "x\\y" }] } }], "filters[0].data.a[0].wildcard"],
    [
      "anything but texts and numbers",
      [{ data: { a: [{ "anything-but": ["x", 1] }] } }],
      "filters[0].data.a[0].anything-but",
    ],
    [
      "anything but nothing",
      [{ data: { a: [{ "anything-but": [] }] } }],
      "filters[0].data.a[0].anything-but",
    ],
    ["anything but null", [{ data: { a: [{ "anything-but": null }] } }], "filters[0].data.a[0].anything-but"],
    [
      "anything but two operators",
      [{ data: { a: [{ "anything-but": { prefix: "x", suffix: "y" } }] } }],
      "filters[0].data.a[0].anything-but",
    ],
    [
      "anything but an empty prefix",
      [{ data: { a: [{ "anything-but": { prefix: "" } }] } }],
      "filters[0].data.a[0].anything-but.prefix",
    ],
    ["a number too large", [{ data: { a: [{ numeric: [">", 6e9] }] } }], "filters[0].data.a[0].numeric"],
    [
      "anything but a number too large",
      [{ data: { a: [{ "anything-but": 6e9 }] } }],
      "filters[0].data.a[0].anything-but",
    ],
    [
      "a range upside down",
      [{ data: { a: [{ numeric: [">", 5, "<", 1] }] } }],
      "filters[0].data.a[0].numeric",
    ],
    ["an empty range", [{ data: { a: [{ numeric: [">=", 5, "<=", 5] }] } }], "filters[0].data.a[0].numeric"],
    ["two lower bounds", [{ data: { a: [{ numeric: [">", 1, ">", 2] }] } }], "filters[0].data.a[0].numeric"],
    [
      "the upper bound first",
      [{ data: { a: [{ numeric: ["<", 5, ">", 1] }] } }],
      "filters[0].data.a[0].numeric",
    ],
    ["half a comparison", [{ data: { a: [{ numeric: [">", 0, "<="] }] } }], "filters[0].data.a[0].numeric"],
    ["exists with a text", [{ data: { a: [{ exists: "yes" }] } }], "filters[0].data.a[0].exists"],
    ["one alternative", [{ data: { $or: [{ a: ["x"] }] } }], "filters[0].data.$or"],
    ["a pattern of 5,000 characters", [{ data: { a: ["x".repeat(5000)] } }], "filters[0]"],
  ];
  test.each(wrong)("%s is refused with its path", (_, patterns, path) => {
    const { problems } = compileFilters(patterns as FilterPattern[]);
    expect(problems?.map((problem) => problem.path)).toEqual([path]);
  });
});
