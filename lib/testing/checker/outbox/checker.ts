import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { dynamodbClient, kinesisClient, sqsClient } from "../../../aws/clients.ts";
import { consumer } from "../../../consume/api/consumer.ts";
import { Operation } from "../../../consume/api/operation.ts";
import type { InvocationReport } from "../../../consume/run/observer.ts";
import { outboxTableName } from "../../../definition/outbox-table.ts";
import { startEmbeddedPostgres } from "../../../local/embedded-postgres.ts";
import { refusedText, startEmulators } from "../../../local/emulators.ts";
import { runEventSourceMapping } from "../../../local/event-source-mapping/mapping.ts";
import { CallsRefusedError } from "../../../local/local-errors.ts";
import { createResources } from "../../../local/resources.ts";
import { seededRandom } from "../../../local/shop/catalog.ts";
import { relaySql } from "../../../publish/relay-sql.ts";
import { outboxTableSql } from "../../../publish/table-sql.ts";
import { CaptureTask } from "../capture-task.ts";
import { checkOutbox, type OutboxEffect, type OutboxFindings } from "./check.ts";
import { committedVersions, ORDERS_SCHEMA, type OrdersWritten, writeOrders } from "./orders.ts";
import { OUTBOX_FORM_VARIABLE, type OutboxForm, outboxPipeline } from "./pipeline.ts";

/** What is asked of the checker of outboxes. */
export interface OutboxCheckerOptions {
  readonly form: OutboxForm;
  readonly seed: number;
  readonly orders: number;
  /** Capture tasks; more than one only as relays. Each is killed this many times while orders are written. */
  readonly tasks: number;
  readonly kills: number;
  /** And stopped this many times for longer than its lease, to wake as a zombie. Default 0. */
  readonly freezes?: number;
  /** After each kill the next process of the task starts with one of these (`lib/failpoint.ts`), in turn. */
  readonly failpoints?: readonly string[];
  /** Transactions a second; default: as fast as they go. */
  readonly perSecond?: number;
  /** How long everything may take to arrive after the last commit. Default 60 s. */
  readonly recoverMs?: number;
}

/** What it found. */
export interface OutboxVerdict extends OrdersWritten, OutboxFindings {
  readonly kills: number;
  /** Ends of capture tasks, by kills and by failpoints. */
  readonly ends: number;
  /** Events that came to the consumer again, and were passed. */
  readonly repeated: number;
  /** From the first transaction to the last effect. */
  readonly seconds: number;
  /** From the last commit to the last effect; undefined: not everything came in time. */
  readonly secondsToRecover: number | undefined;
  /** From commit to effect. */
  readonly latencyMs: { readonly median: number; readonly p99: number };
  readonly ok: boolean;
  /** What the tasks printed last, where it is not. */
  readonly log: readonly string[];
}

const DEFINITION = fileURLToPath(new URL("./pipeline.ts", import.meta.url));
const LEASE_MS = 1500;

/**
 * Runs an application that publishes orders, with rollbacks, against an outbox pipeline whose capture tasks are killed
 * (`kill -9`) in the middle, and holds what a consumer did against what the application committed.
 */
export async function runOutboxChecker(options: OutboxCheckerOptions): Promise<OutboxVerdict> {
  const { form, orders, tasks, kills, freezes = 0, failpoints = [], recoverMs = 60_000 } = options;
  const random = seededRandom(options.seed);
  const definition = outboxPipeline(form);
  await using parts = new AsyncDisposableStack();
  const [server, emulators] = await Promise.all([startEmbeddedPostgres(), startEmulators()]);
  parts.defer(() => server.stop("immediate"));
  parts.defer(async () => {
    const refused = await emulators.takeRefusals();
    await emulators.stop();
    if (refused.length > 0) throw new CallsRefusedError(refused.map(refusedText));
  });
  await execute(server.url, [ORDERS_SCHEMA, ...schemaOf(form, definition.topics.partitions)]);
  const kinesis = kinesisClient(emulators.environment);
  const dynamodb = dynamodbClient(emulators.environment);
  const sqs = sqsClient(emulators.environment);
  const resources = await createResources(definition, { kinesis, dynamodb, sqs });

  const captures = Array.from(
    { length: tasks },
    () =>
      new CaptureTask({
        PATH: process.env.PATH ?? "",
        NODE_NO_WARNINGS: "1",
        ...emulators.environment,
        [OUTBOX_FORM_VARIABLE]: form,
        DATABASE_URL: server.url,
        TRIBUTARY_PIPELINE: DEFINITION,
        ...resources.captureEnvironment,
        TRIBUTARY_LEASE_MS: String(LEASE_MS),
      }),
  );
  for (const capture of captures) {
    capture.start();
    parts.defer(() => capture.stop());
  }
  await until(
    () => captures.every(isReading),
    60_000,
    () => lastLines(captures),
  );

  const effects: OutboxEffect[] = [];
  const reports: InvocationReport[] = [];
  const committedAt = new Map<string, number>();
  const latencies: number[] = [];
  let lastEffect = 0;
  const handler = consumer("audit")
    .on("outbox.order", Operation.Create, (event) => {
      const { aggregateId, payload } = event.after as { aggregateId: string; payload: { version: number } };
      effects.push({ order: aggregateId, version: payload.version, partition: event.partition });
      lastEffect = performance.now();
      const since = committedAt.get(`${aggregateId}/${payload.version}`);
      // Of what was so fast that its commit was not answered yet: none.
      latencies.push(lastEffect - (since ?? lastEffect));
    })
    .handler({
      environment: {
        ...emulators.environment,
        TRIBUTARY_PIPELINE_NAME: definition.name,
        TRIBUTARY_STATE_TABLE: resources.stateTable,
        TRIBUTARY_POISON: "stop",
      },
      observer: { invocation: (report) => void reports.push(report) },
      write: () => {},
    });
  const mapping = await runEventSourceMapping({
    kinesis,
    streamName: resources.stream,
    startingPosition: "TRIM_HORIZON",
    batchSize: 100,
    reportBatchItemFailures: true,
    functionHost: {
      name: "audit",
      arn: "arn:aws:lambda:us-east-1:000000000000:function:audit",
      invoke: async (event) => {
        const records = event as Parameters<typeof handler>[0];
        const response = await handler(records as never, { getRemainingTimeInMillis: () => 30_000 });
        return { ok: true, requestId: "", response };
      },
    },
  });
  parts.defer(() => mapping.stop(5_000));

  const rounds = [...Array<boolean>(kills).fill(false), ...Array<boolean>(freezes).fill(true)];
  const faults = rounds.flatMap((freeze) => captures.map((capture) => ({ capture, freeze })));
  let killed = 0;
  let injecting = Promise.resolve();
  let injected = 0;
  const every = Math.ceil((orders * 2) / (faults.length + 1));
  const started = performance.now();
  const written = await writeOrders({
    ...{ databaseUrl: server.url, form, orders, sessions: 8, random },
    perSecond: options.perSecond,
    onCommit: (committed, { order, version }) => {
      committedAt.set(`${order}/${version}`, performance.now());
      const fault = committed % every === 0 ? faults[injected] : undefined;
      if (!fault) return;
      injected++;
      const { capture, freeze } = fault;
      // One after the other, each while it reads: a process that still starts has nothing to lose.
      injecting = injecting.then(async () => {
        await until(
          () => isReading(capture),
          30_000,
          () => lastLines([capture]),
        );
        if (freeze) return await frozen(capture);
        const failpoint = failpoints[killed % failpoints.length];
        if (failpoint !== undefined) capture.arm(failpoint);
        if (capture.kill()) killed++;
      });
    },
  });
  await injecting;
  const ended = performance.now();
  const versions = await committedVersions(server.url);
  const wanted = [...versions.values()].reduce((sum, version) => sum + version, 0);
  const arrived = await until(() => effects.length >= wanted && mappingIdle(mapping), recoverMs).then(
    () => true,
    () => false,
  );
  const found = checkOutbox(versions, effects);
  const ok =
    arrived &&
    found.lost + found.extra + found.duplicates + found.outOfOrder === 0 &&
    injected === faults.length;
  return {
    ...written,
    ...found,
    kills: killed,
    ends: captures.reduce((sum, { ends }) => sum + ends.length, 0),
    repeated: reports.reduce((sum, { duplicates, staleWriter }) => sum + duplicates + staleWriter, 0),
    seconds: (lastEffect - started) / 1000,
    secondsToRecover: arrived ? Math.max(0, (lastEffect - ended) / 1000) : undefined,
    latencyMs: { median: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) },
    ok,
    log: ok ? [] : lastLines(captures),
  };
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? 0);
}

function schemaOf(form: OutboxForm, partitions: number): readonly string[] {
  const table = outboxTableName("public.outbox");
  if (form === "message") return [];
  return form === "table" ? outboxTableSql(table) : relaySql(table, partitions);
}

/** Longer than its lease: the others take its lanes, and it does not know when it wakes. */
async function frozen(capture: CaptureTask): Promise<void> {
  capture.freeze(true);
  await delay(2 * LEASE_MS);
  capture.freeze(false);
}

/** Whether its newest process has begun to read. */
function isReading(capture: CaptureTask): boolean {
  if (capture.gaveUp) throw new Error(`the capture task gave up:\n${lastLines([capture]).join("\n")}`);
  return capture.streaming;
}

function mappingIdle(mapping: Awaited<ReturnType<typeof runEventSourceMapping>>): boolean {
  const { read, filtered, completed, discarded, shards } = mapping.stats();
  return (
    read === filtered + completed + discarded &&
    shards.every(({ millisBehindLatest }) => millisBehindLatest === 0)
  );
}

function lastLines(captures: readonly CaptureTask[]): string[] {
  return captures.flatMap((capture, i) => capture.log.slice(-15).map((line) => `task ${i}: ${line}`));
}

async function until(
  condition: () => boolean,
  deadlineMs: number,
  explain: () => readonly string[] = () => [],
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms:\n${explain().join("\n")}`);
    await delay(20);
  }
}

async function execute(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
