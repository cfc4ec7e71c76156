import { readFile } from "node:fs/promises";
import { afterEach, expect, test } from "vitest";
import { AwsFaultProxy } from "../../lib/testing/fault/aws-proxy.ts";
import { entriesOf } from "../../lib/testing/fault/put-records.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { eventually } from "../eventually.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const MB = 1024 * 1024;
const ROWS = 300_000;
/** As events more than 400 MB: twelve times the writer's buffer. */
const WIDTH = 1000;
/**
 * What a capture task may take, see docs, PostgreSQL, "Memory": 32 MB of events that wait, up to eight requests of 5 MB
 * on their way (each as base64 too), and Node itself.
 */
const CEILING = 640 * MB;
/** More than `wal_sender_timeout`, 20 s: a silent client would be cut off. */
const BLOCKED_MS = 30_000;

/** Resident bytes of a process at its highest. https://man7.org/linux/man-pages/man5/proc_pid_status.5.html */
async function highestMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

withPostgres((server) => {
  test.skipIf(process.platform !== "linux")(
    "a large transaction while Kinesis is blocked: bounded memory, the same walsender, and all of it arrives",
    async () => {
      let blocked = false;
      let refused = 0;
      const ids = new Set<number>();
      const proxy = await AwsFaultProxy.start({
        target: aws().environment.AWS_ENDPOINT_URL_KINESIS as string,
        choose: (call) => {
          if (call.operation !== "PutRecords") return undefined;
          if (blocked) {
            refused++;
            return { kind: "error", status: 400, code: "ProvisionedThroughputExceededException" };
          }
          // Stored here: an emulator that holds it all would be measured instead.
          const entries = entriesOf(call);
          for (const { Data } of entries) {
            const { events } = JSON.parse(Buffer.from(Data, "base64").toString());
            // Control events (a shard's beat among them) carry no row.
            for (const { after } of events) if (after !== null) ids.add(after.id);
          }
          const Records = entries.map((_, i) => ({
            SequenceNumber: `${call.number}${i}`,
            ShardId: "shardId-0",
          }));
          return { kind: "rewrite", body: undefined, answer: () => ({ FailedRecordCount: 0, Records }) };
        },
      });
      cleanups.push(() => proxy.stop());
      const b = await CaptureBench.create(aws(), await freshDatabase(server()), { partitions: 64 });
      cleanups.push(() => b.end());
      const capture = b.capture({ AWS_ENDPOINT_URL_KINESIS: proxy.endpoint });
      await capture.printed("streaming from slot");
      const walsender = await b.walsender();

      blocked = true;
      await b.client.query(
        `INSERT INTO orders SELECT i, repeat('x', ${WIDTH}) FROM generate_series(1, ${ROWS}) i`,
      );
      await eventually(() => refused > 0, { what: "Kinesis to refuse" });
      const since = performance.now();
      await eventually(() => performance.now() - since > BLOCKED_MS, {
        what: "the blockade to be long enough",
      });
      expect(await b.walsender()).toBe(walsender);

      blocked = false;
      await eventually(() => ids.size === ROWS, { what: "all rows", deadlineMs: 180_000 });
      const highest = await highestMemory(capture.pid);
      expect(await b.walsender()).toBe(walsender);
      expect(capture.lines.join()).not.toMatch(/replication link/);
      expect(highest).toBeLessThan(CEILING);
    },
  );
});
