import { expect, test } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import {
  type OutboxClient,
  type OutboxEvent,
  OutboxEventError,
  outboxMessages,
  outboxTable,
} from "../../../lib/publish/publish.ts";

const event: OutboxEvent = {
  aggregateType: "order",
  aggregateId: "17",
  type: "OrderPlaced",
  payload: { total: "19.90" },
};

/** Notes the statements. */
class Statements implements OutboxClient {
  readonly all: { text: string; values: unknown[] }[] = [];
  async query(text: string, values: unknown[]): Promise<unknown> {
    this.all.push({ text, values });
    return undefined;
  }
}

test("an event is one insert; its id is given, or a new UUID", async () => {
  const client = new Statements();
  const id = "0b6f4c1e-7a51-4a0b-9a38-0f9f3f1d2c3B";
  expect(await outboxTable({ table: 'app."Out""box"' }).publish(client, { ...event, id })).toBe(
    id.toLowerCase(),
  );
  expect(client.all).toHaveLength(1);
  expect(client.all[0]?.text).toContain('INSERT INTO "app"."Out""box" (');
  expect(client.all[0]?.values).toEqual([
    id.toLowerCase(),
    "order",
    "17",
    "OrderPlaced",
    '{"total":"19.90"}',
    "{}",
  ]);
  expect(await outboxTable().publish(client, event)).toMatch(/^[0-9a-f-]{36}$/);
});

test("deleted at once: the same id", async () => {
  const client = new Statements();
  const id = await outboxTable({ deleteAtOnce: true }).publish(client, event);
  expect(client.all.map(({ text }) => text.split(" ")[0])).toEqual(["INSERT", "DELETE"]);
  expect(client.all[1]?.values).toEqual([id]);
});

test("a message is transactional and holds the members", async () => {
  const client = new Statements();
  const headers = { traceparent: "00-1-2-03" };
  const id = await outboxMessages({ prefix: "shop-outbox" }).publish(client, { ...event, headers });
  const [{ text, values } = { text: "", values: [] }] = client.all;
  expect(text).toContain("pg_logical_emit_message(true, ");
  expect(values[0]).toBe("shop-outbox");
  expect(JSON.parse(values[1] as string)).toEqual({
    ...event,
    id,
    headers,
    createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
  });
});

const circle: Record<string, unknown> = {};
circle.self = circle;
test.each<[string, Partial<Record<keyof OutboxEvent, unknown>>]>([
  ["aggregateType", { aggregateType: "no blanks" }],
  ["aggregateType", { aggregateType: "x".repeat(65) }],
  ["aggregateId", { aggregateId: "" }],
  ["aggregateId", { aggregateId: 17 }],
  ["aggregateId", { aggregateId: "a\0b" }],
  ["type", { type: undefined }],
  ["payload", { payload: undefined }],
  ["payload", { payload: 17n }],
  ["payload", { payload: circle }],
  ["payload", { payload: () => {} }],
  ["headers", { headers: ["a"] }],
  ["id", { id: "17" }],
])("a wrong %s is refused before anything is written", async (member, wrong) => {
  const client = new Statements();
  for (const outbox of [outboxTable(), outboxMessages()]) {
    const published = outbox.publish(client, { ...event, ...wrong } as OutboxEvent);
    await expect(published).rejects.toThrow(OutboxEventError);
    await expect(published).rejects.toThrow(new RegExp(`not an outbox event: ${member} `));
  }
  expect(client.all).toEqual([]);
});

test.each(["outbox", "a.b.c", 'a."b', "a.b; DROP TABLE c", `a.${"b".repeat(49)}`, ""])(
  "%j is no table name",
  (table) => {
    expect(() => outboxTable({ table })).toThrow(ConfigurationError);
  },
);

test.each(["", "tributary.marks"])("%j is no prefix", (prefix) => {
  expect(() => outboxMessages({ prefix })).toThrow(ConfigurationError);
});

test("lengths count characters, as the table's constraints do", async () => {
  const of = (more: object) => outboxTable().publish(new Statements(), { ...event, ...more });
  const emoji = (count: number) => "😀".repeat(count);
  await of({ aggregateId: emoji(512), type: emoji(255) });
  for (const more of [
    { aggregateId: emoji(513) },
    { type: emoji(256) },
    { type: "x".repeat(256) },
    { aggregateId: "" },
  ])
    await expect(of(more)).rejects.toMatchObject({ code: "OUTBOX_EVENT" });
});
