import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  claimRecord,
  compressedHead,
  eventTail,
  parseRecord,
  positionOf,
  RECORD_TAIL,
  recordHead,
  unpackedEventTail,
} from "../../../lib/change/record.ts";
import { RecordFormatError } from "../../../lib/change/record-errors.ts";
import { readHeader } from "../../../lib/change/record-header.ts";
import { change } from "../../stream/changes.ts";

const header = { topic: 'shop.public."odd"\n', partition: 12, writer: 3 };
const orders = { name: header.topic, partitions: 64 };
const AFTER = "000000010000000001F789080000000002";

function bytes(value: unknown): Buffer {
  return Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
}

function packed(...texts: string[]): Record<string, unknown> {
  const events = texts.map((text, i) => change(orders, 12, 16n, i + 1, text).json + eventTail(null));
  return JSON.parse(recordHead(header) + events.join(",") + RECORD_TAIL);
}

test("a packed record is valid JSON, and read again as it was written", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: "grapheme" }), { minLength: 1 }),
      fc.constantFrom(null, AFTER),
      (texts, after) => {
        const events = texts.map((text, i) => change(orders, 12, 16n, i + 1, text).json + eventTail(after));
        const record = parseRecord(bytes(recordHead(header) + events.join(",") + RECORD_TAIL));
        if (record.kind !== "events") throw new Error("events expected");
        expect(record).toMatchObject(header);
        expect(record.events.map((event) => event.after?.text)).toEqual(texts);
        expect(record.events.map((event) => event.source.after)).toEqual(texts.map(() => after));
        expect(record.events.map(positionOf)).toEqual(
          texts.map((_, i) => change(orders, 12, 16n, i + 1).position),
        );
      },
    ),
  );
});

test("an unpacked event says topic, partition and writer in its source", () => {
  const open = change(orders, 12, 16n, 1, "x").json;
  for (const after of [null, AFTER]) {
    const record = parseRecord(bytes(open + unpackedEventTail(after, header)));
    expect(record).toMatchObject({ kind: "events", ...header, events: [{ op: "c", source: { after } }] });
  }
});

test("a compressed record", () => {
  const { events, ...rest } = packed("a", "b");
  const text = gzipSync(bytes(events)).toString("base64");
  const record = parseRecord(bytes({ ...rest, encoding: "gzip", events: text }));
  expect(record).toEqual(parseRecord(bytes({ ...rest, events })));
});

test("a claim check", () => {
  const claim = { bucket: "b", key: 'k"', bytes: 31457280, sha256: "0a".repeat(32) };
  const position = "000000010000000001F789080000000003";
  for (const after of [AFTER, null]) {
    const record = parseRecord(bytes(claimRecord(header, claim, position, after)));
    expect(record).toEqual({ kind: "claim", ...header, claim, position, after });
  }
});

test("rows are given as they are: any column name, own parser", () => {
  const [event] = packed("x").events as [Record<string, unknown>];
  const json = JSON.stringify(packed("x")).replace(
    JSON.stringify(event.after),
    '{"__proto__":"p","constructor":1,"n":9007199254740993}',
  );
  const record = parseRecord(bytes(json), (text) =>
    JSON.parse(text, (_, value, context?: { source?: string }) =>
      typeof value === "number" && !Number.isSafeInteger(value) ? BigInt(context?.source ?? 0) : value,
    ),
  );
  if (record.kind !== "events") throw new Error("events expected");
  expect(Object.entries(record.events[0]?.after ?? {})).toEqual([
    ["__proto__", "p"],
    ["constructor", 1],
    ["n", 9007199254740993n],
  ]);
});

function list(record: Record<string, unknown>): Record<string, unknown>[] {
  return record.events as Record<string, unknown>[];
}

function withEvent(parts: object) {
  return { ...packed("x"), events: list(packed("x")).map((event) => ({ ...event, ...parts })) };
}

function withSource(parts: object) {
  const [event] = list(packed("x"));
  return withEvent({ source: { ...(event?.source as object), ...parts } });
}

const bad: [string, unknown, string][] = [
  ["no JSON", "secret{", "its data is not JSON"],
  ["no object", "17", "its data is not a JSON object"],
  ["an array", "[]", "v"],
  ["a newer version", { ...packed("x"), v: 2 }, "v"],
  ["no topic", { ...packed("x"), topic: undefined }, "topic"],
  ["a negative partition", { ...packed("x"), partition: -1 }, "partition"],
  ["a writer that is text", { ...packed("x"), writer: "3" }, "writer"],
  ["a fraction of a partition", { ...packed("x"), partition: 0.5 }, "partition"],
  ["an unpacked event without a topic", list(packed("x"))[0], "source.topic"],
  ["no events", { ...packed("x"), events: [] }, "events"],
  ["an event that is none", { ...packed("x"), events: ["secret"] }, "events.0"],
  ["an unknown op", { ...packed("x"), events: [{ op: "secret" }] }, "events.0.op"],
  ["a row that is text", { ...packed("x"), events: [{ op: "c", after: "secret" }] }, "events.0.after"],
  ["a message without content", withEvent({ op: "m", message: { prefix: "secret" } }), "events.0.message"],
  ["no source", withEvent({ source: "secret" }), "events.0.source"],
  ["unchanged columns that are text", withEvent({ unchanged: "secret" }), "events.0.unchanged"],
  ["omitted columns that are text", withEvent({ omitted: "secret" }), "events.0.omitted"],
  ["key columns that are text", withSource({ key: "secret" }), "events.0.source.key"],
  ["a table that is a number", withSource({ table: 17 }), "events.0.source.table"],
  ["a commit LSN that is none", withSource({ commitLsn: "secret" }), "events.0.source.commitLsn"],
  ["an ordinal of 11 digits", withSource({ ordinal: 1e10 }), "events.0.source.ordinal"],
  ["a negative ordinal", withSource({ ordinal: -1 }), "events.0.source.ordinal"],
  ["an epoch of 33 bits", withSource({ epoch: 2 ** 32 }), "events.0.source.epoch"],
  ["a predecessor that is no position", withSource({ after: "secret" }), "events.0.source.after"],
  ["no predecessor", withSource({ after: undefined }), "events.0.source.after"],
  [
    "the second event",
    { ...packed("x"), events: [...list(packed("x")), 17] },
    "events.1: expected an object",
  ],
  ["gzip that is none", { ...packed("x"), encoding: "gzip", events: "secret" }, "events is not gzip"],
  [
    "a gzip bomb",
    { ...packed("x"), encoding: "gzip", events: gzipSync(Buffer.alloc(5 << 20)).toString("base64") },
    "events is not gzip of at most",
  ],
  ["an unknown encoding", { ...packed("x"), encoding: "zstd", events: "" }, "encoding"],
  ["a claim without a key", { v: 1, ...header, claim: { bucket: "secret" }, position: AFTER }, "claim.key"],
];

test.each(bad)("%s is refused with its place, without values", (_, value, place) => {
  const error = refusal(bytes(value));
  expect(error.message).toContain(place);
  expect(`${error.message} ${error.stack} ${error.cause}`).not.toContain("secret");
});

test("what is not UTF-8 is refused, not repaired", () => {
  const data = bytes(packed("x~"));
  data[data.indexOf("~")] = 0xff;
  expect(refusal(data).message).toContain("not UTF-8");
});

test("any bytes give a record or a typed error", () => {
  const text = JSON.stringify(packed("a", "b"));
  fc.assert(
    fc.property(
      fc.nat({ max: text.length }),
      fc.string({ maxLength: 3 }),
      fc.nat({ max: 9 }),
      (at, put, cut) => {
        try {
          parseRecord(bytes(text.slice(0, at) + put + text.slice(at + cut)));
        } catch (error) {
          expect(error).toBeInstanceOf(RecordFormatError);
        }
      },
    ),
  );
});

function refusal(data: Buffer): Error {
  try {
    parseRecord(data);
  } catch (error) {
    if (error instanceof RecordFormatError) return error;
  }
  throw new Error("not refused");
}

describe("the header of a record whose events cannot be read", () => {
  const range = { first: position(3), last: position(9), after: position(2) };
  const broken: [string, Buffer][] = [
    ["no JSON", bytes(`${recordHead(header, range)}{"op":"c","after":{"n":--}}${RECORD_TAIL}`)],
    ["cut off", bytes(`${recordHead(header, range)}{"op":"c","aft`)],
    ["no UTF-8", Buffer.concat([bytes(recordHead(header, range)), Buffer.from([0xc3, 0x28]), bytes("]}")])],
    ["no gzip", bytes(`${compressedHead(header, range)}c2VjcmV0"}`)],
    ["events of another shape", bytes(`${recordHead(header, range)}17${RECORD_TAIL}`)],
  ];

  test.each(broken)("is read where its events are %s", (_, data) => {
    expect(() => parseRecord(data)).toThrow(RecordFormatError);
    expect(readHeader(data)).toEqual({ ...header, ...range });
  });

  test("is read of the first record of a writer, which follows nothing", () => {
    const first = { ...range, after: null };
    expect(readHeader(bytes(`${recordHead(header, first)}--]}`))).toEqual({ ...header, ...first });
  });

  test("is read of a claim check", () => {
    const [at, after] = [position(3), position(2)];
    const whole = claimRecord(header, { bucket: "b", key: "k", bytes: 1, sha256: "no hash" }, at, after);
    expect(() => parseRecord(bytes(whole))).toThrow(RecordFormatError);
    expect(readHeader(bytes(whole))).toEqual({ ...header, first: at, last: at, after });
  });

  test("is read of an unpacked event, at its end", () => {
    const [at, after] = [position(3), position(2)];
    const open = '{"op":"c","before":null,"after":{"n":--},"source":{"table":"orders"';
    for (const predecessor of [after, null]) {
      const data = bytes(open + unpackedEventTail(predecessor, header, at));
      expect(readHeader(data)).toEqual({ ...header, first: at, last: at, after: predecessor });
    }
  });

  test.each([
    ["as earlier versions wrote it", `${recordHead(header)}--]}`],
    [
      "an unpacked event as earlier versions wrote it",
      `{"op":"c",--,"source":{"a":1${unpackedEventTail(null, header)}`,
    ],
    ["of a newer version", recordHead(header, range).replace('"v":1', '"v":2')],
    ["with its last event before its first", recordHead(header, { ...range, last: position(1) })],
    ["that follows itself", recordHead(header, { ...range, after: range.first })],
    ["with a position that is none", recordHead(header, { ...range, first: "0" })],
    ["with a topic that is none", recordHead(header, range).replace(/"topic":"[^,]*,/, '"topic":7,')],
    ["cut off before its events", recordHead(header, range).slice(0, -3)],
    ["that is no object", '["v"]'],
    ["that is nothing", ""],
    ["that is text", "v"],
  ])("is not taken for one where it is %s", (_, data) => {
    expect(readHeader(bytes(data))).toBeUndefined();
  });

  test("is never taken from what rows hold", () => {
    const forged = recordHead({ ...header, partition: 5 }, range);
    const inside = JSON.stringify({ op: "c", after: { text: forged } });
    expect(readHeader(bytes(recordHead(header, range) + inside + forged))).toMatchObject(header);
    expect(readHeader(bytes(inside + forged))).toBeUndefined();
  });

  test("whatever stands in the record, reading its header never throws", () => {
    const piece = fc.constantFrom(
      '{"v":1',
      ',"topic":"t"',
      '"',
      "\\",
      "{",
      "}",
      "[",
      ",",
      ":",
      "null",
      '"events":',
      '{"op":',
    );
    fc.assert(fc.property(fc.array(piece), (pieces) => void readHeader(bytes(pieces.join("")))));
  });
});

function position(ordinal: number): string {
  return change(orders, 12, 16n, ordinal).position;
}
