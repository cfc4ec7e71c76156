import { afterEach, expect, test, vi } from "vitest";
import { Relay } from "../../../lib/source/outbox/relay.ts";
import type { RelayDatabase } from "../../../lib/source/outbox/relay-database.ts";
import { eventually } from "../../eventually.ts";

afterEach(() => void vi.restoreAllMocks());

test("a clock that is set back silences no relay: it goes on saying that it lives", async () => {
  const stop = new AbortController();
  let [beats, checks] = [0, 0];
  const lanes = Array.from({ length: 4 }, (_, lane) => ({
    ...{ lane, owner: "r", generation: 1, alive: true, open: false },
  }));
  const database: Partial<RelayDatabase> = {
    id: "r",
    beat: async () => {
      beats++;
      return 1;
    },
    survey: async () => lanes,
    release: async () => {},
    assign: async () => new Map(),
    openBatches: async () => new Map(),
    leave: async () => {},
    disconnect: async () => {},
  };
  const relay = new Relay({
    database: database as RelayDatabase,
    rows: { pipeline: { name: "shop", topics: { partitions: 4 } } } as never,
    ...{ intervalMs: 5, batchRows: 500, keepHours: 0, leaseMs: 60 },
    nextGeneration: async () => 1,
    check: async () => {
      checks++;
    },
    write: async (_lane, signal) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
    },
    signal: stop.signal,
    log: { info() {}, warn() {}, error() {} },
  });
  const running = relay.run();
  await eventually(() => beats > 0, { what: "a beat", deadlineMs: 10_000 });
  const now = Date.now();
  vi.spyOn(Date, "now").mockReturnValue(now - 3_600_000);
  const before = { beats, checks };
  await eventually(() => beats >= before.beats + 5, { what: "five more beats", deadlineMs: 10_000 });
  stop.abort();
  await running;
  expect(checks).toBeGreaterThanOrEqual(before.checks + 5);
});
