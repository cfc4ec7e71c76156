import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PROBE } from "../../../lib/change/control-event.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/consumer.ts";
import { readPartition } from "../../../lib/consume/fence-item.ts";
import { registerConsumers } from "../../../lib/consume/floor.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/operation.ts";
import { type CallFault, MemoryTable } from "./memory-table.ts";
import { at, type Change, packed, TOPIC } from "./records.ts";

/*
 * The whole consumer against a table in memory, every step of several invocations in any order: deliveries that come
 * again, stale ones, two at once, processes that die at any step, answers that are lost.
 */

const PARTITIONS = [0, 1];

/** What stands in a partition: a change, a row read by a backfill, or what only moves the fence: `control`, `another` consumer's. */
type Kind = "change" | "read" | "control" | "another";
const KINDS: readonly Kind[] = ["change", "change", "change", "read", "control", "another"];

interface StreamRecord {
  readonly partition: number;
  readonly writer: number;
  readonly changes: readonly (Change & { ghost?: boolean; quiet: boolean })[];
}

/** One invocation: starts at a share of the checkpoint, or behind it where `share` is 1. */
interface Delivery {
  readonly share: number;
  readonly length: number;
  /** Step at which its process dies; none beyond its last. */
  readonly diesAt: number | undefined;
  /** A record that does not come: discarded, expired or skipped. */
  readonly hole: number | undefined;
  /** Begins while the one before still runs. */
  readonly overlaps: boolean;
  readonly fault: { readonly call: number; readonly kind: CallFault } | undefined;
}

const stream = fc
  .record({
    transactions: fc.array(
      fc.array(fc.record({ partition: fc.constantFrom(...PARTITIONS), kind: fc.constantFrom(...KINDS) }), {
        minLength: 1,
        maxLength: 3,
      }),
      { minLength: 2, maxLength: 8 },
    ),
    newEpochAt: fc.nat(10),
    newWriterAt: fc.nat(10),
    replays: fc.nat(3),
    recordSize: fc.integer({ min: 1, max: 3 }),
  })
  .map(makeStream);

/** Transactions become records; at some place a new writer starts, repeats a little, and an old record comes late. */
function makeStream(plan: {
  transactions: { partition: number; kind: Kind }[][];
  newEpochAt: number;
  newWriterAt: number;
  replays: number;
  recordSize: number;
}): StreamRecord[] {
  const all = plan.transactions.flatMap((events, t) => {
    const late = t >= plan.newEpochAt;
    // A new epoch starts at smaller LSNs.
    const commit = late ? 1 + t - plan.newEpochAt : 100 + t;
    return events.map(({ partition, kind }, i) => ({
      ...shapeOf(kind),
      partition,
      t,
      at: commit,
      epoch: late ? 2 : 1,
      ordinal: 1 + 2 * i,
      row: { id: String(i % 2) },
    }));
  });
  const written = (changes: typeof all, writer: number, known: Map<number, string>): StreamRecord[] => {
    const records: { partition: number; writer: number; changes: StreamRecord["changes"][number][] }[] = [];
    for (const change of changes) {
      const after = known.get(change.partition) ?? null;
      known.set(change.partition, at(change.at, change));
      const open = records.findLast((record) => record.partition === change.partition);
      const entry = { ...change, after };
      if (open && open.changes.length < plan.recordSize) open.changes.push(entry);
      else records.push({ partition: change.partition, writer, changes: [entry] });
    }
    return records;
  };
  const cut = all.findIndex(({ t }) => t >= plan.newWriterAt);
  if (cut < 0) return written(all, 1, new Map());
  const known = new Map<number, string>();
  const first = written(all.slice(0, cut), 1, known);
  const second = written(all.slice(Math.max(0, cut - plan.replays)), 2, new Map());
  // The old writer, of which nothing more may count once the new one was seen: in a record behind the new one's first.
  const behind = second[0];
  const last = behind?.changes.at(-1);
  const ghost: StreamRecord[] =
    behind && last
      ? [
          {
            partition: behind.partition,
            writer: 1,
            changes: [
              {
                ...last,
                ordinal: (last.ordinal ?? 1) + 1,
                after: at(last.at, last),
                ...shapeOf("change"),
                row: { id: "ghost" },
                ghost: true,
              },
            ],
          },
        ]
      : [];
  return [...first, ...second.slice(0, 1), ...ghost, ...second.slice(1)];
}

function shapeOf(kind: Kind): Pick<Change, "op" | "message" | "source"> & { quiet: boolean } {
  switch (kind) {
    case "change":
      return { op: "c", quiet: false };
    case "read":
      return { op: "r", quiet: false };
    case "control":
      return { op: "m", message: { prefix: PROBE, content: "e30=" }, quiet: true };
    case "another":
      return { op: "r", source: { backfill: { run: 1, consumer: "another" } }, quiet: true };
  }
}

const delivery: fc.Arbitrary<Delivery> = fc.record({
  share: fc.constantFrom(0, 0.5, 1, 1, 1),
  length: fc.integer({ min: 1, max: 8 }),
  diesAt: fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined, freq: 2 }),
  hole: fc.option(fc.nat(7), { nil: undefined, freq: 2 }),
  overlaps: fc.boolean(),
  fault: fc.option(
    fc.record({ call: fc.nat(6), kind: fc.constantFrom<CallFault>("lost", "lost", "throttled") }),
    { nil: undefined, freq: 3 },
  ),
});

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

  /** Runs until none of the processes is left, or `enough`. */
  async run(processes: () => readonly Process[], enough: () => boolean): Promise<void> {
    while (processes().some((process) => process.alive) && !enough()) {
      for (let i = 0; i < 3; i++) await turn();
      if (this.#waiting.length === 0) continue;
      const choice = this.#choices[this.#next++ % this.#choices.length] as number;
      const [step] = this.#waiting.splice(choice % this.#waiting.length, 1);
      if (step?.process.alive) step.go();
    }
  }
}

interface Process {
  alive: boolean;
  steps: number;
}

function commitOf(id: string): number {
  return Number.parseInt(id.slice(8, 24), 16);
}

async function play(
  records: readonly StreamRecord[],
  deliveries: readonly Delivery[],
  choices: readonly number[],
): Promise<void> {
  const table = new MemoryTable();
  const name = "model";
  await registerConsumers(
    table.client(async () => "none"),
    "t",
    "p",
    [{ name, topics: ["*"] }],
    START_OF_HISTORY,
  );

  /** Sinks: what took effect in its order, and a table that compares positions. */
  const effects: { partition: number; id: string; process: Process }[] = [];
  const rows = new Map<string, string>();
  const marks = new Map<number, string>();
  /** Collected, for the code under test would take an assertion's error for the table's or the handler's. */
  const violations: string[] = [];
  const interleaving = new Interleaving(choices);
  const processes: Process[] = [];
  let checkpoint = 0;

  /** Holds after every call: a mark never goes back, and never stands before its effect. */
  const checkMarks = () => {
    for (const partition of PARTITIONS) {
      const { mark } = readPartition(table.item(`fence#${TOPIC}#0`), partition);
      if (mark === undefined) continue;
      if (mark < (marks.get(partition) ?? "")) violations.push("the mark went back");
      marks.set(partition, mark);
      const missing = expected(records, partition).some(
        (id) => id <= mark && !effects.some((effect) => effect.partition === partition && effect.id === id),
      );
      if (missing) violations.push("the mark stands before the effect");
    }
  };

  const start = (
    from: number,
    to: number,
    { diesAt, fault, hole }: Pick<Delivery, "diesAt" | "fault" | "hole">,
  ) => {
    const process: Process = { alive: true, steps: 0 };
    processes.push(process);
    let calls = 0;
    const step = async (): Promise<void> => {
      if (process.steps++ === diesAt) process.alive = false;
      await interleaving.gate(process);
    };
    const atTake = new Map<number, string>();
    const dynamodb = table.client(async (when, what) => {
      if (when === "after") {
        checkMarks();
        if (what.startsWith("SET t")) for (const [partition, mark] of marks) atTake.set(partition, mark);
      }
      await step();
      if (when === "after") return "none";
      return calls++ === fault?.call ? fault.kind : "none";
    });
    const handler = consumer(name)
      .on("*", ALL_OPERATIONS, (event) => {
        const effect = () => {
          const key = `${event.partition}/${String(event.row?.id)}`;
          if (event.id <= (atTake.get(event.partition) ?? "")) violations.push("repeats what was on record");
          effects.push({ partition: event.partition, id: event.id, process });
          if (event.id > (rows.get(key) ?? "")) rows.set(key, event.id);
        };
        // Some handlers give no promise: then nothing waits between two events.
        return commitOf(event.id) % 3 === 0 ? effect() : step().then(effect).then(step);
      })
      .handler({
        environment: { TRIBUTARY_STATE_TABLE: "t", TRIBUTARY_PIPELINE_NAME: "p", TRIBUTARY_POISON: "stop" },
        dynamodb,
        observer: { invocation: () => {} },
        write: () => {},
      });
    const { window, whole } = withHole(records.slice(from, to), hole);
    const delivered = window.map((r) => packed(r.changes, r));
    void (async () => {
      try {
        const { batchItemFailures } = await handler(
          { Records: delivered },
          { getRemainingTimeInMillis: () => 60_000 },
        );
        const failed = delivered.findIndex(
          (record) => record.kinesis.sequenceNumber === batchItemFailures[0]?.itemIdentifier,
        );
        if (whole) checkpoint = Math.max(checkpoint, failed < 0 ? to : from + failed);
      } finally {
        process.alive = false;
      }
    })();
  };

  for (const { share, length, overlaps, ...trouble } of deliveries) {
    if (!overlaps)
      await interleaving.run(
        () => processes,
        () => false,
      );
    else await interleaving.run(() => processes, enough(choices.length % 9));
    const from = Math.floor(checkpoint * share);
    start(from, Math.min(records.length, from + length), trouble);
  }
  await interleaving.run(
    () => processes,
    () => false,
  );
  // The event source mapping goes on until everything is through.
  for (let i = 0; checkpoint < records.length && i < 5; i++) {
    start(checkpoint, records.length, { diesAt: undefined, fault: undefined, hole: undefined });
    await interleaving.run(
      () => processes,
      () => false,
    );
  }
  expect(violations).toEqual([]);
  expect(checkpoint, "the stream is through").toBe(records.length);

  for (const partition of PARTITIONS) {
    const ends = records
      .filter((record) => record.partition === partition)
      .flatMap(({ changes }) => changes.filter(({ ghost }) => !ghost).map((c) => at(c.at, c)));
    expect(marks.get(partition) ?? "", "the mark stands at the end, whatever is there").toBe(
      ends.sort().at(-1) ?? "",
    );
    const wanted = expected(records, partition);
    const applied = effects.filter((effect) => effect.partition === partition).map(({ id }) => id);
    expect([...new Set(applied)], "nothing lost, nothing from a superseded writer, in order").toEqual(wanted);
    for (const process of processes) {
      const own = effects
        .filter((e) => e.partition === partition && e.process === process)
        .map(({ id }) => id);
      expect(own, "one process neither repeats nor reorders").toEqual([...new Set(own)].sort());
    }
  }
  const state = new Map<string, string>();
  for (const { partition, changes } of records) {
    for (const change of changes.filter(({ ghost, quiet }) => !ghost && !quiet)) {
      const [key, id] = [`${partition}/${String(change.row?.id)}`, at(change.at, change)];
      if (id > (state.get(key) ?? "")) state.set(key, id);
    }
  }
  expect(rows, "a sink that compares positions holds the last state").toEqual(state);
}

/** Leaves a record out, unless a writer's start stands in it or behind it: that hole cannot be seen. */
function withHole(
  window: readonly StreamRecord[],
  hole: number | undefined,
): { window: readonly StreamRecord[]; whole: boolean } {
  const left = hole === undefined ? undefined : window[hole];
  if (!left || hole === undefined) return { window, whole: true };
  const fromThere = window.slice(hole).filter((record) => record.partition === left.partition);
  if (fromThere.some(({ changes }) => changes[0]?.after === null)) return { window, whole: true };
  return { window: window.filter((record) => record !== left), whole: false };
}

function enough(steps: number): () => boolean {
  let left = steps;
  return () => left-- <= 0;
}

/** Positions that must take effect in a partition, in order. */
function expected(records: readonly StreamRecord[], partition: number): string[] {
  const ids = records
    .filter((record) => record.partition === partition)
    .flatMap(({ changes }) =>
      changes.filter(({ ghost, quiet }) => !ghost && !quiet).map((change) => at(change.at, change)),
    );
  return [...new Set(ids)].sort();
}

/** A record of one insert; its predecessor is at `[commit, ordinal]`, none for a writer's first. */
function inserted(
  [partition, writer]: readonly [number, number],
  [commit, ordinal]: readonly [number, number],
  after: readonly [number, number] | null,
  more: { readonly ghost?: boolean } = {},
): StreamRecord {
  const id = (lsn: number, n: number) => at(lsn, { epoch: 2, ordinal: n } as Change);
  const row = { id: String(ordinal) };
  const place = { partition, t: commit - 1, at: commit, epoch: 2, ordinal, row };
  const change = { op: "c", quiet: false, ...place, after: after && id(...after), ...more };
  return { partition, writer, changes: [change as StreamRecord["changes"][number]] };
}

describe("the fence", () => {
  it("gives a partition up to a successor that came as far, but has not seen the newer writer", async () => {
    const records = [
      inserted([0, 1], [1, 1], null),
      inserted([0, 1], [1, 3], [1, 1]),
      inserted([1, 1], [2, 1], null),
      inserted([0, 1], [2, 3], [1, 3]),
      inserted([1, 2], [2, 1], null),
      inserted([1, 1], [2, 2], [2, 1], { ghost: true }),
      inserted([0, 2], [2, 3], null),
    ];
    const quiet = { diesAt: undefined, hole: undefined, overlaps: false, fault: undefined };
    await play(
      records,
      [
        { ...quiet, share: 0, length: 2 },
        { ...quiet, share: 1, length: 3, fault: { call: 2, kind: "lost" } },
        { ...quiet, share: 1, length: 1, overlaps: true },
      ],
      [0],
    );
  });

  it("loses nothing, keeps order and repeats only what was not on record, whatever happens", async () => {
    await fc.assert(
      fc.asyncProperty(
        stream,
        fc.array(delivery, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(1000), { minLength: 1, maxLength: 60 }),
        play,
      ),
      { numRuns: 150 },
    );
  }, 300_000);
});
