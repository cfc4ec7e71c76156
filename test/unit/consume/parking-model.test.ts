import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { ParkedKeys } from "../../../lib/consume/hold/parked-keys.ts";
import { memoryQueue } from "./memory-queue.ts";
import { type CallFault, MemoryTable } from "./memory-table.ts";
import { at, backfillEnd, type Change, packed, TOPIC } from "./records.ts";

/*
 * Parking and redrive against a table in memory: invocations, stale ones and redrives at once, every step of them in any
 * order, each of which may be the last of its process, or its answer lost.
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
const KEYS = ["a", "b"] as const;

/** Below which commit a change removes all others: a truncate below its own, a sweep `S2` two before that. */
function boundOf(change: string, commit: number): number {
  if (change === "T") return commit;
  return change.startsWith("S") ? Math.max(1, commit - Number(change.slice(1))) : 0;
}

/** What happens to a process. */
interface Trouble {
  /** Step at which it dies. */
  readonly diesAt?: number | undefined;
  readonly fault?: { readonly call: number; readonly kind: CallFault } | undefined;
  /** Begins after so many steps of those that still run; else when all have ended. */
  readonly after?: number | undefined;
}

type Action =
  | ({ readonly kind: "invoke"; readonly share: number; readonly length: number } & Trouble)
  | ({ readonly kind: "redrive"; readonly limit?: number | undefined } & Trouble)
  | { readonly kind: "heal"; readonly after?: number | undefined };

interface Plan {
  /** Each a key, `T` for a truncate, or a sweep (see `boundOf`); their places, from 1, are their commits. */
  readonly changes: readonly string[];
  readonly bad: readonly number[];
  readonly recordSize: number;
  readonly batch: boolean;
  readonly policy: "park" | "skip";
  readonly actions: readonly Action[];
}

interface Process {
  readonly kind: "invoke" | "redrive";
  alive: boolean;
  died: boolean;
  steps: number;
}

/** What is under way arrives, whatever has become of its sender. */
const NETWORK: Process = { kind: "invoke", alive: true, died: false, steps: 0 };

interface Effect {
  readonly commit: number;
  readonly process: Process;
}

/** What a play shows, beyond what it asserts. */
interface Played {
  readonly effects: readonly Effect[];
  readonly steps: readonly number[];
  readonly letters: number;
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

async function play(plan: Plan, choices: readonly number[]): Promise<Played> {
  const { changes, policy } = plan;
  const table = new MemoryTable();
  const calm = table.client(async () => "none");
  await registerConsumers(calm, "t", "p", [{ name: NAME, topics: ["*"] }], START_OF_HISTORY);
  // Of processes of another play.
  vi.clearAllTimers();
  const bad = new Set(plan.bad);
  const effects: Effect[] = [];
  const violations: string[] = [];
  const interleaving = new Interleaving(choices);
  const processes: Process[] = [];
  const records = recordsOf(plan);
  let checkpoint = 0;
  let lastCheckpoint = "";
  let letters = 0;

  const stored = () => {
    const partition = readPartition(table.item(`fence#${TOPIC}#0`), 0);
    if (!partition.parked?.startsWith("~")) return partition;
    const list = table.item(`keys#${TOPIC}/0#${partition.parked.slice(1)}`);
    if (!list) violations.push("the fence names a list of parked keys that is not there");
    return { ...partition, parked: list?.keys?.S };
  };
  const keyOf = (commit: number) => changes[commit - 1] as string;
  const checkMark = () => {
    const { position: checkpoint = "" } = stored();
    if (checkpoint < lastCheckpoint) violations.push("the mark went back");
    lastCheckpoint = checkpoint;
  };
  /**
   * Redrive must find everything that came later in its key still parked, and no truncate or sweep of it behind. What a
   * truncate or sweep beyond the checkpoint is about to remove may be gone already: it removes the redriven change as well,
   * and never took effect.
   */
  const checkRedrive = (commit: number) => {
    const { position: checkpoint = "", parked, hold } = stored();
    // A truncate whose invocations died holds its partition; what is held is replayed in its order.
    if (hold && at(commit) > checkpoint) return;
    if (at(commit) > checkpoint) violations.push(`${commit} was redriven beyond the mark`);
    const chains = ParkedKeys.parse(parked)
      .values()
      .map(({ chain }) => chain);
    const items = chains.flatMap((chain) => table.items(`change#${TOPIC}/0#${chain}#`));
    const waiting = new Set(items.map(({ position }) => position?.S));
    for (let later = commit + 1; later <= changes.length && at(later) <= checkpoint; later++) {
      if (boundOf(keyOf(later), later) > commit)
        violations.push(`${commit} was redriven behind ${keyOf(later)} ${later}`);
      if (keyOf(later) !== keyOf(commit) || waiting.has(at(later))) continue;
      const tookEffect = effects.some((effect) => effect.commit === later);
      if (tookEffect || !isAboutToGo(later, checkpoint))
        violations.push(`${commit} was redriven over ${later}`);
    }
  };

  const isAboutToGo = (commit: number, checkpoint: string) =>
    changes.some((change, i) => at(i + 1) > checkpoint && boundOf(change, i + 1) > commit);

  const start = (kind: Process["kind"], trouble: Trouble) => {
    const process: Process = { kind, alive: true, died: false, steps: 0 };
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
        if (when === "after") checkMark();
        await step();
        if (when === "after") return "none";
        return calls++ === trouble.fault?.call ? trouble.fault.kind : "none";
      },
      () => interleaving.gate(NETWORK),
    );
    const handle = (commit: number) => {
      if (kind === "redrive") checkRedrive(commit);
      const effect = () => {
        if (bad.has(commit)) throw new Error("poison");
        effects.push({ commit, process });
      };
      // Some handlers give no promise: then nothing waits between two events.
      return commit % 3 === 0 ? effect() : step().then(effect).then(step);
    };
    const commitOf = (id: string) => Number.parseInt(id.slice(8, 24), 16);
    const operations = [Operation.Update, Operation.Read, Operation.Truncate] as const;
    const built = plan.batch
      ? consumer(NAME).onBatch("public.orders", { operations }, async (events) => {
          // All or nothing, for this sink.
          if (events.some(({ id }) => bad.has(commitOf(id)))) throw new Error("poison");
          for (const { id } of events) await handle(commitOf(id));
        })
      : consumer(NAME).on("public.orders", operations, ({ id }) => handle(commitOf(id)));
    const handler = built
      .onSweep("public.orders", ({ id }) => handle(commitOf(id)))
      .handler({
        environment: {
          TRIBUTARY_STATE_TABLE: "t",
          TRIBUTARY_PIPELINE_NAME: "p",
          TRIBUTARY_POISON: policy,
          TRIBUTARY_ATTEMPTS: "1",
          TRIBUTARY_DEAD_LETTER_QUEUE_URL: "http://queue",
        },
        dynamodb,
        sqs: memoryQueue(async () => {
          await step();
          letters++;
          await step();
        }),
        observer: { invocation: () => {} },
        write: () => {},
      });
    return { process, handler };
  };
  const context = { getRemainingTimeInMillis: () => 600_000 };

  const invoke = (from: number, to: number, trouble: Trouble) => {
    const { process, handler } = start("invoke", trouble);
    const window = records.slice(from, to).map((record) => packed(record));
    void (async () => {
      try {
        const { batchItemFailures } = await handler({ Records: window }, context);
        if (process.died) return;
        const failed = window.findIndex(
          (record) => record.kinesis.sequenceNumber === batchItemFailures[0]?.itemIdentifier,
        );
        checkpoint = Math.max(checkpoint, failed < 0 ? to : from + failed);
      } finally {
        process.alive = false;
      }
    })();
  };
  const redrive = (limit: number | undefined, trouble: Trouble) => {
    const { process, handler } = start("redrive", trouble);
    void handler({ tributary: "redrive", limit }, context).finally(() => {
      process.alive = false;
    });
  };
  const settle = async () => {
    await interleaving.run(processes);
    // Nobody is left: leases of the dead run out.
    vi.setSystemTime(Date.now() + 120_000);
  };

  for (const action of plan.actions) {
    if (action.after === undefined) await settle();
    else await interleaving.run(processes, stepsOf(action.after));
    if (action.kind === "heal") bad.clear();
    else if (action.kind === "redrive") redrive(action.limit, action);
    else {
      const from = Math.floor(checkpoint * action.share);
      invoke(from, Math.min(records.length, from + action.length), action);
    }
  }
  await settle();
  bad.clear();
  for (let i = 0; checkpoint < records.length && i < 8; i++) {
    invoke(checkpoint, records.length, {});
    await settle();
  }
  expect(checkpoint, "the stream is through").toBe(records.length);
  for (let i = 0; i < 4; i++) {
    redrive(undefined, {});
    await settle();
  }

  expect(violations).toEqual([]);
  expect(stored().hold, "nothing is held any more").toBeUndefined();
  const ofFence = table.repeated.filter((what) => what.startsWith("fence#"));
  expect(ofFence, "nothing is done a second time by a request that arrives twice").toEqual([]);
  expect(stored().parked ?? "", "nothing is parked any more").toBe("");
  checkEffects(plan, effects);
  return { effects, letters, steps: processes.map(({ steps }) => steps) };
}

/** True when it was asked so many times. */
function stepsOf(count: number): () => boolean {
  let left = count;
  return () => left-- <= 0;
}

/** What must hold of the effects, whatever happened. */
function checkEffects({ changes, policy, bad }: Plan, effects: readonly Effect[]): void {
  const commits = changes.map((_, i) => i + 1);
  const seen = new Set(effects.map(({ commit }) => commit));
  const bounds = changes.map((change, i) => boundOf(change, i + 1));
  const lastBound = Math.max(...bounds);
  const lost = commits.filter((commit) => {
    const key = changes[commit - 1];
    const overtaken = changes.some(
      (later, i) =>
        i + 1 > commit &&
        seen.has(i + 1) &&
        ((bounds[i] as number) > commit || (policy === "skip" && later === key)),
    );
    return !seen.has(commit) && !(overtaken && (bad.length > 0 || lastBound > commit));
  });
  expect(lost, "lost").toEqual([]);

  // A sink that compares positions: rows by key, and below what the table was truncated or swept.
  const rows = new Map<string, number>();
  let removed = 0;
  for (const { commit } of effects) {
    const key = changes[commit - 1] as string;
    const bound = boundOf(key, commit);
    if (bound > 0) {
      removed = Math.max(removed, bound);
      for (const [row, position] of rows) if (position < bound) rows.delete(row);
    } else if (commit >= removed && commit > (rows.get(key) ?? 0)) rows.set(key, commit);
  }
  const expected = new Map<string, number>();
  for (const key of KEYS) {
    const last = changes.lastIndexOf(key) + 1;
    if (last >= lastBound && last > 0) expected.set(key, last);
  }
  expect(new Map([...rows].sort()), "a sink that compares positions holds the last state").toEqual(expected);

  if (policy === "skip") return;
  for (const key of KEYS) {
    const first = [...new Set(effects.map(({ commit }) => commit).filter((c) => changes[c - 1] === key))];
    expect(first, `the first effects of ${key} are in order`).toEqual(first.toSorted((a, b) => a - b));
  }
}

function recordsOf({ changes, recordSize }: Plan): Change[][] {
  const all = changes.map((key, i): Change => {
    const commit = i + 1;
    const place = { at: commit, after: i === 0 ? null : i };
    if (key === "T") return { ...place, op: "t" };
    const bound = boundOf(key, commit);
    if (bound > 0) return { ...place, op: "m", message: backfillEnd(at(bound)) };
    // A backfill's rows are changes like others.
    return { ...place, op: commit % 3 === 0 ? "r" : "u", row: { id: key, v: commit } };
  });
  const records: Change[][] = [];
  for (let i = 0; i < all.length; i += recordSize) records.push(all.slice(i, i + recordSize));
  return records;
}

const after = fc.option(fc.nat(40), { nil: undefined, freq: 2 });
const trouble = {
  diesAt: fc.option(fc.integer({ min: 0, max: 60 }), { nil: undefined, freq: 2 }),
  fault: fc.option(
    fc.record({
      call: fc.nat(12),
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
      kind: fc.constant("invoke" as const),
      share: fc.constantFrom(0, 0.5, 1, 1, 1),
      length: fc.integer({ min: 1, max: 8 }),
      ...trouble,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("redrive" as const),
      limit: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
      ...trouble,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("heal" as const), after }) },
);
const plan: fc.Arbitrary<Plan> = fc
  .record({
    changes: fc.array(fc.constantFrom<string>(...KEYS, ...KEYS, ...KEYS, ...KEYS, "T", "S1", "S3"), {
      minLength: 2,
      maxLength: 10,
    }),
    bad: fc.uniqueArray(fc.integer({ min: 1, max: 10 }), { minLength: 1, maxLength: 4 }),
    recordSize: fc.integer({ min: 1, max: 3 }),
    batch: fc.boolean(),
    policy: fc.constantFrom("park" as const, "park" as const, "skip" as const),
    actions: fc.array(action, { minLength: 1, maxLength: 8 }),
  })
  // A truncate or sweep that fails stops its partition: no matter of parking.
  .map((p) => ({ ...p, bad: p.bad.filter((c) => boundOf(p.changes[c - 1] ?? "", c) === 0) }));

describe("parking and redrive", () => {
  it("lose nothing, keep the order of a key, and never go over newer state, whatever happens", async () => {
    await fc.assert(
      fc.asyncProperty(plan, fc.array(fc.nat(1000), { minLength: 1, maxLength: 60 }), async (p, choices) => {
        await play(p, choices);
      }),
      { numRuns: 200 },
    );
  }, 300_000);

  it("get through beside each other, where keys are parked on and on", async () => {
    const beside = fc.record({
      keys: fc.array(fc.constantFrom("a", "a", "a", "b"), { minLength: 4, maxLength: 9 }),
      recordSize: fc.integer({ min: 1, max: 2 }),
      batch: fc.boolean(),
      begins: fc.array(fc.tuple(fc.nat(40), fc.nat(40)), { minLength: 2, maxLength: 4 }),
      diesAt: fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined }),
    });
    await fc.assert(
      fc.asyncProperty(
        beside,
        fc.array(fc.nat(1000), { minLength: 40, maxLength: 80 }),
        async (p, choices) => {
          const first: Action = { kind: "invoke", share: 1, length: 1 };
          const more = p.begins.flatMap(([a, b], i): Action[] => [
            { kind: "redrive", after: a },
            { kind: "invoke", share: 1, length: 3, after: b, diesAt: i === 0 ? p.diesAt : undefined },
          ]);
          const { keys, recordSize, batch } = p;
          await play(
            {
              ...{ changes: ["a", ...keys], recordSize, batch, policy: "park", bad: [1] },
              actions: [first, { kind: "heal" }, ...more],
            },
            choices,
          );
        },
      ),
      { numRuns: 300 },
    );
  }, 300_000);

  it("meet where a sweep removes the first changes of a chain that a redrive has just read", async () => {
    const [invoke, redrive] = [{ kind: "invoke", share: 0 } as const, { kind: "redrive" } as const];
    const lost = { call: 0, kind: "lost" } as const;
    await play(
      {
        ...{
          changes: ["a", "a", "a", "a", "a", "S3"],
          bad: [1],
          recordSize: 2,
          batch: false,
          policy: "park",
        },
        actions: [
          { ...invoke, length: 1, fault: lost },
          { ...invoke, length: 1, fault: lost, after: 0 },
          redrive,
          { ...redrive, fault: lost, after: 12 },
          { ...invoke, length: 3, after: 4 },
          { kind: "heal" },
        ],
      },
      [0, 512, 633, 818],
    );
  });

  const scenario = {
    changes: ["a", "b", "a", "T", "a", "b", "a", "b", "b", "S3"],
    bad: [1, 2, 5, 8],
    recordSize: 2,
    batch: false,
  };
  const all = { kind: "invoke", share: 1, length: 10 } as const;

  it.each(["park", "skip"] as const)(
    "survive the death of an invocation at every step, under %s",
    async (policy) => {
      const plain = await play({ ...scenario, policy, actions: [all] }, [0]);
      const [steps = 0] = plain.steps;
      expect(steps).toBeGreaterThan(40);
      for (let diesAt = 0; diesAt < steps; diesAt++) {
        await play({ ...scenario, policy, actions: [{ ...all, diesAt }, all] }, [0]);
      }
    },
  );

  it.each(["park", "skip"] as const)(
    "survive the death of a redrive at every step, under %s",
    async (policy) => {
      const actions = [all, { kind: "heal" }, { kind: "redrive" }] as const;
      const plain = await play({ ...scenario, policy, actions }, [0]);
      const steps = plain.steps[1] ?? 0;
      expect(steps).toBeGreaterThan(policy === "park" ? 40 : 20);
      const once = plain.effects.length;
      expect(once, "nothing twice where nobody dies").toBe(
        new Set(plain.effects.map(({ commit }) => commit)).size,
      );
      for (let diesAt = 0; diesAt < steps; diesAt++) {
        const died = [all, { kind: "heal" }, { kind: "redrive", diesAt }] as const;
        const { effects } = await play({ ...scenario, policy, actions: died }, [0]);
        expect(effects.length, "one effect at most is not on record").toBeLessThanOrEqual(once + 1);
      }
    },
  );
});
