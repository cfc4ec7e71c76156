import { afterEach, expect, test, vi } from "vitest";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { backfillCommand } from "../../lib/cli/backfill.ts";
import { readBackfill, writeBackfill } from "../../lib/state/backfills.ts";
import type { StatePlace } from "../../lib/state/persistent-table.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { at } from "../unit/consume/records.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  async function bench() {
    const made = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => made.end());
    const { signal } = new AbortController();
    const store: StatePlace = {
      ...{ dynamodb: aws().dynamodb, table: made.consumer.table, pipeline: "shop", signal },
    };
    const run = async (...args: string[]) => {
      const command = made.command("backfill", ...args);
      const code = await command.ended;
      return { code, text: command.lines.join("\n") };
    };
    return { made, store, run, latest: () => readBackfill(store, "public.orders") };
  }

  test("a backfill is asked for, steered and shown, also while no capture task is there", async () => {
    const { made, store, run, latest } = await bench();
    expect(await run("status")).toEqual({ code: 0, text: "No backfill was ever asked for." });
    const started = await run("start", "--table", "public.orders");
    expect(started).toMatchObject({ code: 0 });
    expect(started.text).toMatch(/Backfill 1 of public.orders .* every consumer, with a sweep/);
    expect(started.text).toContain("No capture task is alive");
    expect(await latest()).toMatchObject({
      run: 1,
      status: "requested",
      wanted: "run",
      request: { sweep: true },
    });

    const again = await run("start", "--table", "public.orders");
    expect(again).toMatchObject({ code: 1 });
    expect(again.text).toContain("BACKFILL_ACTIVE");

    for (const [verb, wanted] of [
      ["pause", "pause"],
      ["resume", "run"],
      ["cancel", "cancel"],
    ] as const) {
      expect(await run(verb, "--table", "public.orders")).toMatchObject({ code: 0 });
      expect(await latest()).toMatchObject({ wanted, status: "requested" });
    }

    const progress = {
      ...{
        startPosition: at(1),
        startedAt: 1_000_000,
        updatedAt: 1_010_000,
        lastKey: ["500"],
        keyColumns: ["id"],
      },
      ...{ chunk: 1, rows: 500, bytes: 9_000, estimatedRows: 2_000, reason: "it was enough" },
    };
    await writeBackfill(
      store,
      { table: "public.orders", run: 1, request: { sweep: false, requestedAt: 1 } },
      1,
      {
        status: "cancelled",
        epoch: 1,
        progress,
      },
    );
    expect((await run("status")).text).toMatch(
      /public\.orders +1 +cancelled +500 +25% +50 +– +it was enough$/,
    );
    for (const verb of ["pause", "resume", "cancel"]) {
      const refused = await run(verb, "--table", "public.orders");
      expect(refused).toMatchObject({ code: 1 });
      expect(refused.text).toContain("BACKFILL_NOT_ACTIVE");
    }

    const some = await run(
      ...["start", "--table", 'public."orders"', "--where", "id > 5 -- and a comment"],
      ...["--consumer", made.consumer.name],
    );
    expect(some).toMatchObject({ code: 0 });
    expect(some.text).toMatch(/Backfill 2 of public.orders .* without a sweep/);
    const status = await run("status", "--json", "--table", "public.orders");
    expect(JSON.parse(status.text)).toMatchObject([
      {
        ...{ table: "public.orders", run: 2, status: "requested", rows: 0, sweep: false },
        ...{ where: "id > 5 -- and a comment", consumer: made.consumer.name },
      },
    ]);
  });

  test("what cannot be is refused before anything is touched, each field with its remedy", async () => {
    const { made, run, latest } = await bench();
    await made.client.query("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)");
    await made.client.query("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9)");
    await made.client.query(
      `CREATE PUBLICATION tributary_shop FOR TABLE orders, parts WITH (publish_via_partition_root)`,
    );
    // In this process: a process each would take its time.
    for (const [name, value] of Object.entries(made.environment)) vi.stubEnv(name, value);
    const wrong: [string[], RegExp][] = [
      [["--table", "orders"], /--table: write one table: public.orders/],
      [["--table", "sales.orders"], /does not capture it/],
      [["--table", "public.order"], /--table: no such table/],
      [["--table", "public.Orders"], /--table: no such table/],
      [["--table", "public.parts_1"], /a partition is backfilled with its root/],
      [["--table", "public.orders", "--where", "nothing > 1"], /--where: .*column "nothing" does not exist/],
      [["--table", "public.orders", "--where", "true); DROP TABLE orders; --"], /--where: .*the server says/],
      [["--table", "public.orders", "--where", " "], /--where: write an SQL expression/],
      [["--table", "public.orders", "--consumer", "nobody"], /--consumer: name one of the definition's/],
    ];
    for (const [args, told] of wrong) {
      const refusal = await backfillCommand()
        .parseAsync(["start", ...args], { from: "user" })
        .catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(ConfigurationError);
      expect((refusal as Error).message).toMatch(told);
    }
    expect(await run("start", "--table", "public.order")).toMatchObject({ code: 2 });
    await made.client.query(
      "ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE orders DROP CONSTRAINT orders_pkey",
    );
    const keyless = backfillCommand().parseAsync(["start", "--table", "public.orders"], { from: "user" });
    await expect(keyless).rejects.toMatchObject({ code: "BACKFILL_REFUSED" });
    expect(await latest()).toBeUndefined();
    expect((await made.client.query("SELECT count(*) FROM orders")).rows).toEqual([{ count: "0" }]);
  });
});
