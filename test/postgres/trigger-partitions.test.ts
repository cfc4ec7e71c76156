import type pg from "pg";
import { expect, test } from "vitest";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import type { PipelineOf } from "../../lib/definition/pipeline.ts";
import { triggers } from "../../lib/definition/pipeline.ts";
import type { TriggersSource } from "../../lib/source/triggers/definition.ts";
import { installTriggers, planTriggers } from "../../lib/source/triggers/triggers.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { superuser } from "./source.ts";
import { definitionOf, MemoryReading, TablesReading } from "./tables-source.ts";

const PARTITIONED = `
  CREATE TABLE p (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
  CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
  CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (at);
  CREATE TABLE p_2a PARTITION OF p_2 FOR VALUES FROM (10) TO (15);
  CREATE TABLE p_2b PARTITION OF p_2 FOR VALUES FROM (15) TO (20)`;

/** Rows of a topic as a sink holds them that follows the events, and what each event was. */
function followed(events: readonly ChangeEventJson[], table: string): { rows: unknown[]; ops: string } {
  const rows = new Map<unknown, unknown>();
  const ofTable = events.filter(({ source }) => source.table === table);
  for (const { op, before, after } of ofTable) {
    if (op === "t") rows.clear();
    else if (op === "d") {
      if (!rows.delete(before?.id)) throw new Error(`a delete of ${before?.id}, which was not there`);
    } else rows.set(after?.id, after?.id);
  }
  return { rows: [...rows.values()].sort(), ops: ofTable.map(({ op }) => op).join("") };
}

eachPostgres("triggers on partitions", (server) => {
  async function start(sql: string) {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    await client.query(sql);
    const pipeline = definitionOf(
      triggers({ tables: ["public.*"], intervalMs: 50 }),
    ) as PipelineOf<TriggersSource>;
    const install = () => installTriggers(client, pipeline, { lockTimeoutMs: 5000 });
    await install();
    const record = new MemoryReading();
    /** All that was written since the last call. */
    const told = async () => {
      const { rows } = await client.query<{ count: number }>(
        "SELECT count(*)::int AS count FROM tributary.changes WHERE op <> 'R'",
      );
      const reading = await TablesReading.open(url, pipeline, { record });
      await reading.until(rows[0]?.count ?? 0);
      await reading.settled();
      await reading.close();
      return { events: reading.events, log: reading.log.lines.join("\n") };
    };
    return { url, client, install, told, plan: () => planTriggers(client, pipeline, undefined) };
  }

  async function ids(client: pg.Client, table = "p"): Promise<unknown[]> {
    return (await client.query<{ id: number }>(`SELECT id FROM ${table} ORDER BY id`)).rows.map(
      ({ id }) => id,
    );
  }

  test.each([
    ["alone", "TRUNCATE p_1", "cccccdd"],
    ["as a partition that is partitioned itself", "TRUNCATE p_2", "cccccddd"],
    ["with its table: that is one truncate", "TRUNCATE p", "ccccct"],
    ["named before its table", "TRUNCATE p_1, p", "cccccddt"],
    [
      "after its table, in one transaction",
      "TRUNCATE p; INSERT INTO p VALUES (8, 8), (9, 18); TRUNCATE p_1",
      "ccccctccd",
    ],
    [
      "and rolled back",
      "BEGIN; SAVEPOINT s; TRUNCATE p; INSERT INTO p VALUES (7, 7); ROLLBACK TO s; TRUNCATE p_2b; COMMIT",
      "cccccdd",
    ],
  ])("a partition that is truncated %s", async (_what, sql, ops) => {
    const { client, told } = await start(PARTITIONED);
    try {
      await client.query("INSERT INTO p VALUES (1, 1), (2, 2), (3, 13), (4, 17), (5, 18)");
      await client.query(sql);
      const { events } = await told();
      expect(followed(events, "p")).toEqual({ rows: await ids(client), ops });
    } finally {
      await client.end();
    }
  });

  test("a truncate whose rows cannot be read goes on, and is said", async () => {
    const { client, url, told } = await start(PARTITIONED);
    try {
      await client.query("INSERT INTO p VALUES (1, 1), (2, 13), (3, 17)");
      // Its snapshot is older than a row that the truncate removes.
      await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM p");
      const other = await superuser(url);
      await other.query("INSERT INTO p VALUES (4, 4)");
      await other.end();
      await client.query("TRUNCATE p_1; COMMIT");
      // The function's owner reads nothing here, superusers aside.
      await client.query(`CREATE ROLE "${new URL(url).pathname.slice(1)}" LOGIN; GRANT ALL ON SCHEMA tributary TO PUBLIC;
        GRANT ALL ON ALL TABLES IN SCHEMA tributary TO PUBLIC; GRANT ALL ON ALL SEQUENCES IN SCHEMA tributary TO PUBLIC`);
      await client.query(`ALTER FUNCTION tributary.capture() OWNER TO "${new URL(url).pathname.slice(1)}"`);
      await client.query("TRUNCATE p_2");
      const { events, log } = await told();
      expect(await ids(client)).toEqual([]);
      expect(events.map(({ op }) => op).join("")).toBe("ccccd");
      expect(log.match(/not all could be read before/g)).toHaveLength(3);
    } finally {
      await client.end();
    }
  });

  test("a captured table is attached, written to, truncated, detached and attached again: nothing fails, each change is told once", async () => {
    const { client, install, told, plan } = await start(
      `${PARTITIONED}; CREATE TABLE q (id int, at int NOT NULL, PRIMARY KEY (id, at));
       CREATE TABLE r (id int, at int NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
       CREATE TABLE r_1 PARTITION OF r FOR VALUES FROM (30) TO (35)`,
    );
    const write =
      "INSERT INTO p SELECT i, i FROM generate_series(20, 34) i; UPDATE p SET id = id WHERE id = 20; INSERT INTO p VALUES (99, 29); DELETE FROM p WHERE id = 99";
    try {
      await client.query("ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (20) TO (30)");
      await client.query("ALTER TABLE p ATTACH PARTITION r FOR VALUES FROM (30) TO (40)");
      await client.query(write);
      await client.query("TRUNCATE q; TRUNCATE r_1");
      const attached = await told();
      expect(followed(attached.events, "p")).toEqual({
        rows: [],
        ops: `${"c".repeat(15)}ucd${"d".repeat(15)}`,
      });
      expect((await plan()).surplus.map(({ table }) => table)).toEqual(["q", "r"]);

      await install();
      expect(await plan()).toMatchObject({ surplus: [], missing: [] });
      await client.query(write);
      await client.query("DELETE FROM p");
      expect((await told()).events.map(({ op }) => op).join("")).toBe(
        `${"c".repeat(15)}ucd${"d".repeat(15)}`,
      );

      await client.query("ALTER TABLE p DETACH PARTITION q; ALTER TABLE p DETACH PARTITION r");
      await install();
      await client.query("INSERT INTO q VALUES (1, 1); INSERT INTO r VALUES (2, 32); TRUNCATE q, r");
      const detached = (await told()).events.map(({ op, source }) => `${op} ${source.table}`);
      expect(detached).toEqual(["c q", "c r", "t q", "t r"]);
      await client.query(
        "ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (20) TO (30); ALTER TABLE p ATTACH PARTITION r FOR VALUES FROM (30) TO (40)",
      );
      await client.query("INSERT INTO p VALUES (3, 23), (4, 33)");
      expect((await told()).events.map(({ op, source }) => `${op} ${source.table}`)).toEqual(["c p", "c p"]);
    } finally {
      await client.end();
    }
  });

  test("of a partition that is made later the changes are told, and that its truncate is not seen is said by name", async () => {
    const { client, install, told } = await start(PARTITIONED);
    try {
      await client.query("CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM (20) TO (30)");
      await client.query("SET session_replication_role = replica; INSERT INTO p VALUES (1, 21), (2, 22)");
      await client.query("DELETE FROM p WHERE id = 2");
      const later = await told();
      expect(later.events.map(({ op }) => op).join("")).toBe("ccd");
      expect(later.log).toContain("partitions without a trigger for their truncate: public.p_3;");
      await install();
      await client.query("TRUNCATE p_3");
      const healed = await told();
      expect(healed.events.map(({ op }) => op).join("")).toBe("d");
      expect(healed.log).not.toContain("public.p_3");
    } finally {
      await client.end();
    }
  });
});
