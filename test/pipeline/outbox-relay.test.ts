import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { runCapture } from "../../lib/capture/capture.ts";
import type { CaptureMetrics } from "../../lib/capture/capture-options.ts";
import { parsePosition } from "../../lib/change/position.ts";
import { consumer } from "../../lib/consume/api/consumer.ts";
import { ConsumerTable } from "../../lib/consume/fence/consumer-table.ts";
import { StartPositions } from "../../lib/consume/fence/start-position.ts";
import { definePipeline, outbox, type PipelineInput } from "../../lib/definition/pipeline.ts";
import { type OutboxClient, outboxTable } from "../../lib/publish/publish.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { CaptureState } from "../../lib/state/capture-state.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import { consumerBench, DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { readStream } from "../aws/stream-records.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { KeptLog, superuser } from "../postgres/source.ts";
import { kinesisRecord } from "../unit/consume/records.ts";
import { Program } from "./capture-bench.ts";

const CLI = fileURLToPath(new URL("../../lib/cli/main.ts", import.meta.url));
const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  /** A database whose outbox the CLI has installed, with a role for the application and one for relays. */
  async function start() {
    const url = await freshDatabase(server());
    const client = await superuser(url);
    cleanups.push(() => client.end());
    const directory = await mkdtemp(join(tmpdir(), "tributary-outbox-"));
    cleanups.push(() => rm(directory, { recursive: true }));
    const file = join(directory, "pipeline.mjs");
    const definition: PipelineInput = { name: "shop", source: { kind: "outbox" }, topics: { partitions: 8 } };
    await writeFile(file, `export default ${JSON.stringify(definition)};`);
    const tributary = async (...args: string[]) => {
      const program = new Program(CLI, ["outbox", ...args, "--pipeline", file], {
        PATH: process.env.PATH ?? "",
        NODE_NO_WARNINGS: "1",
        DATABASE_URL: url,
      });
      return { code: await program.ended, text: program.lines.join("\n") };
    };
    return { url, client, tributary };
  }

  test("plan, install twice, the roles' grants, a relay without replication rights, uninstall", async () => {
    const { url, client, tributary } = await start();
    const plan = await tributary("plan");
    expect(plan.code).toBe(0);
    expect(plan.text).toContain('CREATE TABLE IF NOT EXISTS "public"."outbox"');
    for (let i = 0; i < 2; i++) {
      expect(await tributary("install")).toMatchObject({
        code: 0,
        text: expect.stringContaining("GRANT INSERT"),
      });
    }
    const suffix = new URL(url).pathname.slice(1);
    for (const role of ["application", "tributary"]) {
      await client.query(`CREATE ROLE ${role}_${suffix} LOGIN PASSWORD 'secret'`);
    }
    const grants = plan.text.split("\n").filter((line) => line.startsWith("GRANT "));
    expect(grants).toHaveLength(4);
    for (const grant of grants) await client.query(grant.replace(/ TO (\w+);/, ` TO $1_${suffix};`));
    const as = (role: string) => {
      const own = new URL(url);
      own.username = `${role}_${suffix}`;
      own.password = "secret";
      return own.toString();
    };
    const application = await superuser(as("application"));
    cleanups.push(() => application.end());
    await publish(application, "1", "Placed");
    await expect(application.query("DELETE FROM outbox")).rejects.toThrow(/permission denied/);
    // A row that is marked as published would never be told.
    await expect(
      application.query(
        "INSERT INTO outbox (aggregate_type, aggregate_id, type, payload, published_at) VALUES ('order', '1', 'Paid', '{}', now())",
      ),
    ).rejects.toThrow(/permission denied/);

    const shown = await tributary("uninstall");
    expect(shown).toMatchObject({
      code: 2,
      text: expect.stringMatching(/1 rows .* not published[\s\S]*--confirm shop/),
    });

    const bench = await consumerBench(aws(), { startPosition: null });
    const relay = await open(as("tributary"), bench.table, await aws().freshStream(), []);
    await eventually(async () => (await client.query("SELECT FROM outbox")).rowCount === 0, {
      what: "an empty outbox",
    });
    // At least once: a lane that was lost meanwhile tells it again, and each copy counts.
    const stored = () => relay.metrics.at(-1)?.stream.changes ?? 0;
    await eventually(() => stored() >= 1, { what: () => `metrics; ${JSON.stringify(relay.metrics.at(-1))}` });
    await relay.stop();
    expect([...(relay.metrics.at(-1)?.stream.tables ?? [])]).toMatchObject([
      ["outbox.order", { changes: stored() }],
    ]);

    expect(await tributary("uninstall", "--confirm", "shop")).toMatchObject({ code: 0 });
    expect((await tributary("uninstall")).text).toContain('There is no "public"."outbox"');
    await client.query(`DROP OWNED BY application_${suffix}, tributary_${suffix}`);
    await client.query(`DROP ROLE application_${suffix}, tributary_${suffix}`);
  });

  test("a consumer added later begins where it was added, and hears everything from then on", async () => {
    const { url, client, tributary } = await start();
    await tributary("install");
    const bench = await consumerBench(aws(), { startPosition: null });
    const stream = await aws().freshStream();
    const added = "added";
    const first = await open(url, bench.table, stream, [bench.name]);
    // This one is not restarted: it must change hands all the same.
    const old = await open(url, bench.table, stream, [bench.name]);
    for (let i = 0; i < 8; i++) await publish(client, String(i), "Before");
    await eventually(async () => (await client.query("SELECT FROM outbox")).rowCount === 0, {
      what: "all before",
    });
    await first.stop();

    const second = await open(url, bench.table, stream, [bench.name, added]);
    const startPositions = new StartPositions(
      new ConsumerTable({ dynamodb: aws().dynamodb, table: bench.table, pipeline: "shop", consumer: added }),
    );
    const startPosition = await startPositions.of("shop.outbox.order", AbortSignal.timeout(10_000));
    // Whoever had lanes has them under a new generation.
    await eventually(
      async () => {
        const { rows } = await client.query(
          "SELECT min(generation)::int AS lowest FROM outbox_lane WHERE owner IS NOT NULL HAVING count(*) = 8",
        );
        return BigInt(rows[0]?.lowest ?? 0) << 32n > parsePosition(startPosition).commitLsn;
      },
      { what: "lanes of new generations" },
    );
    for (let i = 0; i < 8; i++) await publish(client, String(i), "After");
    await eventually(async () => (await client.query("SELECT FROM outbox")).rowCount === 0, {
      what: "all after",
    });
    const records = (await readStream(aws().kinesis, stream)).map(({ data, partitionKey }) =>
      kinesisRecord(data, partitionKey),
    );
    const heard: Record<string, string[]> = { [bench.name]: [], [added]: [] };
    for (const name of [bench.name, added]) {
      const handler = consumer(name)
        .on("outbox.order", ["create"], (event) => void heard[name]?.push(String(event.after.type)))
        .handler({
          environment: bench.environment,
          dynamodb: aws().dynamodb,
          sqs: aws().sqs,
          write: () => {},
        });
      expect(await invoke(handler, records)).toEqual(DONE);
    }
    expect(heard[bench.name]).toHaveLength(16);
    expect(heard[added]).toEqual(Array(8).fill("After"));
    await second.stop();
    await old.stop();
  });

  test("a new epoch ends the relays of the old one", async () => {
    const { url, tributary } = await start();
    await tributary("install");
    const bench = await consumerBench(aws(), { startPosition: null });
    const relay = await open(url, bench.table, await aws().freshStream(), []);
    const state = await CaptureState.take({
      dynamodb: aws().dynamodb,
      table: bench.table,
      pipeline: "shop",
      signal: AbortSignal.timeout(30_000),
      log: () => {},
    });
    await state.beginEpoch({ epoch: 2 }, undefined);
    await state.release();
    expect(await relay.running).toMatchObject({ code: "CAPTURE_LEASE_LOST", retry: "restart" });
    const next = await open(url, bench.table, await aws().freshStream(), []);
    expect(next.log.lines.join("\n")).toContain("relays the outbox");
    await next.stop();
  });

  async function open(url: string, table: string, streamName: string, consumers: readonly string[]) {
    const stop = new AbortController();
    const log = new KeptLog();
    const metrics: CaptureMetrics[] = [];
    const pipeline = definePipeline({
      name: "shop",
      source: outbox({ intervalMs: 20 }),
      topics: { partitions: 8 },
      consumers: consumers.map((name) => ({ name, entry: "-", topics: ["shop.outbox.*"] })),
    });
    const { kinesis, dynamodb } = aws();
    const running = runCapture(
      {
        ...{ pipeline, stream: kinesisStream(kinesis, streamName), dynamodb, log },
        connection: connectionFromUrl(url),
        stateTable: table,
        leaseMs: 900,
        onMetrics: (latest) => void metrics.push(latest),
      },
      stop.signal,
    ).catch((error) => error);
    await eventually(
      async () => {
        if (log.lines.includes("relays the outbox")) return true;
        const early = await Promise.race([running, new Promise((resolve) => setImmediate(resolve, "open"))]);
        if (early !== "open") throw early;
        return false;
      },
      { what: "a relay" },
    );
    return {
      log,
      metrics,
      running,
      async stop() {
        stop.abort();
        expect(await running).toBeUndefined();
      },
    };
  }
});

async function publish(client: OutboxClient, aggregateId: string, type: string): Promise<void> {
  await outboxTable().publish(client, { aggregateType: "order", aggregateId, type, payload: {} });
}
