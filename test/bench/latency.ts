import { availableParallelism, loadavg } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { SHOP_SERVER_SETTINGS, withClient } from "../../lib/local/shop/shop.ts";
import { PUBLICATION } from "./capture/backlog.ts";
import { Endpoints } from "./capture/clients.ts";
import { commitSteadily, type Latency, percentiles, TICKS } from "./latency/commits.ts";
import { localLatency } from "./latency/local-path.ts";
import type { Bench } from "./main.ts";

const RATES = [10, 100, 1000];
const SECONDS = 10;
/** The first commits meet code that was never run. */
const WARM_UP = { commitsASecond: 200, seconds: 3 };
const DEADLINE_MS = 60_000;

/** How long a change takes: from its commit to PutRecords, and to its handler on the local path. */
export const latency: Bench = {
  about: `Latency on ${availableParallelism()} cores, from the moment the client knows of a commit.`,
  options: { seconds: { type: "string" }, only: { type: "string" } },
  async run(say, values) {
    const seconds = Number(values.seconds ?? SECONDS);
    const found = { capture: {} as Record<number, Latency>, local: {} as Record<number, Latency> };
    const told = (path: keyof typeof found) => (rate: number, measured: Latency) => {
      found[path][rate] = measured;
      const { p50Ms, p99Ms, maxMs } = measured;
      say(`  ${rate} commits/s: p50 ${p50Ms} ms, p99 ${p99Ms} ms, longest ${maxMs} ms`);
    };
    if (values.only !== "local") {
      say("commit to PutRecords at the endpoint (capture alone):");
      await captureLatency(seconds, told("capture"));
    }
    if (values.only !== "capture") {
      say("commit to handler (local path, emulated Kinesis and Lambda):");
      await localLatency(RATES, seconds, told("local"));
    }
    return { ...found, load: Number((loadavg()[0] ?? 0).toFixed(2)) };
  },
};

async function captureLatency(
  seconds: number,
  found: (commitsASecond: number, latency: Latency) => void,
): Promise<void> {
  await using parts = new AsyncDisposableStack();
  const server = await startEmbeddedPostgres({ settings: SHOP_SERVER_SETTINGS });
  parts.defer(() => server.stop("immediate"));
  await withClient(server.url, async (client) => {
    await client.query(TICKS);
    await client.query(`CREATE PUBLICATION ${PUBLICATION} FOR TABLE ticks`);
  });
  const endpoints = parts.use(await Endpoints.start());
  const program = await endpoints.capture(server.url, "bench_latency", ["public.ticks"]);
  parts.defer(() => program.stop());
  for (const rate of [WARM_UP, ...RATES.map((commitsASecond) => ({ commitsASecond, seconds }))]) {
    const committedAt = await commitSteadily(server.url, rate);
    const latencies: number[] = [];
    const deadline = performance.now() + DEADLINE_MS;
    while (latencies.length < committedAt.size) {
      if (performance.now() > deadline)
        throw new Error(`only ${latencies.length} of ${committedAt.size} commits arrived`);
      await delay(100);
      for (const { id, at } of await endpoints.arrivals())
        latencies.push(at - (committedAt.get(id) as number));
    }
    if (rate !== WARM_UP) found(rate.commitsASecond, percentiles(latencies));
  }
}
