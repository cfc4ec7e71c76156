import { EventEmitter } from "node:events";
import fc from "fast-check";
import type pg from "pg";
import { describe, expect, test } from "vitest";
import { startStep } from "../../../../lib/source/postgres/backfill/backfill-record.ts";
import { readWatermark } from "../../../../lib/source/postgres/backfill/change-window.ts";
import {
  COPY_HEADER_BYTES,
  CopyOut,
  readCopiedRow,
  readTexts,
} from "../../../../lib/source/postgres/backfill/copy-out.ts";
import { ChunkSize } from "../../../../lib/source/postgres/backfill/read-ahead.ts";
import { Snapshot, StreamedTransactions } from "../../../../lib/source/postgres/backfill/visibility.ts";
import { NULL, Tuple } from "../../../../lib/source/postgres/decode/pgoutput/tuple.ts";
import { textForm } from "../../../../lib/source/postgres/decode/values/text.ts";

/** COPY's text of a value, written apart from the code under test. */
function copied(value: string | null): string {
  if (value === null) return "\\N";
  return value.replace(/[\b\f\n\r\t\v\\]/g, (c) => {
    const letter = { "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v", "\\": "\\" }[c];
    return `\\${letter}`;
  });
}

const value = fc.option(
  fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string({ unit: fc.constantFrom("\t", "\\", "N", "n", "\n", "a", ".") }),
  ),
);

describe("rows of COPY", () => {
  test("come back as they were", () => {
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 80 }), (values) => {
        const buffer = Buffer.from(`xx${values.map(copied).join("\t")}`);
        const row = new Tuple();
        readCopiedRow(buffer, 2, buffer.length, values.length, row);
        const read = values.map((_, i) =>
          row.start[i] === NULL ? null : buffer.toString("utf8", row.start[i], row.end[i]),
        );
        expect(read).toEqual(values.map((text) => text && Buffer.from(text).toString()));
      }),
    );
  });

  test("another number of columns is refused", () => {
    for (const [text, columns] of [
      ["a\tb", 1],
      ["a", 2],
      ["a\t\\N", 3],
      ["\\N\ta", 1],
    ] as const) {
      const buffer = Buffer.from(text);
      expect(() => readCopiedRow(buffer, 0, buffer.length, columns, new Tuple())).toThrow(/columns/);
    }
  });

  test("a key that is null, or not UTF-8, is none", () => {
    const row = new Tuple();
    const utf8 = textForm("utf-8").decode;
    expect(readTexts(Buffer.from("a\\tb\t\\N\tc"), 3, [2, 0], row, utf8)).toEqual(["c", "a\tb"]);
    expect(readTexts(Buffer.from("a\t\\N"), 2, [1], row, utf8)).toBeUndefined();
    expect(readTexts(Buffer.from([0xff]), 1, [0], row, utf8)).toBeUndefined();
  });
});

function message(type: string, body: string): Buffer {
  const head = Buffer.alloc(COPY_HEADER_BYTES);
  head.write(type, "latin1");
  head.writeUInt32BE(4 + Buffer.byteLength(body), 1);
  return Buffer.concat([head, Buffer.from(body)]);
}

/** A connection that is fed by the test, and what of it came to `pg`. */
function connection() {
  const stream = new EventEmitter();
  const passed: Buffer[] = [];
  stream.on("data", (data: Buffer) => passed.push(data));
  return { connection: { stream, query: () => {} } as unknown as pg.Connection, stream, passed };
}

describe("COPY from the socket", () => {
  test("however the messages are cut, the rows are the same, and the rest goes to pg", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ maxLength: 300 }), { maxLength: 30 }),
        fc.array(fc.nat(60), { minLength: 1, maxLength: 20 }),
        async (lines, cuts) => {
          const all = Buffer.concat([
            message("H", "\0\0\0"),
            ...lines.flatMap((line, i) => [
              message("d", `${line}\n`),
              ...(i % 3 === 0 ? [message("N", "a notice")] : []),
            ]),
            message("c", ""),
            message("C", "COPY\0"),
            message("Z", "I"),
          ]);
          const { connection: fed, stream, passed } = connection();
          const copy = new CopyOut("COPY", 1e9, () => {});
          copy.submit(fed);
          for (let at = 0, i = 0; at < all.length; i++) {
            const next = at + 1 + (cuts[i % cuts.length] as number);
            stream.emit("data", all.subarray(at, next));
            at = next;
          }
          copy.handleReadyForQuery();
          const { segments, rows, bytes, last, cut } = await copy.done;
          const read: string[] = [];
          for (const { buffer, start, end } of segments)
            for (let at = start; at < end; ) {
              const next = at + 1 + buffer.readUInt32BE(at + 1);
              read.push(buffer.toString("utf8", at + COPY_HEADER_BYTES, next - 1));
              at = next;
            }
          expect(read).toEqual(lines);
          expect([rows, cut]).toEqual([lines.length, false]);
          expect(bytes).toBe(lines.reduce((sum, line) => sum + Buffer.byteLength(line) + 1, 0));
          expect(last?.toString()).toBe(lines.at(-1));
          expect(Buffer.concat(passed)).toEqual(Buffer.concat([message("C", "COPY\0"), message("Z", "I")]));
        },
      ),
    );
  });

  test("at the bound the rows that have come are the result", async () => {
    const { connection: fed, stream } = connection();
    let cuts = 0;
    const copy = new CopyOut("COPY", 10, () => cuts++);
    copy.submit(fed);
    stream.emit("data", Buffer.concat(["aaaa\n", "bbbb\n", "cccc\n"].map((line) => message("d", line))));
    expect(await copy.done).toMatchObject({ rows: 2, cut: true, bytes: 10 });
    expect(cuts).toBe(1);
  });
});

describe("snapshots", () => {
  test("hide what had not ended, also where ids go round", () => {
    const snapshot = Snapshot.parse(
      `${2n ** 32n - 2n}:${2n ** 32n + 3n}:${2n ** 32n - 1n},${2n ** 32n + 1n}`,
    );
    const hidden = (xid: number) => snapshot.hides(xid);
    expect([4_294_967_293, 4_294_967_294, 0, 2].map(hidden)).toEqual([false, false, false, false]);
    expect([4_294_967_295, 1, 3, 4].map(hidden)).toEqual([true, true, true, true]);
    expect(() => Snapshot.parse("1:2")).toThrow(RangeError);
  });

  test("only what was streamed before the low watermark makes a chunk bad, and what is seen is forgotten", () => {
    const streamed = new StreamedTransactions();
    for (const xid of [10, 11, 12]) streamed.streamed(xid);
    const low = streamed.count;
    streamed.streamed(13);
    expect(streamed.hiddenBy(Snapshot.parse("13:14:13"), low)).toBeUndefined();
    expect(streamed.hiddenBy(Snapshot.parse("11:14:11"), low)).toBe(11);
    expect(streamed.hiddenBy(Snapshot.parse("12:12:"), low)).toBe(12);
    streamed.forgetSeen(Snapshot.parse("11:13:11"));
    expect([10, 11, 12, 13].map((xid) => streamed.has(xid))).toEqual([false, true, false, true]);
  });
});

test("chunks come to take as long and hold as much as they should", () => {
  const size = new ChunkSize({ ms: 100, bytes: 1_000_000, firstRows: 100 });
  size.took(100, 1_000, 1);
  expect(size.rows).toBe(400);
  size.took(400, 4_000, 400);
  expect(size.rows).toBe(100);
  // The round trips of a slow server are no reason for chunks of one row.
  for (let i = 0; i < 5; i++) size.took(size.rows, 1_000, 5_000);
  expect(size.rows).toBe(100);
  size.took(100, 10_000_000, 10);
  expect(size.rows).toBe(10);
  for (let i = 0; i < 10; i++) size.halve();
  expect(size.rows).toBe(1);
  size.took(0, 0, 1);
  expect(size.rows).toBe(1);
});

test("watermarks of others are none", () => {
  const watermark = { slot: "s", task: "t", table: "public.a", run: 1, chunk: 2, attempt: 3 };
  expect(readWatermark(Buffer.from(JSON.stringify(watermark)))).toEqual(watermark);
  for (const text of ["", "{}", "null", JSON.stringify({ ...watermark, run: "1" })])
    expect(readWatermark(Buffer.from(text))).toBeUndefined();
});

describe("what a start begins", () => {
  const request = { where: "id > 5", sweep: false, requestedAt: 1 };
  const of = (
    status: "done" | "running" | "cancelled" | "requested",
    epoch?: number,
    wholeEpoch = status === "done" || status === "cancelled" ? epoch : undefined,
  ) => ({ status, epoch, wholeEpoch, request: whole });
  const step = (mode: Parameters<typeof startStep>[0], latest: Parameters<typeof startStep>[1], epoch = 2) =>
    startStep(mode, latest, epoch, 9);
  const whole = { sweep: true, requestedAt: 9 };

  test("when needed: what was never read, and all again with a sweep in a later epoch", () => {
    expect(step("when-needed", undefined, 1)).toEqual({
      kind: "request",
      request: { sweep: false, requestedAt: 9 },
    });
    expect(step("when-needed", of("done", 2))).toEqual({ kind: "leave" });
    for (const status of ["done", "cancelled"] as const)
      expect(step("when-needed", of(status, 1))).toEqual({ kind: "request", request: whole });
    expect(step("when-needed", of("running", 1))).toEqual({ kind: "restart", request: whole });
    expect(step("when-needed", of("running", 2))).toEqual({ kind: "leave" });
    expect(step("when-needed", of("requested"))).toEqual({ kind: "leave" });
  });

  test("a run of some rows, for one consumer, or without the sweep does not stand for the whole table", () => {
    const partly = [
      { where: "id > 5", sweep: false, requestedAt: 1 },
      { consumer: "a", sweep: true, requestedAt: 1 },
      { sweep: false, requestedAt: 1 },
    ];
    for (const some of partly) {
      const latest = (status: "requested" | "running" | "done", wholeEpoch?: number) => ({
        ...{ status, epoch: status === "requested" ? undefined : 2, wholeEpoch, request: some },
      });
      expect(step("when-needed", latest("requested", 1))).toEqual({ kind: "restart", request: whole });
      expect(step("when-needed", latest("running", 1))).toEqual({ kind: "restart", request: whole });
      expect(step("when-needed", latest("done", 1))).toEqual({ kind: "request", request: whole });
      expect(step("when-needed", latest("done", 2))).toEqual({ kind: "leave" });
      expect(step("when-needed", latest("running", 2))).toEqual({ kind: "leave" });
      expect(step("initial", latest("done"))).toEqual({ kind: "request", request: whole });
      expect(step("initial", latest("done", 1))).toEqual({ kind: "leave" });
      expect(step("never", latest("done", 1))).toEqual({ kind: "leave" });
    }
  });

  test("a refused run stands for nothing: the table is read again, with a sweep; nothing is where none is wanted", () => {
    // `wholeEpoch`: as earlier versions noted it.
    for (const wholeEpoch of [undefined, 1]) {
      const latest = {
        status: "refused",
        epoch: 1,
        wholeEpoch,
        request: { sweep: false, requestedAt: 1 },
      } as const;
      for (const mode of ["when-needed", "initial"] as const)
        expect(step(mode, latest, 1)).toEqual({ kind: "request", request: whole });
      expect(step("never", latest, 1)).toEqual({ kind: "leave" });
      // Refused was what an operator asked for of some rows, after all had been read.
      const some = { ...latest, request };
      expect(step("when-needed", some, 1).kind).toBe(wholeEpoch === 1 ? "leave" : "request");
    }
  });

  test("initial, always, never", () => {
    expect(step("initial", undefined).kind).toBe("request");
    expect(step("initial", of("done", 1)).kind).toBe("leave");
    expect(step("always", of("done", 2)).kind).toBe("request");
    expect(step("always", of("running", 2)).kind).toBe("leave");
    expect(step("never", undefined).kind).toBe("leave");
    expect(step("never", { ...of("running", 1), request })).toEqual({
      kind: "restart",
      request: { ...request, requestedAt: 9 },
    });
  });
});
