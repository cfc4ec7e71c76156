import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SourceChange } from "../../../lib/change/change-stream.ts";
import type { ClaimCheck } from "../../../lib/change/claim-check.ts";
import type { ClaimStore } from "../../../lib/change/claim-store.ts";
import { jsonMembers } from "../../../lib/change/json-members.ts";
import { MAX_UNCOMPRESSED_BYTES, parseRecord, positionOf } from "../../../lib/change/record.ts";
import { EVERY_PARTITION } from "../../../lib/change/topic.ts";
import {
  ClaimStoreRefusedError,
  ClaimStoreUnavailableError,
} from "../../../lib/claim-check/claim-check-errors.ts";
import { claimCheck, MAX_CLAIM_BYTES } from "../../../lib/stream/claim-check.ts";
import { omitColumns } from "../../../lib/stream/omit-columns.ts";
import { OrderedWriter } from "../../../lib/stream/ordered-writer.ts";
import type { PutRequest } from "../../../lib/stream/record-writer.ts";
import { OversizeChangeError } from "../../../lib/stream/stream-errors.ts";
import { change } from "../../stream/changes.ts";
import { DEFAULT_LIMITS } from "../../stream/kinesis.ts";

const orders = { name: "shop.public.orders", partitions: 4 };
const log = { info: () => {}, warn: () => {} };
const never = new AbortController().signal;

function tooLarge(of: SourceChange, maxRecordBytes: number): OversizeChangeError {
  const bytes = Buffer.byteLength(of.json) + 100;
  return new OversizeChangeError({ table: of.table, position: of.position, bytes, maxRecordBytes });
}

function machine(packing: "batch" | "none" = "batch", maxRecordBytes = DEFAULT_LIMITS.maxRecordBytes) {
  const limits = { ...DEFAULT_LIMITS, maxRecordBytes, requestBytes: 100 * 1024 * 1024 };
  return new OrderedWriter({ writer: 7, packing, limits, random: () => 0.5 });
}

function take(writer: OrderedWriter): PutRequest {
  const request = writer.take(0);
  if (request === undefined) throw new Error("nothing to take");
  return request;
}

/** What the records of a partition say, one after the other, each stored before the next. */
function drained(writer: OrderedWriter): (string | null)[][] {
  const records: (string | null)[][] = [];
  for (let request = writer.take(0); request; request = writer.take(0)) {
    for (const { data, bytes, queue } of request.entries) {
      expect(bytes).toBe(data.length + Buffer.byteLength(queue.partitionKey));
      const record = parseRecord(data);
      if (record.kind === "claim") records.push(["claim", record.position, record.after]);
      else
        records.push([
          "events",
          ...record.events.flatMap((event) => [positionOf(event), event.source.after]),
        ]);
    }
    writer.settle(
      request,
      request.entries.map(() => "stored"),
      0,
    );
  }
  return records;
}

describe("a claim in its partition", () => {
  const claim: ClaimCheck = { bucket: "b", key: "k", bytes: 31_000_000, sha256: "ab".repeat(32) };
  const at = (ordinal: number) => change(orders, 1, 16n, ordinal).position;

  test.each(["batch", "none"] as const)(
    "stands alone, at its place, and in the chain of predecessors; packing %s",
    (packing) => {
      const writer = machine(packing);
      const { topic, partition, table } = change(orders, 1, 16n, 2);
      for (const ordinal of [1, 2, 3, 4, 5]) {
        if (ordinal === 2 || ordinal === 4) {
          writer.offer({ kind: "claimed", topic, partition, table, position: at(ordinal), claim }, 0);
        } else writer.offer(change(orders, 1, 16n, ordinal), 0);
      }
      writer.offer({ kind: "commit", endPlace: 17n, commitTimeMs: 1 }, 0);
      const events = [1, 3, 5].map((ordinal) => Buffer.byteLength(change(orders, 1, 16n, ordinal).json));
      expect(writer.metrics(0).tables.get("public.orders")).toEqual({
        changes: 5,
        bytes: events.reduce((a, b) => a + b) + 2 * claim.bytes,
      });
      expect(drained(writer)).toEqual([
        ["events", at(1), null],
        ["claim", at(2), at(1)],
        ["events", at(3), at(2)],
        ["claim", at(4), at(3)],
        ["events", at(5), at(4)],
      ]);
      expect(writer.acknowledged?.place).toBe(17n);
      expect(writer.bufferedBytes).toBe(0);
      expect(writer.metrics(0).changes).toBe(5);
    },
  );

  test("holds the acknowledgement back until it is stored, and is sent again byte for byte", () => {
    const writer = machine();
    const { topic, partition, table, position } = change(orders, 1, 16n, 1);
    writer.offer({ kind: "claimed", topic, partition, table, position, claim }, 0);
    writer.offer({ kind: "commit", endPlace: 17n, commitTimeMs: 1 }, 0);
    const first = take(writer);
    writer.settle(first, ["failed"], 0);
    expect(writer.acknowledged).toBeUndefined();
    const again = writer.take(writer.wakeAt ?? 0);
    expect(again?.entries[0]?.data).toEqual(first.entries[0]?.data);
  });

  test("is asked for from 4 MiB on, whatever the stream takes (rule 9)", () => {
    const writer = machine("batch", 8 * 1024 * 1024);
    const text = "x".repeat(MAX_UNCOMPRESSED_BYTES);
    expect(() => writer.offer(change(orders, 1, 16n, 1, text), 0)).toThrow(OversizeChangeError);
    writer.offer(change(orders, 1, 16n, 1, text.slice(1000)), 0);
  });
});

/** A store in memory that fails as it is told, and notes what it is asked. */
function fakeStore(faults: Error[] = []) {
  const objects = new Map<string, Uint8Array>();
  const store: ClaimStore = {
    bucket: "b",
    prefix: "p/",
    async put(claim, bytes) {
      const fault = faults.shift();
      if (fault) throw fault;
      objects.set(claim.key, bytes);
    },
    get: () => Promise.reject(new Error("not asked for here")),
  };
  return { store, objects };
}

describe("claimCheck", () => {
  const large = change(orders, 3, 16n, 1, "x".repeat(1000));

  test("stores the event as a record of its own, then gives the pointer", async () => {
    const unavailable = new ClaimStoreUnavailableError("b", "SlowDown", undefined);
    const { store, objects } = fakeStore([unavailable, unavailable]);
    const check = claimCheck({ store, pipeline: "shop", writer: 9, log, random: () => 0 });
    const given = await check(large, tooLarge(large, 500), never);
    if (given.kind !== "claimed") throw new Error("a claim expected");
    expect(given).toMatchObject({ partition: 3, position: large.position, table: "public.orders" });
    expect(given.claim.key).toMatch(
      new RegExp(`^p/shop/shop.public.orders/3/${large.position}-[0-9a-f]{16}$`),
    );
    const bytes = objects.get(given.claim.key) as Uint8Array;
    expect(parseRecord(bytes)).toMatchObject({
      kind: "events",
      topic: "shop.public.orders",
      partition: 3,
      writer: 9,
      events: [{ after: { text: "x".repeat(1000) }, source: { after: null } }],
    });
    expect(given.claim.bytes).toBe(bytes.length);
  });

  test("two events of one position, as a replay may give them, have two objects; the same one has one", async () => {
    const { store, objects } = fakeStore();
    const check = claimCheck({ store, pipeline: "shop", writer: 9, log });
    const replayed = { ...large, json: large.json.replace('"ts_ms":0', '"ts_ms":1') };
    for (const one of [large, large, replayed]) await check(one, tooLarge(one, 500), never);
    expect(objects.size).toBe(2);
  });

  test("a topic that looks like a path stays one part of the key", async () => {
    const { store, objects } = fakeStore();
    const check = claimCheck({ store, pipeline: "shop", writer: 9, log });
    const odd = { ...large, topic: { name: "shop.../../x%2Fy", partitions: 4 } };
    await check(odd, tooLarge(odd, 500), never);
    expect([...objects.keys()][0]?.split("/")).toHaveLength(5);
  });

  test("what cannot pass is thrown at once; what may is tried until the signal", async () => {
    const refused = new ClaimStoreRefusedError("b", "403 AccessDenied", undefined);
    const check = claimCheck({ store: fakeStore([refused]).store, pipeline: "shop", writer: 1, log });
    await expect(check(large, tooLarge(large, 500), never)).rejects.toBe(refused);

    const unavailable = new ClaimStoreUnavailableError("b", "ECONNREFUSED", undefined);
    const away = fakeStore(Array.from({ length: 100 }, () => unavailable));
    const stop = new AbortController();
    const waiting = claimCheck({ store: away.store, pipeline: "shop", writer: 1, log })(
      large,
      tooLarge(large, 500),
      stop.signal,
    );
    await sleep(100);
    stop.abort();
    await expect(waiting).rejects.toThrow();
    expect(away.objects.size).toBe(0);
  });

  test("a change larger than a consumer could read is a typed stop; one for every partition its own error", async () => {
    const check = claimCheck({ store: fakeStore().store, pipeline: "shop", writer: 1, log });
    const facts = { table: "public.orders", position: large.position, maxRecordBytes: 500 };
    const huge = new OversizeChangeError({ ...facts, bytes: MAX_CLAIM_BYTES + 1 });
    await expect(check(large, huge, never)).rejects.toMatchObject({ code: "CLAIM_TOO_LARGE", retry: "stop" });
    const error = tooLarge(large, 500);
    await expect(check({ ...large, partition: EVERY_PARTITION }, error, never)).rejects.toBe(error);
  });
});

/** An open event with these rows, as the decoder writes it. */
function open(
  rows: { before?: object | null; after?: object | null; op?: string },
  key: string[] = ["id"],
): SourceChange {
  const { before = null, after = null, op = "u" } = rows;
  const json = `{"op":"${op}","before":${JSON.stringify(before)},"after":${JSON.stringify(after)},"unchanged":["u"],"ts_ms":0,"source":{"table":"orders","key":${JSON.stringify(key)}`;
  return { ...change(orders, 1, 16n, 1), json };
}

function closed({ json }: SourceChange): Record<string, unknown> {
  return JSON.parse(`${json}}}`);
}

describe("omitColumns", () => {
  test("leaves the largest columns out, lists them, and keeps every digit of the others", () => {
    const after = `{"id":"1","n":12345678901234567890.10,"note":${JSON.stringify('a"}{\\'.repeat(500))},"meta":{"a":[1,{"b":"]}"}]},"body":"${"x".repeat(2000)}"}`;
    const of = open({ after: {} });
    const whole = { ...of, json: of.json.replace('"after":{}', `"after":${after}`) };
    const given = omitColumns(whole, tooLarge(whole, 900)) as SourceChange;
    expect(closed(given)).toMatchObject({
      op: "u",
      before: null,
      omitted: ["note", "body"],
      unchanged: ["u"],
      ts_ms: 0,
      source: { key: ["id"] },
    });
    expect(given.json).toContain(
      '"after":{"id":"1","n":12345678901234567890.10,"meta":{"a":[1,{"b":"]}"}]}}',
    );
    const bodyOnly = omitColumns(
      whole,
      tooLarge(whole, Buffer.byteLength(whole.json) - 2000),
    ) as SourceChange;
    expect(closed(bodyOnly).omitted).toEqual(["note"]);
  });

  test("a column is left out of both rows; deletes too", () => {
    const row = { id: "1", title: "t", body: "x".repeat(3000) };
    const update = open({ before: row, after: { ...row, body: "y".repeat(3000) } });
    expect(closed(omitColumns(update, tooLarge(update, 600)) as SourceChange)).toMatchObject({
      before: { id: "1", title: "t" },
      after: { id: "1", title: "t" },
      omitted: ["body"],
    });
    const gone = open({ before: row, op: "d" });
    expect(closed(omitColumns(gone, tooLarge(gone, 600)) as SourceChange)).toMatchObject({
      before: { id: "1", title: "t" },
      after: null,
      omitted: ["body"],
    });
  });

  test("places of JSON nulls are left out with their column", () => {
    const update = open({ after: { id: "1", j: null, tags: Array(900).fill(null) } });
    const paths = ["j", ...Array.from({ length: 900 }, (_, i) => ["tags", i])];
    const whole = {
      ...update,
      json: update.json.replace('"unchanged"', `"jsonNull":${JSON.stringify(paths)},"unchanged"`),
    };
    expect(closed(omitColumns(whole, tooLarge(whole, 600)) as SourceChange)).toMatchObject({
      after: { id: "1", j: null },
      jsonNull: ["j"],
      omitted: ["tags"],
    });
  });

  test("never the key: then, and for what has no columns, the typed stop remains", () => {
    const error = (of: SourceChange) => tooLarge(of, 500);
    const key = open({ after: { id: "x".repeat(3000), body: "y".repeat(3000) } });
    expect(() => omitColumns(key, error(key))).toThrow(OversizeChangeError);
    const message = {
      ...key,
      json: `{"op":"m","before":null,"after":null,"message":{"content":"${"x".repeat(2000)}"},"source":{"key":[]`,
    };
    expect(() => omitColumns(message, error(message))).toThrow(OversizeChangeError);
  });

  test("what is given fits, for any row", () => {
    const value = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 300 }),
      fc.double(),
      fc.jsonValue(),
      fc.constant(null),
    );
    const row = fc.dictionary(fc.string({ unit: "grapheme", maxLength: 20 }), value, {
      noNullPrototype: true,
    });
    fc.assert(
      fc.property(row, row, (before, after) => {
        const of = open({ before: { ...before, id: "1" }, after: { ...after, id: "1" } });
        const limit = 700;
        const writer = machine("batch", limit);
        let given: SourceChange = of;
        try {
          writer.offer(of, 0);
        } catch (error) {
          try {
            given = omitColumns(of, error as OversizeChangeError) as SourceChange;
          } catch {
            // So many small columns that their names alone are too long.
            return;
          }
          writer.offer(given, 0);
        }
        const {
          before: b,
          after: a,
          omitted = [],
        } = closed(given) as { before: object; after: object; omitted?: string[] };
        for (const [kept, whole] of [
          [b, { ...before, id: "1" }],
          [a, { ...after, id: "1" }],
        ] as const) {
          const rest = Object.entries(JSON.parse(JSON.stringify(whole))).filter(
            ([name]) => !omitted.includes(name),
          );
          expect(kept).toEqual(Object.fromEntries(rest));
        }
      }),
    );
  });
});

test("jsonMembers finds every member of any object where it stands", () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string({ unit: "grapheme" }), fc.jsonValue(), { noNullPrototype: true }),
      (object) => {
        const json = JSON.stringify(object);
        const found = jsonMembers(`[${json}`, 1).map(({ name, valueStart, end }) => [
          name,
          JSON.parse(`[${json}`.slice(valueStart, end)),
        ]);
        expect(found).toEqual(Object.entries(JSON.parse(json)));
      },
    ),
  );
});
