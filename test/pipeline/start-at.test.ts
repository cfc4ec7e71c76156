import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { planPipeline } from "../../lib/admin/plan/plan.ts";
import { kinesisClient } from "../../lib/aws/clients.ts";
import { runCapture } from "../../lib/capture/capture.ts";
import { parsePosition, START_OF_HISTORY } from "../../lib/change/position.ts";
import type { TributaryError } from "../../lib/change/tributary-error.ts";
import { ConsumerTable } from "../../lib/consume/fence/consumer-table.ts";
import { planRegistration, StartPositions } from "../../lib/consume/fence/start-position.ts";
import { definePipeline } from "../../lib/definition/pipeline.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { kinesisStream } from "../../lib/stream/kinesis/kinesis-stream.ts";
import type { RecordStream } from "../../lib/stream/record-stream.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { KeptLog } from "../postgres/source.ts";
import { DevProject, interrupt } from "./dev-project.ts";

const aws = emulatedAws();
const signal = new AbortController().signal;
const HOUR = 3_600_000;

const handler = (name: string) => `
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { consumer, Operation } from "tributary-cdc";

const file = fileURLToPath(new URL("../../../../${name}.txt", import.meta.url));
export const handler = consumer("${name}")
  .on("*.public.orders", Operation.Create, (event) => appendFileSync(file, event.after.id + "\\n"))
  .handler();
`;

const definition = (...consumers: string[]) => `
import { definePipeline, postgres } from "tributary-cdc/pipeline";
export default definePipeline({
  name: "mine",
  source: postgres({ tables: ["public.orders"] }),
  topics: { partitions: 1 },
  consumers: [${consumers.join(", ")}],
});
`;
const orders = '{ name: "orders", entry: "orders.ts", topics: ["*.public.orders"] }';

describe("a new consumer with startAt", () => {
  withPostgres((server) => {
    const cleanups: (() => unknown)[] = [];
    afterEach(async () => {
      for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
    });

    async function database() {
      const url = await freshDatabase(server());
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      cleanups.push(() => client.end());
      await client.query("CREATE TABLE orders (id int PRIMARY KEY)");
      return { url, client };
    }

    it("gets every change that is still there, and then the new ones, in order and once; then it keeps its place", async () => {
      const { url, client } = await database();
      const project = await DevProject.make({ "orders.ts": handler("orders"), "again.ts": handler("again") });
      cleanups.push(() => project.remove());
      const seen = async (name: string) => (await project.read(`${name}.txt`)).split("\n").slice(0, -1);
      const ids = (count: number) => Array.from({ length: count }, (_, i) => String(i + 1));
      await project.write({ "tributary.config.ts": definition(orders) });
      const first = await project.dev("--database-url", url);
      await client.query("INSERT INTO orders SELECT generate_series(1, 40)");
      await eventually(async () => (await seen("orders")).length === 40, { what: "the first consumer" });
      await interrupt(first);

      const again = (startAt: string) =>
        `{ name: "again", entry: "again.ts", topics: ["*.public.orders"], startAt: "${startAt}" }`;
      await project.write({ "tributary.config.ts": definition(orders, again("oldest")) });
      const second = await project.dev("--database-url", url);
      await client.query("INSERT INTO orders SELECT generate_series(41, 60)");
      await eventually(async () => (await seen("again")).length >= 60, { what: "the replay" });
      await interrupt(second);
      expect(await seen("again")).toEqual(ids(60));

      await project.write({ "tributary.config.ts": definition(orders, again("2026-01-01T00:00:00Z")) });
      const third = await project.dev("--database-url", url);
      await client.query("INSERT INTO orders SELECT generate_series(61, 70)");
      await eventually(async () => (await seen("again")).length >= 70, { what: "what came since" });
      await eventually(() => /startAt: "2026-01-01T00:00:00Z".*has no effect/.test(third.printed()), {
        what: () => `a warning: ${third.printed()}`,
      });
      await interrupt(third);
      expect(await seen("again")).toEqual(ids(70));
      expect(await seen("orders")).toEqual(ids(70));
    });

    it("begins at a time between, or is refused before anything is touched, and a later start changes nothing", async () => {
      const { url, client } = await database();
      const connection = connectionFromUrl(url);
      const { dynamodb, environment } = aws();
      const [stateTable, streamName] = [await aws().freshTable(), await aws().freshStream()];
      const real = kinesisStream(kinesisClient(environment), streamName);
      /** As if the stream had been there for a month. */
      const old: RecordStream = {
        ...real,
        extent: async (until) => ({ ...(await real.extent(until)), retentionMs: 24 * HOUR, createdMs: 0 }),
      };
      const slot = new URL(url).pathname.slice(1).replace(/\W/g, "_");
      const define = (again?: { name: string; startAt?: string; topics?: string[] }) =>
        definePipeline({
          name: "shop",
          source: {
            ...{ kind: "postgres", slot, publication: slot, acceptUnboundedWal: true },
            tables: ["public.orders"],
          },
          stream: { retentionHours: 24 },
          consumers: [
            { name: "orders", entry: "x", topics: ["*.public.orders"] },
            ...(again ? [{ entry: "x", topics: ["*.public.orders"], ...again }] : []),
          ],
        });
      const start = async (pipeline: ReturnType<typeof define>, meanwhile = async () => {}) => {
        const log = new KeptLog();
        const ending = new AbortController();
        let acknowledged = 0;
        const options = { pipeline, connection, dynamodb, stateTable, stream: old, log, leaseMs: 1_500 };
        let failure: TributaryError | undefined;
        let isStreaming = false;
        const run = runCapture(
          {
            ...options,
            onMetrics: ({ stream }) => {
              isStreaming = true;
              acknowledged = stream.changes;
            },
          },
          ending.signal,
        ).catch((error: TributaryError) => {
          failure = error;
        });
        await eventually(() => failure !== undefined || isStreaming, { what: "streaming" });
        if (!failure) await meanwhile();
        ending.abort();
        await run;
        return { failure, log, acknowledged };
      };
      const place = (consumer: string) => ({ dynamodb, table: stateTable, pipeline: "shop", consumer });
      const startOf = (consumer: string) =>
        new StartPositions(new ConsumerTable(place(consumer))).of("shop.public.orders", signal);
      const known = (consumer: string) =>
        planRegistration(place(consumer), ["*.public.orders"], START_OF_HISTORY, signal);

      const before = new Date(Date.now() - 1000).toISOString();
      await start(define(), async () => {
        for (let i = 1; i <= 3; i++) await client.query("INSERT INTO orders VALUES ($1)", [i]);
      });
      const { position: confirmed } = await startPositionAfter(start, define, startOf);

      // Refused: nothing is known of it after.
      const expired = define({ name: "expired", startAt: new Date(Date.now() - 23 * HOUR).toISOString() });
      const { failure } = await start(expired);
      expect(failure).toMatchObject({
        ...{ code: "START_EXPIRED", retry: "stop", consumer: "expired" },
        remedy: expect.stringContaining("--consumer expired"),
      });
      expect((await known("expired")).isNew).toBe(true);
      const longAgo = define({ name: "expired", startAt: new Date(Date.now() - 25 * HOUR).toISOString() });
      const state = { dynamodb, stateTable };
      const refused = await planPipeline({ pipeline: longAgo, connection, state, signal });
      expect(refused.refusals).toMatchObject([{ code: "START_EXPIRED" }]);

      const timed = define({ name: "timed", startAt: before });
      const { changes } = await planPipeline({ pipeline: timed, connection, state, signal });
      expect(changes).toContainEqual(
        expect.objectContaining({ what: "topic", start: { from: "startAt", startAt: before } }),
      );
      expect((await start(timed)).failure).toBeUndefined();
      const begun = await startOf("timed");
      expect(begun < confirmed, "before what is confirmed").toBe(true);
      expect(parsePosition(begun).commitLsn, "not from the beginning").toBeGreaterThan(0n);

      // It has begun: another startAt says so, and changes nothing.
      const other = define({ name: "timed", startAt: "oldest" });
      const { log } = await start(other);
      expect(await startOf("timed")).toBe(begun);
      expect(JSON.stringify(log)).toContain("began with startAt");
      const { notes } = await planPipeline({ pipeline: other, connection, state, signal });
      expect(notes).toContainEqual(expect.stringContaining('startAt: \\"oldest\\"'.replaceAll("\\", "")));
      expect((await planPipeline({ pipeline: timed, connection, state, signal })).notes).not.toContainEqual(
        expect.stringContaining("startAt"),
      );
    });
  });
});

/** Where a consumer begins that is new now, and has no `startAt`. */
async function startPositionAfter<P>(
  start: (pipeline: P) => Promise<unknown>,
  define: (consumer: { name: string }) => P,
  startOf: (consumer: string) => Promise<string>,
): Promise<{ position: string }> {
  await start(define({ name: "now" }));
  return { position: await startOf("now") };
}
