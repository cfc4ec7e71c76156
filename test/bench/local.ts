import { availableParallelism } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { readDefinition } from "../../lib/definition-file.ts";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { startLocalAws, startLocalHost } from "../../lib/local/host.ts";
import { seededRandom } from "../../lib/local/shop/catalog.ts";
import { completion } from "../../lib/local/shop/completion.ts";
import { endOfLog, openShop, SHOP_SERVER_SETTINGS, withClient } from "../../lib/local/shop/shop.ts";
import { runWorkload } from "../../lib/local/shop/workload.ts";
import { cpuSeconds, usedBetween } from "./cpu.ts";
import type { Bench } from "./main.ts";

const CHANGES = 60_000;
const COMMITS_A_SECOND = 20;
const SECONDS = 10;

/** The whole local path: how many changes a second, and how long from a commit to its handler. */
export const local: Bench = {
  about: `The local path on ${availableParallelism()} cores: PostgreSQL → capture → Kinesis emulator → event source mapping → handlers.`,
  async run(say) {
    say(`${CHANGES} changes of the shop, as fast as it can …`);
    const rate = await measureRate();
    const cores = rate.cpu.reduce((sum, [, used]) => sum + used, 0);
    say(`  ${rate.changesPerSecond} changes/s: ${rate.changes} in ${rate.seconds} s`);
    say(
      `  bound by CPU where this comes near ${availableParallelism()}: ${cores.toFixed(2)} cores busy, namely`,
    );
    for (const [part, used] of rate.cpu.slice(0, 8)) say(`    ${used.toFixed(2)}  ${part}`);
    say(`${COMMITS_A_SECOND} commits a second for ${SECONDS} s, one change each …`);
    const latency = await measureLatency();
    say(
      `  commit to handler: median ${latency.medianMs} ms, p99 ${latency.p99Ms} ms, longest ${latency.maxMs} ms (${latency.commits} commits)`,
    );
    return { ...rate, cpu: Object.fromEntries(rate.cpu), latency };
  },
};

async function measureRate() {
  const signal = new AbortController().signal;
  const definitionFile = fileURLToPath(new URL("../../cdk/pipeline.ts", import.meta.url));
  const definition = await readDefinition(definitionFile);
  await using parts = new AsyncDisposableStack();
  const server = await startEmbeddedPostgres({ settings: SHOP_SERVER_SETTINGS });
  parts.defer(() => server.stop("immediate"));
  const aws = await startLocalAws(definition, signal);
  parts.defer(() => aws.stop());
  const shop = await openShop(server, aws);
  const host = await startLocalHost({
    definition,
    definitionFile,
    databaseUrl: shop.databaseUrl,
    aws,
    handlerEnvironment: shop.handlerEnvironment,
    onLog: () => {},
    onFailure: (error) => {
      throw error;
    },
  });
  parts.defer(() => host.stop());
  const before = cpuSeconds();
  const startedMs = performance.now();
  const progress = { changes: 0, commits: 0, rollbacks: 0 };
  await runWorkload(
    { databaseUrl: shop.databaseUrl, changes: CHANGES, random: seededRandom(1), signal },
    progress,
  );
  const { lastEffectMs, complete } = await completion(
    host,
    { changes: progress.changes, endLsn: await endOfLog(shop) },
    signal,
  );
  if (!complete) throw new Error("not all changes took effect");
  const seconds = (lastEffectMs - startedMs) / 1000;
  const observed = (performance.now() - startedMs) / 1000;
  return {
    changes: progress.changes,
    seconds: Number(seconds.toFixed(2)),
    changesPerSecond: Math.round(progress.changes / seconds),
    cpu: usedBetween(before, cpuSeconds()).map(([part, used]): [string, number] => [
      part,
      Number((used / observed).toFixed(3)),
    ]),
  };
}

async function measureLatency() {
  const signal = new AbortController().signal;
  const definitionFile = fileURLToPath(new URL("./latency-pipeline.ts", import.meta.url));
  const definition = await readDefinition(definitionFile);
  await using parts = new AsyncDisposableStack();
  const server = await startEmbeddedPostgres({ settings: SHOP_SERVER_SETTINGS });
  parts.defer(() => server.stop("immediate"));
  await withClient(server.url, (client) =>
    client.query("CREATE TABLE ticks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz)"),
  );
  const aws = await startLocalAws(definition, signal);
  parts.defer(() => aws.stop());
  const latencies: number[] = [];
  const host = await startLocalHost({
    definition,
    definitionFile,
    databaseUrl: server.url,
    aws,
    onLog: (line) => {
      const printed = /\{"latencyMs":(-?\d+)\}/.exec(line)?.[1];
      if (printed !== undefined) latencies.push(Number(printed));
    },
    onFailure: (error) => {
      throw error;
    },
  });
  parts.defer(() => host.stop());
  const commits = COMMITS_A_SECOND * SECONDS;
  await withClient(server.url, async (client) => {
    const begun = performance.now();
    for (let i = 0; i < commits; i++) {
      await client.query("INSERT INTO ticks (at) VALUES (now())");
      await delay(Math.max(0, begun + ((i + 1) * 1000) / COMMITS_A_SECOND - performance.now()));
    }
  });
  const deadline = performance.now() + 30_000;
  while (latencies.length < commits && performance.now() < deadline) await delay(20);
  if (latencies.length < commits) throw new Error(`only ${latencies.length} of ${commits} commits arrived`);
  const sorted = latencies.sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { commits, medianMs: at(0.5), p99Ms: at(0.99), maxMs: sorted.at(-1) };
}
