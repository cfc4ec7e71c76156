import { readFile } from "node:fs/promises";
import type pg from "pg";
import { expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { partitionOf } from "../../lib/change/topic.ts";
import { outboxTableName } from "../../lib/definition/outbox-table.ts";
import type { postgres } from "../../lib/definition/pipeline.ts";
import { outboxMessages, outboxTable } from "../../lib/publish/publish.ts";
import { outboxTableSql } from "../../lib/publish/table-sql.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

type Outbox = NonNullable<Parameters<typeof postgres>[0]["outbox"]>;

/** The event that a change is. */
function eventOf(change: SourceChange) {
  return JSON.parse(`${change.json}}}`);
}

const order = (aggregateId: string, type: string, payload: unknown = {}) => ({
  aggregateType: "order",
  aggregateId,
  type,
  payload,
});

eachPostgres("the outbox, from the log", (server) => {
  /** A database with an outbox table and a pipeline that reads it. */
  async function start(outbox: Outbox, sql = outboxTableSql(outboxTableName("public.outbox")).join("\n")) {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(sql);
    const record = new MemoryRecord();
    const open = () => OpenSource.open(url, { pipeline: definition(url, { tables: [], outbox }), record });
    return { url, client, record, open, source: await open() };
  }

  async function transaction(client: pg.Client, work: () => Promise<unknown>, end = "COMMIT") {
    await client.query("BEGIN");
    await work();
    await client.query(end);
  }

  test("rows of the table: routed by type, keyed by aggregate; what is rolled back, changed or deleted is none", async () => {
    const { client, source } = await start({ table: "public.outbox" });
    const outbox = outboxTable();
    const slim = outboxTable({ deleteAtOnce: true });
    const ids: string[] = [];
    await transaction(client, async () => {
      ids.push(
        await outbox.publish(client, order("17", "Placed", { big: "x".repeat(9000), total: "19.90" })),
      );
      ids.push(await slim.publish(client, { ...order("17", "Paid"), headers: { a: "b" } }));
      await client.query("UPDATE outbox SET type = 'Forged'");
    });
    await transaction(client, () => outbox.publish(client, order("17", "Never")), "ROLLBACK");
    await client.query("DELETE FROM outbox");
    await client.query("TRUNCATE outbox");
    await transaction(client, async () => {
      ids.push(await outbox.publish(client, { ...order("4", "Moved"), aggregateType: "customer.v2" }));
    });
    await source.until(3);
    const [placed, paid, moved] = source.changes.map(eventOf);
    expect(source.changes.map(({ topic, partition, table }) => [topic.name, partition, table])).toEqual([
      ["shop.outbox.order", partitionOf("17", 64), "outbox.order"],
      ["shop.outbox.order", partitionOf("17", 64), "outbox.order"],
      ["shop.outbox.customer%2Ev2", partitionOf("4", 64), "outbox.customer.v2"],
    ]);
    expect(placed).toMatchObject({
      op: "c",
      before: null,
      after: {
        id: ids[0],
        aggregateType: "order",
        aggregateId: "17",
        type: "Placed",
        payload: { big: "x".repeat(9000), total: "19.90" },
        headers: {},
        createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      },
      source: {
        schema: "outbox",
        table: "order",
        key: ["aggregateId"],
        mode: "outbox",
        ordinal: 1,
        epoch: 1,
      },
    });
    expect(paid).toMatchObject({ after: { id: ids[1], headers: { a: "b" } }, source: { ordinal: 2 } });
    expect(moved.after.id).toBe(ids[2]);
    inOrder(source.changes);
    await source.close();
    await client.end();
  });

  test("messages: no table, digits as written, nothing of a rolled-back transaction", async () => {
    const { client, source } = await start({ messages: true }, "SELECT 1");
    const outbox = outboxMessages();
    await transaction(client, async () => {
      await outbox.publish(client, order("17", "Placed"));
      await client.query(
        `SELECT pg_logical_emit_message(true, 'outbox', '{ "aggregateType" : "order", "aggregateId": "17",
          "type": "Pa\\u0069d", "payload" : {"n": 12345678901234567890.10, "s": " a \\" b "} }')`,
      );
      await client.query("SELECT pg_logical_emit_message(true, 'another', 'prefix')");
    });
    await transaction(client, () => outbox.publish(client, order("17", "Never")), "ROLLBACK");
    await transaction(client, () => outbox.publish(client, order("18", "Placed", [1, null])));
    await source.until(3);
    const events = source.changes.map(eventOf);
    expect(events.map(({ after }) => [after.aggregateId, after.type, after.headers])).toEqual([
      ["17", "Placed", {}],
      ["17", "Paid", {}],
      ["18", "Placed", {}],
    ]);
    expect(source.changes[1]?.json).toContain('"payload":{"n":12345678901234567890.10,"s":" a \\" b "}');
    expect(events[1].after.id).toBe(source.changes[1]?.position);
    expect(events[1].after.createdAt).toBe(new Date(events[1].source.ts_ms).toISOString());
    inOrder(source.changes);
    await source.close();
    await client.end();
  });

  test("a restart goes on behind what was acknowledged, and gives the rest at the same positions", async () => {
    const { client, source, open, record } = await start({ table: "public.outbox", messages: "app" });
    const outbox = outboxTable();
    await transaction(client, () => outbox.publish(client, order("1", "Placed")));
    await source.until(1);
    source.acknowledging = false;
    const rest = async (end: string) => {
      await transaction(client, async () => {
        await outbox.publish(client, order("1", "Paid"));
        await client.query("CREATE TABLE IF NOT EXISTS noise (id int PRIMARY KEY)");
        await outbox.publish(client, order("2", "Placed"));
      });
      await transaction(client, () => outboxMessages({ prefix: "app" }).publish(client, order("3", end)));
    };
    await rest("Placed");
    await source.until(4);
    await source.close();
    const before = source.changes
      .slice(1)
      .map(({ position, json }) => [position, eventOf({ json } as SourceChange).after]);
    expect(record.state?.confirmedLsn).toBeGreaterThan(0n);
    const again = await open();
    await again.until(3);
    expect(again.changes.map((change) => [change.position, eventOf(change).after])).toEqual(before);
    await again.close();
    await client.end();
  });

  test("CloudEvents", async () => {
    const cloudEvents = { source: "https://shop.example" };
    const { client, source } = await start({ messages: true, cloudEvents });
    await transaction(client, () =>
      outboxMessages().publish(client, {
        ...order("17", "com.shop.placed", { a: 1 }),
        headers: { traceparent: "00-1", x: "y" },
      }),
    );
    await source.until(1);
    const { after, source: where } = eventOf(source.changes[0] as SourceChange);
    expect(after).toEqual({
      specversion: "1.0",
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      source: "https://shop.example",
      type: "com.shop.placed",
      subject: "17",
      time: expect.stringMatching(/Z$/),
      datacontenttype: "application/json",
      partitionkey: "17",
      aggregatetype: "order",
      traceparent: "00-1",
      headers: '{"traceparent":"00-1","x":"y"}',
      data: { a: 1 },
    });
    // https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#naming-conventions
    for (const name of Object.keys(after)) expect(name).toMatch(/^[a-z0-9]{1,20}$/);
    expect(where.key).toEqual(["subject"]);
    await source.close();
    await client.end();
  });

  test("plain SQL, as the documentation shows it for any language", async () => {
    const page = await readFile(new URL("../../docs/15-outbox.md", import.meta.url), "utf8");
    const blocks = [...page.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => sql as string);
    expect(blocks).toHaveLength(2);
    const { client, source } = await start({ table: "public.outbox", messages: true });
    for (const sql of blocks) await transaction(client, () => client.query(sql));
    await source.until(2);
    expect(source.changes.map(({ topic }) => topic.name)).toEqual(["shop.outbox.order", "shop.outbox.order"]);
    for (const { after } of source.changes.map(eventOf)) {
      expect(after).toEqual({
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        ...order("17", "OrderPaid", { total: "19.90" }),
        headers: {},
        createdAt: expect.stringMatching(/Z$/),
      });
    }
    await source.close();
    await client.end();
  });

  const lax =
    "CREATE TABLE outbox (id int PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb)";
  const wrongs: [string, string, RegExp][] = [
    [
      "a row without an aggregate",
      "INSERT INTO outbox VALUES (1, 'order', NULL, 'T', '{}')",
      /aggregateId must/,
    ],
    ["a row of no type", "INSERT INTO outbox VALUES (1, 'or der', '1', 'T', '{}')", /aggregateType must/],
    ["a message that is no JSON", "SELECT pg_logical_emit_message(true, 'outbox', '{')", /not JSON/],
    ["a message of an array", "SELECT pg_logical_emit_message(true, 'outbox', '[]')", /not a JSON object/],
    ["a message in latin1", "SELECT pg_logical_emit_message(true, 'outbox', '\\xe9'::bytea)", /not UTF-8/],
    [
      "a message without a payload",
      `SELECT pg_logical_emit_message(true, 'outbox', '{"aggregateType":"a","aggregateId":"1","type":"T"}')`,
      /payload is missing/,
    ],
    [
      "a message that would survive a rollback",
      `SELECT pg_logical_emit_message(false, 'outbox', '{"aggregateType":"a","aggregateId":"1","type":"T","payload":1}')`,
      /not transactional/,
    ],
  ];
  test("what is no event stops the task, or goes whole to a topic of its own; what follows goes on", async () => {
    const { client, source, open } = await start({ table: "public.outbox", messages: true }, lax);
    await client.query(wrongs[0]?.[1] ?? "");
    expect(await source.failure()).toMatchObject({ code: "OUTBOX_MALFORMED", retry: "stop" });
    await source.close();
    // It stands there until an operator acts.
    const still = await open();
    expect(await still.failure()).toMatchObject({ code: "OUTBOX_MALFORMED" });
    await still.close();
    await client.query("DELETE FROM outbox");
    await client.end();
  });

  test("quarantine", async () => {
    const { client, source } = await start(
      { table: "public.outbox", messages: true, malformed: "quarantine" },
      lax,
    );
    for (const [, sql] of wrongs) {
      await client.query("DELETE FROM outbox");
      await client.query(sql);
    }
    await client.query("INSERT INTO outbox VALUES (2, 'order', '7', 'Debezium''s columns do', '[1.50]')");
    await source.until(wrongs.length + 1);
    const last = source.changes.at(-1) as SourceChange;
    source.changes.slice(0, -1).forEach((change, i) => {
      const [, sql, problem] = wrongs[i] as [string, string, RegExp];
      const { op, message } = eventOf(change);
      expect([change.topic, op]).toEqual([{ name: "shop.$outbox-malformed", partitions: 1 }, "m"]);
      expect(message.problem).toMatch(problem);
      expect(message.problem).not.toContain("or der");
      if (i === 0) expect(Buffer.from(message.content, "base64").toString()).toContain('"type":"T"');
      if (sql.includes("xe9")) expect(Buffer.from(message.content, "base64")).toEqual(Buffer.from([0xe9]));
    });
    expect(last.topic.name).toBe("shop.outbox.order");
    expect(eventOf(last).after).toMatchObject({ id: "2", payload: [1.5] });
    expect(last.json).toContain('"payload":[1.50]');
    inOrder(source.changes);
    await source.close();
    await client.end();
  });

  test("rows and messages of one type in one transaction are refused: their positions count apart", async () => {
    const { client, source } = await start({ table: "public.outbox", messages: true });
    await transaction(client, () => outboxTable().publish(client, order("1", "Row")));
    await transaction(client, () => outboxMessages().publish(client, order("1", "Message")));
    await source.until(2);
    inOrder(source.changes);
    await transaction(client, async () => {
      await outboxTable().publish(client, order("1", "Row"));
      await outboxMessages().publish(client, order("1", "Message"));
    });
    expect(await source.failure()).toMatchObject({ code: "OUTBOX_FORMS_MIXED" });
    await source.close();
    await client.end();
  });

  test.each([
    ["the rows first", ["row", "message"]],
    ["the message first", ["message", "row"]],
  ])("a table that is routed where messages go is refused: %s", async (_, steps) => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query("CREATE SCHEMA outbox; CREATE TABLE outbox.order (id int PRIMARY KEY)");
    const pipeline = definition(url, { tables: ["outbox.*"], outbox: { messages: true } });
    const source = await OpenSource.open(url, { pipeline });
    await transaction(client, async () => {
      for (const step of steps) {
        if (step === "row") await client.query("INSERT INTO outbox.order VALUES (1)");
        else await outboxMessages().publish(client, order("1", "Message"));
      }
    });
    expect(await source.failure()).toMatchObject({ code: "OUTBOX_FORMS_MIXED" });
    expect(source.messages.filter(({ kind }) => kind === "commit")).toEqual([]);
    await source.close();
    await client.end();
  });

  test("a table that lacks a column is refused before anything is made; one that loses it, at its next event", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query("CREATE TABLE outbox (id int PRIMARY KEY, aggregate_type text)");
    const pipeline = definition(url, { outbox: { table: "public.outbox" }, tables: [] });
    await expect(OpenSource.open(url, { pipeline })).rejects.toThrow(/public.outbox is no outbox table/);
    expect(
      (await client.query("SELECT FROM pg_replication_slots WHERE slot_name = $1", [pipeline.source.slot]))
        .rowCount,
    ).toBe(0);
    await client.query("ALTER TABLE outbox ADD aggregate_id text, ADD type text, ADD payload json");
    const source = await OpenSource.open(url, { pipeline });
    await client.query("ALTER TABLE outbox DROP payload; INSERT INTO outbox VALUES (1, 'order', '1', 'T')");
    expect(await source.failure()).toMatchObject({ code: "OUTBOX_TABLE" });
    await source.close();
    await client.end();
  });

  test("the table's constraints refuse what could not become an event", async () => {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    const sql = outboxTableSql(outboxTableName('public."Out ""box"')).join("\n");
    await client.query(sql);
    await client.query(sql);
    const insert = (columns: string, values: string) =>
      client.query(`INSERT INTO "Out ""box" (${columns}) VALUES (${values})`);
    const all = "aggregate_type, aggregate_id, type, payload, headers";
    for (const values of [
      "NULL, '1', 'T', '{}', '{}'",
      "'or der', '1', 'T', '{}', '{}'",
      "'order', '', 'T', '{}', '{}'",
      "'order', '1', '', '{}', '{}'",
      "'order', '1', 'T', NULL, '{}'",
      "'order', '1', 'T', '{}', '[]'",
    ])
      await expect(insert(all, values), values).rejects.toThrow(/violates/);
    await insert("aggregate_type, aggregate_id, type, payload", "'order', '1', 'T', 'null'");
    await client.end();
  });
});
