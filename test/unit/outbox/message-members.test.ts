import fc from "fast-check";
import { expect, test } from "vitest";
import {
  MalformedEvent,
  messageMembers,
  withoutBlanks,
} from "../../../lib/source/outbox/event/message-members.ts";

const missing = { id: "position", createdAt: "2026-11-23T00:00:00.000Z" };
const event = { aggregateType: "order", aggregateId: "17", type: "Paid" };
const read = (text: string) => messageMembers(Buffer.from(text), missing);

test("any JSON: payload and headers arrive as they are, whatever stands between the tokens", () => {
  fc.assert(
    fc.property(
      fc.json(),
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.nat(4),
      (payload, headers, indent) => {
        const text = JSON.stringify({ ...event, headers, payload: JSON.parse(payload) }, undefined, indent);
        const members = read(text);
        expect(JSON.parse(members.payload)).toEqual(JSON.parse(payload));
        expect(JSON.parse(members.headers)).toEqual(JSON.parse(JSON.stringify(headers)));
        expect(members).toMatchObject({ ...event, ...missing });
        expect(withoutBlanks(text)).toBe(JSON.stringify(JSON.parse(text)));
      },
    ),
  );
});

test("digits that a double cannot hold stay", () => {
  const payload = '{"a":[12345678901234567890,1.10,-0]}';
  expect(read(`${JSON.stringify(event).slice(0, -1)},\n "payload":\t${payload} }`).payload).toBe(payload);
});

test("a name that comes twice counts as JSON.parse takes it", () => {
  const twice = `{"payload":1,"aggregateType":"x y","aggregateType":"order","aggregateId":"17","type":"Paid","payload":2}`;
  expect(read(twice)).toMatchObject({ aggregateType: "order", payload: "2" });
});

test.each([
  ["", /not JSON/],
  ["null", /not a JSON object/],
  ['{"payload":1}', /aggregateType must/],
  [JSON.stringify({ ...event }), /payload is missing/],
  [JSON.stringify({ ...event, payload: 1, headers: [] }), /headers must/],
  [JSON.stringify({ ...event, payload: 1, id: 7 }), /id must/],
  [JSON.stringify({ ...event, payload: 1, createdAt: null }), /createdAt must/],
  [JSON.stringify({ ...event, payload: 1, aggregateId: 17 }), /aggregateId must/],
])("%s is no event", (text, problem) => {
  expect(() => read(text)).toThrow(MalformedEvent);
  expect(() => read(text)).toThrow(problem);
});

test("a byte order mark, or bytes that are not UTF-8, are no JSON", () => {
  expect(() => messageMembers(Buffer.from([0xff, 0xfe]), missing)).toThrow(/not UTF-8/);
  expect(() => read(`\ufeff${JSON.stringify({ ...event, payload: 1 })}`)).toThrow(/not JSON/);
});
