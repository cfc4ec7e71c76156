import pg from "pg";
import { expect, test } from "vitest";
import { readLeaves, wasFilled } from "../../lib/source/postgres/contract/leaves.ts";
import { PartitionWatch } from "../../lib/source/postgres/contract/partition-watch.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { parsed } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, KeptLog, MemoryRecord, OpenSource, superuser } from "./source.ts";
import { MemoryUnhealed } from "./unhealed-record.ts";

const SCHEMA = `CREATE TABLE p (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
  CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
  CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
  CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (40) PARTITION BY RANGE (d);
  CREATE TABLE "p3 a" PARTITION OF p3 FOR VALUES FROM (20) TO (30);
  CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (90) TO (100)`;

interface Parts {
  readonly url: string;
  readonly client: pg.Client;
  readonly record: MemoryRecord;
  readonly unhealed: MemoryUnhealed;
  readonly backfills: MemoryBackfills;
  readonly open: (source?: Parameters<typeof definition>[1]) => Promise<OpenSource>;
}

/** A pipeline of one partitioned table that has looked at its partitions. */
async function parts(server: Parameters<typeof freshDatabase>[0]): Promise<Parts> {
  const url = await freshDatabase(server);
  const client = await superuser(url);
  await client.query(SCHEMA);
  await client.query("INSERT INTO p VALUES (1, 1), (2, 11), (3, 21), (4, 91)");
  const [record, unhealed, backfills] = [new MemoryRecord(), new MemoryUnhealed(), new MemoryBackfills()];
  const open: Parts["open"] = (source) =>
    OpenSource.open(url, {
      ...{
        record,
        unhealed,
        walSenderTimeoutMs: 2000,
        pipeline: definition(url, { tables: ["public.p"], ...source }),
      },
      backfill: { record: backfills, pollMs: 50 },
    });
  return { url, client, record, unhealed, backfills, open };
}

/** Runs until the partitions are on record. */
async function ranBefore(
  server: Parameters<typeof freshDatabase>[0],
  source?: Parameters<typeof definition>[1],
): Promise<Parts> {
  const found = await parts(server);
  const first = await found.open(source);
  await eventually(() => found.record.state?.leaves !== undefined, { what: "the partitions on record" });
  await eventually(() => found.backfills.items.get("public.p")?.status === "done", {
    what: "the first backfill",
  });
  await first.close();
  return found;
}

const told = ({ log }: OpenSource) =>
  log.lines.filter((line) => /partition of|detached|attached|truncated/.test(line));

/** Everything up to here was looked at: what comes later is told behind it. */
async function looked({ client, record }: Parts, source: OpenSource): Promise<void> {
  const { rows } = await client.query("SELECT (pg_current_wal_insert_lsn() - '0/0')::text AS lsn");
  const lsn = BigInt(rows[0].lsn);
  await eventually(
    () => {
      if (source.error) throw source.error;
      return (source.status?.receivedLsn ?? 0n) >= lsn && (record.state?.termsSeen?.lsn ?? 0n) >= lsn;
    },
    { what: "a look" },
  );
}

eachPostgres("partitions of a captured table", (server) => {
  test.each(["while it streams", "between two runs"])(
    "what is truncated, detached or dropped is told with its name and the command, %s",
    async (when) => {
      const found = await ranBefore(server());
      const { client, unhealed, backfills } = found;
      const remove = () => client.query(`TRUNCATE p1; ALTER TABLE p DETACH PARTITION p2; DROP TABLE "p3 a"`);
      if (when === "between two runs") await remove();
      const source = await found.open();
      if (when === "while it streams") await remove();
      await eventually(() => told(source).length === 3, { what: "all three told" });
      expect(told(source).sort()).toEqual([
        expect.stringMatching(
          /^public\."p3 a", a partition of public\.p, was dropped: rows .* stay in the sinks$/,
        ),
        expect.stringMatching(/^public\.p1, a partition of public\.p, was truncated: rows/),
        expect.stringMatching(/^public\.p2 was detached from public\.p: rows/),
      ]);
      await source.close();
      const again = await found.open();
      await looked(found, again);
      expect(told(again)).toEqual([]);
      await again.close();
      await client.end();
      expect([unhealed.tables.size, backfills.of("public.p").run]).toEqual([0, 1]);
    },
  );

  test("removed: sweep reads the table again, once, and its sweep removes what is gone", async () => {
    const sweep = { partitions: { removed: "sweep" as const } };
    const found = await ranBefore(server(), sweep);
    const { client, unhealed, backfills } = found;
    const source = await found.open(sweep);
    await client.query("TRUNCATE p1; ALTER TABLE p DETACH PARTITION p2; DROP TABLE p4");
    await eventually(() => unhealed.tables.size === 1, { what: "the table noted" });
    expect(unhealed.tables.get("public.p")).toMatchObject({ asks: true });
    await eventually(() => unhealed.tables.size === 0, { what: "the table read again" });
    expect(backfills.of("public.p")).toMatchObject({ run: 2, status: "done", request: { sweep: true } });
    const read = source.changes.map(parsed).filter(({ op }) => op === "r");
    expect(read.map(({ after }) => after?.id)).toEqual([3]);
    await source.close();
    await client.end();
  });

  test("a filled table that is attached is read; an empty one, and a new partition, are nothing to tell", async () => {
    const found = await ranBefore(server());
    const { client, unhealed, backfills } = found;
    const source = await found.open();
    await client.query(
      "CREATE TABLE p5 PARTITION OF p FOR VALUES FROM (50) TO (60); INSERT INTO p VALUES (5, 51)",
    );
    await client.query("CREATE TABLE p6 (LIKE p INCLUDING ALL)");
    await client.query(
      "ALTER TABLE p ATTACH PARTITION p6 FOR VALUES FROM (60) TO (70); INSERT INTO p VALUES (6, 61)",
    );
    await source.until(2);
    await looked(found, source);
    expect([told(source), unhealed.tables.size]).toEqual([[], 0]);
    // Made, filled and attached in one transaction, and below a partition of the second level.
    await client.query(`BEGIN; CREATE TABLE p7 (LIKE p INCLUDING ALL); INSERT INTO p7 VALUES (7, 31);
      ALTER TABLE p3 ATTACH PARTITION p7 FOR VALUES FROM (30) TO (40); COMMIT`);
    await eventually(() => unhealed.tables.size === 1, { what: "the attached table noted" });
    expect(unhealed.tables.get("public.p")?.reasons).toEqual([
      expect.stringMatching(/^public\.p7 was attached with rows/),
    ]);
    await eventually(() => unhealed.tables.size === 0, { what: "the table read again" });
    expect(source.changes.map(parsed).find(({ after }) => after?.id === 7)).toMatchObject({ op: "r" });
    expect(backfills.of("public.p").run).toBe(2);
    // Made and filled first, and attached later, as most are.
    await client.query("CREATE TABLE p8 (LIKE p INCLUDING ALL); INSERT INTO p8 VALUES (8, 81)");
    await client.query("ALTER TABLE p ATTACH PARTITION p8 FOR VALUES FROM (80) TO (90)");
    await eventually(() => source.changes.some((change) => parsed(change).after?.id === 8), {
      what: "its row",
    });
    await source.close();
    await client.end();
  });

  test("rows of before are found in a partition, or taken for there where we may not read it", async () => {
    const { client } = await parts(server());
    await client.query("CREATE TABLE p5 (LIKE p INCLUDING ALL)");
    await client.query("ALTER TABLE p ATTACH PARTITION p5 FOR VALUES FROM (50) TO (60)");
    await client.query(`CREATE TABLE k (id int) PARTITION BY RANGE (id);
      CREATE TABLE k1 (id int); INSERT INTO k1 VALUES (1); ALTER TABLE k ATTACH PARTITION k1 FOR VALUES FROM (0) TO (10);
      CREATE TABLE k2 PARTITION OF k FOR VALUES FROM (10) TO (20); INSERT INTO k VALUES (11)`);
    const query = (sql: string) => client.query(sql);
    const { rows } = await client.query(
      "SELECT oid::int8::float8 AS oid FROM pg_class WHERE relname IN ('p', 'k')",
    );
    const found = await readLeaves(
      query,
      rows.map(({ oid }) => oid),
    );
    const filled = async () => {
      const tables: string[] = [];
      for (const leaf of found)
        if (await wasFilled(query, leaf, { schema: "public", table: leaf.table.slice(0, 1) }))
          tables.push(leaf.table);
      return tables.sort();
    };
    expect(await filled()).toEqual(["k1"]);
    const role = pg.escapeIdentifier(`reads ${client.database}`);
    await client.query(`CREATE ROLE ${role}; GRANT SELECT ON k TO ${role}; SET ROLE ${role}`);
    expect((await filled()).filter((table) => table.startsWith("k"))).toEqual(["k1"]);
    await client.query("RESET ROLE");
    await client.query(`REVOKE SELECT ON k FROM ${role}; SET ROLE ${role}`);
    expect((await filled()).filter((table) => table.startsWith("k"))).toEqual(["k1", "k2"]);
    await client.end();
  });

  test("a partition's other file is told when the log was read as far, unless the whole table's truncate came in it", async () => {
    const { client } = await parts(server());
    const query = (sql: string) => client.query(sql);
    const { rows } = await client.query("SELECT 'p'::regclass::oid::int8::float8 AS oid");
    const root = { oid: rows[0].oid as number, schema: "public", table: "p", kind: "p", generated: false };
    const log = new KeptLog();
    let received = 0n;
    let truncates: { readonly root: number; readonly xid: number }[] = [];
    let stored = 0;
    const watch = new PartitionWatch({
      ...{
        tables: [root],
        leaves: undefined,
        seen: undefined,
        removed: "keep",
        readsAttached: false,
        query,
        log,
      },
      received: () => received,
      truncates: () => truncates,
      note: async () => {},
      store: async () => void stored++,
    });
    const look = (lsn: bigint) => watch.look({ lsn, atMs: 0 });
    await look(10n);
    const { rows: cut } = await client
      .query("BEGIN; TRUNCATE p; SELECT pg_current_xact_id()::xid::text::int8::float8 AS xid; COMMIT")
      .then((all) => (all as unknown as pg.QueryResult[])[2] as pg.QueryResult);
    await look(20n);
    expect([log.lines, stored]).toEqual([[], 1]);
    truncates = [{ root: root.oid, xid: cut[0].xid }];
    received = 20n;
    await look(30n);
    expect([log.lines, stored]).toEqual([[], 2]);
    await client.query("TRUNCATE p1");
    await look(40n);
    expect(log.lines).toEqual([]);
    received = 40n;
    await look(50n);
    expect(log.lines).toEqual([expect.stringMatching(/^public\.p1, .* was truncated/)]);
    await client.end();
  });

  test("detached and attached again while nobody looked, where backfills wait to be asked for: noted, with the command", async () => {
    const found = await ranBefore(server(), { snapshot: "initial" });
    const { client, unhealed } = found;
    await client.query("ALTER TABLE p DETACH PARTITION p2; UPDATE p2 SET v = 'lost'");
    await client.query("ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)");
    const source = await found.open({ snapshot: "never" });
    await eventually(() => unhealed.tables.size === 1, { what: "the table noted" });
    expect(unhealed.tables.get("public.p")).toMatchObject({
      asks: false,
      reasons: [expect.stringMatching(/^public\.p2 was detached and attached again/)],
    });
    // Its rows alone, as the docs have it.
    const one = { where: "tableoid = 'public.p2'::regclass", sweep: false, requestedAt: 0 };
    await found.backfills.request("public.p", one);
    await eventually(() => found.backfills.of("public.p").status === "done", { what: "its rows" });
    expect(source.changes.map(parsed).flatMap(({ op, after }) => (op === "r" ? [after] : []))).toEqual([
      { id: 2, d: 11, v: "lost" },
    ]);
    expect(unhealed.tables.size).toBe(1);
    await source.close();
    await client.end();
  });

  test("a truncate of the whole table travels in the log, and is told of no partition", async () => {
    const found = await ranBefore(server());
    const { client, record } = found;
    const source = await found.open();
    await client.query("TRUNCATE p");
    await client.query("BEGIN; INSERT INTO p VALUES (8, 8); SAVEPOINT a; TRUNCATE p; COMMIT");
    await client.query("INSERT INTO p VALUES (9, 9)");
    await eventually(() => source.changes.some((change) => parsed(change).after?.id === 9), {
      what: "the last row",
    });
    await looked(found, source);
    expect(source.changes.map(parsed).filter(({ op }) => op === "t").length).toBeGreaterThan(1);
    expect(told(source)).toEqual([]);
    await source.close();
    // While nobody reads: the log tells it later than the catalog.
    await client.query("TRUNCATE p");
    const second = await found.open();
    await client.query("INSERT INTO p VALUES (10, 9)");
    await eventually(() => second.changes.some((change) => parsed(change).after?.id === 10), {
      what: "the row behind it",
    });
    await looked(found, second);
    expect(told(second)).toEqual([]);
    await second.close();
    expect(record.state?.truncates ?? []).toEqual([]);
    await client.end();
  });

  test("what changes nothing of the rows is told of nobody", async () => {
    const found = await ranBefore(server());
    const { client } = found;
    const source = await found.open();
    for (const sql of [
      "ANALYZE p",
      "VACUUM p1",
      "GRANT SELECT ON p1 TO PUBLIC",
      "CREATE INDEX ON p (v)",
      "REINDEX TABLE p1",
      "ALTER TABLE p ADD more int",
      "ALTER TABLE p1 RENAME TO p1_old",
    ])
      await client.query(sql);
    await looked(found, source);
    await client.query("VACUUM FULL p2");
    await eventually(() => told(source).length > 0, { what: "the rewritten partition" });
    expect(told(source)).toEqual([
      expect.stringMatching(
        /^public\.p2, a partition of public\.p, was truncated, or written anew as VACUUM FULL/,
      ),
    ]);
    await source.close();
    await client.end();
  });
});
