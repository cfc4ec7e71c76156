import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Confirmation } from "../../../lib/source/postgres/slot/confirmation.ts";
import type { SlotState } from "../../../lib/source/postgres/slot/slot-record.ts";

const state: SlotState = {
  epoch: 1,
  slot: "s",
  publication: "p",
  database: "d",
  systemId: "1",
  timeline: 1,
  confirmedLsn: 100n,
  recentCommits: [],
};

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
afterEach(() => void vi.useRealTimers());

function confirmation(write: (state: SlotState) => Promise<void> = async () => {}) {
  const events: string[] = [];
  const failures: unknown[] = [];
  const confirming = new Confirmation({
    record: {
      read: async () => undefined,
      newEpoch: async () => undefined,
      write: async (next) => {
        events.push(`write ${next.confirmedLsn}`);
        await write(next);
      },
      confirm: async () => {},
    },
    state,
    onConfirmed: (lsn) => events.push(`told ${lsn}`),
    onFailure: (error) => failures.push(error),
  });
  return { confirming, events, failures };
}

const commit = (commitLsn: bigint) => ({ commitLsn, xid: Number(commitLsn), commitTime: commitLsn });

test("the server is told only what the record holds", async () => {
  let written = () => {};
  const { confirming, events } = confirmation(() => new Promise<void>((resolve) => (written = resolve)));
  confirming.streamed(commit(150n));
  confirming.acknowledge(160n);
  await vi.advanceTimersByTimeAsync(0);
  expect(events).toEqual(["write 160"]);
  expect(confirming.state.confirmedLsn).toBe(100n);
  written();
  await vi.advanceTimersByTimeAsync(0);
  expect(events).toEqual(["write 160", "told 160"]);
  expect(confirming.state.confirmedLsn).toBe(160n);
});

test("many acknowledgements become one write a second", async () => {
  const { confirming, events } = confirmation();
  for (let i = 0n; i < 500n; i++) {
    confirming.streamed(commit(200n + i * 10n));
    confirming.acknowledge(205n + i * 10n);
    await vi.advanceTimersByTimeAsync(10);
  }
  await vi.advanceTimersByTimeAsync(2000);
  const writes = events.filter((event) => event.startsWith("write"));
  expect(writes.length).toBeGreaterThan(3);
  expect(writes.length).toBeLessThan(9);
  expect(writes.at(-1)).toBe("write 5195");
});

test("an idle database costs a write in ten seconds at most", async () => {
  const { confirming, events } = confirmation();
  for (let i = 0n; i < 60n; i++) {
    confirming.acknowledge(200n + i);
    await vi.advanceTimersByTimeAsync(1000);
  }
  expect(events.filter((event) => event.startsWith("write")).length).toBeLessThanOrEqual(7);
});

test("a commit does not wait behind an idle position", async () => {
  const { confirming, events } = confirmation();
  confirming.acknowledge(200n);
  await vi.advanceTimersByTimeAsync(0);
  confirming.acknowledge(300n);
  confirming.streamed(commit(350n));
  confirming.acknowledge(360n);
  await vi.advanceTimersByTimeAsync(1000);
  expect(events).toContain("told 360");
});

test("the record keeps the latest commits up to what it confirms, and no later one", async () => {
  const written: SlotState[] = [];
  const { confirming } = confirmation(async (next) => void written.push(next));
  for (let lsn = 200n; lsn < 240n; lsn++) confirming.streamed(commit(lsn));
  confirming.acknowledge(230n);
  await vi.advanceTimersByTimeAsync(0);
  const lsns = written.at(-1)?.recentCommits.map((c) => c.commitLsn) ?? [];
  expect(lsns.at(-1)).toBe(229n);
  expect(lsns.length).toBe(16);
  expect(confirming.knownCommits.at(-1)?.commitLsn).toBe(239n);
});

test("flush writes at once and waits; a record that cannot be written ends confirming", async () => {
  const { confirming, events } = confirmation();
  confirming.acknowledge(200n);
  await vi.advanceTimersByTimeAsync(0);
  confirming.acknowledge(300n);
  await confirming.flush();
  expect(events.at(-1)).toBe("told 300");

  const lost = new Error("lease lost");
  const failing = confirmation(async () => {
    throw lost;
  });
  failing.confirming.acknowledge(200n);
  await failing.confirming.flush();
  expect(failing.failures).toEqual([lost]);
  expect(failing.events).toEqual(["write 200"]);
  failing.confirming.acknowledge(300n);
  await failing.confirming.flush();
  expect(failing.events).toEqual(["write 200"]);
});

test("acknowledgements never go backwards", async () => {
  const { confirming, events } = confirmation();
  confirming.acknowledge(200n);
  confirming.acknowledge(150n);
  await confirming.flush();
  expect(events).toEqual(["write 200", "told 200"]);
});

test("commits that wait for Kinesis are bounded, and what is known of them has no hole", async () => {
  const { confirming } = confirmation();
  for (let i = 1n; i <= 20n; i++) confirming.streamed(commit(100n + i));
  confirming.acknowledge(115n);
  for (let i = 1n; i <= 300_000n; i++) confirming.streamed(commit(200n + i));
  confirming.acknowledge(200n + 290_000n);
  const known = confirming.knownCommits.map(({ commitLsn }) => commitLsn);
  expect(known.length).toBeLessThanOrEqual(65_536 + 16);
  expect(known.at(-1)).toBe(300_200n);
  expect(known).toEqual(known.map((_, i) => 300_200n - BigInt(known.length - 1 - i)));
});

test("a new timeline is in the record before anything of it is read, also where a write is under way", async () => {
  const written: [number, bigint][] = [];
  const gate = Promise.withResolvers<void>();
  const { confirming } = confirmation(async ({ timeline, confirmedLsn }) => {
    if (written.length === 0) await gate.promise;
    written.push([timeline, confirmedLsn]);
  });
  confirming.streamed(commit(150n));
  confirming.acknowledge(200n);
  await vi.advanceTimersByTimeAsync(1000);
  let known = false;
  const noting = confirming.onTimeline(2).then(() => {
    known = true;
  });
  await vi.advanceTimersByTimeAsync(10);
  expect(known).toBe(false);
  gate.resolve();
  await noting;
  expect(written.at(-1)).toEqual([2, 200n]);
  confirming.stop();
});

test("a record that cannot be written keeps the new timeline from being read", async () => {
  const { confirming } = confirmation(async () => {
    throw new Error("no table");
  });
  await expect(confirming.onTimeline(2)).rejects.toThrow("no table");
});

test("what is seen of the publication is written between two confirmations, never beside one", async () => {
  const written: [bigint, number | undefined][] = [];
  let under = 0;
  const { confirming, events } = confirmation(async ({ confirmedLsn, termsSeen }) => {
    expect(++under).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    under--;
    written.push([confirmedLsn, termsSeen?.atMs]);
  });
  const noting: Promise<void>[] = [];
  for (let i = 1n; i <= 5n; i++) {
    confirming.streamed(commit(100n + i * 10n));
    confirming.acknowledge(105n + i * 10n);
    noting.push(confirming.onContract({ termsSeen: { lsn: i, atMs: Number(i) } }));
    await vi.advanceTimersByTimeAsync(700);
  }
  await vi.advanceTimersByTimeAsync(30_000);
  await Promise.all(noting);
  const lsns = written.map(([lsn]) => lsn);
  expect(lsns).toEqual([...lsns].sort((a, b) => Number(a - b)));
  expect(written.at(-1)).toEqual([155n, 5]);
  expect(events.at(-1)).toBe("told 155");
});

test("whatever is written tells since when the rest can be in the stream as of now", async () => {
  const written: SlotState[] = [];
  const confirming = new Confirmation({
    record: {
      generation: 7,
      read: async () => undefined,
      newEpoch: async () => undefined,
      write: async (next) => void written.push(next),
      confirm: async () => {},
    },
    state: { ...state, sent: { places: [{ lsn: 150n }] } },
    sentSince: (lsn) => Number(lsn),
    onConfirmed: () => {},
    onFailure: () => {},
  });
  await confirming.began();
  expect(written.at(-1)?.sent).toEqual({ writer: 7, sinceMs: 100, places: [{ lsn: 150n }] });
  confirming.streamed(commit(150n));
  confirming.acknowledge(200n);
  await vi.advanceTimersByTimeAsync(0);
  expect(written.at(-1)?.sent).toEqual({ writer: 7, sinceMs: 200, places: [] });
  // Days may lie between the two: a task that dies now would have its successor read them all.
  await confirming.onTables({});
  expect(written.at(-1)?.sent).toEqual({ writer: 7, sinceMs: 200, places: [] });
  await confirming.ended([{ lsn: 300n }]);
  expect(written.at(-1)?.sent).toEqual({ places: [{ lsn: 300n }] });
});
