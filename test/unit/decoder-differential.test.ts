import fc from "fast-check";
import { expect, test } from "vitest";
import type { SourceMessage } from "../../lib/change/change-stream.ts";
import { definePipeline, postgres } from "../../lib/definition/pipeline.ts";
import { routeTables } from "../../lib/definition/route.ts";
import { ChangeDecoder } from "../../lib/source/postgres/decode/change-decoder.ts";
import { EventBytes } from "../../lib/source/postgres/decode/event-bytes.ts";
import { BUILTIN_TYPES } from "../../lib/source/postgres/decode/values/builtin-types.ts";
import { ColumnTypes } from "../../lib/source/postgres/decode/values/column-type.ts";
import { textForm } from "../../lib/source/postgres/decode/values/text.ts";
import { CopyFrames } from "../../lib/source/postgres/link/copy-frames.ts";
import { PlainDecoder } from "./plain-decoder.ts";

/*
 * The decoder that is used, which writes bytes, beside a plain one: random tables and changes as a server sends them, cut
 * into random pieces; and each type's writer beside its encoder.
 */

const PARTITIONS = 7;
const RELATION = 16_400;

const digits = (max: number) =>
  fc.string({ unit: fc.constantFrom(..."0123456789"), minLength: 1, maxLength: max });
const text = fc
  .oneof(
    { weight: 6, arbitrary: fc.string({ unit: "grapheme", maxLength: 40 }) },
    {
      weight: 3,
      arbitrary: fc.string({
        unit: fc.constantFrom(...'"\\\u0001\u0008\t\n\u000b\f\r\u001f\u007f ü☎🙂\u2028'),
        maxLength: 20,
      }),
    },
    { weight: 1, arbitrary: fc.string({ maxLength: 20 }).map((s) => s.repeat(3000)) },
  )
  .map((s) => s.replaceAll("\0", "").toWellFormed());
const two = (max: number) => fc.nat(max).map((n) => String(n).padStart(2, "0"));
const day = fc
  .tuple(fc.integer({ min: 1, max: 294_276 }), two(28), two(28))
  .map(([y, m, d]) => `${String(y).padStart(4, "0")}-${m}-${d}`);
const time = fc
  .tuple(two(23), two(59), two(59), fc.option(digits(6), { nil: undefined }))
  .map(([h, m, s, f]) => `${h}:${m}:${s}${f === undefined ? "" : `.${f}`}`);
const infinite = fc.constantFrom("infinity", "-infinity");

/** Texts of a type as PostgreSQL prints it, by OID. */
const VALUES: Readonly<Record<number, fc.Arbitrary<string>>> = {
  16: fc.constantFrom("t", "f"),
  17: fc.uint8Array({ maxLength: 40 }).map((b) => `\\x${Buffer.from(b).toString("hex")}`),
  20: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
  22: fc.array(fc.integer({ min: -9, max: 99 }), { maxLength: 4 }).map((n) => n.join(" ")),
  23: fc.integer().map(String),
  25: text,
  26: fc.integer({ min: 0, max: 2 ** 32 - 1 }).map(String),
  701: fc.oneof(
    fc.constantFrom("-0", "NaN", "Infinity", "-Infinity", "1e+20", "-1.5e-07", "0.1", "100", "0"),
    fc.tuple(fc.integer(), digits(9)).map(([a, b]) => `${a}.${b}`),
  ),
  1042: fc.tuple(text, fc.nat(5)).map(([t, blanks]) => t + " ".repeat(blanks)),
  1082: fc.oneof(
    day,
    day.map((d) => `${d.slice(-10)} BC`),
    infinite,
  ),
  1083: time,
  1114: fc.oneof(
    fc.tuple(day, time).map(([d, t]) => `${d.slice(-11)} ${t}`),
    infinite,
  ),
  1184: fc.oneof(
    fc.tuple(day, time).map(([d, t]) => `${d.slice(-11)} ${t}+00`),
    infinite,
  ),
  1186: fc.constantFrom("P1Y2M3DT4H5M6.789S", "PT0S", "PT-0.5S"),
  1700: fc.oneof(
    fc.constantFrom("NaN", "0", "0.00", "1.50", "100", "-12.000"),
    fc.tuple(fc.integer(), digits(30)).map(([a, b]) => `${a}.${b}`),
  ),
  2950: fc.uuid(),
  3802: fc
    .tuple(fc.oneof(fc.json(), fc.constant("null")), fc.constantFrom("", "\n", "\r\n "))
    .map(([j, end]) => end + j.replaceAll("\\u0000", "") + end),
};
const TYPES = Object.keys(VALUES).map(Number);

const COMMON = BUILTIN_TYPES.filter(([oid]) => TYPES.includes(oid));

const column = fc.record({ type: fc.constantFrom(...TYPES), key: fc.boolean(), name: text });
const table = fc
  .record({
    full: fc.boolean(),
    columns: fc.uniqueArray(column, { minLength: 1, maxLength: 8, selector: ({ name }) => name }),
  })
  // A row's key is its first column at least.
  .map(({ full, columns }) => ({ full, columns: columns.map((c, i) => ({ ...c, key: c.key || i === 0 })) }));
type Table = typeof table extends fc.Arbitrary<infer T> ? T : never;

/** A row: a text, null or "unchanged" (undefined) a column; key columns hold texts. */
const rowOf = ({ columns }: Table, unchanged: boolean) =>
  fc.tuple(
    ...columns.map(({ type, key }) => {
      const value = VALUES[type] as fc.Arbitrary<string>;
      if (key) return value;
      return fc.oneof(
        { weight: 6, arbitrary: value },
        { weight: 1, arbitrary: fc.constant(null) },
        { weight: unchanged ? 1 : 0, arbitrary: fc.constant(undefined) },
      );
    }),
  );

const script = table.chain((of) =>
  fc.record({
    table: fc.constant(of),
    pieces: fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 }),
    transactions: fc.array(
      fc.record({
        gap: fc.integer({ min: 1, max: 2 ** 40 }),
        /** Rolled back before it: a server of version 18 tells. */
        aborts: fc.array(fc.nat(2 ** 31 - 1), { maxLength: 2 }),
        changes: fc.array(
          fc.record({
            kind: fc.constantFrom("insert", "update", "update with old", "delete"),
            old: rowOf(of, false),
            row: rowOf(of, true),
            sameKey: fc.boolean(),
          }),
          { minLength: 1, maxLength: 12 },
        ),
      }),
      { minLength: 1, maxLength: 5 },
    ),
  }),
);

test("events, partitions and positions are those of the plain decoder", async () => {
  await fc.assert(
    fc.asyncProperty(script, async ({ table, transactions, pieces }) => {
      const messages = [{ lsn: 0n, payload: relation(table) }];
      let lsn = 0x1234_5678n;
      for (const { gap, aborts, changes } of transactions) {
        const commitLsn = lsn + BigInt(gap);
        for (const xid of aborts) messages.push({ lsn, payload: streamAbort(xid) });
        messages.push({ lsn, payload: begin(commitLsn) });
        for (const { kind, old, row, sameKey } of changes) {
          lsn += BigInt(gap % 97);
          const kept = sameKey ? row.map((value, i) => (table.columns[i]?.key ? old[i] : value)) : row;
          const filled = row.map((value, i) => (value === undefined ? old[i] : value));
          const given = table.full ? row : kept;
          messages.push({
            lsn,
            payload:
              kind === "insert"
                ? change("I", "N", filled)
                : kind === "delete"
                  ? change("D", ...oldRow(table, old))
                  : kind === "update"
                    ? change("U", "N", row)
                    : change("U", ...oldRow(table, old), "N", given),
          });
        }
        lsn = commitLsn + 1n;
        messages.push({ lsn, payload: commit(commitLsn) });
      }
      const primaryKey = table.columns.filter(({ key }) => key).map(({ name }) => name);
      const plain = new PlainDecoder(PARTITIONS, primaryKey);
      for (const { payload, lsn } of messages) plain.decode(payload, lsn);
      const given = await decoded(messages, pieces, primaryKey);
      expect(given).toEqual(plain.changes);
    }),
    { numRuns: 400 },
  );
}, 60_000);

test("what each type's writer writes, or refuses, is what its encoder does", () => {
  const types = { utf8: new ColumnTypes(textForm("utf-8")), latin1: new ColumnTypes(textForm("latin1")) };
  const near = fc.string({ unit: fc.constantFrom(...'0123456789-+.:TZ eINnfay"\\x{},'), maxLength: 32 });
  const anything = fc.oneof(
    ...Object.values(VALUES).map((value) => value.map((t) => Buffer.from(t))),
    near.map((t) => Buffer.from(t)),
    // What looks like a number and is none.
    fc
      .tuple(
        fc.constantFrom("", "-", "+", "0", "-0", "."),
        digits(3),
        fc.constantFrom("", ".", ".5", "e5", " "),
      )
      .map((parts) => Buffer.from(parts.join(""))),
    fc.uint8Array({ maxLength: 24 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(
      fc.oneof(fc.constantFrom(...BUILTIN_TYPES), fc.constantFrom(...COMMON)),
      fc.constantFrom("utf8" as const, "latin1" as const),
      anything,
      ([oid], encoding, value) => {
        const { encode, write } = types[encoding].get(oid);
        // Not alone in its buffer.
        const buffer = Buffer.concat([Buffer.from("1t\\"), value, Buffer.from('+00"')]);
        const out = new EventBytes();
        const outcome = (give: () => string) => {
          try {
            return give();
          } catch (error) {
            return `${(error as Error).constructor.name}: ${(error as Error).message}`;
          }
        };
        const [start, end] = [3, 3 + value.length];
        const written = outcome(() => {
          out.begin();
          write(buffer, start, end, out);
          return out.bytes.toString("utf8", out.start, out.length);
        });
        expect(written).toBe(outcome(() => encode(buffer, start, end)));
      },
    ),
    { numRuns: 8000 },
  );
}, 60_000);

/** Through frames cut at random, as from the socket. */
async function decoded(
  messages: readonly { lsn: bigint; payload: Buffer }[],
  pieces: readonly number[],
  primaryKey: readonly string[],
) {
  const pipeline = definePipeline({
    name: "shop",
    source: postgres({ tables: ["*.*"] }),
    topics: { partitions: PARTITIONS },
  });
  const facts = { primaryKey, ancestors: [], wholeOldRows: true };
  const decoder = new ChangeDecoder({
    pipeline,
    database: "shop",
    epoch: 1,
    route: routeTables(pipeline),
    catalog: { resolve: async () => new Map(), relation: async () => facts } as never,
    encoding: "utf-8",
    now: () => 0,
  });
  const wire = Buffer.concat(
    messages.map(({ lsn, payload }) => {
      const head = Buffer.alloc(5 + 25);
      head[0] = 0x64;
      head.writeUInt32BE(head.length - 1 + payload.length, 1);
      head[5] = 0x77;
      head.writeBigUInt64BE(lsn, 6);
      return Buffer.concat([head, payload]);
    }),
  );
  const frames = new CopyFrames();
  const out: SourceMessage[] = [];
  for (let at = 0, i = 0; at < wire.length; i++) {
    const size = pieces[i % pieces.length] as number;
    frames.push(wire.subarray(at, at + size));
    at += size;
    while (frames.next()) {
      const { buffer, start, end } = frames;
      const [high, low] = [buffer.readUInt32BE(start + 1), buffer.readUInt32BE(start + 5)];
      await decoder.decodeAt(buffer, start + 25, end, high, low, out);
    }
  }
  return out.flatMap((m) =>
    m.kind === "change" ? [{ position: m.position, partition: m.partition, json: m.json }] : [],
  );
}

function relation({ full, columns }: Table): Buffer {
  return Buffer.concat([
    Buffer.from("R"),
    int(4, RELATION),
    Buffer.from(`public\0tä"ble\0${full ? "f" : "d"}`),
    int(2, columns.length),
    ...columns.map(({ name, type, key }) =>
      Buffer.concat([
        int(1, full || key ? 1 : 0),
        Buffer.from(`${name}\0`),
        int(4, type),
        int(4, 0xffffffff),
      ]),
    ),
  ]);
}

function begin(commitLsn: bigint): Buffer {
  return Buffer.concat([
    Buffer.from("B"),
    long(commitLsn),
    long(848_926_000_123_456n),
    int(4, 4_000_000_000),
  ]);
}

function streamAbort(xid: number): Buffer {
  return Buffer.concat([Buffer.from("A"), int(4, xid), int(4, xid + 1)]);
}

function commit(commitLsn: bigint): Buffer {
  return Buffer.concat([
    Buffer.from("C\0"),
    long(commitLsn),
    long(commitLsn + 1n),
    long(848_926_000_123_456n),
  ]);
}

type Row = readonly (string | null | undefined)[];

/** What travels of an old row: all of it, or its key. */
function oldRow({ full, columns }: Table, old: Row): readonly [string, Row] {
  return full ? ["O", old] : ["K", old.map((value, i) => (columns[i]?.key ? value : null))];
}

function change(type: string, ...parts: readonly (string | Row)[]): Buffer {
  const bytes = parts.map((part) => {
    if (typeof part === "string") return Buffer.from(part);
    const values = part.map((value) => {
      if (value === null) return Buffer.from("n");
      if (value === undefined) return Buffer.from("u");
      return Buffer.concat([Buffer.from("t"), int(4, Buffer.byteLength(value)), Buffer.from(value)]);
    });
    return Buffer.concat([int(2, part.length), ...values]);
  });
  return Buffer.concat([Buffer.from(type), int(4, RELATION), ...bytes]);
}

function int(bytes: number, value: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, 0, bytes);
  return buffer;
}

function long(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64BE(value);
  return buffer;
}
