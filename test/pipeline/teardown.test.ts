import { afterEach, expect, test } from "vitest";
import { teardown } from "../../lib/admin/teardown.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { CaptureState } from "../../lib/state/capture-state.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { definition } from "../postgres/source.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  test("tributary teardown: refused while capture runs, shown first, done when confirmed", async () => {
    const b = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => b.end());
    const slots = async () => {
      const { rows } = await b.client.query("SELECT slot_name FROM pg_replication_slots");
      return rows.map((row) => row.slot_name);
    };
    const run = async (...args: string[]) => {
      const program = b.command("teardown", ...args);
      return { code: await program.ended, text: program.lines.join("\n") };
    };
    const capture = b.capture();
    await capture.printed("streaming from slot");
    const refused = await run("--confirm", "shop");
    expect([refused.code, refused.text]).toEqual([1, expect.stringMatching(/lease|in use/)]);
    expect(await slots()).toEqual([b.slot]);
    expect(capture.running).toBe(true);
    capture.signal("SIGTERM");
    expect(await capture.ended).toBe(0);

    const shown = await run();
    expect([shown.code, shown.text]).toEqual([2, expect.stringContaining("--confirm shop")]);
    const wrong = await run("--confirm", "another");
    expect([wrong.code, wrong.text]).toEqual([2, expect.stringContaining("--confirm")]);
    expect(await slots()).toEqual([b.slot]);

    const done = await run("--confirm", "shop");
    expect([done.code, done.text]).toEqual([0, expect.stringContaining(`slot "${b.slot}" was dropped`)]);
    for (const what of ["role and its grants", "state table", "epoch new"]) expect(done.text).toContain(what);
    expect(await slots()).toEqual([]);
    const nothing = await run();
    expect([nothing.code, nothing.text]).toEqual([
      0,
      expect.stringContaining("There is no replication slot"),
    ]);
  });

  test("a capture task that lives but has no connection now is seen by its lease", async () => {
    const url = await freshDatabase(server());
    const b = await CaptureBench.create(aws(), url);
    cleanups.push(() => b.end());
    await b.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [b.slot]);
    const { dynamodb } = aws();
    const lease = { dynamodb, stateTable: b.consumer.table, leaseMs: 6_000 };
    const signal = new AbortController().signal;
    const log = () => {};
    const task = { dynamodb, table: b.consumer.table, pipeline: "shop", leaseMs: 6_000, signal, log };
    const living = await CaptureState.take(task);
    cleanups.push(() => living.release().catch(() => {}));
    const options = { pipeline: definition(url), connection: connectionFromUrl(url), lease, signal, log };
    await expect(teardown(options)).rejects.toMatchObject({ code: "CAPTURE_LEASE_HELD" });
    const { rows } = await b.client.query("SELECT slot_name FROM pg_replication_slots");
    expect(rows).toEqual([{ slot_name: b.slot }]);
    await living.release();
    await teardown(options);
    expect((await b.client.query("SELECT slot_name FROM pg_replication_slots")).rows).toEqual([]);
  });
});
