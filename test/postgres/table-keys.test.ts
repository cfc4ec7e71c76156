import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { EVERY_PARTITION } from "../../lib/change/topic.ts";
import { DirectoryClaimStore } from "../../lib/claim-check/directory-claim-store.ts";
import type { postgres } from "../../lib/definition/pipeline.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { MemoryHolds } from "./hold-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-keys-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const TOPIC = "shop.public.t";

/** A captured table `t`, whose existing rows are not read by themselves, and a pipeline that keeps what it knows. */
async function scene(server: Parameters<typeof freshDatabase>[0], columns: string, more = "") {
  const url = await freshDatabase(server);
  const client = await superuser(url);
  await client.query(`CREATE TABLE t (${columns}); ${more}`);
  const [record, holds, backfills] = [new MemoryRecord(), new MemoryHolds(), new MemoryBackfills()];
  const open = (options: Partial<Parameters<typeof OpenSource.open>[1]> = {}, source: Source = {}) =>
    OpenSource.open(url, {
      pipeline: definition(url, { tables: ["public.t"], snapshot: "never", ...source }),
      record,
      holds: { record: holds, store: new DirectoryClaimStore(directory), generation: 1 },
      backfill: { record: backfills, pollMs: 50 },
      walSenderTimeoutMs: 2_000,
      ...options,
    });
  return { url, client, record, holds, backfills, open };
}
type Source = Partial<Parameters<typeof postgres>[0]>;

const event = ({ json }: SourceChange) => JSON.parse(`${json}}}`);
const rows = (changes: readonly SourceChange[]) => changes.filter((change) => event(change).op !== "m");

/** `c 1 p17 [id]`: what came of the row with this id, where, and by which key. */
const told = (source: OpenSource, column = "id") =>
  rows(source.changes).map((change) => {
    const { op, before, after, source: from } = event(change);
    return `${op} ${(after ?? before)[column]} p${change.partition} [${from.key}]`;
  });

const held = (holds: MemoryHolds, changes = 0) =>
  eventually(
    () => {
      const hold = holds.holds.get(TOPIC);
      return hold && hold.changes >= changes ? hold : undefined;
    },
    { what: `a hold of ${changes} changes` },
  );

/** The partitions that a row's changes went to, by its id. */
function partitions(changes: readonly SourceChange[]): Map<number, Set<number>> {
  const found = new Map<number, Set<number>>();
  for (const change of rows(changes)) {
    const { before, after } = event(change);
    const { id } = after ?? before;
    found.set(id, (found.get(id) ?? new Set()).add(change.partition));
  }
  return found;
}

const release = async (source: OpenSource, holds: MemoryHolds) => {
  holds.wanted.add(TOPIC);
  await eventually(
    () => {
      if (source.error) throw source.error;
      return holds.holds.size === 0;
    },
    { what: "the release" },
  );
};

const swept = (source: OpenSource, backfills: MemoryBackfills) =>
  eventually(
    () => {
      if (source.error) throw source.error;
      return backfills.items.get("public.t")?.status === "done";
    },
    { what: "the backfill" },
  );

eachPostgres("the key of a table", (server) => {
  test("with identity full is the stored one for what comes again, whatever the catalog says by then", async () => {
    const { client, holds, open } = await scene(
      server(),
      "tenant int NOT NULL, id int PRIMARY KEY, v text",
      "ALTER TABLE t REPLICA IDENTITY FULL",
    );
    const first = await open({ acknowledging: false });
    await client.query("INSERT INTO t SELECT 1, i, 'x' FROM generate_series(1, 5) i");
    await first.until(5);
    await first.close();
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (tenant, id)");
    const second = await open();
    await second.until(5);
    expect(told(second).slice(0, 5)).toEqual(told(first));
    const { reason } = await held(holds);
    expect(reason).toMatchObject({ code: "KEY_CHANGED", table: "public.t" });
    expect(reason.message).toContain("was (id) and is (tenant, id) now");
    await second.close();
    await client.end();
  });

  test("that is replaced is told with both keys; changes behind it wait, and are given by the new one", async () => {
    const { client, holds, backfills, open } = await scene(
      server(),
      "tenant int NOT NULL, id int PRIMARY KEY, v text",
    );
    const source = await open();
    await client.query("INSERT INTO t VALUES (1, 17, 'a')");
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey");
    await client.query("INSERT INTO t VALUES (1, 18, 'b')");
    await client.query("ALTER TABLE t ADD PRIMARY KEY (tenant, id)");
    await client.query("UPDATE t SET v = 'c'");
    await held(holds);
    await client.query("UPDATE t SET v = 'd' WHERE id = 17; DELETE FROM t WHERE id = 18");
    await held(holds, 2);
    for (const [, where] of partitions(source.changes)) expect(where.size).toBe(1);
    expect(rows(source.changes).every((change) => `${event(change).source.key}` === "id")).toBe(true);
    const before = source.changes.length;
    expect(source.log.lines.some((line) => line.includes("was (id) and is (tenant, id) now"))).toBe(true);
    await release(source, holds);
    await swept(source, backfills);
    await client.query("UPDATE t SET v = 'e' WHERE id = 17");
    await eventually(() => told(source).at(-1)?.startsWith("u 17"), { what: "the last change" });
    const behind = source.changes.slice(before);
    expect(rows(behind).every((change) => `${event(change).source.key}` === "tenant,id")).toBe(true);
    for (const [, where] of partitions(behind)) expect(where.size).toBe(1);
    expect(backfills.of("public.t").request.sweep).toBe(true);
    await source.close();
    await client.end();
  });

  test("that is replaced leaves a mark in every partition, behind the old key's changes and before the new one's", async () => {
    const { client, holds, open } = await scene(server(), "tenant int NOT NULL, id int PRIMARY KEY, v text");
    const source = await open();
    await client.query("INSERT INTO t SELECT 1, i, 'x' FROM generate_series(1, 50) i");
    await source.until(50);
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (tenant, id)");
    await held(holds);
    await client.query("INSERT INTO t SELECT 2, i, 'y' FROM generate_series(51, 100) i");
    await held(holds, 50);
    const barrier = await eventually(
      () => source.changes.find(({ partition }) => partition === EVERY_PARTITION),
      { what: "the barrier" },
    );
    const last = source.changes.indexOf(barrier);
    expect(event(barrier).message.prefix).toBe("tributary.probe");
    expect(source.changes.slice(0, last).every(({ position }) => position < barrier.position)).toBe(true);
    await release(source, holds);
    expect(told(source).filter((line) => line.endsWith("[tenant,id]")).length).toBeGreaterThan(0);
    expect(source.changes.slice(last + 1).every(({ position }) => position > barrier.position)).toBe(true);
    await source.close();
    await client.end();
  });

  test.each([
    ["default", "DEFAULT"],
    ["full", "FULL"],
  ])(
    "whose column is renamed before its changes are read goes on where it went (identity %s)",
    async (_, identity) => {
      const { client, holds, open } = await scene(
        server(),
        "id int PRIMARY KEY, v text",
        `ALTER TABLE t REPLICA IDENTITY ${identity}`,
      );
      const first = await open();
      await client.query("INSERT INTO t VALUES (1, 'a')");
      await first.until(1);
      await first.close();
      await client.query("UPDATE t SET v = 'b'");
      await client.query("ALTER TABLE t RENAME COLUMN id TO t_id");
      await client.query("UPDATE t SET v = 'c'");
      await client.query("ALTER TABLE t RENAME COLUMN t_id TO key");
      const second = await open();
      await client.query("UPDATE t SET v = 'd'");
      await second.until(3);
      await client.query("ALTER TABLE t RENAME COLUMN key TO id");
      await client.query("DELETE FROM t");
      await second.until(4);
      const where = new Set([...first.changes, ...second.changes].map(({ partition }) => partition));
      expect(where.size).toBe(1);
      expect(second.changes.map((change) => `${event(change).op} ${event(change).source.key}`)).toEqual([
        "u id",
        "u t_id",
        "u key",
        "d id",
      ]);
      expect(holds.holds.size).toBe(0);
      await second.close();
      await client.end();
    },
  );

  test.each([
    ["default", "DEFAULT"],
    ["full", "FULL"],
  ])(
    "whose column takes a name that another one had is read where it stood in the log (identity %s)",
    async (_, identity) => {
      const { client, holds, open } = await scene(
        server(),
        "id int PRIMARY KEY, code int, v text",
        `ALTER TABLE t REPLICA IDENTITY ${identity}`,
      );
      const first = await open();
      await client.query("INSERT INTO t SELECT i, 500, 'a' FROM generate_series(1, 20) i");
      await first.until(20);
      await first.close();
      await client.query("UPDATE t SET v = 'b'");
      await client.query(
        "ALTER TABLE t RENAME id TO x; ALTER TABLE t RENAME code TO id; ALTER TABLE t RENAME x TO code",
      );
      const second = await open();
      await client.query("UPDATE t SET v = 'c'");
      await second.until(40);
      const where = [first.changes, second.changes.slice(0, 20), second.changes.slice(20)].map((changes) =>
        changes.map(({ partition }) => partition),
      );
      expect(where[1]).toEqual(where[0]);
      expect(where[2]).toEqual(where[0]);
      expect(holds.holds.size).toBe(0);
      await second.close();
      await client.end();
    },
  );

  test("that another column takes over holds at the first change which lacks the old one, or has the new one", async () => {
    const { client, holds, backfills, open } = await scene(
      server(),
      "id int PRIMARY KEY, u int NOT NULL, v text",
    );
    const first = await open();
    await client.query("INSERT INTO t SELECT i, i * 10, 'x' FROM generate_series(1, 3) i");
    await first.until(3);
    await first.close();
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (u)");
    // Its old key alone is in the log: the row could not be found by the one before.
    await client.query("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (4, 40, 'y')");
    const second = await open();
    const hold = await held(holds, 2);
    expect(hold.reason).toMatchObject({ code: "KEY_CHANGED" });
    expect(told(second)).toEqual([]);
    await second.close();
    const third = await open();
    await client.query("UPDATE t SET v = 'z' WHERE u = 40");
    await held(holds, 3);
    await release(third, holds);
    await swept(third, backfills);
    expect(
      told(third, "u")
        .slice(0, 3)
        .map((line) => line.replace(/p\d+ /, "")),
    ).toEqual(["d 20 [u]", "c 40 [u]", "u 40 [u]"]);
    const of40 = told(third, "u").filter((line) => /^\w 40 /.test(line));
    expect(new Set(of40.map((line) => line.split(" ")[2])).size).toBe(1);
    await third.close();
    await client.end();
  });

  test("of another type is another key; of another replica identity over the same columns is the same one", async () => {
    const { client, holds, open } = await scene(server(), "id int PRIMARY KEY, v text");
    const source = await open();
    await client.query("INSERT INTO t VALUES (1, 'a'); ALTER TABLE t REPLICA IDENTITY FULL");
    await client.query("UPDATE t SET v = 'b'");
    await eventually(
      () => source.log.lines.some((line) => /identity of public\.t was DEFAULT and is FULL/.test(line)),
      {
        what: "the log",
      },
    );
    await source.until(2);
    expect(holds.holds.size).toBe(0);
    await client.query("ALTER TABLE t ALTER COLUMN id TYPE text USING lpad(id::text, 5, '0')");
    await client.query("UPDATE t SET v = 'c'");
    expect((await held(holds)).reason.code).toBe("KEY_CHANGED");
    await source.close();
    await client.end();
  });

  test("that is dropped and made again the same holds nothing back for good", async () => {
    const { client, holds, open } = await scene(server(), "id int PRIMARY KEY, v text");
    const source = await open();
    await client.query("INSERT INTO t VALUES (1, 'a')");
    await source.until(1);
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey");
    await client.query("INSERT INTO t VALUES (2, 'no key')");
    await held(holds);
    await client.query("ALTER TABLE t ADD PRIMARY KEY (id)");
    await client.query("UPDATE t SET v = 'with key' WHERE id = 2");
    await release(source, holds);
    await eventually(() => told(source).filter((line) => /^[cu] 2 /.test(line)).length === 2, {
      what: "row 2",
    });
    expect(partitions(source.changes).get(2)?.size).toBe(1);
    expect(new Set(rows(source.changes).map((change) => `${event(change).source.key}`))).toEqual(
      new Set(["id"]),
    );
    await source.close();
    await client.end();
  });

  test("without a claim store ends the stream where it changes, and gives nothing by the new key", async () => {
    const { client, open } = await scene(server(), "tenant int NOT NULL, id int PRIMARY KEY, v text");
    const source = await open({ holds: undefined });
    await client.query("INSERT INTO t VALUES (1, 17, 'a')");
    await client.query("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (tenant, id)");
    const writing = (async () => {
      for (let id = 18; source.error === undefined && id < 2_000; id++)
        await client.query("INSERT INTO t VALUES (1, $1, 'b')", [id]);
    })();
    expect(await source.failure()).toMatchObject({ code: "KEY_CHANGED", retry: "stop" });
    await writing;
    expect(told(source).every((line) => line.endsWith("[id]"))).toBe(true);
    await source.close();
    await client.end();
  });

  test.each([
    ["lasts", ""],
    [
      "is taken back before anybody looks",
      "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (tenant, id)",
    ],
  ])(
    "that leaves a column out for the changes of its own transaction gives none of them as if it stood, and %s",
    async (_, back) => {
      const { client, holds, backfills, open } = await scene(
        server(),
        "tenant int NOT NULL, id int NOT NULL, v text, PRIMARY KEY (tenant, id)",
      );
      const first = await open();
      await client.query("INSERT INTO t VALUES (1, 17, 'a')");
      await first.until(1);
      await first.close();
      await client.query(
        `BEGIN; ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id);
         UPDATE t SET tenant = 2 WHERE id = 17; COMMIT; ${back}`,
      );
      const second = await open();
      // Nothing says that the row was of tenant 1: as an update of (2, 17), it would be there twice for ever.
      const { reason } = await held(holds, 1);
      expect(reason).toMatchObject({ code: "KEY_CHANGED", table: "public.t" });
      expect(reason.message).toContain("was (tenant, id) and is (id)");
      expect(told(second)).toEqual([]);
      await release(second, holds);
      await swept(second, backfills);
      expect(backfills.of("public.t").request.sweep).toBe(true);
      await client.query("UPDATE t SET v = 'b'");
      await eventually(() => event(rows(second.changes).at(-1) as SourceChange).after.v === "b", {
        what: "the last change",
      });
      await second.close();
      await client.end();
    },
  );
});
