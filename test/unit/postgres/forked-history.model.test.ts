import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  formatPosition,
  type PositionText,
  parsePosition,
  START_OF_HISTORY,
} from "../../../lib/change/position.ts";
import { classifyEvent, isStaleWriter } from "../../../lib/consume/fence/classify-event.ts";
import { checkPlaces, HistoryProof, placeOfCommit } from "../../../lib/source/postgres/slot/history-proof.ts";
import { SentSince } from "../../../lib/source/postgres/slot/sent-since.ts";
import type { CommitFingerprint, LogPlace } from "../../../lib/source/postgres/slot/slot-record.ts";

/*
 * Rule 39 as a model: a server that may lose its last commits whenever nobody looks, capture tasks that are killed, frozen and
 * woken, stopped in order, a stream of two partitions in which requests land late, whose records expire, and a consumer that
 * reads when it likes. Where no task says that history forked, all that the server has took effect, and nothing else; where
 * nothing was lost, none says so. Each part of the protocol is taken away once, and must be missed.
 */

interface Protocol {
  /** A task that comes after one that did not end in order reads what that left in the stream. */
  readonly reads: boolean;
  /** A writer sends nothing once its lease may be another's. */
  readonly lease: boolean;
  /** What has expired is known by the consumers' checkpoints. */
  readonly checkpoints: boolean;
  /** The server shows its log, beside where that ends. */
  readonly replay: boolean;
  /** It does so on every link, until it has come as far as what was written before. */
  readonly again: boolean;
  /** A task that ends in order notes what it gave. */
  readonly notes: boolean;
}

const WHOLE: Protocol = {
  reads: true,
  lease: true,
  checkpoints: true,
  replay: true,
  again: true,
  notes: true,
};

interface Commit {
  readonly id: number;
  readonly lsn: number;
  readonly partition: 0 | 1;
}
interface Put {
  readonly task: Task;
  readonly partition: 0 | 1;
  readonly lsn: number;
  readonly id: number;
  readonly after: PositionText | null;
}
interface Stored extends Omit<Put, "task"> {
  readonly writer: number;
  readonly at: number;
}
interface Task {
  readonly writer: number;
  readonly known: Commit[];
  readonly since: SentSince;
  readonly last: [PositionText | null, PositionText | null];
  read: number;
  /** Of the server, when the task opened its link. */
  losses: number;
  frozen: boolean;
}
interface SlotRecord {
  confirmed: number;
  known: Commit[];
  places: readonly LogPlace[];
  writer: number | undefined;
  since: number;
}

/** Of the last commit that is confirmed. */
const lsnOf = ({ known }: SlotRecord) => known.at(-1)?.lsn ?? 0;

class Forked extends Error {}

const position = (lsn: number) => formatPosition({ epoch: 1, commitLsn: BigInt(lsn), ordinal: 1 });
const fingerprint = (lsn: number, id: number): CommitFingerprint => ({
  ...{ commitLsn: BigInt(lsn), xid: id, commitTime: 0n },
});
const placeOf = (lsn: number, id: number) => placeOfCommit(fingerprint(lsn, id));

class Model {
  readonly #protocol: Protocol;
  /** What is committed after a loss begins at other bytes than what was lost: a checkpoint knows of a commit where it began, and no more. */
  readonly #apart: boolean;
  #losses = 0;
  #log: Commit[] = [];
  #ids = 0;
  lost = false;
  forked = false;
  readonly #record: SlotRecord = { confirmed: 0, known: [], places: [], writer: undefined, since: 0 };
  #generation = 0;
  #holder: Task | undefined;
  #zombies: Task[] = [];
  #puts: Put[] = [];
  #stream: Stored[] = [];
  #now = 1;
  #expiredAt = 0;
  readonly #consumed = new Set<Stored>();
  readonly #seen = [0, 1].map(() => ({ position: START_OF_HISTORY, writer: 0 }));
  readonly effects: number[] = [];

  constructor(protocol: Protocol, apart: boolean) {
    this.#protocol = protocol;
    this.#apart = apart;
  }

  commit(partition: 0 | 1): void {
    const last = this.#log.at(-1)?.lsn ?? 0;
    const lsn = this.#apart ? (Math.floor(last / 64) + 1) * 64 + (this.#losses % 64) : last + 1;
    this.#log.push({ id: ++this.#ids, partition, lsn });
  }

  /** The server comes back without its last commits. */
  lose(count: number): void {
    const lost = this.#log.splice(Math.max(0, this.#log.length - count));
    if (lost.length > 0) this.lost = true;
    this.#losses++;
  }

  kill(): void {
    this.#holder = undefined;
  }

  freeze(): void {
    if (this.#holder) this.#holder.frozen = true;
  }

  /** Of the task that holds the lease, or of one that was replaced while it was frozen. */
  wake(): void {
    if (this.#holder) this.#holder.frozen = false;
    for (const zombie of this.#zombies) {
      zombie.frozen = false;
      if (!this.#protocol.lease) this.#give(zombie);
    }
  }

  /** A task is started; one that is frozen is replaced once its lease is over. */
  start(landed: boolean): void {
    if (this.forked || (this.#holder && !this.#holder.frozen)) return;
    if (this.#holder) this.#zombies.push(this.#holder);
    // By now what was sent before is stored, or never will be.
    if (this.#protocol.lease) {
      if (landed) while (this.#puts[0]) this.#store(this.#puts[0]);
      this.#puts = [];
    }
    this.#holder = undefined;
    this.#holder = this.#guarded(() => this.#begin());
  }

  #begin(): Task {
    const record = this.#record;
    if (record.writer !== undefined) {
      record.places = [...record.places, ...this.#tail(record.writer)];
      record.writer = undefined;
    }
    const places = record.places.filter(({ lsn }) => lsn > BigInt(lsnOf(record)));
    if (this.#log.length < record.confirmed) throw new Forked();
    this.#same(record.known);
    this.#prove(places);
    const since = new SentSince(1);
    since.note(BigInt(lsnOf(record)), this.#now, this.#now);
    Object.assign(record, { places, writer: ++this.#generation, since: this.#now });
    return {
      ...{ writer: this.#generation, known: [...record.known], since, last: [null, null] },
      ...{ read: record.confirmed, losses: this.#losses, frozen: false },
    };
  }

  /** The first pass of a link. @throws what the real ones throw. */
  #prove(places: readonly LogPlace[]): void {
    if (places.length === 0) return;
    const walEnd = BigInt((this.#log.at(-1)?.lsn ?? 0) + 1);
    checkPlaces(places, 1, { systemId: "", timeline: 1, walEnd }, new Map());
    const proof = new HistoryProof(places);
    if (!this.#protocol.replay) return;
    for (const { lsn, id } of this.#log) proof.begin(fingerprint(lsn, id));
  }

  #tail(writer: number): readonly LogPlace[] {
    const { since } = this.#record;
    const confirmed = lsnOf(this.#record);
    const found: LogPlace[] = [];
    if (this.#protocol.reads) {
      const left = this.#stream.filter(
        (each) => each.writer === writer && each.at >= since && each.lsn > confirmed,
      );
      const furthest = left.reduce<Stored | undefined>((a, b) => (a && a.lsn > b.lsn ? a : b), undefined);
      if (furthest) found.push(placeOf(furthest.lsn, furthest.id));
    }
    if (this.#protocol.checkpoints && since <= this.#expiredAt) {
      for (const { position: seen, writer: of } of this.#seen)
        if (of === writer && seen > position(confirmed)) found.push({ lsn: parsePosition(seen).commitLsn });
    }
    return found;
  }

  /** What a task knows of the log must be there when it looks. */
  #same(known: readonly Commit[]): void {
    for (const [i, { id }] of known.entries()) if (this.#log[i] && this.#log[i].id !== id) throw new Forked();
  }

  /** The task reads a commit, and sends it. */
  step(): void {
    const task = this.#holder;
    if (!task || task.frozen || this.forked) return;
    this.#guarded(() => {
      this.#same(task.known);
      if (this.#log.length < task.read) throw new Forked();
      const given = BigInt(task.known.at(-1)?.lsn ?? 0);
      // A server that comes back has broken the link.
      if (task.losses !== this.#losses && this.#protocol.again)
        this.#prove(this.#record.places.filter(({ lsn }) => lsn > given));
      task.losses = this.#losses;
      this.#give(task);
    });
  }

  #give(task: Task): void {
    const commit = this.#log[task.read];
    if (!commit || this.#puts.some((put) => put.task === task && put.partition === commit.partition)) return;
    const { id, partition, lsn } = commit;
    task.since.note(BigInt(task.known.at(-1)?.lsn ?? 0), this.#now, this.#now);
    task.read++;
    task.known.push(commit);
    this.#puts.push({ task, partition, lsn, id, after: task.last[partition] });
    task.last[partition] = position(lsn);
  }

  /** A request lands. */
  land(nth: number): void {
    const put = this.#puts[nth % this.#puts.length];
    if (put && !(put.task.frozen && this.#protocol.lease)) this.#store(put);
  }

  #store(put: Put): void {
    const { task, ...stored } = put;
    this.#puts = this.#puts.filter((each) => each !== put);
    this.#stream.push({ ...stored, writer: task.writer, at: this.#now++ });
  }

  /** What is acknowledged is written to the record. */
  confirm(): void {
    const task = this.#holder;
    if (!task || task.frozen) return;
    const waiting = this.#puts.filter((put) => put.task === task);
    const confirmed = Math.min(
      task.read,
      ...waiting.map(({ id }) => task.known.findIndex((commit) => commit.id === id)),
    );
    if (confirmed <= this.#record.confirmed) return;
    const known = task.known.slice(0, confirmed);
    const since = task.since.at(BigInt(known.at(-1)?.lsn ?? 0)) ?? this.#record.since;
    Object.assign(this.#record, { confirmed, since, known });
  }

  /** In order, though maybe not all that was given was stored. */
  stop(): void {
    const task = this.#holder;
    if (!task || task.frozen) return;
    this.confirm();
    const { known, writer } = task;
    const last = known.at(-1);
    this.#puts = this.#puts.filter((put) => put.task !== task);
    this.#holder = undefined;
    if (this.#record.writer !== writer) return;
    this.#record.writer = undefined;
    if (this.#protocol.notes && last)
      this.#record.places = [...this.#record.places, placeOf(last.lsn, last.id)];
  }

  consume(partition: 0 | 1): void {
    const seen = this.#seen[partition] as { position: PositionText; writer: number };
    for (const stored of this.#stream.filter((each) => each.partition === partition)) {
      if (this.#consumed.has(stored)) continue;
      this.#consumed.add(stored);
      if (isStaleWriter(seen, stored.writer)) continue;
      const verdict = classifyEvent(seen, position(stored.lsn), stored.after);
      seen.writer = stored.writer;
      if (verdict === "duplicate") continue;
      this.effects.push(verdict === "gap" ? -stored.id : stored.id);
      seen.position = position(stored.lsn);
    }
  }

  /** Nobody does anything for longer than the stream keeps its records; the consumer has read them before. */
  expire(): void {
    if (this.#holder) return;
    this.consume(0);
    this.consume(1);
    this.#stream = [];
    this.#expiredAt = this.#now++;
  }

  #guarded<T>(act: () => T): T | undefined {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof Forked) && !("code" in (error as Error))) throw error;
      this.forked = true;
      this.#holder = undefined;
      return undefined;
    }
  }

  /** Lets everything come to its end; gives what took effect, and what the server has. */
  finish(): { readonly effects: readonly number[]; readonly committed: readonly number[] } {
    this.wake();
    for (let i = 0; i < 20 + 4 * this.#log.length; i++) {
      this.start(true);
      this.step();
      this.land(0);
      this.confirm();
    }
    while (this.#puts[0]) this.#store(this.#puts[0]);
    this.consume(0);
    this.consume(1);
    return {
      effects: [...this.effects].sort((a, b) => a - b),
      committed: this.#log.map(({ id }) => id),
    };
  }
}

const partition = fc.constantFrom<0 | 1>(0, 1);
const acts = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ act: fc.constant("commit" as const), of: partition }) },
    { weight: 2, arbitrary: fc.record({ act: fc.constant("consume" as const), of: partition }) },
    { weight: 5, arbitrary: fc.record({ act: fc.constant("land" as const), nth: fc.nat(2) }) },
    { weight: 4, arbitrary: fc.record({ act: fc.constant("start" as const), landed: fc.boolean() }) },
    {
      weight: 1,
      arbitrary: fc.record({ act: fc.constant("lose" as const), count: fc.integer({ min: 1, max: 3 }) }),
    },
    { weight: 8, arbitrary: fc.constant({ act: "step" as const }) },
    {
      weight: 7,
      arbitrary: fc.record({
        act: fc.constantFrom(
          "confirm" as const,
          "confirm" as const,
          "kill" as const,
          "stop" as const,
          "freeze" as const,
          "wake" as const,
          "expire" as const,
        ),
      }),
    },
  ),
  { minLength: 20, maxLength: 120, size: "max" },
);
type Act = typeof acts extends fc.Arbitrary<(infer A)[]> ? A : never;

function run(model: Model, act: Act): void {
  if (act.act === "commit" || act.act === "consume") model[act.act](act.of);
  else if (act.act === "land") model.land(act.nth);
  else if (act.act === "start") model.start(act.landed);
  else if (act.act === "lose") model.lose(act.count);
  else model[act.act]();
}

function holds(protocol: Protocol, numRuns = 4000) {
  return fc.check(
    fc.property(acts, (list) => {
      const model = new Model(
        protocol,
        list.some(({ act }) => act === "expire"),
      );
      for (const each of list) run(model, each);
      const { effects, committed } = model.finish();
      if (!model.forked) expect(effects).toEqual(committed);
      if (!model.lost) expect(model.forked).toBe(false);
    }),
    { numRuns, seed: 39 },
  );
}

describe("a server that loses its last commits", () => {
  test("is found out before a commit of it is swallowed, and nothing else is", () => {
    const { failed, errorInstance, counterexample } = holds(WHOLE);
    expect({ failed, errorInstance, counterexample }).toEqual({
      failed: false,
      errorInstance: null,
      counterexample: null,
    });
  });

  test.each([
    ["reading what a dead task left", { reads: false }],
    ["the writer's end with its lease", { lease: false }],
    ["the marks of what has expired", { checkpoints: false }],
    ["the replay: where its log ends is not enough", { replay: false }],
    ["the replay on every link", { again: false }],
    ["the note of a task that ends in order", { notes: false }],
  ] as const)("goes unnoticed without %s", (_, without) => {
    expect(holds({ ...WHOLE, ...without }).failed).toBe(true);
  });
});
