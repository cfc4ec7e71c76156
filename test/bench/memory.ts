import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { readDefinition } from "../../lib/definition/file.ts";
import { projectDirectory } from "../../lib/definition/find-definition.ts";
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { startLocalAws, startLocalHost } from "../../lib/local/host.ts";
import { SHOP_SERVER_SETTINGS, withClient } from "../../lib/local/shop/shop.ts";
import { AwsFaultProxy } from "../../lib/testing/fault/aws-proxy.ts";
import { residentBytes } from "./cpu.ts";
import type { Bench } from "./main.ts";

const ROWS = 1_000_000;
const WIDTH = 100;
/** `TRIBUTARY_BENCH_BLOCKED_SECONDS` shortens it. */
const BLOCKED_SECONDS = Number(process.env.TRIBUTARY_BENCH_BLOCKED_SECONDS ?? "600");
/** While Kinesis is blocked: a transaction of so many rows, twice a second. */
const ROWS_A_COMMIT = 1000;
/** The emulator forgets what is older than 256 MB: further behind the consumer must not be. */
const CONSUMER_BEHIND = 100_000;
const STUCK_SECONDS = 60;
const MB = 1024 * 1024;

type Kind = "capture" | "consumer";

/** Highest resident memory of the two programs, in MB, over one phase. */
interface Phase {
  readonly phase: string;
  readonly seconds: number;
  readonly captureMB: number;
  readonly consumerMB: number;
}

/** Memory of the capture task and of a consumer: over a large transaction, and over a long time of blocked Kinesis. */
export const memory: Bench = {
  about: `Resident memory of capture and consumer: a transaction of ${ROWS} rows, then ${BLOCKED_SECONDS} s of blocked Kinesis.`,
  async run(say) {
    const definitionFile = fileURLToPath(new URL("./memory-pipeline.ts", import.meta.url));
    const definition = await readDefinition(definitionFile);
    await using parts = new AsyncDisposableStack();
    const server = await startEmbeddedPostgres({ settings: SHOP_SERVER_SETTINGS });
    parts.defer(() => server.stop("immediate"));
    const sql = (text: string) => withClient(server.url, (client) => client.query(text));
    await sql("CREATE TABLE items (id bigint PRIMARY KEY, note text)");
    const aws = await startLocalAws(definition, new AbortController().signal);
    parts.defer(() => aws.stop());

    let blocked = false;
    let behind = () => 0;
    const proxy = await AwsFaultProxy.start({
      target: aws.environment.AWS_ENDPOINT_URL_KINESIS as string,
      choose: ({ operation }) => {
        if (operation !== "PutRecords") return undefined;
        if (!blocked && behind() <= CONSUMER_BEHIND) return undefined;
        return { kind: "error", status: 400, code: "ProvisionedThroughputExceededException" };
      },
    });
    parts.defer(() => proxy.stop());
    const failed = Promise.withResolvers<never>();
    failed.promise.catch(() => {});
    const host = await startLocalHost({
      definition,
      definitionFile,
      projectDirectory: projectDirectory(definitionFile),
      databaseUrl: server.url,
      aws,
      captureEnvironment: { AWS_ENDPOINT_URL_KINESIS: proxy.endpoint },
      onLog: (line) => line.includes('"WARN"') && say(`    ${line.slice(0, 160)}`),
      onFailure: failed.reject,
    });
    parts.defer(() => host.stop());
    const applied = () => host.consumers[0]?.counts.applied ?? 0;
    const gaps = () => host.consumers[0]?.counts.gaps ?? 0;
    behind = () => host.capture.figures.changes - applied();

    const phases: Phase[] = [];
    const watch = async (phase: string, over: () => boolean) => {
      const started = performance.now();
      const seconds = () => Math.round((performance.now() - started) / 1000);
      const highest: Record<Kind, number> = { capture: 0, consumer: 0 };
      let told = 0;
      say(`${phase} …`);
      let moved = { applied: applied(), at: seconds() };
      while (!over()) {
        if (blocked || applied() !== moved.applied) moved = { applied: applied(), at: seconds() };
        if (seconds() - moved.at > STUCK_SECONDS)
          throw new Error(`nothing took effect for ${STUCK_SECONDS} s, ${applied()} before; gaps: ${gaps()}`);
        await Promise.race([delay(500), failed.promise]);
        const now = residentBytes();
        for (const kind of ["capture", "consumer"] as const)
          highest[kind] = Math.max(highest[kind], now.get(partOf[kind]) ?? 0);
        if (seconds() < told) continue;
        told = seconds() + Math.max(10, BLOCKED_SECONDS / 20);
        const mb = (kind: Kind) => Math.round((now.get(partOf[kind]) ?? 0) / MB);
        say(
          `  ${seconds()} s: capture ${mb("capture")} MB, consumer ${mb("consumer")} MB, ${applied()} applied`,
        );
      }
      const found = {
        phase,
        seconds: seconds(),
        captureMB: Math.round(highest.capture / MB),
        consumerMB: Math.round(highest.consumer / MB),
      };
      phases.push(found);
      say(`  highest in ${found.seconds} s: capture ${found.captureMB} MB, consumer ${found.consumerMB} MB`);
    };

    const until = performance.now() + 5000;
    await watch("idle", () => performance.now() > until);

    const writing = sql(
      `INSERT INTO items SELECT i, repeat('x', ${WIDTH}) FROM generate_series(1, ${ROWS}) i`,
    );
    await watch(`one transaction of ${ROWS} rows`, () => applied() >= ROWS);
    await writing;

    let rows = ROWS;
    blocked = true;
    const end = performance.now() + BLOCKED_SECONDS * 1000;
    const workload = (async () => {
      for (; performance.now() < end; rows += ROWS_A_COMMIT) {
        await sql(
          `INSERT INTO items SELECT i, repeat('x', ${WIDTH}) FROM generate_series(${rows + 1}, ${rows + ROWS_A_COMMIT}) i`,
        );
        await delay(500);
      }
    })();
    await watch(
      `Kinesis refuses for ${BLOCKED_SECONDS} s, 2,000 rows/s are written`,
      () => performance.now() > end,
    );
    await workload;
    const restarts = host.capture.figures.restarts;
    blocked = false;
    await watch("Kinesis takes records again", () => applied() >= rows);
    say(`${rows} rows, ${applied()} applied, the capture task was started again ${restarts} times`);
    return { rows, applied: applied(), restarts, phases };
  },
};

/** How `residentBytes` calls them. */
const partOf: Readonly<Record<Kind, string>> = { capture: "capture", consumer: "memory-handler" };
