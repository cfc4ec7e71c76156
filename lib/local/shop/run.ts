import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { readDefinition } from "../../definition/file.ts";
import { projectDirectory } from "../../definition/find-definition.ts";
import { outboxTable } from "../../publish/publish.ts";
import { sourceKind } from "../../source/index.ts";
import type { StartArguments } from "../arguments.ts";
import type { Display } from "../display.ts";
import { FiguresSampler } from "../figures.ts";
import { checkHandlerFiles } from "../handler-files.ts";
import { type LocalAws, type LocalHost, startLocalAws, startLocalHost } from "../host.ts";
import { EmulatorEndedError } from "../local-errors.ts";
import { localParts } from "../local-parts.ts";
import { seededRandom } from "./catalog.ts";
import { describeMismatch } from "./compare.ts";
import { appliedBy, completion, SHOP_CONSUMERS } from "./completion.ts";
import { firstBackfill } from "./first-backfill.ts";
import { IntendedFailures } from "./intended-failures.ts";
import { endOfLog, openShop, SHOP_SERVER_SETTINGS, type Shop } from "./shop.ts";
import { verifyEvents, verifyShop } from "./verify.ts";
import { runWorkload, type WorkloadProgress } from "./workload.ts";

/** The one line that `--exit --json` prints; the counts are explained in `--help`. */
export interface ShopResult {
  readonly changes: number;
  readonly published: number;
  readonly applied: number;
  readonly duplicates: number;
  readonly deadLettered: number;
  readonly mismatches: number;
  readonly seconds: number;
}

const SHOWN_MISMATCHES = 20;
/** Any number: runs with the same one begin alike. */
const SEED = 20261123;

/**
 * The shop demo: embedded PostgreSQL with a workload, the pipeline, the example consumers. Runs until `signal`, or
 * with `--exit` until the given changes took effect and were compared; gives the exit code.
 */
export async function runShop(args: StartArguments, display: Display, signal: AbortSignal): Promise<number> {
  const definitionFile = resolve(args.pipeline ?? "cdk/pipeline.ts");
  const definition = await readDefinition(definitionFile);
  const project = projectDirectory(definitionFile);
  await checkHandlerFiles(definition, project);
  const kind = sourceKind(definition.source);
  const events = kind.can.give === "events";
  const log = kind.throughSlots !== undefined;
  if (args.exit) checkConsumers(definition, events);

  const failure = new AbortController();
  const until = AbortSignal.any([signal, failure.signal]);
  const onFailure = (error: Error) => failure.abort(error);
  await using parts = new AsyncDisposableStack();

  let refused = 0;
  const { startEmbeddedPostgres, refusedText } = await localParts();
  display.say("starting PostgreSQL and the Kinesis, DynamoDB and SQS emulators …");
  const [server, aws] = await started(
    parts,
    startEmbeddedPostgres({ settings: SHOP_SERVER_SETTINGS, port: args.port, signal: until }),
    startLocalAws(definition, until, {
      onRefusal: (call) => {
        refused++;
        display.log(refusedText(call));
      },
      onEnded: (service, printed) => onFailure(new EmulatorEndedError(service, printed)),
    }),
  );
  const shop = await openShop(server, aws, definition);
  display.say(`  shop        psql '${shop.databaseUrl}'`);
  display.say(`  read model  psql '${shop.readModelUrl}'`);
  display.say(`starting capture and ${definition.consumers.map(({ name }) => name).join(", ")} …`);
  const intended = new IntendedFailures();
  const host = await startLocalHost({
    definition,
    definitionFile,
    projectDirectory: project,
    databaseUrl: shop.databaseUrl,
    aws,
    handlerEnvironment: shop.handlerEnvironment,
    onLog: (text) => {
      const shown = intended.note(text);
      if (shown !== undefined) display.log(shown);
    },
    onFailure,
  });
  parts.defer(() => host.stop());
  until.throwIfAborted();

  const progress: WorkloadProgress = { changes: 0, commits: 0, rollbacks: 0 };
  using sampler = new FiguresSampler(host, {
    pipeline: definition.name,
    source: shop.databaseUrl,
    workload: progress,
    hints: HINTS,
    log: display.recent,
  });
  display.show(() => sampler.figures);
  parts.defer(() => display.say("stopping …"));
  parts.defer(() => display.close());

  if (args.exit) await firstBackfill(definition, aws, until);
  const startedMs = performance.now();
  await runWorkload(
    {
      databaseUrl: shop.databaseUrl,
      rate: args.rate,
      changes: args.changes,
      random: seededRandom(SEED),
      outbox: events ? outboxTable() : undefined,
      signal: until,
    },
    progress,
  );
  if (!args.exit) await untilAborted(until);
  if (failure.signal.aborted) throw failure.signal.reason;
  if (!args.exit || signal.aborted) return args.exit ? 130 : 0;
  const result = await settle({ host, aws, shop, events, log, progress, startedMs, display, signal: until });
  if (failure.signal.aborted) throw failure.signal.reason;
  display.close();
  if (args.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else display.say(inWords(result));
  return result.mismatches === 0 && refused === 0 ? 0 : 1;
}

/** Waits until all took effect, and compares. */
async function settle(run: {
  host: LocalHost;
  aws: LocalAws;
  shop: Shop;
  /** Events are what is followed, not rows. */
  events: boolean;
  /** The log is what is read: what was committed lies below a place in it. */
  log: boolean;
  progress: Readonly<WorkloadProgress>;
  startedMs: number;
  display: Display;
  signal: AbortSignal;
}): Promise<ShopResult> {
  const { host, display, progress } = run;
  const { lastEffectMs, complete } = await completion(
    host,
    { changes: progress.changes, endLsn: run.log ? await endOfLog(run.shop) : undefined },
    run.signal,
  );
  if (!complete) display.say("nothing moved for a minute: comparing what there is");
  const mismatches = await (run.events ? verifyEvents : verifyShop)(run.shop, run.aws, run.signal);
  for (const mismatch of mismatches.slice(0, SHOWN_MISMATCHES)) {
    display.say(`mismatch: ${describeMismatch(mismatch)}`);
  }
  const total = (name: "duplicates" | "deadLettered") =>
    host.consumers.reduce((sum, { counts }) => sum + counts[name], 0);
  return {
    changes: progress.changes,
    published: host.capture.figures.changes,
    applied: appliedBy(host),
    duplicates: total("duplicates"),
    deadLettered: total("deadLettered"),
    mismatches: mismatches.length,
    seconds: Math.round(lastEffectMs - run.startedMs) / 1000,
  };
}

function inWords(result: ShopResult): string {
  const { changes, seconds, mismatches } = result;
  return `${changes} changes in ${seconds} s (${Math.round(changes / seconds)} a second): published ${result.published}, applied ${result.applied}, duplicates ${result.duplicates}, dead-lettered ${result.deadLettered}, mismatches ${mismatches}`;
}

/** Two parts that start side by side; when one fails the other is stopped too. */
async function started<A extends { stop(): Promise<void> }, B extends { stop(): Promise<void> }>(
  parts: AsyncDisposableStack,
  first: Promise<A>,
  second: Promise<B>,
): Promise<[A, B]> {
  await Promise.allSettled([
    first.then((part) => parts.defer(() => part.stop())),
    second.then((part) => parts.defer(() => part.stop())),
  ]);
  return [await first, await second];
}

/** The URLs stand above, where the start printed them: here they would be cut. */
const HINTS = [
  "Change something yourself, with the URLs above, and see it arrive:",
  "  shop        UPDATE orders SET status = 'paid' WHERE id = (SELECT max(id) FROM orders);",
  "  read model  SELECT * FROM order_summary ORDER BY id DESC LIMIT 5;",
  "The dead letters of notifications are intended: it has no letter for one reason of cancellation.",
];

function checkConsumers(definition: Pipeline, events: boolean): void {
  const names = definition.consumers.map(({ name }) => name);
  const wanted = events ? ["notifications"] : Object.keys(SHOP_CONSUMERS);
  const missing = wanted.filter((name) => !names.includes(name));
  if (missing.length === 0) return;
  throw new ConfigurationError("The command line", [
    {
      path: "--exit",
      value: names,
      remedy: `leave it out, or name ${missing.join(", ")} in the definition: it compares what the shop's own consumers hold`,
    },
  ]);
}

async function untilAborted(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) await delay(60_000, undefined, { signal }).catch(() => undefined);
}
