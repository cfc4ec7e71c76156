import { expect, test } from "vitest";
import { Heartbeat, heartbeatSql, type IdleView } from "../../../lib/source/postgres/slot/heartbeat.ts";

const MB = 1024n * 1024n;
const silent = { info: () => {}, warn: () => {}, error: () => {} };

/** Whether the second of two looks writes a heartbeat. */
async function beats(first: Partial<IdleView>, second: Partial<IdleView>): Promise<boolean> {
  let emitted = 0;
  const heartbeat = new Heartbeat(async () => emitted++, silent);
  const idle = { atMs: 0, serverLsn: 100n * MB, receivedLsn: 50n * MB, waiting: true };
  await heartbeat.look({ ...idle, ...first });
  expect(emitted).toBe(0);
  await heartbeat.look({ ...idle, atMs: 10_000, serverLsn: 110n * MB, ...second });
  return emitted === 1;
}

test.each<{ what: string; first?: Partial<IdleView>; second?: Partial<IdleView>; due: boolean }>([
  { what: "behind at both, nothing came, the log grew", due: true },
  { what: "a keepalive or a commit came", second: { receivedLsn: 51n * MB }, due: false },
  { what: "something waited for Kinesis before", first: { waiting: false }, due: false },
  { what: "something waits for Kinesis now", second: { waiting: false }, due: false },
  {
    what: "hardly behind",
    first: { receivedLsn: 100n * MB - 10n },
    second: { receivedLsn: 100n * MB - 10n },
    due: false,
  },
  { what: "the log stood still", second: { serverLsn: 100n * MB }, due: false },
])("$what → $due", async ({ first = {}, second = {}, due }) => {
  expect(await beats(first, second)).toBe(due);
});

test("beats at most twice a minute", async () => {
  let emitted = 0;
  const heartbeat = new Heartbeat(async () => emitted++, silent);
  for (let s = 0; s <= 600; s++)
    await heartbeat.look({ atMs: s * 1000, serverLsn: BigInt(100 + s) * MB, receivedLsn: 0n, waiting: true });
  expect(emitted).toBe(20);
});

test("a role that may not write is told once, and tries no more", async () => {
  let tried = 0;
  const warnings: string[] = [];
  const heartbeat = new Heartbeat(
    async () => {
      tried++;
      throw Object.assign(new Error("permission denied"), { code: "42501" });
    },
    { ...silent, warn: (message) => void warnings.push(message) },
  );
  for (let s = 0; s <= 600; s++)
    await heartbeat.look({ atMs: s * 1000, serverLsn: BigInt(100 + s) * MB, receivedLsn: 0n, waiting: true });
  expect(tried).toBe(1);
  expect(warnings).toEqual([expect.stringMatching(/may not write/)]);
});

test.each([
  ["a lost session", Object.assign(new Error("Connection terminated unexpectedly"), { code: "ECONNRESET" })],
  ["a server that was a standby for a moment", Object.assign(new Error("in recovery"), { code: "25006" })],
])("%s costs one heartbeat: the next one is written", async (_, failure) => {
  const warnings: string[] = [];
  let written = 0;
  let tried = 0;
  const heartbeat = new Heartbeat(
    async () => {
      if (++tried <= 2) throw failure;
      written++;
    },
    { ...silent, warn: (message) => void warnings.push(message) },
  );
  for (let s = 0; s <= 600; s++)
    await heartbeat.look({ atMs: s * 1000, serverLsn: BigInt(100 + s) * MB, receivedLsn: 0n, waiting: true });
  expect([tried, written]).toEqual([20, 18]);
  expect(warnings).toEqual([]);
});

test("the message is flushed at once where the server can", () => {
  expect(heartbeatSql(160_000)).toBe("SELECT pg_logical_emit_message(false, 'tributary.heartbeat', '')");
  expect(heartbeatSql(170_000)).toBe(
    "SELECT pg_logical_emit_message(false, 'tributary.heartbeat', '', true)",
  );
});
