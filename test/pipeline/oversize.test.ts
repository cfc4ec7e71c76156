import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Operation } from "../../lib/consume/api/operation.ts";
import type { PipelineInput } from "../../lib/definition/pipeline.ts";
import { CaptureTask } from "../../lib/testing/checker/capture-task.ts";
import { consumerBench, DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { emulatedS3 } from "../aws/emulated-s3.ts";
import { readStream } from "../aws/stream-records.ts";
import { eventually } from "../eventually.ts";
import { withPostgres } from "../postgres/server.ts";
import { kinesisRecord } from "../unit/consume/records.ts";

const aws = emulatedAws();
const s3 = emulatedS3();
let directory: string;
let capture: CaptureTask | undefined;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-oversize-"));
});
afterEach(async () => {
  await capture?.stop();
  capture = undefined;
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** A row as the consumer saw it last. */
interface Seen {
  readonly id: string;
  readonly title: unknown;
  readonly md5: string | undefined;
  readonly characters: number | undefined;
  readonly omitted: readonly string[];
}

withPostgres((server) => {
  /** A table, its pipeline, and the environment of its capture task. */
  async function pipeline(name: string, stream: PipelineInput["stream"]) {
    const client = new pg.Client({ connectionString: server().url });
    await client.connect();
    await client.query(`CREATE TABLE ${name} (id int PRIMARY KEY, title text, body text)`);
    const bench = await consumerBench(aws(), { startPosition: null });
    const definition: PipelineInput = {
      // The bench's consumer belongs to this one.
      name: "shop",
      source: {
        kind: "postgres",
        tables: [`public.${name}`],
        slot: name,
        publication: name,
        acceptUnboundedWal: true,
        snapshot: "never",
      },
      // One partition: one order of all.
      topics: { partitions: 1 },
      stream,
      consumers: [{ name: bench.name, entry: "not used", topics: ["*"] }],
    };
    const file = join(directory, `${name}.mjs`);
    await writeFile(file, `export default ${JSON.stringify(definition)};`);
    const streamName = await aws().freshStream();
    const environment = {
      PATH: process.env.PATH ?? "",
      NODE_NO_WARNINGS: "1",
      ...(aws().environment as Record<string, string>),
      ...(s3().environment as Record<string, string>),
      DATABASE_URL: server().url,
      TRIBUTARY_PIPELINE: file,
      TRIBUTARY_STREAM: streamName,
      TRIBUTARY_STATE_TABLE: bench.table,
    };
    const confirmed = async () => {
      const { rows } = await client.query(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1",
        [name],
      );
      return rows[0]?.confirmed_flush_lsn as string | undefined;
    };
    const records = async () =>
      (await readStream(aws().kinesis, streamName)).map(({ data, partitionKey }) =>
        kinesisRecord(data, partitionKey),
      );
    return { client, bench, environment, confirmed, streamName, records };
  }

  /** What a consumer sees of all that stands in the stream, in order. */
  async function consume({
    bench,
    environment,
    records,
  }: Awaited<ReturnType<typeof pipeline>>): Promise<Seen[]> {
    const seen: Seen[] = [];
    const handler = bench.instance(
      (c) =>
        c.on("public.*", [Operation.Create, Operation.Update], (event) => {
          const { id, title, body } = event.after;
          seen.push({
            id: String(id),
            title,
            md5: typeof body === "string" ? createHash("md5").update(body).digest("hex") : undefined,
            characters: typeof body === "string" ? body.length : undefined,
            omitted: event.omitted,
          });
        }),
      environment,
    );
    expect(await invoke(handler, await records())).toEqual(DONE);
    return seen;
  }

  /** 31 MB that TOAST cannot make small, and their MD5. */
  async function insertLarge(client: pg.Client, table: string, id: number): Promise<string> {
    const { rows } = await client.query(
      `INSERT INTO ${table} SELECT ${id}, 'large', string_agg(md5(i::text || '${id}'), 'ä') FROM generate_series(1, 950000) i
       RETURNING md5(body), length(body)`,
    );
    expect(rows[0].length).toBeGreaterThan(31_000_000);
    return rows[0].md5 as string;
  }

  test("31 MB arrive whole, and those behind them: first without a bucket, then through a kill -9 at the worst place", async () => {
    const parts = await pipeline("docs", {});
    const { client, environment, bench } = parts;
    const running = new CaptureTask(environment);
    capture = running;
    running.start();
    await eventually(() => parts.confirmed(), { what: "the slot" });

    await client.query("INSERT INTO docs VALUES (1, 'small', 'a')");
    const md5 = await insertLarge(client, "docs", 2);
    await client.query(
      "BEGIN; UPDATE docs SET title = 'renamed' WHERE id = 1; INSERT INTO docs VALUES (3, 'behind', 'c'); COMMIT",
    );
    const { rows } = await client.query("SELECT pg_current_wal_lsn() AS lsn");
    const written = rows[0].lsn as string;

    // Without a bucket: a typed stop, and nothing of the large change or behind it is confirmed.
    await eventually(() => running.gaveUp, { what: "the typed stop" });
    expect(running.log.join()).toContain("OVERSIZE_CHANGE");
    expect(running.log.join()).toContain("TRIBUTARY_CLAIM_BUCKET");

    // With one: killed when the object is stored and its pointer is not; started again.
    const bucket = { TRIBUTARY_CLAIM_BUCKET: `s3://${s3().bucket}/claims` };
    const claiming = new CaptureTask({ ...environment, ...bucket });
    capture = claiming;
    claiming.arm("claim-stored=kill");
    claiming.start();
    await eventually(
      async () => {
        const { rows } = await client.query(
          "SELECT confirmed_flush_lsn >= $1::pg_lsn AS done FROM pg_replication_slots WHERE slot_name = 'docs'",
          [written],
        );
        return rows[0]?.done === true;
      },
      { what: "everything to be confirmed", deadlineMs: 120_000 },
    );
    expect(claiming.ends.map(({ signal }) => signal)).toEqual(["SIGKILL"]);
    await claiming.stop();

    const seen = await consume({ ...parts, environment: { ...environment, ...bucket } });
    expect(seen.map(({ id, title }) => [id, title])).toEqual([
      ["1", "small"],
      ["2", "large"],
      ["1", "renamed"],
      ["3", "behind"],
    ]);
    expect(seen[1]?.md5).toBe(md5);
    expect(bench.reports).toMatchObject([{ applied: 4, deadLettered: 0, gaps: 0 }]);
    await client.end();
  });

  test("oversize: omit leaves the largest columns out and lists them; the key and the small ones arrive", async () => {
    const parts = await pipeline("notes", { oversize: "omit" });
    const { client, environment } = parts;
    await client.query("ALTER TABLE notes REPLICA IDENTITY FULL");
    const running = new CaptureTask(environment);
    capture = running;
    running.start();
    await eventually(() => parts.confirmed(), { what: "the slot" });
    await insertLarge(client, "notes", 2);
    await client.query("UPDATE notes SET title = 'renamed' WHERE id = 2");
    await client.query("INSERT INTO notes VALUES (3, 'behind', 'c')");
    await eventually(async () => (await parts.records()).length > 0 && (await consumedAll()), {
      what: "the last row",
    });
    async function consumedAll(): Promise<boolean> {
      const text = (await parts.records())
        .map(({ kinesis }) => Buffer.from(kinesis.data, "base64").toString())
        .join();
      return text.includes('"behind"');
    }
    await running.stop();
    expect(running.log.join()).not.toContain("OVERSIZE_CHANGE");
    const seen = await consume(parts);
    expect(seen).toEqual([
      { id: "2", title: "large", md5: undefined, characters: undefined, omitted: ["body"] },
      { id: "2", title: "renamed", md5: undefined, characters: undefined, omitted: ["body"] },
      { id: "3", title: "behind", md5: expect.any(String), characters: 1, omitted: [] },
    ]);
    await client.end();
  });
});
