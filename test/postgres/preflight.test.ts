import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { PipelineInput, postgres } from "../../lib/definition/pipeline.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { PreflightError } from "../../lib/source/postgres/postgres-errors.ts";
import { preflight } from "../../lib/source/postgres/postgres-source.ts";
import { eachPostgres, freshDatabase, withPostgres } from "./server.ts";
import { definition, ids, OpenSource, superuser } from "./source.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Server = Parameters<Parameters<typeof eachPostgres>[1]>[0];
type Source = Partial<Parameters<typeof postgres>[0]>;

async function database(server: Server, ...sql: string[]) {
  const url = await freshDatabase(server());
  const client = await superuser(url);
  cleanups.push(() => client.end().catch(() => {}));
  for (const statement of sql) await client.query(statement);
  return { url, client };
}

/** What preflight says: `CODE message | remedy` of each problem, and the warnings. */
async function look(
  url: string,
  source: Source = {},
  more: Partial<Omit<PipelineInput, "name" | "source">> = {},
) {
  const lines = (found: readonly { code: string; message: string; remedy: string }[]) =>
    found.map((p) => `${p.code} ${p.message} | ${p.remedy}`);
  try {
    const report = await preflight({
      connection: connectionFromUrl(url),
      pipeline: definition(url, source, more),
    });
    return {
      problems: [] as string[],
      warnings: lines(report.warnings),
      tables: report.tables.map((t) => t.table),
    };
  } catch (error) {
    if (!(error instanceof PreflightError)) throw error;
    return { problems: lines(error.problems), warnings: [] as string[], tables: [] as string[] };
  }
}

/** The SQL of a remedy, up to the first `; or`. */
const firstSql = (problem: string | undefined) => /\| (?:.*? run: )?(.*?);/.exec(problem ?? "")?.[1] ?? "";

eachPostgres("preflight", (server) => {
  test("touches nothing, and finds everything at once", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE good (id int PRIMARY KEY)",
      "CREATE TABLE heap (a int, b text)",
      "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING",
      "CREATE TABLE keyed (id int PRIMARY KEY, customer int)",
    );
    const { problems } = await look(
      url,
      { tables: ["public.*", "public.missing", "nowhere.*"], acceptUnboundedWal: false },
      { topics: { keys: { "public.keyed": ["customer"] } } },
    );
    const text = problems.join("\n");
    expect(text).toContain("UNBOUNDED_WAL");
    expect(text).toContain("table public.missing does not exist");
    expect(text).toContain('the pattern "nowhere.*" matches no table');
    expect(text).toMatch(
      /REPLICA_IDENTITY public\.heap .*no primary key.*ALTER TABLE "public"\."heap" REPLICA IDENTITY FULL/,
    );
    expect(text).toMatch(/REPLICA_IDENTITY public\.nothing .*NOTHING.*REPLICA IDENTITY DEFAULT/);
    expect(text).toMatch(/KEY_COLUMN .*"customer" of public\.keyed may be null/);
    expect(text).toMatch(/KEY_COLUMN .*"customer" is not in the replica identity/);
    expect(problems.length).toBe(7);
    const { rows } = await client.query(
      "SELECT (SELECT count(*) FROM pg_publication)::int AS publications, (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())::int AS slots",
    );
    expect(rows).toEqual([{ publications: 0, slots: 0 }]);
  });

  test("the printed remedies heal what they are printed for", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE heap (a int)",
      "CREATE TABLE k (id int PRIMARY KEY, c int)",
    );
    const keys = { topics: { keys: { "public.k": ["c"] } } };
    for (let round = 0; round < 5; round++) {
      const { problems } = await look(url, {}, keys);
      if (problems.length === 0) break;
      await client.query(firstSql(problems[0]));
    }
    expect((await look(url, {}, keys)).problems).toEqual([]);
  });

  test("refuses a chosen key that may hold NULLs of before its NOT NULL, and its remedy heals that (18)", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE k (id int PRIMARY KEY, c int); ALTER TABLE k REPLICA IDENTITY FULL",
    );
    const { rows } = await client.query("SELECT current_setting('server_version_num')::int AS version");
    if (rows[0].version < 180_000) return;
    await client.query("ALTER TABLE k ADD CONSTRAINT c_there NOT NULL c NOT VALID");
    const keys = { topics: { keys: { "public.k": ["c"] } } };
    const { problems } = await look(url, {}, keys);
    expect(problems).toEqual([expect.stringMatching(/^KEY_COLUMN .*"c" of public\.k may be null/)]);
    await client.query(firstSql(problems[0]));
    expect((await look(url, {}, keys)).problems).toEqual([]);
  });

  test("identity by index, a dropped index, and names that need quotes", async () => {
    const { url } = await database(
      server,
      'CREATE SCHEMA "Odd.Schema"',
      'CREATE TABLE "Odd.Schema"."a""b" (x int NOT NULL, y int); CREATE UNIQUE INDEX i ON "Odd.Schema"."a""b" (x) INCLUDE (y); ALTER TABLE "Odd.Schema"."a""b" REPLICA IDENTITY USING INDEX i',
      "CREATE TABLE dropped (x int NOT NULL); CREATE UNIQUE INDEX j ON dropped (x); ALTER TABLE dropped REPLICA IDENTITY USING INDEX j; DROP INDEX j",
    );
    const { problems } = await look(
      url,
      { tables: ["*.*"] },
      { topics: { keys: { '"Odd.Schema"."a""b"': ["x"] } } },
    );
    expect(problems).toEqual([
      expect.stringMatching(/^REPLICA_IDENTITY public\.dropped .*index .* was dropped/),
    ]);
    const second = await look(
      url,
      { tables: ["*.*"], exclude: ["public.dropped"] },
      { topics: { keys: { '"Odd.Schema"."a""b"': ["y"] } } },
    );
    expect(second.problems.join()).toContain('"y" is not in the replica identity');
  });

  test("partitions are looked at where the rows live", async () => {
    const { url } = await database(
      server,
      "CREATE TABLE events (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
      "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
      "ALTER TABLE events_1 REPLICA IDENTITY NOTHING",
    );
    expect((await look(url)).problems).toEqual([
      expect.stringMatching(/^REPLICA_IDENTITY public\.events_1 /),
    ]);
  });

  test("a partition must log of old rows what its root says, or nulls would be made up", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE whole (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)",
      "ALTER TABLE whole REPLICA IDENTITY FULL",
      "CREATE TABLE whole_1 PARTITION OF whole FOR VALUES FROM (0) TO (10)",
      "CREATE TABLE pair (id int PRIMARY KEY, k int NOT NULL) PARTITION BY RANGE (id)",
      "CREATE UNIQUE INDEX pair_k ON pair (id, k); ALTER TABLE pair REPLICA IDENTITY USING INDEX pair_k",
      "CREATE TABLE pair_1 PARTITION OF pair FOR VALUES FROM (0) TO (10)",
    );
    const { problems } = await look(url);
    expect(problems).toEqual([
      expect.stringMatching(/^PARTITION_IDENTITY public\.pair_1 .* without k .*USING INDEX/),
      expect.stringMatching(/^PARTITION_IDENTITY public\.whole_1 .* without note .*REPLICA IDENTITY FULL/),
    ]);
    await client.query("ALTER TABLE whole_1 REPLICA IDENTITY FULL");
    const healed = await look(url, { tables: ["public.whole"] });
    expect(healed.problems).toEqual([]);
    expect(healed.warnings.join()).toMatch(/PARTITION_IDENTITY public\.whole .* partitions made later/);
  });

  test("a partition whose changes are not in the log is refused, unless it is named in exclude", async () => {
    const { url } = await database(
      server,
      "CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id)",
      "CREATE UNLOGGED TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)",
      "CREATE TABLE away (id int NOT NULL) PARTITION BY RANGE (id); ALTER TABLE away REPLICA IDENTITY FULL",
      "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far",
      "CREATE FOREIGN TABLE away_1 PARTITION OF away FOR VALUES FROM (0) TO (10) SERVER far",
    );
    const tables = ["public.events", "public.away"];
    const { problems } = await look(url, { tables });
    expect(problems).toEqual([
      expect.stringMatching(/^TABLE_KIND public\.away_1, a partition .* a foreign table/),
      expect.stringMatching(/^TABLE_KIND public\.events_1, a partition .* an unlogged table.*SET LOGGED/),
      // Foreign partitions allow no primary key: an ordinary one, made later, would have no identity.
      expect.stringMatching(/^PARTITION_IDENTITY public\.away has no primary key/),
    ]);
    expect((await look(url, { tables, exclude: ["public.*_1"] })).problems).toEqual([
      expect.stringMatching(/^PARTITION_IDENTITY public\.away/),
    ]);
  });

  test("what would make the application's writes fail on partitions that are made later is refused", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE log (at int NOT NULL, v text) PARTITION BY RANGE (at)",
      "CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10)",
      "ALTER TABLE log REPLICA IDENTITY FULL; ALTER TABLE log_1 REPLICA IDENTITY FULL",
    );
    const tables = ["public.log"];
    expect((await look(url, { tables })).problems).toEqual([
      expect.stringMatching(/^PARTITION_IDENTITY public\.log has no primary key.*ADD PRIMARY KEY/),
    ]);
    await client.query("ALTER TABLE log ADD PRIMARY KEY (at)");
    const keyed = await look(url, { tables });
    expect([keyed.problems, keyed.warnings.join()]).toEqual([
      [],
      expect.stringMatching(/PARTITION_IDENTITY/),
    ]);
    // All columns identify a row of today's partitions, and only the key one of tomorrow's.
    const filtered = definition(url, { tables, where: { "public.log": "v <> ''" } });
    await expect(OpenSource.open(url, { pipeline: filtered })).rejects.toThrow(
      /ROW_FILTER.*public\.log looks at v, which is not in its primary key/s,
    );
    expect((await client.query("SELECT FROM pg_publication")).rowCount).toBe(0);
    // The server says so itself.
    await client.query(
      "CREATE PUBLICATION harm FOR TABLE log WHERE (v <> '') WITH (publish_via_partition_root = true)",
    );
    await client.query(
      "CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20); INSERT INTO log VALUES (15, 'a')",
    );
    await expect(client.query("UPDATE log SET v = 'b' WHERE at = 15")).rejects.toThrow(/cannot update/);
  });

  test("a deferrable primary key is no replica identity", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE swapped (id int PRIMARY KEY DEFERRABLE, v int)",
    );
    const { problems } = await look(url);
    expect(problems).toEqual([expect.stringMatching(/^REPLICA_IDENTITY public\.swapped .* is deferrable/)]);
    await client.query(firstSql(problems[0]));
    const source = await OpenSource.open(url, { pipeline: definition(url) });
    cleanups.push(() => source.close());
    await client.query("INSERT INTO swapped VALUES (1, 1); UPDATE swapped SET v = 2");
    await source.until(2);
  });

  test("children by inheritance are not published with their parent, and keep their writes", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE parent (id int PRIMARY KEY)",
      "CREATE TABLE child (extra text) INHERITS (parent)",
    );
    const source = await OpenSource.open(url, { pipeline: definition(url, { tables: ["public.parent"] }) });
    cleanups.push(() => source.close());
    await client.query("INSERT INTO child VALUES (1, 'x'); UPDATE child SET extra = 'y'; DELETE FROM child");
    await client.query("INSERT INTO parent VALUES (2)");
    await source.until(1);
    expect(ids(source.changes)).toEqual([2]);
  });

  test("what is no table is refused by name, and passed over by pattern", async () => {
    const { url } = await database(
      server,
      "CREATE TABLE good (id int PRIMARY KEY)",
      "CREATE UNLOGGED TABLE quick (id int PRIMARY KEY)",
      "CREATE VIEW v AS SELECT 1 AS id",
      "CREATE MATERIALIZED VIEW m AS SELECT 1 AS id",
    );
    const broad = await look(url);
    expect(broad.problems).toEqual([]);
    expect(broad.tables).toEqual(["good"]);
    expect(broad.warnings.filter((w) => w.startsWith("TABLE_KIND")).length).toBe(2);
    const named = await look(url, { tables: ["public.good", "public.quick", "public.v"] });
    expect(named.problems.length).toBe(2);
    expect(named.problems.join()).toMatch(/quick is an unlogged table.*SET LOGGED/);
  });

  test("a table that stands in another schema is suggested; an empty choice is told", async () => {
    const { url } = await database(
      server,
      "CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY)",
    );
    expect((await look(url, { tables: ["public.orders"] })).problems[0]).toMatch(
      /Did you mean sales\.orders/,
    );
    expect((await look(url, { tables: ["sales.*"], exclude: ["*.orders"] })).problems[0]).toMatch(
      /no table is left/,
    );
  });

  test("columns left out and filters: slips and what would hurt the application", async () => {
    const { url } = await database(
      server,
      "CREATE TABLE people (id int PRIMARY KEY, secret text, region text)",
      "CREATE TABLE whole (id int PRIMARY KEY, secret text); ALTER TABLE whole REPLICA IDENTITY FULL",
    );
    const text = async (source: Source) => (await look(url, source)).problems.join("\n");
    expect(await text({ excludeColumns: { "public.people": ["sceret"] } })).toMatch(/no such column/);
    expect(await text({ excludeColumns: { "public.poeple": ["secret"] } })).toMatch(/is no captured table/);
    expect(await text({ excludeColumns: { "public.people": ["id"] } })).toMatch(/its replica identity needs/);
    expect(await text({ excludeColumns: { "public.whole": ["secret"] } })).toMatch(
      /REPLICA IDENTITY FULL, which/,
    );
    expect(await text({ where: { "public.poeple": "true" } })).toMatch(/is no captured table/);
    // What a filter looks at the server tells once it has it: nothing of the publication stays.
    const filtered = OpenSource.open(url, {
      pipeline: definition(url, { where: { "public.people": "region = 'eu'" } }),
    });
    await expect(filtered).rejects.toMatchObject({ message: expect.stringMatching(/row filter .* region/) });
    expect(await text({})).toBe("");
  });

  test("a filter that is none is refused with what the server says; it is one statement, whatever it holds", async () => {
    const { url, client } = await database(server, "CREATE TABLE people (id int PRIMARY KEY)");
    for (const [filter, said] of [
      ["id >", /syntax error/],
      ["nobody = 1", /column "nobody" does not exist/],
      ["now() > '2020-01-01'", /WHERE expression/],
      ["true); DROP TABLE people; --", /cannot insert multiple commands/],
    ] as const) {
      const refused = OpenSource.open(url, {
        pipeline: definition(url, { where: { "public.people": filter } }),
      });
      await expect(refused).rejects.toMatchObject({
        code: "PREFLIGHT",
        message: expect.stringMatching(said),
      });
    }
    const { rows } = await client.query("SELECT (SELECT count(*) FROM pg_publication)::int AS n FROM people");
    expect(rows).toEqual([]);
  });

  test("warnings: no key, row security, generated columns", async () => {
    const { url } = await database(
      server,
      "CREATE TABLE heap (a int); ALTER TABLE heap REPLICA IDENTITY FULL",
      "CREATE TABLE secured (id int PRIMARY KEY); ALTER TABLE secured ENABLE ROW LEVEL SECURITY",
      "CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
    );
    const codes = (await look(url)).warnings.map((warning) => warning.split(" ")[0]);
    expect(codes).toContain("NO_KEY");
    expect(codes).toContain("ROW_SECURITY");
    expect(codes.includes("GENERATED_COLUMNS")).toBe(server().major < 18);
  });

  test("names the tables and columns of which a large value may stay behind when a key changes", async () => {
    const { url, client } = await database(
      server,
      "CREATE TABLE plain (id int PRIMARY KEY, code varchar(10), at timestamptz)",
      "CREATE TABLE keyed (id text PRIMARY KEY)",
      "CREATE TABLE whole (id int PRIMARY KEY, note text); ALTER TABLE whole REPLICA IDENTITY FULL",
      "CREATE TABLE notes (id int PRIMARY KEY, hidden text, note text, doc jsonb)",
      "CREATE TABLE parts (id int PRIMARY KEY, body bytea) PARTITION BY RANGE (id)",
      "CREATE TABLE parts_1 PARTITION OF parts DEFAULT",
    );
    const large = async () =>
      (await look(url, { excludeColumns: { "public.notes": ["hidden"] } })).warnings.filter((warning) =>
        warning.startsWith("LARGE_VALUES"),
      );
    expect(await large()).toEqual([
      expect.stringContaining("public.notes (note, doc), public.parts (body) | Leave it as it is"),
    ]);
    await client.query("DROP TABLE notes; ALTER TABLE parts REPLICA IDENTITY FULL");
    await client.query(
      "ALTER TABLE parts_1 REPLICA IDENTITY FULL; CREATE TABLE notes (id int PRIMARY KEY, hidden text)",
    );
    expect(await large()).toEqual([]);
  });

  test("a generated column in the key is refused where it does not travel", async () => {
    const { url } = await database(
      server,
      "CREATE TABLE members (tenant int NOT NULL, email text, email_key text GENERATED ALWAYS AS (lower(email)) STORED, note text, PRIMARY KEY (tenant, email_key))",
      "CREATE TABLE whole (a int, s int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY); ALTER TABLE whole REPLICA IDENTITY FULL",
      "CREATE TABLE beside (id int PRIMARY KEY, s int GENERATED ALWAYS AS (id * 2) STORED)",
    );
    const { problems } = await look(url);
    if (server().major >= 18) expect(problems).toEqual([]);
    else {
      expect(problems).toEqual([
        expect.stringMatching(/^KEY_GENERATED .*public\.members has the generated column email_key/),
        expect.stringMatching(/^KEY_GENERATED .*public\.whole has the generated column s/),
      ]);
    }
  });

  test("an SQL_ASCII database needs to be told how to read it", async () => {
    const url = await freshDatabase(server(), { encoding: "SQL_ASCII" });
    const client = await superuser(url);
    cleanups.push(() => client.end());
    await client.query("CREATE TABLE t (id int PRIMARY KEY)");
    expect((await look(url)).problems.join()).toMatch(/^SQL_ASCII .*sqlAsciiEncoding/);
    expect((await look(url, { sqlAsciiEncoding: "latin1" })).problems).toEqual([]);
  });

  describe("a publication that is there", () => {
    const tables = [
      "CREATE TABLE a (id int PRIMARY KEY, secret text)",
      "CREATE TABLE b (id int PRIMARY KEY)",
      "CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)",
      "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
    ];
    test.each<{ what: string; sql: string; source?: Source; problem?: RegExp }>([
      {
        what: "lacks a table",
        sql: "FOR TABLE a, parted WITH (publish_via_partition_root)",
        problem: /does not hold public\.b \| ALTER PUBLICATION .* ADD TABLE/,
      },
      {
        what: "publishes partitions one by one",
        sql: "FOR TABLE a, b, parted",
        problem: /one by one \| ALTER PUBLICATION .*publish_via_partition_root = true/,
      },
      {
        what: "publishes inserts only",
        sql: "FOR TABLE a, b, parted WITH (publish = 'insert', publish_via_partition_root)",
        problem: /does not publish update, delete, truncate/,
      },
      {
        what: "publishes what is left out",
        sql: "FOR TABLE a, b, parted WITH (publish_via_partition_root)",
        source: { excludeColumns: { "public.a": ["secret"] } },
        problem: /publishes secret of public\.a/,
      },
      {
        what: "does not filter",
        sql: "FOR TABLE a, b, parted WITH (publish_via_partition_root)",
        source: { where: { "public.a": "id > 5" } },
        problem: /all rows of public\.a/,
      },
      { what: "fits", sql: "FOR ALL TABLES WITH (publish_via_partition_root)" },
      {
        what: "holds more than we capture",
        sql: "FOR ALL TABLES WITH (publish_via_partition_root)",
        source: { tables: ["public.b"] },
      },
    ])("$what", async ({ sql, source = {}, problem }) => {
      const { url, client } = await database(server, ...tables);
      const name = definition(url).source.publication;
      await client.query(`CREATE PUBLICATION ${name} ${sql}`);
      const { problems } = await look(url, source);
      if (problem === undefined) expect(problems).toEqual([]);
      else expect(problems.join("\n")).toMatch(problem);
      if (!problem) return;
      for (const statement of problems.flatMap((p) => p.split(" | ")[1]?.split("; ") ?? []))
        await client.query(statement);
      expect((await look(url, source)).problems).toEqual([]);
    });

    test("takes all tables by itself: refused beside other slots, which would write the same topics", async () => {
      const { url, client } = await database(server, ...tables);
      const name = definition(url).source.publication;
      await client.query(`CREATE PUBLICATION ${name} FOR ALL TABLES WITH (publish_via_partition_root)`);
      const found = (await look(url, { slots: 2 })).problems.join();
      expect(found).toMatch(/^PUBLICATION .* two slots would write one topic/);
      await client.query(`DROP PUBLICATION ${name}`);
      const { rows } = await client.query("SELECT current_setting('server_version_num')::int AS version");
      if (rows[0].version < 150_000) return;
      await client.query(`CREATE PUBLICATION ${name}_slot2 FOR TABLES IN SCHEMA public`);
      expect((await look(url, { slots: 2 })).problems.join()).toMatch(/"[^"]*_slot2" is for all tables/);
    });

    test("of a foreign hand: a row filter that makes updates fail is found", async () => {
      const { url, client } = await database(server, ...tables);
      await client.query(
        `CREATE PUBLICATION ${definition(url).source.publication} FOR TABLE a WHERE (secret = 'x'), b`,
      );
      await expect(client.query("UPDATE a SET secret = 'y'")).rejects.toThrow(/cannot update/);
      expect((await look(url, { tables: ["public.a", "public.b"] })).problems.join()).toMatch(/^ROW_FILTER /);
    });

    test("and holds more than we capture: what is not captured is passed over", async () => {
      const { url, client } = await database(server, ...tables);
      await client.query(`CREATE PUBLICATION ${definition(url).source.publication} FOR ALL TABLES`);
      const source = await OpenSource.open(url, { pipeline: definition(url, { tables: ["public.b"] }) });
      cleanups.push(() => source.close());
      await client.query(
        "BEGIN; INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (2); INSERT INTO a VALUES (3, 'x'); COMMIT",
      );
      await source.until(1);
      expect(ids(source.changes)).toEqual([2]);
      // It is the second change of its transaction, whatever we capture (rule 1).
      expect(source.changes[0]?.position.endsWith("0000000002")).toBe(true);
    });
  });

  test("least privilege: with CREATE on the database and the tables everything is made, without it the SQL is printed", async () => {
    const { url, client } = await database(server);
    const name = new URL(url).pathname.slice(1);
    const role = `capture_${name}`;
    await client.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'pw'`);
    await client.query(
      "CREATE TABLE orders (id int PRIMARY KEY); CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY)",
    );
    const theirs = new URL(url);
    [theirs.username, theirs.password] = [role, "pw"];

    const before = await look(theirs.toString(), { tables: ["*.*"] });
    expect(before.problems.length).toBe(3);
    const [schema, select, publication] = before.problems;
    expect(schema).toMatch(/^SELECT .*GRANT USAGE ON SCHEMA "closed"/);
    expect(select).toMatch(/^SELECT .*GRANT SELECT ON "closed"."t", "public"."orders"/);
    expect(publication).toMatch(/^PUBLICATION .*CREATE PUBLICATION/);
    for (const problem of before.problems) await client.query(firstSql(problem));
    expect((await look(theirs.toString(), { tables: ["*.*"] })).problems).toEqual([]);
    const source = await OpenSource.open(theirs.toString(), {
      pipeline: definition(url, { tables: ["*.*"] }),
    });
    cleanups.push(() => source.close());
    await client.query("INSERT INTO orders VALUES (1)");
    await source.until(1);
    await source.close();

    // A role of its own database makes them itself.
    const own = await database(server);
    const ownName = new URL(own.url).pathname.slice(1);
    await own.client.query(
      `GRANT CREATE ON DATABASE ${ownName} TO ${role}; GRANT CREATE ON SCHEMA public TO ${role}`,
    );
    const ownUrl = new URL(own.url);
    [ownUrl.username, ownUrl.password] = [role, "pw"];
    const owner = await superuser(ownUrl.toString());
    cleanups.push(() => owner.end());
    await owner.query("CREATE TABLE mine (id int PRIMARY KEY)");
    const second = await OpenSource.open(ownUrl.toString(), { pipeline: definition(own.url) });
    cleanups.push(() => second.close());
    await owner.query("INSERT INTO mine VALUES (7)");
    await second.until(1);
    expect(ids(second.changes)).toEqual([7]);
  });

  test("a role without REPLICATION is told how to get it", async () => {
    const { url, client } = await database(server, "CREATE TABLE t (id int PRIMARY KEY)");
    const role = `plain_${new URL(url).pathname.slice(1)}`;
    await client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'pw'; GRANT SELECT ON t TO ${role}`);
    await client.query(`CREATE PUBLICATION ${definition(url).source.publication} FOR TABLE t`);
    const theirs = new URL(url);
    [theirs.username, theirs.password] = [role, "pw"];
    const { problems } = await look(theirs.toString());
    expect(problems.length).toBe(1);
    expect(problems[0]).toMatch(/^ROLE_REPLICATION .*WITH REPLICATION/);
    await client.query(firstSql(problems[0]));
    expect((await look(theirs.toString())).problems).toEqual([]);
  });
});

describe("a server not made for it", () => {
  withPostgres(
    (server) => {
      let url = "";
      beforeAll(async () => {
        url = await freshDatabase(server());
        const client = await superuser(url);
        await client.query("CREATE TABLE t (id int PRIMARY KEY)");
        await client.end();
      });

      test("wal_level, bound of the WAL, free slots", async () => {
        const { problems } = await look(url, { acceptUnboundedWal: false });
        expect(problems.join("\n")).toMatch(
          /WAL_LEVEL wal_level is replica: .*ALTER SYSTEM SET wal_level = 'logical'/,
        );
        expect(problems.join("\n")).toMatch(/UNBOUNDED_WAL .*acceptUnboundedWal/);
        await server().restart({ settings: { wal_level: "logical", max_slot_wal_keep_size: "1GB" } });
        expect((await look(url, { acceptUnboundedWal: false })).problems).toEqual([]);
        const client = await superuser(url);
        await client.query("SELECT pg_create_physical_replication_slot('only')");
        expect((await look(url)).problems.join()).toMatch(/^REPLICATION_SLOTS all 1 .*max_replication_slots/);
        await client.query("SELECT pg_drop_replication_slot('only')");
        await client.end();
      });
    },
    { settings: { wal_level: "replica", max_replication_slots: "1" } },
  );

  withPostgres((server) => {
    test("a publication that hurts on 18: generated columns in the replica identity", async () => {
      const { url, client } = await database(
        server,
        "CREATE TABLE stored (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); ALTER TABLE stored REPLICA IDENTITY FULL",
        "CREATE TABLE virt (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL); ALTER TABLE virt REPLICA IDENTITY FULL",
      );
      const { problems } = await look(url);
      expect(problems).toEqual([expect.stringMatching(/^REPLICA_IDENTITY public\.virt .*virtual generated/)]);
      await client.query(firstSql(problems[0]));
      await client.query(`CREATE PUBLICATION ${definition(url).source.publication} FOR TABLE stored, virt`);
      await expect(client.query("INSERT INTO stored VALUES (1); UPDATE stored SET id = 2")).rejects.toThrow(
        /cannot update/,
      );
      const foreign = await look(url);
      expect(foreign.problems).toEqual([expect.stringMatching(/publish_generated_columns = stored/)]);
      await client.query(firstSql(foreign.problems[0]));
      await client.query("INSERT INTO stored VALUES (1); UPDATE stored SET id = 2");
      expect((await look(url)).problems).toEqual([]);
    });
  });
});
