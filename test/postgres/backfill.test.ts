import { expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import { readBackfillEnd } from "../../lib/change/control-event.ts";
import { EVERY_PARTITION } from "../../lib/change/topic.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, inOrder, MemoryRecord, OpenSource, superuser } from "./source.ts";

const ROWS = 1000;
const SMALL = { ms: 1_000, bytes: 300, firstRows: 20 };

async function filled(server: Parameters<typeof freshDatabase>[0]) {
  const url = await freshDatabase(server);
  const sql = await superuser(url);
  await sql.query(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, ${ROWS})`);
  return { url, sql };
}

/** Ids of the rows that were read, in their order. */
function idsOf(source: OpenSource): number[] {
  return source.changes
    .map(parsed)
    .filter(({ op }) => op === "r")
    .map(({ after }) => after?.id as number);
}

eachPostgres("backfill", (server) => {
  test("rows that are there come as r events, once, with the control event of their end", async () => {
    const url = await freshDatabase(server());
    const sql = await superuser(url);
    await sql.query(
      "CREATE TABLE orders (id bigint PRIMARY KEY, note text); INSERT INTO orders SELECT i, 'n\t' || i FROM generate_series(1, 5000) i",
    );
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url),
      record: new MemoryRecord(),
      backfill: { record, pollMs: 50 },
    });
    await ended(record, "public.orders", source);
    const events = source.changes.map(parsed);
    inOrder(source.changes);
    expect(events.filter(({ op }) => op === "r").map(({ after }) => after)).toEqual(
      Array.from({ length: 5000 }, (_, i) => ({ id: String(i + 1), note: `n\t${i + 1}` })),
    );
    expect(events.at(-1)).toMatchObject({ op: "m", message: { prefix: "tributary.backfill-end" } });
    // Each partition of a sink is swept when its own events have come as far.
    expect(source.changes.at(-1)?.partition).toBe(EVERY_PARTITION);
    expect(record.of("public.orders").progress).toMatchObject({ rows: 5000, lastKey: ["5000"] });
    await source.close();
    await sql.end();
  });

  test("a task that starts anew goes on behind the last chunk that was acknowledged", async () => {
    const { url, sql } = await filled(server());
    const slot = new MemoryRecord();
    const record = new MemoryBackfills();
    const options = {
      pipeline: definition(url, { backfill: { rowsPerSecond: 300 } }),
      record: slot,
      backfill: { record, pollMs: 20, goal: SMALL },
    };
    const first = await OpenSource.open(url, options);
    await eventually(() => (record.of("public.t").progress?.chunk ?? 0) >= 3, { what: "some chunks" });
    // What comes from now on is never acknowledged.
    first.acknowledging = false;
    await first.close();
    const before = record.of("public.t").progress;
    expect(before?.rows).toBeLessThan(idsOf(first).length + 1);
    const second = await OpenSource.open(url, options);
    await ended(record, "public.t", second);
    const read = idsOf(second);
    const from = Number(before?.lastKey?.[0]);
    expect(read[0]).toBe(from + 1);
    expect(read).toEqual(Array.from({ length: ROWS - from }, (_, i) => from + 1 + i));
    expect(record.of("public.t")).toMatchObject({ run: 1, progress: { rows: ROWS } });
    await second.close();
    await sql.end();
  });

  test("nothing is written before it is acknowledged", async () => {
    const { url, sql } = await filled(server());
    const record = new MemoryBackfills();
    const source = await OpenSource.open(url, {
      pipeline: definition(url),
      acknowledging: false,
      backfill: { record, pollMs: 20, goal: SMALL },
    });
    await source.until(ROWS + 1);
    expect(record.of("public.t")).toMatchObject({ status: "running", progress: { rows: 0, lastKey: null } });
    const commits = source.messages.flatMap((message) => (message.kind === "commit" ? message.endPlace : []));
    source.source.acknowledge(commits[0] as bigint);
    await eventually(() => (record.of("public.t").progress?.chunk ?? 0) === 1, { what: "the first chunk" });
    source.source.acknowledge(commits.at(-1) as bigint);
    await ended(record, "public.t", source);
    await source.close();
    await sql.end();
  });

  test("in a later epoch progress is worth nothing: all anew, with a sweep", async () => {
    const { url, sql } = await filled(server());
    const record = new MemoryBackfills();
    await record.request("public.t", { sweep: false, requestedAt: 1 });
    const progress = {
      startPosition: "0".repeat(34),
      startedAt: 1,
      lastKey: ["900"],
      keyColumns: ["id"],
      chunk: 9,
      rows: 900,
      bytes: 9,
      updatedAt: 1,
    };
    await record.write(record.of("public.t"), { status: "running", epoch: 1, progress });
    const slot = new MemoryRecord();
    slot.epoch = { epoch: 2 };
    const source = await OpenSource.open(url, {
      pipeline: definition(url),
      record: slot,
      backfill: { record, pollMs: 20 },
    });
    await ended(record, "public.t", source);
    expect(idsOf(source)).toHaveLength(ROWS);
    expect(record.of("public.t")).toMatchObject({ run: 2, epoch: 2, request: { sweep: true } });
    const end = readBackfillEnd(parsed(source.changes.at(-1) as SourceChange));
    expect(end).toMatchObject({ table: "public.t", run: 2, sweep: true });
    expect(end?.startPosition.startsWith("00000002")).toBe(true);
    expect((end?.startPosition ?? "") < (source.changes[0]?.position ?? "")).toBe(true);
    await source.close();
    await sql.end();
  });

  test("paused, resumed, cancelled, asked for again; probes become control events", async () => {
    const { url, sql } = await filled(server());
    const record = new MemoryBackfills();
    const pipeline = definition(url, { snapshot: "never", backfill: { rowsPerSecond: 400 } });
    const source = await OpenSource.open(url, { pipeline, backfill: { record, pollMs: 20, goal: SMALL } });
    await record.request("public.t", { sweep: false, requestedAt: 1 });
    await source.until(100);
    record.want("public.t", "pause");
    await ended(record, "public.t", source, "paused");
    const { chunk } = record.of("public.t").progress ?? {};
    record.want("public.t", "run");
    await eventually(() => (record.of("public.t").progress?.chunk ?? 0) > (chunk ?? 0), {
      what: "it to go on",
    });
    record.want("public.t", "cancel");
    await ended(record, "public.t", source, "cancelled");
    await sql.query("SELECT pg_logical_emit_message(false, 'tributary.probe', $1)", [
      JSON.stringify({ slot: pipeline.source.slot, table: "public.t", id: "p1" }),
    ]);
    await sql.query("INSERT INTO t VALUES (5000)");
    await eventually(() => source.changes.some(({ json }) => json.includes("tributary.probe")), {
      what: "the probe",
    });
    expect(idsOf(source).length).toBeLessThan(ROWS);
    await record.request("public.t", { sweep: false, requestedAt: 2 });
    const given = idsOf(source).length;
    await ended(record, "public.t", source);
    expect(idsOf(source).length - given).toBe(ROWS + 1);
    inOrder(source.changes);
    await source.close();
    await sql.end();
  });

  test("a link that breaks in the middle: every row comes, and a state table that fails stops nothing", async () => {
    const { url, sql } = await filled(server());
    const record = new MemoryBackfills();
    const pipeline = definition(url, { backfill: { rowsPerSecond: 1500 } });
    const source = await OpenSource.open(url, { pipeline, backfill: { record, pollMs: 20, goal: SMALL } });
    for (let i = 0; i < 3; i++) {
      await source.until(100 * (i + 1));
      record.failure = i === 1 ? new Error("down") : undefined;
      await sql.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tributary' AND datname = current_database()",
      );
      await eventually(() => (source.status?.reconnects ?? 0) > i, { what: "a new link" });
    }
    record.failure = undefined;
    await ended(record, "public.t", source);
    expect(new Set(idsOf(source)).size).toBe(ROWS);
    inOrder(source.changes);
    await source.close();
    await sql.end();
  });
});
