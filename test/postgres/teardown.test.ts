import { afterEach, expect, test } from "vitest";
import { planTeardown, type TeardownOptions, teardown } from "../../lib/admin/teardown.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import type { LogTeardownPlan } from "../../lib/source/postgres/teardown.ts";
import { eventually } from "../eventually.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

eachPostgres("teardown", (server) => {
  async function shop() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    cleanups.push(() => client.end().catch(() => {}));
    await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
    const pipeline = definition(url);
    const options: TeardownOptions = {
      pipeline,
      connection: connectionFromUrl(url),
      lease: undefined,
      signal: new AbortController().signal,
      log: () => {},
    };
    const left = async () => {
      const { rows } = await client.query<{ name: string }>(`
        SELECT pubname AS name FROM pg_publication
        UNION SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1`);
      return rows.map(({ name }) => name);
    };
    const { slot, publication } = pipeline.source;
    return { url, client, options, left, slot, publication };
  }

  async function runOnce(url: string): Promise<void> {
    const source = await OpenSource.open(url);
    await source.close();
  }

  const idle = (client: Awaited<ReturnType<typeof shop>>["client"], slot: string) =>
    eventually(
      async () => {
        const { rows } = await client.query(
          "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND NOT active",
          [slot],
        );
        return rows.length === 1;
      },
      { what: "the slot to be given up" },
    );

  test("drops the slot and the publication that we made, and nothing before it is asked to", async () => {
    const { url, client, options, left, slot, publication } = await shop();
    await runOnce(url);
    await idle(client, slot);
    const plan = await planTeardown(options);
    expect(plan).toMatchObject({ slot: { name: slot }, publication: "drop", idleSlots: [] });
    expect(await left()).toEqual([publication, slot].sort());
    await teardown(options);
    expect(await left()).toEqual([]);
    expect(await teardown(options)).toMatchObject({ slot: undefined, publication: "none" });
    const { rows } = await client.query(
      "SELECT count(*)::int AS tables FROM pg_tables WHERE tablename = 'orders'",
    );
    expect(rows).toEqual([{ tables: 1 }]);
  });

  test("refuses while somebody reads from the slot, and drops nothing then", async () => {
    const { url, options, left } = await shop();
    const source = await OpenSource.open(url);
    cleanups.push(() => source.close());
    const before = await left();
    expect(before).toHaveLength(2);
    await expect(teardown(options)).rejects.toMatchObject({ code: "SLOT_IN_USE" });
    expect(await left()).toEqual(before);
  });

  test("keeps a publication that others made", async () => {
    const { url, client, options, left, slot, publication } = await shop();
    await client.query(
      `CREATE PUBLICATION "${publication}" FOR ALL TABLES WITH (publish_via_partition_root = true)`,
    );
    await runOnce(url);
    await idle(client, slot);
    expect(await teardown(options)).toMatchObject({ publication: "keep" });
    expect(await left()).toEqual([publication]);
  });

  test("tells of other slots that nobody reads from, and what they hold back; leaves them alone", async () => {
    const { client, options, left, slot } = await shop();
    const other = `${slot}_other`;
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [other]);
    cleanups.push(() => client.query("SELECT pg_drop_replication_slot($1)", [other]));
    await client.query("INSERT INTO orders SELECT generate_series(1, 1000)");
    const { idleSlots } = (await teardown(options)) as LogTeardownPlan;
    expect(idleSlots).toEqual([{ name: other, heldBytes: expect.any(Number) }]);
    expect(idleSlots[0]?.heldBytes).toBeGreaterThan(10_000);
    expect(await left()).toEqual([other]);
  });

  test.for([
    ["of another plugin", "SELECT pg_create_logical_replication_slot($1, 'test_decoding')"],
    ["that is physical", "SELECT pg_create_physical_replication_slot($1)"],
  ])("refuses a slot of that name %s", async ([, sql], { skip }) => {
    const { client, options, slot } = await shop();
    const made = await client.query(sql as string, [slot]).catch((error: Error) => error);
    if (made instanceof Error) skip(`SKIPPED: ${made.message} (the embedded server comes without contrib)`);
    cleanups.push(() => client.query("SELECT pg_drop_replication_slot($1)", [slot]));
    await expect(teardown(options)).rejects.toMatchObject({ code: "SLOT_FOREIGN" });
    const { rows } = await client.query("SELECT FROM pg_replication_slots WHERE slot_name = $1", [slot]);
    expect(rows).toHaveLength(1);
  });

  test("refuses a slot of that name in another database", async () => {
    const { url, client, slot } = await shop();
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    cleanups.push(() => client.query("SELECT pg_drop_replication_slot($1)", [slot]));
    const elsewhere = connectionFromUrl(await freshDatabase(server()));
    const pipeline = definition(url);
    const signal = new AbortController().signal;
    await expect(planTeardown({ pipeline, connection: elsewhere, signal })).rejects.toMatchObject({
      code: "SLOT_FOREIGN",
    });
  });
});
