import { spawnSync } from "node:child_process";
import pg from "pg";
import { expect, it } from "vitest";
import { SourceTable } from "../../lib/verify/source-table.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "./server.ts";

const MB = 1_000_000;

withPostgres((server) => {
  async function database(sql: string): Promise<{ url: string; client: pg.Client }> {
    const url = await freshDatabase(server());
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query(
      `CREATE TABLE t (id int PRIMARY KEY, v text); ${sql}; CREATE PUBLICATION p FOR TABLE t`,
    );
    return { url, client };
  }

  it("a table of large rows is read for verify within a small heap", async () => {
    const { url, client } = await database(
      `INSERT INTO t SELECT i, repeat('x', ${MB}) FROM generate_series(1, 300) i`,
    );
    await client.end();
    const script = `
      import pg from "pg";
      import { SourceTable } from "./lib/verify/source-table.ts";
      const client = new pg.Client({ connectionString: process.env.SOURCE_URL });
      await client.connect();
      const table = await SourceTable.open(client, "p", { schema: "public", table: "t" });
      let rows = 0;
      for await (const page of table.pages(new AbortController().signal)) rows += page.length;
      await client.end();
      process.stdout.write(String(rows));`;
    const arguments_ = ["--max-old-space-size=160", "--input-type=module", "-e", script];
    const { status, stdout } = spawnSync(process.execPath, arguments_, {
      env: { ...process.env, SOURCE_URL: url },
      timeout: 60_000,
    });
    expect([status, stdout.toString()]).toEqual([0, "300"]);
  });

  it("batches are bounded in bytes while the reader is slow, and every row is in one", async () => {
    // Large rows behind small ones: nothing that was seen before tells their size. More than one page of them.
    const { client, url } = await database(
      `INSERT INTO t SELECT i, repeat('x', CASE WHEN i % 5000 > 4950 THEN ${MB} ELSE 1 END) FROM generate_series(1, 10000) i`,
    );
    const table = await SourceTable.open(client, "p", { schema: "public", table: "t" });
    const watcher = new pg.Client({ connectionString: url });
    await watcher.connect();
    const waitsForReader = async () => {
      const { rows } = await watcher.query(
        "SELECT wait_event FROM pg_stat_activity WHERE query LIKE 'SELECT%FROM%\"t\"%' AND wait_event = 'ClientWrite'",
      );
      return rows.length > 0;
    };
    let held = false;
    const ids: unknown[] = [];
    for await (const page of table.pages(new AbortController().signal)) {
      const bytes = page.reduce((sum, { values }) => sum + String(values.v).length, 0);
      expect(bytes).toBeLessThan(10 * MB);
      if (!held && bytes > 5 * MB) {
        // The server keeps what is not asked for yet.
        await eventually(waitsForReader, { what: "a server that waits for its reader", deadlineMs: 10_000 });
        held = true;
      }
      ids.push(...page.map(({ values }) => values.id));
    }
    expect(ids).toEqual(Array.from({ length: 10_000 }, (_, i) => i + 1));
    expect(held).toBe(true);
    await watcher.end();
    // The session is its owner's again, also where the reader stopped half way.
    for await (const _ of table.pages(new AbortController().signal)) break;
    expect((await table.row({ id: 4951 }))?.values.v).toHaveLength(MB);
    await client.end();
  });

  it("what the server says in the middle of a page comes to the reader", async () => {
    const { client } = await database("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) i");
    await client.query(`
      ALTER PUBLICATION p SET TABLE t WHERE (1 / (90 - id) < 2)`);
    const table = await SourceTable.open(client, "p", { schema: "public", table: "t" });
    const read = async () => {
      for await (const _ of table.pages(new AbortController().signal));
    };
    await expect(read()).rejects.toThrow("division by zero");
    expect((await table.row({ id: 1 }))?.values.id).toBe(1);
    await client.end();
  });
});
