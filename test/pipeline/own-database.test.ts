import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { definition, OpenSource } from "../postgres/source.ts";
import { type Finished, npmStart, type Started } from "./npm-start.ts";

/** The definition of a test stands in a folder of its own, and entries are relative to that. */
const PRINT_CHANGES = resolve("functions/print-changes.ts");

describe("npm start -- --database-url", () => {
  withPostgres((server) => {
    let run: Started | undefined;
    afterEach(async () => {
      try {
        run?.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await run?.finished;
    });

    async function database() {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query("CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE keyless (id int)");
      return { url, client };
    }
    const traces = async (client: pg.Client) => {
      const { rows } = await client.query<{ name: string }>(
        "SELECT slot_name::text AS name FROM pg_replication_slots UNION ALL SELECT pubname::text FROM pg_publication",
      );
      return rows.map(({ name }) => name);
    };
    const seen = (started: Started, text: RegExp) =>
      eventually(() => text.test(started.printed()), { what: `${text} in the output` });
    async function stop(started: Started): Promise<Finished> {
      started.kill("SIGINT");
      return started.finished;
    }

    it("refuses with the SQL that helps, and touches nothing", async () => {
      const { url, client } = await database();
      run = npmStart("--database-url", url, "--tables", "public.*");
      const { code, stdout, stderr } = await run.finished;
      expect(code).toBe(1);
      expect(stderr).toContain('ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL');
      expect(stderr).toContain("--exclude");
      expect(stderr).not.toMatch(/^ +at /m);
      expect(stdout).not.toContain("starting");
      expect(await traces(client)).toEqual([]);
      await client.end();
    });

    it("does not start beside another reader of its slot, and names that", async () => {
      const { url, client } = await database();
      const other = await OpenSource.open(url, {
        pipeline: definition(url, {
          slot: "tributary_local",
          publication: "others",
          tables: ["public.good"],
        }),
      });
      try {
        const { rows } = await client.query("SELECT active_pid AS pid FROM pg_replication_slots");
        run = npmStart("--database-url", url, "--tables", "public.good", "--drop-slot-on-exit");
        const { code, stdout, stderr } = await run.finished;
        expect(code).toBe(1);
        expect(stderr).toContain(`"tributary_local" is in use by process ${rows[0].pid}`);
        expect(stderr).not.toMatch(/^ +at |epoch/m);
        expect(stdout).not.toContain("starting");
        expect(await traces(client)).toEqual(["tributary_local", "others"]);
        await client.query("INSERT INTO good VALUES (1)");
        await other.until(1);
      } finally {
        await other.close();
        await client.query("SELECT pg_drop_replication_slot('tributary_local')");
        await client.end();
      }
    });

    it("hosts a task for each of several slots, goes on with both, and refuses to leave one without a reader", async () => {
      const { url, client } = await database();
      // By their topics' names `a` is the first slot's, `c` the second one's.
      await client.query("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)");
      const directory = await mkdtemp(join(tmpdir(), "tributary-own-database-"));
      const file = join(directory, "mine.mjs");
      const mine = {
        name: "mine",
        source: {
          ...{ kind: "postgres", tables: ["public.a", "public.c"], slots: 2 },
          ...{ acceptUnboundedWal: true, snapshot: "never" },
        },
        consumers: [{ name: "print-changes", entry: PRINT_CHANGES, topics: ["*"] }],
      };
      await writeFile(file, `export default ${JSON.stringify(mine)};`);
      const args = ["--database-url", url, "--pipeline", file];
      const both = ["tributary_local", "tributary_local_slot2"];
      run = npmStart(...args);
      await seen(run, /streaming from slot "tributary_local_slot2"/);
      await client.query("INSERT INTO a VALUES (1); INSERT INTO c VALUES (1), (2)");
      await seen(run, /public\.a create 1\b/);
      await seen(run, /public\.c create 2\b/);
      await stop(run);
      const published = await client.query(
        "SELECT pubname || ' ' || tablename AS held FROM pg_publication_tables ORDER BY 1",
      );
      expect(published.rows.map(({ held }) => held)).toEqual([`${both[0]} a`, `${both[1]} c`]);

      await client.query("INSERT INTO a VALUES (3), (4), (5); INSERT INTO c VALUES (3), (4), (5), (6)");
      run = npmStart("--database-url", url, "--tables", "public.a", "public.c");
      const refused = await run.finished;
      expect(refused.code).toBe(2);
      expect(refused.stderr).toContain("SELECT pg_drop_replication_slot('tributary_local_slot2')");

      run = npmStart(...args, "--drop-slot-on-exit");
      await seen(run, /public\.a create 3\b/);
      await seen(run, /public\.c create 4\b/);
      const last = await stop(run);
      expect(last.stdout).toContain(`dropped the slot ${both[1]}`);
      expect(await traces(client)).toEqual([]);
      await client.end();
      await rm(directory, { recursive: true });
    });

    it("says what it makes, counts changes, goes on where it was stopped, and removes it when asked", async () => {
      const { url, client } = await database();
      const args = ["--database-url", url, "--exclude", "*.keyless"];
      run = npmStart(...args);
      await seen(run, /replication slot +tributary_local +will be created/);
      await seen(run, /streaming from slot/);
      await client.query("INSERT INTO good SELECT generate_series(1, 300); DELETE FROM good WHERE id <= 20");
      await client.query("INSERT INTO keyless VALUES (1)");
      await seen(run, /public\.good create 300 delete 20/);
      const first = await stop(run);
      expect(first.stdout).toContain("SELECT pg_drop_replication_slot('tributary_local')");
      expect(first.stdout).not.toContain("public.keyless create");
      expect(await traces(client)).toEqual(["tributary_local", "tributary_local"]);

      await client.query("INSERT INTO good VALUES (1000), (1001)");
      run = npmStart(...args, "--drop-slot-on-exit");
      await seen(run, /is there already/);
      await seen(run, /public\.good create 2\b/);
      await stop(run);
      await eventually(async () => (await traces(client)).length === 0, {
        what: "slot and publication to go",
      });
      await client.end();
    });
  });
});
