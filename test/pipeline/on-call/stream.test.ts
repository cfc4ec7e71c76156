import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { CreateQueueCommand } from "@aws-sdk/client-sqs";
import { afterEach, expect } from "vitest";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import {
  type CaptureReport,
  readCaptureReport,
  writeCaptureReport,
} from "../../../lib/state/capture-report.ts";
import { THRESHOLD } from "../../../lib/telemetry/alarms.ts";
import { AwsFaultProxy } from "../../../lib/testing/fault/aws-proxy.ts";
import { invoke } from "../../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../../aws/emulated.ts";
import { eventually } from "../../eventually.ts";
import { freshDatabase, withPostgres } from "../../postgres/server.ts";
import { CaptureBench, type Program } from "../capture-bench.ts";
import { becomesHealthy, onCall, runPrinted, sound, whatMends } from "./on-call.ts";

const aws = emulatedAws();
const { signal } = new AbortController();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  async function make(
    options: Parameters<typeof CaptureBench.create>[2] = {},
    encoding?: string,
  ): Promise<CaptureBench> {
    const url = await freshDatabase(server(), encoding ? { encoding } : {});
    const bench = await CaptureBench.create(aws(), url, options);
    cleanups.push(() => bench.end());
    await sound(bench);
    return bench;
  }

  async function started(bench: CaptureBench, environment = {}): Promise<Program> {
    const task = bench.capture(environment);
    await task.printed("streaming from slot");
    return task;
  }

  async function stopped(task: Program): Promise<void> {
    task.signal("SIGTERM");
    expect(await task.ended).toBe(0);
  }

  /** Changes the definition of the bench, as a deploy would. */
  async function define(bench: CaptureBench, old: string, now: string): Promise<void> {
    const file = bench.environment.TRIBUTARY_PIPELINE as string;
    const text = await readFile(file, "utf8");
    expect(text).toContain(old);
    await writeFile(file, text.replace(old, now));
  }

  onCall(14, async (row) => {
    const bench = await make({ source: { sqlAsciiEncoding: "utf-8" } }, "SQL_ASCII");
    const claims = await mkdtemp(join(tmpdir(), "tributary-on-call-"));
    cleanups.push(() => rm(claims, { recursive: true, force: true }));
    const environment = { TRIBUTARY_CLAIM_BUCKET: pathToFileURL(claims).href };
    await bench.client.query("SET client_encoding = 'SQL_ASCII'");
    const task = await started(bench, environment);
    await bench.client.query("INSERT INTO orders VALUES (1, chr(233))");
    await bench.insert(2, 2);
    const command = await whatMends(row, bench, { environment });
    await stopped(task);
    await define(bench, '"sqlAsciiEncoding":"utf-8"', '"sqlAsciiEncoding":"latin1"');
    await started(bench, environment);
    await runPrinted(bench, command, environment);
    await bench.reached(1);
    await bench.reached(2);
    await becomesHealthy(bench, environment);
  });

  onCall(15, async (row) => {
    const bench = await make();
    const task = await started(bench);
    await bench.insert(1, 1);
    await bench.reached(1);
    await stopped(task);
    await define(bench, '"partitions":1', '"partitions":2');
    const plan = bench.run({}, "plan");
    expect([await plan.ended, plan.lines.join("\n")]).toEqual([
      1,
      expect.stringContaining("STORED_SETTING_CHANGED"),
    ]);
    expect(await bench.capture().ended).toBe(2);
    await bench.insert(2, 2);
    const command = await whatMends(row, bench);
    await define(bench, '"partitions":2', '"partitions":1');
    await runPrinted(bench, command);
    await started(bench);
    await bench.reached(2);
    await becomesHealthy(bench);
  });

  onCall(16, async (row) => {
    const bench = await make();
    let isAway = false;
    const proxy = await AwsFaultProxy.start({
      target: aws().environment.AWS_ENDPOINT_URL_KINESIS as string,
      choose: () => (isAway ? { kind: "cut" } : undefined),
    });
    cleanups.push(() => proxy.stop());
    const environment = { AWS_ENDPOINT_URL_KINESIS: proxy.endpoint, TRIBUTARY_METRICS_SECONDS: "1" };
    await started(bench, environment);
    await bench.insert(1, 1);
    await bench.reached(1);
    isAway = true;
    await bench.insert(2, 2);
    const command = await whatMends(row, bench, { environment });
    isAway = false;
    await bench.reached(2);
    await runPrinted(bench, command, environment);
    await becomesHealthy(bench, environment);
  });

  onCall(17, async (row) => {
    const bench = await make();
    const environment = { TRIBUTARY_STATE_TABLE: "missing" };
    expect(await bench.capture(environment).ended).toBe(2);
    const command = await whatMends(row, bench, { environment });
    await runPrinted(bench, command);
    await started(bench);
    await bench.insert(1, 1);
    await bench.reached(1);
    await becomesHealthy(bench);
  });

  onCall(18, async (row) => {
    const bench = await make();
    const lease = { TRIBUTARY_LEASE_MS: "1500" };
    const task = await started(bench, lease);
    await becomesHealthy(bench);
    task.signal("SIGKILL");
    await task.ended;
    await bench.insert(2, 2);
    // As if a minute had passed.
    const { dynamodb } = aws();
    const seat = {
      dynamodb,
      table: bench.consumer.table,
      pipeline: "shop",
      slot: 1,
      seat: "holder",
    } as const;
    const report = (await readCaptureReport(seat, signal)) as CaptureReport;
    await writeCaptureReport(seat, { ...report, at: report.at - 60_000 }, undefined, signal);
    expect(await whatMends(row, bench)).toBe("Start it again");
    await started(bench, lease);
    await bench.reached(2);
    await becomesHealthy(bench);
  });

  onCall(19, async (row) => {
    const set = async (name: string, value: string) => {
      await bench.client.query(`ALTER SYSTEM SET ${name} = '${value}'`);
      await bench.client.query("SELECT pg_reload_conf()");
    };
    const bench = await make();
    await set("max_slot_wal_keep_size", "80MB");
    cleanups.push(() => set("max_slot_wal_keep_size", "-1"));
    await started(bench, { TRIBUTARY_METRICS_SECONDS: "1" });
    const paused = bench.command("capture", "pause", "--reason", "fail-over drill");
    expect(await paused.ended, paused.lines.join("\n")).toBe(0);
    await bench.insert(1, 1);
    for (let segment = 0; segment < 5; segment++) {
      await bench.client.query("SELECT pg_logical_emit_message(false, 'tributary-test', 'x')");
      await bench.client.query("SELECT pg_switch_wal()");
    }
    await runPrinted(bench, await whatMends(row, bench));
    await bench.reached(1);
    await becomesHealthy(bench);
  });

  onCall(26, async (row) => {
    const bench = await make();
    const queue = `${await aws().freshQueue()}-deleted`;
    const environment = { TRIBUTARY_CAPTURE_DEAD_LETTER_QUEUE_URL: queue };
    await started(bench, environment);
    const command = await whatMends(row, bench, { environment });
    const [, QueueName, attributes = ""] = /--queue-name (\S+) --attributes (\S+)$/.exec(command) ?? [];
    const Attributes = Object.fromEntries(attributes.split(",").map((each) => each.split("=")));
    await aws().sqs.send(new CreateQueueCommand({ QueueName, Attributes }));
    await bench.insert(1, 1);
    await bench.reached(1);
    await becomesHealthy(bench, environment);
    const doctor = bench.run(environment, "doctor");
    expect(await doctor.ended, doctor.lines.join("\n")).toBe(0);
  });

  onCall(28, async (row) => {
    const bench = await make();
    const task = await started(bench);
    await bench.insert(1, 1);
    await bench.reached(1);
    const { dynamodb } = aws();
    const place = { ...{ dynamodb, table: bench.consumer.table, pipeline: "shop" }, slot: 1 };
    const seat = { ...place, seat: "holder" } as const;
    const report = await eventually(
      async () => {
        const known = await readCaptureReport(seat, signal);
        return known?.newest && Object.keys(known.newest).length > 0 && known;
      },
      { what: "a report of the change", deadlineMs: 30_000 },
    );
    await stopped(task);
    // As if twenty minutes had passed: a task knows what the one before it knew.
    const before = Object.entries(report.newest ?? {}).map(([topic, changes]) => [
      topic,
      changes.map((change) => ({ ...change, at: change.at - 20 * 60_000 })),
    ]);
    await writeCaptureReport(
      seat,
      { ...report, generation: undefined, newest: Object.fromEntries(before) },
      undefined,
      signal,
    );
    const later = await started(bench);
    const command = await whatMends(row, bench);
    // What the alarm Late takes.
    const line = await later.printed('"ConsumerLagMilliseconds"');
    expect(JSON.parse(line).ConsumerLagMilliseconds).toBeGreaterThanOrEqual(THRESHOLD.freshness.value);
    const seen: unknown[] = [];
    const handler = bench.consumer.instance((c) =>
      c.on("*", ALL_OPERATIONS, ({ row }) => void seen.push(row?.id)),
    );
    await invoke(handler, await bench.records());
    expect(seen).toEqual([1]);
    await runPrinted(bench, command);
    await becomesHealthy(bench);
  });
});
