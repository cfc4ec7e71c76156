import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openReset, resetPartitions } from "../../../lib/admin/reset.ts";
import { healReset } from "../../../lib/admin/reset-healing.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { isHealed, MissingTable } from "../../../lib/consume/run/missing-changes.ts";
import { hasEnded, readBackfill, writeBackfill } from "../../../lib/state/backfills.ts";
import { persistentTable } from "../../../lib/state/persistent-table.ts";
import { captureKey } from "../../../lib/state/state-key.ts";
import { memoryQueue } from "./memory-queue.ts";
import { type CallFault, MemoryTable } from "./memory-table.ts";
import { at, backfillEnd, type Change, packed, TOPIC } from "./records.ts";

/*
 * Rule 63: a table of three keys that is written and deleted from, its log, a capture task that reads it again in two chunks, invocations,
 * redrives and resets at once; every step of them in any order, each of which may be the last of its process, or its answer lost.
 */

// No clock is a real one: waiting takes no time here, but moves the clock on, for everybody.
vi.mock("node:timers/promises", async (original) => {
  const timers = await original<typeof import("node:timers/promises")>();
  const wait = (ms: number, value: unknown) => {
    vi.advanceTimersByTime(Math.ceil(ms));
    return timers.setImmediate(value);
  };
  return { ...timers, setTimeout: wait };
});
beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance", "Date"],
  });
  // Node's own runs by the real clock.
  vi.spyOn(AbortSignal, "timeout").mockImplementation((ms) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new DOMException("The time is over", "TimeoutError")), ms);
    return controller.signal;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const NAME = "model";
const ORDERS = "public.orders";
const KEYS = ["a", "b", "c"] as const;
/** The second one never has a change of its own. */
const PARTITIONS = 2;
const STEP = 10;

/** What happens to a process. */
interface Trouble {
  /** Step at which it dies. */
  readonly diesAt?: number | undefined;
  readonly fault?: { readonly call: number; readonly kind: CallFault } | undefined;
  /** Begins after so many steps of those that still run; else when all have ended. */
  readonly after?: number | undefined;
}
type Action =
  | {
      readonly kind: "write";
      readonly key: number;
      readonly deletes: boolean;
      readonly after?: number | undefined;
    }
  /** The newest record expires unread; before the first reset only. */
  | { readonly kind: "expire"; readonly after?: number | undefined }
  /** The capture task does the next thing, or is replaced. */
  | { readonly kind: "capture" | "restart" | "confirm"; readonly after?: number | undefined }
  | ({ readonly kind: "invoke"; readonly share: number; readonly length: number } & Trouble)
  | ({ readonly kind: "redrive" } & Trouble)
  /** `anew`: the sink was emptied once more. */
  | ({ readonly kind: "reset"; readonly anew: boolean } & Trouble);
interface Plan {
  readonly bad: readonly number[];
  readonly policy: "park" | "skip" | "stop";
  readonly actions: readonly Action[];
}

interface Process {
  alive: boolean;
  died: boolean;
  steps: number;
  /** Up to here nothing may take effect any more. */
  readonly floor: string;
}

/** Lets one waiting step at a time go on, in an order that fast-check chooses. */
class Interleaving {
  readonly #waiting: { go: () => void; process: Process }[] = [];
  readonly #choices: readonly number[];
  #next = 0;

  constructor(choices: readonly number[]) {
    this.#choices = choices;
  }

  gate(process: Process): Promise<void> {
    return new Promise((resolve) => void this.#waiting.push({ go: resolve, process }));
  }

  async run(processes: readonly Process[], enough: () => boolean = () => false): Promise<void> {
    while (processes.some((process) => process.alive) && !enough()) {
      for (let i = 0; i < 3; i++) await turn();
      if (this.#waiting.length === 0) continue;
      const choice = this.#choices[this.#next++ % this.#choices.length] as number;
      const [step] = this.#waiting.splice(choice % this.#waiting.length, 1);
      if (step?.process.alive) step.go();
    }
  }
}

/** What a play shows, beyond what it asserts. */
interface Played {
  readonly resets: number;
  readonly cleared: boolean;
}

async function play({ bad: poison, policy, actions }: Plan, choices: readonly number[]): Promise<Played> {
  const table = new MemoryTable();
  const calm = table.client(async () => "none");
  const { signal } = new AbortController();
  const place = { dynamodb: calm, table: "t", pipeline: "p", consumer: NAME };
  const store = { ...place, signal };
  await registerConsumers(calm, "t", "p", [{ name: NAME, topics: ["*"] }], START_OF_HISTORY);
  vi.clearAllTimers();
  const interleaving = new Interleaving(choices);
  const processes: Process[] = [];
  const violations: string[] = [];
  const network: Process = { alive: true, died: false, steps: 0, floor: "" };

  // The database, its log and the stream.
  const rows = new Map<string, number>();
  const stream: {
    readonly change: Change;
    readonly partition: number;
    readonly writer: number;
    lost?: true;
  }[] = [];
  let lsn = 0;
  let writer = 1;
  let isFirst = [true, true];
  const last = [0, 0].map(() => "");
  const give = (partition: number, change: Omit<Change, "after">) => {
    const position = at(change.at, { ordinal: change.ordinal ?? 1 });
    const after = isFirst[partition] ? null : (last[partition] as string);
    stream.push({ change: { ...change, after }, partition, writer });
    isFirst[partition] = false;
    last[partition] = position;
  };
  let confirmed = 0;
  /** What capture has told the state table. */
  const tell = async () => {
    const slot = {
      ...{ epoch: 1, slot: "s", publication: "p", database: "d", systemId: "1", timeline: 1 },
      ...{ confirmedLsn: String(confirmed), recentCommits: [] },
    };
    await persistentTable(store).update(captureKey("p"), {
      UpdateExpression: "SET slot=:s,generation=:g",
      ExpressionAttributeValues: { ":s": { S: JSON.stringify(slot) }, ":g": { N: String(writer) } },
    });
  };
  const write = (key: string, deletes: boolean) => {
    if (deletes && !rows.has(key)) return;
    lsn += STEP;
    const row = { id: key, v: lsn };
    if (deletes) rows.delete(key);
    else rows.set(key, lsn);
    give(0, { op: deletes ? "d" : "u", at: lsn, row });
  };
  /** The capture task's part in a backfill: begins, gives half of the rows, gives the others and the end. */
  let reading: { readonly run: number; readonly startPosition: string; chunk: number } | undefined;
  const capture = async () => {
    const backfill = await readBackfill(store, ORDERS);
    if (!backfill || hasEnded(backfill)) return;
    const counts = { lastKey: null, keyColumns: ["id"], chunk: 0, rows: 0, bytes: 0 };
    const note = (status: "running" | "done" | "cancelled", startPosition: string) => {
      const times = { startedAt: Date.now(), updatedAt: Date.now() };
      return writeBackfill(store, backfill, writer, {
        status,
        epoch: 1,
        progress: { ...counts, startPosition, ...times },
      });
    };
    if (reading?.run !== backfill.run) reading = undefined;
    if (backfill.wanted === "cancel") {
      await note("cancelled", reading?.startPosition ?? at(0));
      return;
    }
    lsn += STEP;
    if (!reading) {
      reading = { run: backfill.run, startPosition: at(lsn, { ordinal: 0 }), chunk: 0 };
      await note("running", reading.startPosition);
      return;
    }
    const keys = KEYS.filter((key) => rows.has(key) && (key === "a") === (reading?.chunk === 0));
    const source = { backfill: { run: backfill.run, consumer: NAME } };
    for (const [i, key] of keys.entries())
      give(0, { op: "r", at: lsn, ordinal: i + 1, row: { id: key, v: rows.get(key) as number }, source });
    if (reading.chunk++ === 0) return;
    const message = backfillEnd(reading.startPosition, { run: backfill.run, consumer: NAME });
    for (let partition = 0; partition < PARTITIONS; partition++)
      give(partition, { op: "m", at: lsn, ordinal: 9, message, source });
    await note("done", reading.startPosition);
  };

  // The sink compares positions. It is emptied before each reset, with what it knew of rows that are gone.
  const sink = new Map<string, { position: string; v: number | undefined }>();
  const bad = new Set(poison.map((place) => place * STEP));
  let floor = "";
  let hasReset = false;

  const start = (trouble: Trouble) => {
    const process: Process = { alive: true, died: false, steps: 0, floor };
    processes.push(process);
    let calls = 0;
    const step = async (): Promise<void> => {
      if (process.steps++ === trouble.diesAt) {
        process.alive = false;
        process.died = true;
      }
      await interleaving.gate(process);
    };
    const dynamodb = table.client(
      async (when) => {
        await step();
        if (when === "after") return "none";
        return calls++ === trouble.fault?.call ? trouble.fault.kind : "none";
      },
      () => interleaving.gate(network),
    );
    return { process, step, dynamodb };
  };
  const instance = (trouble: Trouble) => {
    const { process, step, dynamodb } = start(trouble);
    const operations = [Operation.Update, Operation.Read, Operation.Delete] as const;
    const handler = consumer(NAME)
      .on(ORDERS, operations, async ({ operation, row, position }) => {
        const { id, v } = row as unknown as { id: string; v: number };
        await step();
        if (bad.has(v)) throw new Error("poison");
        if (position <= process.floor) violations.push(`${position} took effect behind the new start`);
        if (position > (sink.get(id)?.position ?? ""))
          sink.set(id, { position, v: operation === Operation.Delete ? undefined : v });
        await step();
      })
      .onSweep(ORDERS, async ({ before }) => {
        await step();
        for (const [id, { position }] of sink) if (position < before) sink.delete(id);
      })
      .handler({
        environment: {
          ...{ TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: policy },
          ...{ TRIBUTARY_ATTEMPTS: "1", TRIBUTARY_DEAD_LETTER_QUEUE_URL: "http://queue" },
        },
        dynamodb,
        sqs: memoryQueue(step),
        observer: { invocation: () => {} },
        write: () => {},
      });
    return { process, handler };
  };
  const context = { getRemainingTimeInMillis: () => 600_000 };

  let acknowledged = 0;
  const invoke = (from: number, to: number, trouble: Trouble) => {
    const { process, handler } = instance(trouble);
    const window = stream
      .slice(from, to)
      .flatMap((one, i) => (one.lost ? [] : [{ ...one, place: from + i }]));
    const records = window.map(({ change, partition, writer }) => packed([change], { partition, writer }));
    void (async () => {
      try {
        const { batchItemFailures } = await handler({ Records: records }, context);
        if (process.died) return;
        const failed = records.findIndex(
          (record) => record.kinesis.sequenceNumber === batchItemFailures[0]?.itemIdentifier,
        );
        acknowledged = Math.max(acknowledged, failed < 0 ? to : (window[failed]?.place ?? from));
      } finally {
        process.alive = false;
      }
    })();
  };
  const redrive = (trouble: Trouble) => {
    const { process, handler } = instance(trouble);
    void handler({ tributary: "redrive" }, context).finally(() => {
      process.alive = false;
    });
  };
  let healed = 0;
  const reset = ({ anew = false, ...trouble }: Trouble & { readonly anew?: boolean }) => {
    if (!hasReset || anew) sink.clear();
    hasReset = true;
    const { process, dynamodb } = start(trouble);
    const own = { ...place, dynamodb };
    const least = at(confirmed, { ordinal: 0 });
    void (async () => {
      const { last: seen, isOpen } = await openReset(own, signal);
      const topics = [{ topic: TOPIC, partitions: PARTITIONS, tables: [ORDERS] }];
      const wish = { topics, seen, goesOn: !anew && (isOpen || seen !== undefined) };
      const record = await resetPartitions(own, wish, {
        by: "me",
        invocationMs: 1_000,
        patienceMs: 200,
        signal,
      });
      if (process.alive && seen?.phase !== "backfills") {
        floor = readPartition(table.item(`fence#${TOPIC}#0`), 0).position ?? "";
        if (floor < least) violations.push("the new start is behind what was confirmed");
      }
      if ((await healReset(own, record, { signal, timeoutMs: 0 })) === "healed") healed++;
    })()
      .catch((error: Error) => violations.push(`a reset failed: ${error.message}`))
      .finally(() => {
        process.alive = false;
      });
  };
  const settle = async () => {
    await interleaving.run(processes);
    // Nobody is left: leases of the dead run out.
    vi.setSystemTime(Date.now() + 120_000);
  };

  let resets = 0;
  await tell();
  for (const action of actions) {
    if (action.after === undefined) await settle();
    else {
      let left = action.after;
      await interleaving.run(processes, () => left-- <= 0);
    }
    if (action.kind === "write") write(KEYS[action.key] as string, action.deletes);
    else if (action.kind === "expire") {
      const newest = stream.at(-1);
      if (newest && !hasReset && acknowledged < stream.length) newest.lost = true;
      // It stood there for a day.
      confirmed = lsn + 1;
    } else if (action.kind === "confirm") confirmed = lsn + 1;
    else if (action.kind === "capture") await capture();
    else if (action.kind === "restart") {
      writer++;
      isFirst = [true, true];
    } else if (action.kind === "redrive") redrive(action);
    else if (action.kind === "reset") {
      resets++;
      reset(action);
    } else if (action.kind === "invoke") {
      const from = Math.floor(acknowledged * action.share);
      invoke(from, Math.min(stream.length, from + action.length), action);
    }
    await tell();
  }
  await settle();
  const before = readPartition(table.item(`fence#${TOPIC}#0`), 0);
  bad.clear();
  if (resets === 0) reset({});
  // Whoever repeats the command finishes it, while the rest goes its way.
  for (let i = 0; healed === 0 || acknowledged < stream.length; i++) {
    if (i > 12)
      throw new Error(
        `it never ends: ${acknowledged} of ${stream.length}, healed ${healed}, ${violations.join()}`,
      );
    healed = 0;
    reset({});
    await settle();
    for (let n = 0; n < 4; n++) await capture();
    confirmed = lsn + 1;
    await tell();
    invoke(acknowledged, stream.length, {});
    await settle();
    redrive({});
    await settle();
  }
  for (let i = 0; i < 3; i++) {
    redrive({});
    await settle();
  }

  expect(violations).toEqual([]);
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const stored = readPartition(table.item(`fence#${TOPIC}#0`), partition);
    expect(stored.hold, "nothing is held any more").toBeUndefined();
    expect(stored.parked ?? "", "nothing is parked any more").toBe("");
  }
  const missing = await new MissingTable(new ConsumerTable(place)).list(signal);
  expect(
    missing.filter((entry) => !isHealed(entry)),
    "everything is healed",
  ).toEqual([]);
  const repeated = table.repeated.filter((what) => what.startsWith("fence#"));
  expect(repeated, "nothing is done a second time by a request that arrives twice").toEqual([]);
  const held = [...sink].flatMap(([id, { v }]) => (v === undefined ? [] : [[id, v] as const]));
  expect(new Map(held.sort()), "the sink has the rows of the table").toEqual(new Map([...rows].sort()));
  return { resets, cleared: before.hold !== undefined || (before.parked ?? "") !== "" };
}

const after = fc.option(fc.nat(60), { nil: undefined, freq: 2 });
const trouble = {
  diesAt: fc.option(fc.integer({ min: 0, max: 60 }), { nil: undefined, freq: 2 }),
  fault: fc.option(
    fc.record({
      call: fc.nat(20),
      kind: fc.constantFrom<CallFault>("lost", "lost", "throttled", "late", "late", "twice", "twice"),
    }),
    { nil: undefined, freq: 3 },
  ),
  after,
};
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      key: fc.nat(2),
      deletes: fc.boolean(),
      after,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("expire" as const), after }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom("capture" as const, "capture" as const, "restart" as const, "confirm" as const),
      after,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("invoke" as const),
      share: fc.constantFrom(0, 0.5, 1, 1, 1),
      length: fc.integer({ min: 1, max: 8 }),
      ...trouble,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("redrive" as const), ...trouble }) },
  {
    weight: 2,
    arbitrary: fc.record({
      ...{ kind: fc.constant("reset" as const), anew: fc.boolean() },
      ...trouble,
    }),
  },
);
const plan: fc.Arbitrary<Plan> = fc.record({
  bad: fc.uniqueArray(fc.integer({ min: 1, max: 8 }), { maxLength: 4 }),
  policy: fc.constantFrom("park" as const, "park" as const, "skip" as const, "stop" as const),
  actions: fc.array(action, { minLength: 3, maxLength: 14 }),
});

/** The later reset has noted the partition; the earlier one, which it replaced, notes it after that, over its entry. */
const TWO_AT_ONCE: [Plan, number[]] = [
  {
    bad: [],
    policy: "park",
    actions: [
      { kind: "write", key: 0, deletes: false, after: undefined },
      { kind: "reset", anew: false, diesAt: undefined, fault: undefined, after: undefined },
      { kind: "reset", anew: true, diesAt: undefined, fault: { call: 0, kind: "lost" }, after: 0 },
    ],
  },
  [574, 0],
];

describe("a reset", () => {
  it("leaves each row in the sink with its newest values and no other, whatever happens meanwhile", async () => {
    const seen = { resets: 0, cleared: 0 };
    await fc.assert(
      fc.asyncProperty(plan, fc.array(fc.nat(1000), { minLength: 1, maxLength: 60 }), async (p, choices) => {
        const played = await play(p, choices);
        seen.resets += played.resets;
        if (played.cleared) seen.cleared++;
      }),
      { numRuns: 200, examples: [TWO_AT_ONCE] },
    );
    expect(seen.resets).toBeGreaterThan(50);
  });
});
