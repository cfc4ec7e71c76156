import { expect, test } from "vitest";
import {
  formatSegment,
  type HeldEvent,
  type HeldMessage,
  parseSegment,
} from "../../../lib/source/postgres/hold/held-change.ts";

const place = { topic: { name: "shop.public.t", partitions: 4 }, table: "public.t" };
const position = (n: number) => `00000001000000000000000${n}0000000001`;
const event = (n: number, json: string): HeldEvent => ({
  ...{ kind: "event", ...place, position: position(n), partition: 1, json },
});
const message = (n: number, payload: Buffer): HeldMessage => ({
  ...{ kind: "message", ...place, position: position(n), ordinal: 0, lsn: 7n, payload },
  relation: {
    ...{ oid: 7, schema: "public", table: "t", identity: "default" },
    columns: [{ key: true, name: "id", type: 23, modifier: -1 }],
  },
  begin: { commitLsn: 500n, commitTime: -5n, xid: 812 },
});

test("a segment comes back as it was, also where what it holds is large and has line ends", () => {
  const changes = [
    event(1, '{"a":"b"}'),
    message(2, Buffer.from("I\0\n\xe9", "latin1")),
    event(3, `{"long":"${"é\\n".repeat(700_000)}"}`),
    message(4, Buffer.alloc(1_500_000, "\n")),
    event(5, "{}"),
  ];
  const bytes = formatSegment(changes);
  expect(parseSegment(bytes)).toEqual(changes);
  expect(() => parseSegment(bytes.subarray(0, 4_000_000))).toThrow(/bytes are to follow/);
});

test("a change holds as much as a message may, though no text could hold it in base64", () => {
  const payload = Buffer.alloc(420_000_000);
  const [back] = parseSegment(formatSegment([message(1, payload)])) as HeldMessage[];
  expect(back?.payload.length).toBe(payload.length);
});

test("segments of before are read: lines of JSON alone, without one's end behind the last", () => {
  const { payload: _bytes, ...rest } = message(2, Buffer.alloc(0));
  const begin = { commitLsn: "500", commitTime: "-5", xid: 812 };
  const lines = [event(1, "{}"), { ...rest, begin, lsn: "7", payload: "SQBu" }];
  const bytes = Buffer.from(lines.map((line) => JSON.stringify(line)).join("\n"));
  expect(parseSegment(bytes)).toEqual([event(1, "{}"), message(2, Buffer.from("SQBu", "base64"))]);
});
