import { setImmediate as turn } from "node:timers/promises";
import { afterEach, expect, it, vi } from "vitest";
import type { CaptureMetrics, CaptureOptions } from "../../../lib/capture/capture-options.ts";
import { LOOK_MS, withPauses } from "../../../lib/capture/capture-pause.ts";
import { definePipeline, outbox } from "../../../lib/definition/pipeline.ts";
import { clearPause, setPause } from "../../../lib/state/pauses.ts";
import { type CallFault, MemoryTable } from "../consume/memory-table.ts";

const waits = vi.hoisted((): number[] => []);

// Waiting takes no time here: a look follows the one before at once.
vi.mock("node:timers/promises", async (original) => {
  const timers = await original<typeof import("node:timers/promises")>();
  const wait = async (ms: number, value: unknown, { signal }: { signal?: AbortSignal } = {}) => {
    signal?.throwIfAborted();
    waits.push(ms);
    await timers.setImmediate();
    signal?.throwIfAborted();
    return value;
  };
  return { ...timers, setTimeout: wait };
});

// A task whose test failed would look on for ever.
const endings: AbortController[] = [];
afterEach(() => {
  for (const ending of endings.splice(0)) ending.abort();
  waits.length = 0;
});

const ADA = { by: "ada", since: 1_000, reason: undefined };

function bench(fault: () => CallFault = () => "none") {
  const table = new MemoryTable();
  const events: string[] = [];
  const metrics: CaptureMetrics[] = [];
  const ending = new AbortController();
  endings.push(ending);
  const plain = {
    dynamodb: table.client(),
    table: "t",
    pipeline: "shop",
    signal: new AbortController().signal,
  };
  const options = {
    pipeline: definePipeline({ name: "shop", source: outbox() }),
    dynamodb: table.client(async (when) => {
      // A call takes time: a loop that did not wait would let nothing else run.
      await turn();
      return when === "before" ? fault() : "none";
    }),
    stateTable: "t",
    log: { info: () => {}, warn: (line: string) => void events.push(`warn: ${line}`), error: () => {} },
    report: {
      tookLease: () => {},
      paused: (why: string | undefined) => void events.push(why === undefined ? "goes on" : "paused"),
    },
    onMetrics: (latest: CaptureMetrics) => void metrics.push(latest),
  } as unknown as CaptureOptions;
  let begun = 0;
  /** A task that runs until its signal, and ends as `end` says. */
  const run = (end: () => unknown = () => {}) =>
    withPauses(
      options,
      async (_, signal) => {
        events.push(`run ${++begun}`);
        await new Promise<void>((resolve) =>
          signal.addEventListener("abort", () => resolve(), { once: true }),
        );
        events.push("ended in order");
        await end();
      },
      ending.signal,
    );
  const seen = (event: string) => vi.waitFor(() => expect(events).toContain(event));
  return { table, plain, events, metrics, ending, run, seen };
}

it("ends its stream in order at a pause, stands still, and begins anew when it is resumed", async () => {
  const { plain, events, metrics, ending, run, seen } = bench();
  const task = run();
  await seen("run 1");
  await setPause(plain, "capture", ADA);
  await seen("paused");
  await vi.waitFor(() => expect(metrics.length).toBeGreaterThan(1));
  expect(metrics.at(-1)).toMatchObject({
    paused: { since: 1_000 },
    source: { connected: false },
    stream: { changes: 0 },
  });
  await clearPause(plain, "capture");
  await seen("run 2");
  ending.abort();
  await task;
  const told = events.filter((event) => !event.startsWith("warn"));
  expect(told).toEqual(["run 1", "ended in order", "paused", "goes on", "run 2", "ended in order"]);
});

it("never runs where it starts paused, and ends at once at SIGTERM", async () => {
  const { plain, events, ending, run, seen } = bench();
  await setPause(plain, "capture", ADA);
  const task = run();
  await seen("paused");
  ending.abort();
  await task;
  expect(events.filter((event) => event.startsWith("run"))).toEqual([]);
});

it("is not paused by the pause of a consumer", async () => {
  const { plain, events, ending, run, seen } = bench();
  await setPause(plain, { consumer: "capture" }, ADA);
  const task = run();
  await seen("run 1");
  ending.abort();
  await task;
  expect(events).not.toContain("paused");
});

/** A table whose reads are refused while `refused()`: no repetition of a call helps there. */
function refusing(refused: () => boolean) {
  const made = bench(() => {
    if (!refused()) return "none";
    reads++;
    throw Object.assign(new Error("denied"), { name: "AccessDeniedException" });
  });
  let reads = 0;
  return { ...made, reads: () => reads };
}

it("stays paused while the flag cannot be read, looks every 5 s, and tells it once", async () => {
  let unreadable = false;
  const { plain, events, ending, run, seen, reads } = refusing(() => unreadable);
  await setPause(plain, "capture", ADA);
  const task = run();
  await seen("paused");
  unreadable = true;
  await clearPause(plain, "capture");
  await vi.waitFor(() => expect(reads()).toBeGreaterThan(3));
  expect(events).not.toContain("goes on");
  expect(waits.filter((ms) => ms === LOOK_MS).length).toBeGreaterThanOrEqual(reads());
  unreadable = false;
  await seen("run 1");
  ending.abort();
  await task;
  expect(events.filter((event) => event.includes("cannot be read"))).toHaveLength(1);
});

it("streams on while the flag cannot be read, looks every 5 s, tells it once, and pauses when it can", async () => {
  let unreadable = false;
  const { plain, events, ending, run, seen, reads } = refusing(() => unreadable);
  const task = run();
  await seen("run 1");
  unreadable = true;
  await setPause(plain, "capture", ADA);
  await vi.waitFor(() => expect(reads()).toBeGreaterThan(3));
  expect(events).not.toContain("ended in order");
  expect(waits.filter((ms) => ms === LOOK_MS).length).toBeGreaterThanOrEqual(reads());
  unreadable = false;
  await seen("paused");
  ending.abort();
  await task;
  expect(events.filter((event) => event.includes("cannot be read"))).toHaveLength(1);
});

it("tells of an error at the end that a pause asked for, and throws every other", async () => {
  const first = bench();
  const task = first.run(() => Promise.reject(new TypeError("no order")));
  await first.seen("run 1");
  await setPause(first.plain, "capture", ADA);
  await first.seen("paused");
  expect(first.events.join()).toContain("did not end in order");
  first.ending.abort();
  await task;

  const second = bench();
  const failing = second.run(() => Promise.reject(new TypeError("no order")));
  await second.seen("run 1");
  second.ending.abort();
  await expect(failing).rejects.toBeInstanceOf(TypeError);
});
