/**
 * How PostgreSQL itself is asked for the JSON of a value `v`, in a session of other making than ours: `text` its
 * text form as a string, `json` its own JSON, `utc` the same with Z for the zone, `base64`, `embedded` the text as
 * it is, `object` JSON whose blanks do not count, `vector` the text's words in brackets.
 */
export type Oracle = "text" | "json" | "utc" | "base64" | "embedded" | "object" | "vector";

export const ORACLES: Readonly<Record<Oracle, string>> = {
  text: "to_json(v::text)::text",
  json: "to_json(v)::text",
  utc: "replace(to_json(v)::text, '+00:00', 'Z')",
  base64: "to_json(translate(encode(v, 'base64'), E'\\n', ''))::text",
  embedded: "v::text",
  object: "to_json(v)::text",
  vector: "'[' || replace(v::text, ' ', ',') || ']'",
};

/** Values of a type that are easily got wrong, as SQL literals without their quotes. */
export interface TypeSample {
  readonly oracle: Oracle;
  readonly values: readonly string[];
  /** The oldest major version that takes them all. */
  readonly since?: number;
}

const HOSTILE_TEXT = [
  "",
  " ",
  "NULL",
  "null",
  "a,b",
  '{"x"}',
  "back\\slash",
  'quo"te',
  "tab\tnew\nline\rreturn",
  "\u0001\u001f\u007f",
  "\u2028\u2029",
  "zażółć 日本語 🙂",
  "__debezium_unavailable_value",
  "[2:3]={1}",
];

const DATES = [
  "2026-11-23",
  "0001-01-01",
  "0044-03-15 BC",
  "4713-11-24 BC",
  "5874897-12-31",
  "infinity",
  "-infinity",
];
const TIMES = ["00:00:00", "23:59:59.999999", "24:00:00", "10:15:30.1"];
const TIMESTAMPS = [
  "2026-11-23 10:15:30.123456",
  "2026-11-23 10:15:30",
  "1999-12-31 23:59:59.999999",
  "0001-01-01 00:00:00",
  "0044-03-15 12:00:00.5 BC",
  "294276-12-31 23:59:59.999999",
  "infinity",
  "-infinity",
];
const zoned = (zone: string) => (text: string) =>
  text.endsWith("infinity") ? text : text.endsWith(" BC") ? text.replace(" BC", `${zone} BC`) : text + zone;

/** Every base, range and multirange type of pg_catalog that a table can hold, by its name in pg_type. */
export const SAMPLES: Readonly<Record<string, TypeSample>> = {
  bool: { oracle: "json", values: ["t", "f"] },
  int2: { oracle: "json", values: ["0", "-32768", "32767"] },
  int4: { oracle: "json", values: ["0", "-2147483648", "2147483647"] },
  int8: { oracle: "text", values: ["0", "9007199254740993", "-9223372036854775808", "9223372036854775807"] },
  oid: { oracle: "embedded", values: ["0", "4294967295"] },
  float4: {
    oracle: "json",
    values: ["0", "-0", "0.1", "3.4028235e38", "1e-45", "16777217", "NaN", "Infinity", "-Infinity"],
  },
  float8: {
    oracle: "json",
    values: [
      "0",
      "-0",
      "0.1",
      "0.30000000000000004",
      "1.7976931348623157e308",
      "5e-324",
      "1e21",
      "-1.5e-7",
      "NaN",
      "-Infinity",
      "Infinity",
    ],
  },
  numeric: {
    oracle: "text",
    values: [
      "0",
      "0.00",
      "-1.50",
      "9007199254740993",
      `${"9".repeat(200)}.${"1".repeat(100)}`,
      "1e-30",
      "1e100",
      "NaN",
      "Infinity",
      "-Infinity",
    ],
  },
  money: { oracle: "text", values: ["0", "1234567.89", "-0.01", "92233720368547758.07"] },
  text: { oracle: "text", values: HOSTILE_TEXT },
  varchar: { oracle: "text", values: HOSTILE_TEXT },
  bpchar: { oracle: "json", values: ["a", "ab   ", ""] },
  name: { oracle: "text", values: ["x", 'odd "name"', "größe"] },
  char: { oracle: "text", values: ["a", "", '"', "\\"] },
  bytea: { oracle: "base64", values: ["", "\\x00", "\\x000102fffe", `\\x${"5c".repeat(300)}`] },
  json: {
    oracle: "embedded",
    values: [
      "null",
      '{"a":1,"a":2}',
      '{"n": 12345678901234567890.123456789, "e": 1E400}',
      '[1, "x\\u0000", "\\ud800", "\\"", {"__proto__": {}}]',
      '  {"deep":[[[[[]]]]]} ',
      '"zażółć 🙂"',
    ],
  },
  jsonb: {
    oracle: "embedded",
    values: [
      "null",
      "12345678901234567890123.4567890",
      '{"b": 1, "a": {"n": 9007199254740993, "s": "q\\"uo\\\\te\\n"}, "": []}',
      '"🙂"',
      "1e100",
    ],
  },
  jsonpath: { oracle: "text", values: ['$."a"[*] ? (@ > 1)'] },
  date: { oracle: "json", values: DATES },
  time: { oracle: "json", values: TIMES },
  timetz: {
    oracle: "json",
    values: [
      ...TIMES.map((t) => `${t}+02`),
      "10:15:30.25-05:30",
      "00:00:00+15:59:59",
      "12:00:00-00:00:30",
      "12:00:00+00",
    ],
  },
  timestamp: { oracle: "json", values: TIMESTAMPS },
  timestamptz: { oracle: "utc", values: [...TIMESTAMPS.map(zoned("+00")), "2026-11-23 10:15:30.5+05:45"] },
  interval: {
    oracle: "text",
    values: [
      "0",
      "1 year 2 months 3 days 4 hours 5 minutes 6.789 seconds",
      "-1 year +2 days -3 hours",
      "-0.5 seconds",
      "-1 month +1 second -1 microsecond",
      "100000 hours",
      "0.000001 seconds",
      "1 mon",
      "30 days",
      "-178000000 years",
    ],
  },
  uuid: { oracle: "text", values: ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"] },
  inet: { oracle: "json", values: ["10.0.0.1", "10.1.2.3/8", "::1", "2001:db8::/32"] },
  cidr: { oracle: "text", values: ["10.0.0.0/8", "::/0"] },
  macaddr: { oracle: "text", values: ["08:00:2b:01:02:03"] },
  macaddr8: { oracle: "text", values: ["08:00:2b:01:02:03:04:05"] },
  point: { oracle: "text", values: ["(1.5,-2)", "(0.1,Infinity)"] },
  lseg: { oracle: "text", values: ["[(0,0),(1,1)]"] },
  path: { oracle: "text", values: ["[(0,0),(1,1),(2,0)]", "((0,0),(1,1))"] },
  box: { oracle: "text", values: ["(1,1),(0,0)", "(2.5,2),(0.1,0)"] },
  polygon: { oracle: "text", values: ["((0,0),(1,1),(2,0))"] },
  line: { oracle: "text", values: ["{1,-1,0}"] },
  circle: { oracle: "text", values: ["<(0,0),1.5>"] },
  bit: { oracle: "text", values: ["1", "0"] },
  varbit: { oracle: "text", values: ["", "10110"] },
  xml: { oracle: "text", values: ['<a b="1">x &amp; y</a>', "no element <b/>"] },
  tsvector: { oracle: "text", values: ["'a':1A,3 'b c':2"] },
  tsquery: { oracle: "text", values: ["'a' & !'b':*A"] },
  pg_lsn: { oracle: "text", values: ["0/0", "FFFFFFFF/FFFFFFFF"] },
  xid: { oracle: "text", values: ["0", "4294967295"] },
  xid8: { oracle: "text", values: ["0", "18446744073709551615"] },
  cid: { oracle: "text", values: ["4294967295"] },
  tid: { oracle: "text", values: ["(4294967295,65535)"] },
  txid_snapshot: { oracle: "text", values: ["10:20:10,14,15"] },
  pg_snapshot: { oracle: "text", values: ["10:20:10,14,15"] },
  refcursor: { oracle: "text", values: ["a cursor"] },
  aclitem: { oracle: "text", values: ["postgres=arwdDxt/postgres"] },
  int2vector: { oracle: "json", values: ["", "1", "1 -2 32767"] },
  oidvector: { oracle: "vector", values: ["", "1 4294967295"] },
  regproc: { oracle: "text", values: ["now", "0"] },
  regprocedure: { oracle: "text", values: ["lower(text)"] },
  regoper: { oracle: "text", values: ["0"] },
  regoperator: { oracle: "text", values: ["+(integer,integer)"] },
  regclass: { oracle: "text", values: ["pg_catalog.pg_class", "app.odd"] },
  regtype: { oracle: "text", values: ["integer", "app.mood"] },
  regconfig: { oracle: "text", values: ["simple"] },
  regdictionary: { oracle: "text", values: ["simple"] },
  regnamespace: { oracle: "text", values: ["pg_catalog", "app"] },
  regrole: { oracle: "text", values: ["postgres"] },
  regcollation: { oracle: "text", values: ['"C"'] },
  int4range: { oracle: "text", values: ["empty", "[1,5)", "(,)"] },
  int8range: { oracle: "text", values: ["[1,9007199254740993)"] },
  numrange: { oracle: "text", values: ["(1.50,2.0]"] },
  tsrange: { oracle: "text", values: ['["2026-11-23 10:15:30.5",infinity)'] },
  tstzrange: { oracle: "text", values: ['["2026-11-23 10:15:30.5+05:45",)'] },
  daterange: { oracle: "text", values: ["[2026-11-23,2026-12-01)"] },
  int4multirange: { oracle: "text", values: ["{}", "{[1,2),[5,7)}"] },
  int8multirange: { oracle: "text", values: ["{[1,2)}"] },
  nummultirange: { oracle: "text", values: ["{[1.0,2.50)}"] },
  tsmultirange: { oracle: "text", values: ['{["2026-11-23 10:15:30","2026-11-24 00:00:00")}'] },
  tstzmultirange: { oracle: "text", values: ['{["2026-11-23 10:15:30+00","2026-11-24 00:00:00+02")}'] },
  datemultirange: { oracle: "text", values: ["{[2026-11-23,2026-12-01)}"] },
};

/** Types that no table can hold a value of: their input functions refuse everything. */
export const WITHOUT_INPUT: readonly string[] = [
  "pg_node_tree",
  "pg_ndistinct",
  "pg_dependencies",
  "pg_mcv_list",
  "pg_brin_bloom_summary",
  "pg_brin_minmax_multi_summary",
  "gtsvector",
];
