import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { afterEach, expect, test, vi } from "vitest";
import type { EmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { StreamedTransactions } from "../../lib/source/postgres/backfill/visibility.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { ended, parsed, replay } from "./backfill-replay.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, MemoryRecord, OpenSource, superuser } from "./source.ts";

const gate = vi.hoisted(() => ({ open: false }));
vi.mock("../../lib/source/postgres/backfill/start-gate.ts", async (original) => {
  const module = await original<typeof import("../../lib/source/postgres/backfill/start-gate.ts")>();
  return {
    startGate: (options: Parameters<typeof module.startGate>[0]) =>
      gate.open ? Promise.resolve() : module.startGate(options),
  };
});

afterEach(() => {
  gate.open = false;
  vi.restoreAllMocks();
});

/** A commit that is in the log and not visible: it waits for a synchronous standby that does not exist. */
class HeldCommit {
  readonly #server: pg.Client;
  readonly #committer: pg.Client;
  #committed: Promise<unknown> = Promise.resolve();

  private constructor(server: pg.Client, committer: pg.Client) {
    this.#server = server;
    this.#committer = committer;
  }

  static async begin(server: EmbeddedPostgres, url: string, sql: string): Promise<HeldCommit> {
    const held = new HeldCommit(await superuser(server.url), await superuser(url));
    await held.#server.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    await held.#server.query("SELECT pg_reload_conf()");
    await held.#isOn(await superuser(url));
    held.#committed = held.#committer.query(sql);
    return held;
  }

  /** The setting counts when the checkpointer has seen it: from then on a commit waits, until it is cancelled. */
  async #isOn(probe: pg.Client): Promise<void> {
    await eventually(
      async () => {
        const commit = probe.query("SELECT pg_logical_emit_message(true, 'probe', '')");
        const waits = await Promise.race([commit.then(() => false), delay(200, true)]);
        await this.#server.query("SELECT pg_cancel_backend($1)", [
          (probe as pg.Client & { processID: number }).processID,
        ]);
        await commit.catch(() => {});
        return waits;
      },
      { what: "commits to wait" },
    );
    await probe.end();
  }

  async release(): Promise<void> {
    await this.#server.query("ALTER SYSTEM RESET synchronous_standby_names");
    await this.#server.query("SELECT pg_reload_conf()");
    await this.#committed;
    await this.#server.end();
    await this.#committer.end();
  }
}

const SETUP = `
  CREATE TABLE counted (id bigint PRIMARY KEY, version int);
  INSERT INTO counted SELECT i, 1 FROM generate_series(1, 10) i;
  CREATE TABLE other (id bigint PRIMARY KEY);
  INSERT INTO other SELECT generate_series(1, 100000)`;

const UPDATE = "UPDATE counted SET version = 2 WHERE id = 5";

function versions(source: OpenSource): unknown[] {
  return source.changes
    .filter(({ table }) => table === "public.counted")
    .map(parsed)
    .filter(({ after }) => after?.id === "5")
    .map(({ op, after }) => `${op}${after?.version}`);
}

/** A slow backfill of another table goes on while a commit is streamed and not visible; then this one is asked for. */
async function chunkInTheGap(server: EmbeddedPostgres, whileHeld: (source: OpenSource) => Promise<void>) {
  const url = await freshDatabase(server);
  const sql = await superuser(url);
  await sql.query(SETUP);
  const record = new MemoryBackfills();
  const source = await OpenSource.open(url, {
    pipeline: definition(url, { snapshot: "never", backfill: { rowsPerSecond: 500 } }),
    backfill: { record, pollMs: 20 },
  });
  await record.request("public.other", { sweep: false, requestedAt: 0 });
  await source.until(500);
  const held = await HeldCommit.begin(server, url, UPDATE);
  try {
    await eventually(() => versions(source).includes("u2"), { what: "the change in the stream" });
    await record.request("public.counted", { sweep: false, requestedAt: 0 });
    await whileHeld(source);
  } finally {
    await held.release();
  }
  await ended(record, "public.counted", source);
  record.want("public.other", "cancel");
  await source.close();
  await sql.end();
  return source;
}

/** The change was streamed and acknowledged, and the task starts anew before it is visible. */
async function restartInTheGap(server: EmbeddedPostgres, whileHeld: (source: OpenSource) => Promise<void>) {
  const url = await freshDatabase(server);
  const sql = await superuser(url);
  await sql.query(SETUP);
  const record = new MemoryRecord();
  const pipeline = definition(url, { tables: ["public.counted"] });
  const first = await OpenSource.open(url, { pipeline, record });
  const held = await HeldCommit.begin(server, url, UPDATE);
  const backfills = new MemoryBackfills();
  let second: OpenSource;
  try {
    await eventually(() => versions(first).includes("u2") && first.messages.at(-1)?.kind !== "change", {
      what: "the change in the stream",
    });
    await first.close();
    second = await OpenSource.open(url, { pipeline, record, backfill: { record: backfills, pollMs: 20 } });
    await whileHeld(second);
  } finally {
    await held.release();
  }
  await ended(backfills, "public.counted", second);
  await second.close();
  await sql.end();
  return second;
}

eachPostgres("backfill: a commit that is streamed and not visible", (server) => {
  test("a chunk read in the gap is read again: no older row over a newer change", async () => {
    const reads = vi.spyOn(StreamedTransactions.prototype, "hiddenBy");
    const source = await chunkInTheGap(server(), async () => {
      await eventually(() => reads.mock.results.some(({ value }) => value !== undefined), {
        what: "a chunk that does not see the change",
      });
    });
    expect(versions(source)).toEqual(["u2", "r2"]);
    expect(replay(source.changes, "public.counted").get('["5"]')).toEqual({ id: "5", version: 2 });
  });

  test("without the guard the older row would stand over the newer change", async () => {
    vi.spyOn(StreamedTransactions.prototype, "hiddenBy").mockReturnValue(undefined);
    const source = await chunkInTheGap(server(), async (open) => {
      await eventually(() => versions(open).includes("r1"), { what: "the older row" });
    });
    expect(versions(source)).toEqual(["u2", "r1"]);
  });

  test("after a restart no chunk counts until what was open then is visible", async () => {
    const source = await restartInTheGap(server(), async (open) => {
      await eventually(() => open.log.lines.some((line) => line.includes("were open when the task began")), {
        what: "the wait",
      });
      expect(versions(open)).toEqual([]);
    });
    expect(versions(source)).toEqual(["r2"]);
  });

  test("without that memory the older row would stand over the newer change", async () => {
    gate.open = true;
    // Where the server sends it once more it would be remembered after all.
    vi.spyOn(StreamedTransactions.prototype, "hiddenBy").mockReturnValue(undefined);
    const source = await restartInTheGap(server(), async (open) => {
      await eventually(() => versions(open).includes("r1"), { what: "the older row" });
    });
    expect(versions(source)).toEqual(["r1"]);
  });
});
