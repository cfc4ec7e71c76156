import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { readDefinition } from "../../lib/definition/file.ts";
import { projectDirectory } from "../../lib/definition/find-definition.ts";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { startLocalAws, startLocalHost } from "../../lib/local/host.ts";
import { seededRandom } from "../../lib/local/shop/catalog.ts";
import { completion } from "../../lib/local/shop/completion.ts";
import { endOfLog, openShop, SHOP_SERVER_SETTINGS } from "../../lib/local/shop/shop.ts";
import { runWorkload } from "../../lib/local/shop/workload.ts";
import { cpuSeconds, usedBetween } from "./cpu.ts";
import type { Latency } from "./latency/commits.ts";
import { localLatency } from "./latency/local-path.ts";
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
    let latency: Latency | undefined;
    await localLatency([COMMITS_A_SECOND], SECONDS, (_, found) => {
      latency = found;
      say(
        `  commit to handler: median ${found.p50Ms} ms, p99 ${found.p99Ms} ms, longest ${found.maxMs} ms (${found.commits} commits)`,
      );
    });
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
    projectDirectory: projectDirectory(definitionFile),
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
