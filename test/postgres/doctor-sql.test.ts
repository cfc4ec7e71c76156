import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import pg from "pg";
import { afterEach, describe, expect, test } from "vitest";
import { databaseScript, readServerSort, type ServerSort } from "../../lib/admin/database-script.ts";
import type { Pipeline } from "../../lib/definition/definition.ts";
import { definePipeline, outbox, polling, postgres, triggers } from "../../lib/definition/pipeline.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { PreflightError } from "../../lib/source/postgres/postgres-errors.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

/** Debian's; a newer server takes it. */
const PSQL = "/usr/lib/postgresql/15/bin/psql";
/** A publication is made before the log is logical: the server says what the script says too. */
const SAID = /NOTICE|wal_level"? (is insufficient|to "logical" before)/;
const ROLE = "capture_reader";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Server = Parameters<Parameters<typeof eachPostgres>[1]>[0];

async function database(server: Server, ...sql: string[]) {
  const url = await freshDatabase(server());
  const client = await superuser(url);
  cleanups.push(async () => {
    await client.query(`DROP OWNED BY ${ROLE}`).catch(() => {});
    await client.query(`DROP ROLE IF EXISTS ${ROLE}`);
    await client.end();
  });
  for (const statement of sql) await client.query(statement);
  return { url, client };
}

async function script(client: pg.Client, pipeline: Pipeline, server?: ServerSort): Promise<string> {
  return await databaseScript({
    pipeline,
    role: ROLE,
    server: server ?? (await readServerSort(client)),
    client,
  });
}

/** Runs a script as a person does; what psql says is looked at where it is no notice. */
async function run(url: string, text: string): Promise<void> {
  const child = promisify(execFile)(PSQL, ["-X", "-q", url]);
  child.child.stdin?.end(text);
  const { stdout, stderr } = await child;
  expect(stdout).toBe("");
  expect(stderr.split("\n").filter((line) => line !== "" && !SAID.test(line))).toEqual([]);
}

/** All that a script could change: roles, grants, publications, settings, tables with what is on them. */
async function everything(client: pg.Client) {
  const { rows } = await client.query(`
    SELECT (SELECT json_agg(r ORDER BY rolname) FROM pg_roles r) AS roles,
           (SELECT json_agg(m ORDER BY m::text) FROM pg_auth_members m) AS members,
           (SELECT json_agg(json_build_object('row', p.*, 'xmin', p.xmin, 'comment', obj_description(oid, 'pg_publication')) ORDER BY pubname) FROM pg_publication p) AS publications,
           (SELECT json_agg(json_build_object('row', r.*, 'xmin', r.xmin) ORDER BY r.oid) FROM pg_publication_rel r) AS published,
           (SELECT json_agg(json_build_array(relname, relacl::text, relreplident, relhastriggers) ORDER BY oid) FROM pg_class WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)) AS tables,
           (SELECT json_agg(json_build_array(attrelid, attname, attacl::text) ORDER BY attrelid, attnum) FROM pg_attribute WHERE attrelid >= 16384) AS columns,
           (SELECT json_agg(json_build_array(tgrelid, tgname) ORDER BY tgrelid, tgname) FROM pg_trigger) AS triggers,
           (SELECT json_agg(json_build_array(nspname, nspacl::text) ORDER BY oid) FROM pg_namespace) AS schemas,
           (SELECT json_agg(json_build_array(name, setting) ORDER BY name) FROM pg_file_settings WHERE name = 'wal_level') AS settings`);
  return rows[0];
}

async function twice(url: string, client: pg.Client, text: string): Promise<void> {
  expect(text).not.toMatch(/password '|PASSWORD/);
  await run(url, text);
  const once = await everything(client);
  await run(url, text);
  expect(await everything(client)).toEqual(once);
}

/** The database as the role that a script made. */
async function asRole(url: string, client: pg.Client): Promise<string> {
  await client.query(`ALTER ROLE ${ROLE} PASSWORD 'p'`);
  const place = new URL(url);
  Object.assign(place, { username: ROLE, password: "p" });
  return String(place);
}

async function problems(url: string, pipeline: Pipeline): Promise<string[]> {
  try {
    await sourceKind(pipeline.source).check({ connection: connectionFromUrl(url), pipeline });
    return [];
  } catch (error) {
    if (!(error instanceof PreflightError)) throw error;
    return error.problems.map(({ code }) => code);
  }
}

const TABLES = [
  "CREATE TABLE good (id int PRIMARY KEY, secret text)",
  "CREATE TABLE heap (a int)",
  "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING",
  'CREATE SCHEMA "Odd"; CREATE TABLE "Odd"."Na""me" (id int PRIMARY KEY)',
  "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
];

describe.skipIf(!existsSync(PSQL))(
  "tributary doctor --sql (SKIPPED without psql: apt-get install postgresql-15)",
  () => {
    eachPostgres("its script", (server) => {
      test("runs twice and changes nothing the second time; its role passes the preflight, and captures", async () => {
        const { url, client } = await database(server, ...TABLES);
        const pipeline = definition(url, {
          tables: ["public.*", '"Odd".*'],
          excludeColumns: { "public.good": ["secret"] },
          where: { "public.parts": "id < 5" },
        });
        await twice(url, client, await script(client, pipeline));
        const asReader = await asRole(url, client);
        expect(await problems(asReader, pipeline)).toEqual([]);
        const source = await OpenSource.open(asReader, { pipeline });
        cleanups.push(() =>
          client.query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()",
          ),
        );
        cleanups.push(() => source.close());
        await client.query(
          'INSERT INTO good VALUES (1); INSERT INTO heap VALUES (1); INSERT INTO "Odd"."Na""me" VALUES (1); INSERT INTO parts VALUES (2), (7)',
        );
        await source.until(4);
        await client.query("UPDATE heap SET a = 2");
        await source.until(5);
        await expect(client.query(`SET ROLE ${ROLE}; SELECT secret FROM good`)).rejects.toThrow(
          /permission denied/,
        );
        await client.query("RESET ROLE");
      });

      test("follows the definition: a table that joins is published, and one that others published is left alone", async () => {
        const { url, client } = await database(
          server,
          "CREATE TABLE one (id int PRIMARY KEY)",
          "CREATE TABLE two (id int PRIMARY KEY)",
        );
        const published = async () =>
          (await client.query("SELECT tablename FROM pg_publication_tables ORDER BY 1")).rows.map(
            (row) => row.tablename,
          );
        await twice(url, client, await script(client, definition(url, { tables: ["public.one"] })));
        expect(await published()).toEqual(["one"]);
        await twice(url, client, await script(client, definition(url, { tables: ["public.*"] })));
        expect(await published()).toEqual(["one", "two"]);
        await client.query("DROP PUBLICATION IF EXISTS theirs; CREATE PUBLICATION theirs FOR TABLE one");
        const pipeline = definition(url, { tables: ["public.*"], publication: "theirs" });
        const text = await script(client, pipeline);
        expect(text).toMatch(
          /^-- Still to do: PUBLICATION: the publication "theirs" does not hold public\.two\n-- {3}ALTER PUBLICATION "theirs" ADD TABLE/m,
        );
        await twice(url, client, text);
        const { rows } = await client.query(
          "SELECT tablename FROM pg_publication_tables WHERE pubname = 'theirs'",
        );
        expect(rows).toEqual([{ tablename: "one" }]);
      });

      test("on RDS the role becomes a member of rds_replication, and settings are told as comments", async () => {
        const { url, client } = await database(server, "CREATE TABLE one (id int PRIMARY KEY)");
        await client.query("CREATE ROLE rds_superuser; CREATE ROLE rds_replication");
        cleanups.push(() => client.query("DROP ROLE rds_superuser; DROP ROLE rds_replication"));
        const pipeline = definition(url, { tables: ["public.one"], acceptUnboundedWal: false });
        const text = await script(client, pipeline);
        expect(text).toContain('GRANT rds_replication TO "capture_reader";');
        expect(text).not.toMatch(/^ALTER SYSTEM|REPLICATION;$/m);
        expect(text).toMatch(/^-- max_slot_wal_keep_size: .* DB parameter group/m);
        await twice(url, client, text);
        const aurora = await databaseScript({ pipeline, role: ROLE, server: "aurora" });
        expect(aurora).toMatch(
          /^-- wal_level: set rds\.logical_replication = 1 in the DB cluster parameter group, and reboot the writer\.$/m,
        );
      });

      test("of triggers, polling and the outbox: twice, and the role passes their checks", async () => {
        const kinds = {
          triggers: triggers({ tables: ["public.one"] }),
          polling: polling({ tables: ["public.one"], column: "updated_at" }),
          outbox: outbox({}),
        };
        for (const [name, source] of Object.entries(kinds)) {
          const { url, client } = await database(server, "CREATE TABLE one (id int PRIMARY KEY, v text)");
          const pipeline = definePipeline({ name: "shop", source });
          await twice(url, client, await script(client, pipeline));
          expect([name, await problems(await asRole(url, client), pipeline)]).toEqual([name, []]);
          const offline = await databaseScript({ pipeline, role: ROLE, server: "self-hosted" });
          await twice(url, client, offline);
          await client.query(`DROP OWNED BY ${ROLE}`);
        }
      });

      test("without a database: of tables that are named; what only the database knows is refused", async () => {
        const { url, client } = await database(server, "CREATE TABLE one (id int PRIMARY KEY)");
        const pipeline = definition(url, { tables: ["public.one"], where: { "public.one": "id > 0" } });
        const offline = (of: Pipeline) => databaseScript({ pipeline: of, role: ROLE, server: "self-hosted" });
        const text = await offline(pipeline);
        await twice(url, client, text);
        expect(await problems(await asRole(url, client), pipeline)).toEqual([]);
        const { rows } = await client.query(
          "SELECT to_jsonb(p) ->> 'pubgencols' AS generated, current_setting('server_version_num')::int >= 180000 AS is18 FROM pg_publication p",
        );
        expect(rows.map(({ generated, is18 }) => (is18 ? generated : "s"))).toEqual(["s"]);
        for (const source of [
          { tables: ["public.*"] },
          { tables: ["public.one"], excludeColumns: { "public.one": ["a"] } },
          { tables: ["public.one"], slots: 2 },
        ])
          await expect(offline(definition(url, source))).rejects.toMatchObject({
            code: "CONFIGURATION",
            message: expect.stringContaining("give --database-url"),
          });
      });

      test("a name cannot leave its statement or its comment", async () => {
        const evil = "a; DROP TABLE one; --\n\\! touch /tmp/never\n'$tributary$";
        const { url, client } = await database(
          server,
          "CREATE TABLE one (id int PRIMARY KEY)",
          `CREATE TABLE ${pg.escapeIdentifier(evil)} (a int)`,
        );
        await twice(
          url,
          client,
          await script(client, definePipeline({ name: "shop", source: postgres({ tables: ["public.*"] }) })),
        );
        const { rows } = await client.query("SELECT count(*)::int AS n FROM pg_publication_tables");
        expect(rows).toEqual([{ n: 2 }]);
      });
    });

    eachPostgres(
      "on a server whose log is not logical its script",
      (server) => {
        test("sets wal_level for the next start, and says that it counts from there", async () => {
          const { url, client } = await database(server, "CREATE TABLE one (id int PRIMARY KEY)");
          const text = await script(client, definition(url, { tables: ["public.one"] }));
          expect(text).toMatch(/^-- wal_level: counts after a restart of the server\.$/m);
          await twice(url, client, text);
          const { rows } = await client.query(
            "SELECT setting FROM pg_file_settings WHERE name = 'wal_level' AND sourcefile LIKE '%auto.conf'",
          );
          expect(rows).toEqual([{ setting: "logical" }]);
        });
      },
      { settings: { wal_level: "replica" } },
    );
  },
);
