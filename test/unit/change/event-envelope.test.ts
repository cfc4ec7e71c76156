import { expect, test } from "vitest";
import type { SourceMessage } from "../../../lib/change/change-stream.ts";
import { messageEvent, openEvent } from "../../../lib/change/event-envelope.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { routeTables } from "../../../lib/definition/route.ts";
import { OutboxEnvelope } from "../../../lib/source/outbox/event/envelope.ts";
import { controlEvent } from "../../../lib/source/postgres/backfill/delivery.ts";
import { ChangeDecoder } from "../../../lib/source/postgres/decode/change-decoder.ts";

const PLACE = {
  epoch: 3,
  commitLsn: 0x1_0000_00ffn,
  ordinal: 7,
  lsn: "1/E0",
  txId: "731",
  timeMs: 1_700_000,
};
const POSITION = "0000000300000001000000FF0000000007";

test("prints a message byte for byte as consumers have always read it", () => {
  const facts = { pipeline: 'sh"op', database: "dä", prefix: "p", transactional: true, nowMs: 5 };
  expect(messageEvent({ ...facts, content: Buffer.from("hi") }, PLACE)).toEqual({
    position: POSITION,
    json: '{"op":"m","before":null,"after":null,"message":{"prefix":"p","content":"aGk=","transactional":true},"ts_ms":5,"source":{"connector":"postgresql","name":"sh\\"op","db":"dä","schema":"","table":"","txId":"731","lsn":"1/E0","commitLsn":"1/FF","epoch":3,"ts_ms":1700000,"ordinal":7,"snapshot":"false","schemaVersion":"","key":[]',
  });
  const malformed = { ...facts, content: Buffer.of(0), problem: "no id", mode: "outbox" };
  expect(messageEvent(malformed, PLACE).json).toBe(
    '{"op":"m","before":null,"after":null,"message":{"prefix":"p","content":"AA==","transactional":true,"problem":"no id"},"ts_ms":5,"source":{"connector":"postgresql","name":"sh\\"op","db":"dä","schema":"","table":"","txId":"731","lsn":"1/E0","commitLsn":"1/FF","epoch":3,"ts_ms":1700000,"ordinal":7,"snapshot":"false","schemaVersion":"","key":[],"mode":"outbox"',
  );
});

test("prints a control event of one consumer's backfill byte for byte as before", () => {
  const end = { table: "public.t", run: 2, startPosition: POSITION, sweep: true, consumer: "c" };
  const { position, json } = controlEvent("tributary.backfill-end", end, {
    ...{ pipeline: "shop", database: "shop", epoch: 3, lsn: 0xffn, ordinal: 9, nowMs: 5 },
    ...{ table: { schema: "public", table: "t" }, topic: { name: "shop.t", partitions: 4 } },
  });
  const content = Buffer.from(JSON.stringify(end)).toString("base64");
  expect(position).toBe("0000000300000000000000FF0000000009");
  expect(json).toBe(
    `{"op":"m","before":null,"after":null,"message":{"prefix":"tributary.backfill-end","content":"${content}","transactional":false},"ts_ms":5,"source":{"connector":"postgresql","name":"shop","db":"shop","schema":"public","table":"t","txId":"","lsn":"0/FF","commitLsn":"0/FF","epoch":3,"ts_ms":5,"ordinal":9,"snapshot":"true","schemaVersion":"","key":[],"backfill":{"run":2,"consumer":"c"}`,
  );
});

test.each([
  [undefined, '"schemaVersion":"outbox-1","key":["aggregateId"],"mode":"outbox"'],
  [{ source: "urn:shop" }, '"schemaVersion":"cloudev1","key":["subject"],"mode":"outbox"'],
])("prints an outbox event's source byte for byte as before (cloudEvents: %j)", (cloudEvents, tail) => {
  const route = () => ({ topic: { name: "shop.outbox.order", partitions: 4 }, key: undefined });
  const pipeline = { name: "shop" };
  const envelope = new OutboxEnvelope({ pipeline, database: "shop", route, cloudEvents, now: () => 5 });
  const members = { id: "1", aggregateType: "order", aggregateId: "o1", type: "paid", payload: "{}" };
  const change = envelope.change({ ...members, headers: "{}", createdAt: "2026-01-01T00:00:00Z" }, PLACE);
  expect(change.position).toBe(POSITION);
  expect(change.json.slice(change.json.indexOf(',"ts_ms"'))).toBe(
    `,"ts_ms":5,"source":{"connector":"postgresql","name":"shop","db":"shop","schema":"outbox","table":"order","txId":"731","lsn":"1/E0","commitLsn":"1/FF","epoch":3,"ts_ms":1700000,"ordinal":7,"snapshot":"false",${tail}`,
  );
});

test("the decoder writes the bytes of a row's envelope that openEvent prints", async () => {
  const pipeline = definePipeline({ name: "shop", source: postgres({ tables: ["*.*"] }) });
  const facts = { primaryKey: ["id"], ancestors: [], wholeOldRows: true };
  const decoder = new ChangeDecoder({
    ...{ pipeline, database: "dä", epoch: 3, encoding: "utf-8", now: () => 5 },
    route: routeTables(pipeline),
    catalog: { resolve: async () => new Map(), relation: async () => facts } as never,
  });
  const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");
  const out: SourceMessage[] = [];
  const commitLsn = 0x1_0000_00ffn;
  for (const payload of [
    // Begin: commit LSN, time (2000-01-01), transaction 731.
    hex("42 00000001000000ff 0000000000000000 000002db"),
    // Relation 1, public.t, identity default: id text, of the key.
    hex("52 00000001 7075626c696300 7400 64 0001 01 696400 00000019 ffffffff"),
    // Two inserts: "a", "b".
    hex("49 00000001 4e 0001 74 00000001 61"),
    hex("49 00000001 4e 0001 74 00000001 62"),
  ])
    await decoder.decodeAt(payload, 0, payload.length, 1, 0xe0, out);
  const rows = out.flatMap((message) => (message.kind === "change" ? [message] : []));
  expect(rows).toHaveLength(2);
  rows.forEach(({ json, position }, i) => {
    const { schemaVersion } = JSON.parse(`${json}}}`).source;
    const origin = { pipeline: "shop", database: "dä", schema: "public", table: "t", key: ["id"] };
    const place = { ...PLACE, commitLsn, ordinal: i + 1, timeMs: 946_684_800_000 };
    const text = `{"op":"c","before":null,"after":{"id":"${"ab"[i]}"}`;
    expect({ json, position }).toEqual(openEvent(text, 5, { ...origin, schemaVersion }, place));
  });
});
