import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { readDefinition } from "../../../lib/definition/file.ts";
import { projectDirectory } from "../../../lib/definition/find-definition.ts";
import { startEmbeddedPostgres } from "../../../lib/local/embedded-postgres.ts";
import { startLocalAws, startLocalHost } from "../../../lib/local/host.ts";
import { SHOP_SERVER_SETTINGS, withClient } from "../../../lib/local/shop/shop.ts";
import { commitSteadily, type Latency, percentiles, TICKS } from "./commits.ts";

/** How long after the last commit everything must have arrived. */
const DEADLINE_MS = 60_000;

/** From a commit to its handler through the whole local path, at each of these rates. */
export async function localLatency(
  rates: readonly number[],
  seconds: number,
  found: (commitsASecond: number, latency: Latency) => void,
): Promise<void> {
  const definitionFile = fileURLToPath(new URL("../latency-pipeline.ts", import.meta.url));
  const definition = await readDefinition(definitionFile);
  await using parts = new AsyncDisposableStack();
  const server = await startEmbeddedPostgres({ settings: SHOP_SERVER_SETTINGS });
  parts.defer(() => server.stop("immediate"));
  await withClient(server.url, (client) => client.query(TICKS));
  const aws = await startLocalAws(definition, new AbortController().signal);
  parts.defer(() => aws.stop());
  const handledAt = new Map<string, number>();
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  const host = await startLocalHost({
    definition,
    definitionFile,
    projectDirectory: projectDirectory(definitionFile),
    databaseUrl: server.url,
    aws,
    onLog: (line) => {
      const [, id, at] = /\{"id":"(\d+)","handledAt":([\d.]+)\}/.exec(line) ?? [];
      if (id !== undefined) handledAt.set(id, Number(at));
    },
    onFailure: failed.reject,
  });
  parts.defer(() => host.stop());
  for (const commitsASecond of rates) {
    handledAt.clear();
    const committedAt = await commitSteadily(server.url, { commitsASecond, seconds });
    const deadline = performance.now() + DEADLINE_MS;
    while (handledAt.size < committedAt.size) {
      if (performance.now() > deadline)
        throw new Error(`only ${handledAt.size} of ${committedAt.size} commits were handled`);
      await Promise.race([delay(20), failed.promise]);
    }
    found(
      commitsASecond,
      percentiles([...committedAt].map(([id, at]) => (handledAt.get(id) as number) - at)),
    );
  }
}
