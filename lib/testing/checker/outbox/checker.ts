import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { consumer } from "../../../consume/api/consumer.ts";
import { Operation } from "../../../consume/api/operation.ts";
import type { InvocationReport } from "../../../consume/run/observer.ts";
import { outboxTableName } from "../../../definition/outbox-table.ts";
import { isIdle, runEventSourceMapping } from "../../../local/event-source-mapping/mapping.ts";
import { seededRandom } from "../../../local/shop/catalog.ts";
import { relaySql } from "../../../publish/relay-sql.ts";
import { outboxTableSql } from "../../../publish/table-sql.ts";
import { CaptureTask } from "../capture-task.ts";
import { checkRefusals, lastLines, startLocalParts } from "../local-parts.ts";
import { holdsWithin, waitUntil } from "../round.ts";
import { checkOutbox, type OutboxEffect, type OutboxFindings } from "./check.ts";
import { committedVersions, ORDERS_SCHEMA, type OrdersWritten, writeOrders } from "./orders.ts";
import { OUTBOX_FORM_VARIABLE, type OutboxForm, outboxPipeline } from "./pipeline.ts";

/** Settings of `runOutboxChecker`. */
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
  /** Time that everything has to arrive after the last commit. Default 60 s. */
  readonly recoverMs?: number;
}

/** Findings about an outbox pipeline, with its rates. */
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
  /** Last lines of the tasks, unless `ok`. */
  readonly log: readonly string[];
}

const DEFINITION = fileURLToPath(new URL("./pipeline.ts", import.meta.url));
const LEASE_MS = 1500;
const START_DEADLINE_MS = 60_000;
const LOG_LINES = 15;

/**
 * Runs an application that publishes orders, with rollbacks, against an outbox pipeline whose capture tasks are killed
 * (`kill -9`) in the middle, and holds what a consumer did against what the application committed.
 */
export async function runOutboxChecker(options: OutboxCheckerOptions): Promise<OutboxVerdict> {
  const { form, orders, tasks, kills, freezes = 0, failpoints = [], recoverMs = 60_000 } = options;
  const random = seededRandom(options.seed);
  const definition = outboxPipeline(form);
  await using parts = new AsyncDisposableStack();
  const schema = [ORDERS_SCHEMA, ...schemaOf(form, definition.topics.partitions)];
  const { source, emulators, kinesis, resources } = await startLocalParts(definition, schema, parts);
  parts.defer(() => checkRefusals(emulators));

  const captures = Array.from(
    { length: tasks },
    () =>
      new CaptureTask({
        PATH: process.env.PATH ?? "",
        NODE_NO_WARNINGS: "1",
        ...emulators.environment,
        [OUTBOX_FORM_VARIABLE]: form,
        DATABASE_URL: source.url,
        TRIBUTARY_PIPELINE: DEFINITION,
        ...resources.captureEnvironment,
        TRIBUTARY_LEASE_MS: String(LEASE_MS),
      }),
  );
  for (const capture of captures) {
    capture.start();
    parts.defer(() => capture.stop());
  }
  const isReading = (capture: CaptureTask) =>
    waitUntil("a capture task reads", () => capture.streaming, {
      deadlineMs: START_DEADLINE_MS,
      hopeless: () => capture.gaveUp,
      explain: () => lastLines([capture], LOG_LINES),
    });
  for (const capture of captures) await isReading(capture);

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
    batchSize: 100,
    functionHost: {
      name: "audit",
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
    ...{ databaseUrl: source.url, form, orders, sessions: 8, random },
    perSecond: options.perSecond,
    onCommit: (committed, { order, version }) => {
      committedAt.set(`${order}/${version}`, performance.now());
      const fault = committed % every === 0 ? faults[injected] : undefined;
      if (!fault) return;
      injected++;
      const { capture, freeze } = fault;
      // One after the other, each while it reads: a process that still starts has nothing to lose.
      injecting = injecting.then(async () => {
        await isReading(capture);
        if (freeze) return await frozen(capture);
        const failpoint = failpoints[killed % failpoints.length];
        if (failpoint !== undefined) capture.arm(failpoint);
        if (capture.kill()) killed++;
      });
    },
  });
  await injecting;
  const ended = performance.now();
  const versions = await committedVersions(source.url);
  const wanted = [...versions.values()].reduce((sum, version) => sum + version, 0);
  const arrived = await holdsWithin(() => effects.length >= wanted && isIdle(mapping), {
    deadlineMs: recoverMs,
    everyMs: 20,
  });
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
    log: ok ? [] : lastLines(captures, LOG_LINES),
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
