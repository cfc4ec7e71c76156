import fc from "fast-check";
import { expect, test } from "vitest";
import type { SourceMessage } from "../../../lib/change/change-stream.ts";
import type { PositionText } from "../../../lib/change/position.ts";
import { parseRecord, positionOf } from "../../../lib/change/record.ts";
import { readHeader } from "../../../lib/change/record-header.ts";
import { EVERY_PARTITION, partitionKey } from "../../../lib/change/topic.ts";
import { OrderedWriter } from "../../../lib/stream/ordered-writer.ts";
import type { Entry } from "../../../lib/stream/partition-queue.ts";
import type { PutRequest } from "../../../lib/stream/record-writer.ts";
import { change, encoded } from "../../stream/changes.ts";
import { DEFAULT_LIMITS } from "../../stream/kinesis.ts";
import { KinesisModel } from "./kinesis-model.ts";

/*
 * The ordered writer against a random world: messages, answers in any order, entries that fail one by one, requests that
 * fail as a whole with any part of them stored, requests that are stored late, restarts with replay.
 */

const limits = {
  ...DEFAULT_LIMITS,
  maxRecordBytes: 900,
  targetRecordBytes: 600,
  requestBytes: 1200,
  requestRecords: 3,
  requestsInFlight: 2,
};
const topics = [
  { name: "shop.public.orders", partitions: 3 },
  { name: "shop.public.customers", partitions: 2 },
];

/** A transaction: the changes (topic, partition), or none; `idle` for a keepalive between transactions. */
const transaction = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.array(
      fc.record({
        topic: fc.nat({ max: 1 }),
        partition: fc.oneof(
          { weight: 9, arbitrary: fc.nat() },
          { weight: 1, arbitrary: fc.constant(EVERY_PARTITION) },
        ),
        text: fc.string({ maxLength: 60, unit: "grapheme" }),
        bytes: fc.boolean(),
      }),
      { maxLength: 12 },
    ),
  },
  { weight: 1, arbitrary: fc.constant("idle" as const) },
);

const action = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("offer"), count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("take") }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("answer"),
      which: fc.nat(),
      results: fc.array(fc.constantFrom("stored", "stored", "failed", "throttled"), {
        minLength: 3,
        maxLength: 3,
      }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("fail"),
      which: fc.nat(),
      fates: fc.array(fc.constantFrom("stored", "stored late", "not stored"), { minLength: 3, maxLength: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("arrive late"), which: fc.nat() }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("pass time"), ms: fc.integer({ min: 1, max: 3000 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart") }) },
);
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

/** The source's history: messages in order, each commit's LSN larger than all before. */
function history(transactions: readonly (typeof transaction extends fc.Arbitrary<infer T> ? T : never)[]) {
  return transactions.flatMap((changes, t): SourceMessage[] => {
    const lsn = BigInt(t + 1) * 100n;
    if (changes === "idle") return [{ kind: "idle", place: lsn }];
    return [
      ...changes.map(({ topic, partition, text, bytes }, i) => {
        const to = topics[topic] as (typeof topics)[number];
        const given = change(
          to,
          partition === EVERY_PARTITION ? partition : partition % to.partitions,
          lsn,
          i + 1,
          text,
        );
        return bytes ? encoded(given) : given;
      }),
      { kind: "commit", endPlace: lsn + 50n, commitTimeMs: t },
    ];
  });
}

class World {
  readonly stream = new KinesisModel();
  readonly #messages: readonly SourceMessage[];
  readonly #packing: "batch" | "none";
  readonly #idleQueues: number;
  #writer: OrderedWriter;
  #offered = 0;
  /** By partition key: the last event that this writer has sent. */
  #sent = new Map<string, PositionText>();
  #inFlight: PutRequest[] = [];
  #late: Entry[] = [];
  #now = 0;
  confirmed = -1n;

  constructor(messages: readonly SourceMessage[], packing: "batch" | "none", idleQueues: number) {
    this.#messages = messages;
    this.#packing = packing;
    this.#idleQueues = idleQueues;
    this.#writer = this.#start();
  }

  apply(action: Action): void {
    const pick = <T>(items: T[], which: number) =>
      items.length === 0 ? undefined : items.splice(which % items.length, 1)[0];
    if ("count" in action) this.offer(action.count);
    else if ("results" in action) {
      const request = pick(this.#inFlight, action.which);
      if (request) this.#answer(request, action.results as ("stored" | "failed" | "throttled")[]);
    } else if ("fates" in action) {
      const request = pick(this.#inFlight, action.which);
      request?.entries.forEach((entry, i) => {
        if (action.fates[i] === "stored") this.stream.store(entry);
        // What is on the way is a copy: the writer uses the memory again.
        if (action.fates[i] === "stored late") this.#late.push({ ...entry, data: Buffer.from(entry.data) });
      });
      if (request) this.#writer.fail(request, this.#now);
    } else if (action.do === "arrive late") {
      const entry = pick(this.#late, "which" in action ? action.which : 0);
      if (entry) this.stream.store(entry);
    } else if ("ms" in action) this.#now += action.ms;
    else if (action.do === "take") this.take();
    else this.#restart();
    this.#check();
  }

  offer(count: number): void {
    for (const message of this.#messages.slice(this.#offered, this.#offered + count)) {
      this.#writer.offer(message, this.#now);
      this.#offered++;
    }
  }

  take(): boolean {
    const busy = new Set(this.#inFlight.flatMap((r) => r.entries.map((e) => e.queue.partitionKey)));
    const request = this.#writer.take(this.#now);
    if (request === undefined) return false;
    const { entries } = request;
    const keys = entries.map((entry) => entry.queue.partitionKey);
    expect(new Set(keys).size, "one entry of a partition in a request").toBe(keys.length);
    expect(
      keys.filter((key) => busy.has(key)),
      "one request in flight for a partition",
    ).toEqual([]);
    expect(entries.length).toBeGreaterThan(0);
    expect(entries.length).toBeLessThanOrEqual(limits.requestRecords);
    const sizes = entries.map((e) => e.data.length + Buffer.byteLength(e.queue.partitionKey));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(limits.maxRecordBytes);
    expect(sizes).toEqual(entries.map((e) => e.bytes));
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(limits.requestBytes);
    for (const entry of entries) this.#checkChain(entry);
    this.#inFlight.push(request);
    expect(this.#inFlight.length).toBeLessThanOrEqual(limits.requestsInFlight);
    return true;
  }

  /** Faults stop, all messages come: everything must get through. */
  settle(): void {
    this.offer(this.#messages.length);
    this.#check();
    for (let round = 0; this.#writer.bufferedBytes > 0; round++) {
      expect(round, "rounds without faults").toBeLessThan(10_000);
      while (this.take());
      for (const request of this.#inFlight.splice(0)) this.#answer(request, []);
      this.#now = Math.max(this.#now + 1, this.#writer.wakeAt ?? 0);
      this.#check();
    }
    for (const entry of this.#late.splice(0)) this.stream.store(entry);
  }

  /** Each event names its predecessor since the writer's start (rule 7), and the header names the record's events (rule 34). */
  #checkChain({ data, queue: { partitionKey } }: Entry): void {
    const record = parseRecord(data);
    if (record.kind === "events") {
      const positions = record.events.map(positionOf);
      expect(readHeader(data)).toEqual({
        ...{ topic: record.topic, partition: record.partition, writer: record.writer },
        ...{ first: positions[0], last: positions.at(-1), after: record.events[0]?.source.after },
      });
    }
    for (const event of record.kind === "events" ? record.events : []) {
      const last = this.#sent.get(partitionKey) ?? null;
      if (last !== null && positionOf(event) <= last) continue;
      expect(event.source.after).toBe(last);
      this.#sent.set(partitionKey, positionOf(event));
    }
  }

  #answer(request: PutRequest, results: readonly ("stored" | "failed" | "throttled")[]): void {
    const padded = request.entries.map((_, i) => results[i] ?? "stored");
    // Kinesis does not say in which order it stores the entries of a request.
    request.entries
      .map((entry, i) => ({ entry, i }))
      .reverse()
      .forEach(({ entry, i }) => {
        if (padded[i] === "stored") this.stream.store(entry);
      });
    this.#writer.settle(request, padded, this.#now);
  }

  #start(): OrderedWriter {
    const [packing, idleQueues] = [this.#packing, this.#idleQueues];
    return new OrderedWriter({ writer: 1, packing, limits, random: () => 0.5, idleQueues });
  }

  /** The process dies: what was in flight may arrive any time; the source replays what was not confirmed. */
  #restart(): void {
    this.#late.push(...this.#inFlight.splice(0).flatMap((request) => request.entries));
    this.#writer = this.#start();
    this.#sent.clear();
    const next = this.#messages.findIndex((m) => (lsnOf(m) ?? -1n) > this.confirmed);
    const before = next === -1 ? this.#messages.length : next;
    // The replay starts behind the last confirmed commit.
    let from = before;
    while (from > 0 && this.#messages[from - 1]?.kind === "change") from--;
    this.#offered = from;
  }

  #check(): void {
    const acknowledged = this.#writer.acknowledged?.place;
    if (acknowledged === undefined || acknowledged === this.confirmed) return;
    expect(acknowledged).toBeGreaterThan(this.confirmed);
    this.confirmed = acknowledged;
    const last = this.#messages.findIndex((m) => lsnOf(m) === acknowledged);
    expect(last).toBeGreaterThanOrEqual(0);
    for (const [key, position] of this.#messages.slice(0, last).flatMap(copies)) {
      expect(this.stream.has(key, position), "acknowledged, so stored").toBe(true);
    }
  }
}

function lsnOf(message: SourceMessage): bigint | undefined {
  if (message.kind === "commit") return message.endPlace;
  return message.kind === "idle" ? message.place : undefined;
}

/** Where a message's copies go: partition key and position. */
function copies(message: SourceMessage): [string, string][] {
  if (message.kind !== "change") return [];
  const { topic, partition, position } = message;
  const partitions = partition === EVERY_PARTITION ? [...Array(topic.partitions).keys()] : [partition];
  return partitions.map((p) => [partitionKey(topic.name, p), position]);
}

test("whatever happens, each partition's effects are what was offered, and what is acknowledged is stored", () => {
  fc.assert(
    fc.property(
      fc.array(transaction, { maxLength: 20 }),
      fc.array(action, { maxLength: 150, size: "max" }),
      fc.constantFrom("batch" as const, "none" as const),
      fc.constantFrom(0, 1, 100),
      (transactions, actions, packing, idleQueues) => {
        const messages = history(transactions);
        const world = new World(messages, packing, idleQueues);
        for (const each of actions) world.apply(each);
        world.settle();
        const offered = Map.groupBy(messages.flatMap(copies), ([key]) => key);
        for (const [key, positions] of offered) {
          expect(world.stream.effects(key)).toEqual(positions.map(([, position]) => position));
        }
        const ends = messages.filter((m) => m.kind !== "change").map(lsnOf);
        expect(world.confirmed).toBe(ends.at(-1) ?? -1n);
      },
    ),
    { numRuns: 300 },
  );
});
