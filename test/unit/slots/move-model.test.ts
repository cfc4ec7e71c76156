import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatPosition, type PositionText, START_OF_HISTORY } from "../../../lib/change/position.ts";
import { classifyEvent, isStaleWriter } from "../../../lib/consume/fence/classify-event.ts";

/*
 * Rule 3 as a model: one topic of one partition moves to and fro between two slots, while tasks are killed anywhere and what
 * they had sent lands late, or twice. The consumer's fence is the real one. Each part of the protocol is taken away once,
 * and must be missed.
 */

interface Protocol {
  /** A receiving slot waits until the giving one has confirmed all up to the move. */
  readonly waits: boolean;
  /** Generations are counted over both slots, and the receiving one takes another after its wait. */
  readonly oneCount: boolean;
  readonly takesAnother: boolean;
  /** A table that a slot waits for itself is not given on. */
  readonly completes: boolean;
}

const WHOLE: Protocol = { waits: true, oneCount: true, takesAnother: true, completes: true };

type Slot = 0 | 1;
type Entry = { readonly kind: "change" } | { readonly kind: "move"; readonly from: Slot };
interface Put {
  readonly slot: Slot;
  readonly task: Task;
  readonly lsn: number;
  readonly record: {
    readonly writer: number;
    readonly position: PositionText;
    readonly after: PositionText | null;
  };
}
interface Task {
  generation: number;
  phase: "settle" | "move" | "wait" | "stream";
  /** Whether the topic was this slot's when it began to stream. */
  owns: boolean;
  read: number;
  last: PositionText | null;
  inFlight: boolean;
  waitFor: number | undefined;
}

const position = (lsn: number) => formatPosition({ epoch: 1, commitLsn: BigInt(lsn), ordinal: 1 });
const other = (slot: Slot): Slot => (slot === 0 ? 1 : 0);

class Model {
  readonly #protocol: Protocol;
  readonly log: Entry[] = [];
  #owner: Slot = 0;
  #wish: Slot = 0;
  /** What outlives a task: R, whether the topic arrives, the generation. */
  readonly #slots = [0, 1].map(() => ({ confirmed: 0, arriving: false, generation: 0 }));
  readonly #tasks: [Task | undefined, Task | undefined] = [undefined, undefined];
  #puts: Put[] = [];
  readonly #stream: Put["record"][] = [];

  constructor(protocol: Protocol) {
    this.#protocol = protocol;
  }

  commit(): void {
    this.log.push({ kind: "change" });
  }

  wish(slot: Slot): void {
    this.#wish = slot;
  }

  kill(slot: Slot): void {
    this.#tasks[slot] = undefined;
  }

  /** A request reaches the stream; its answer reaches the task, if that still lives. */
  land(nth: number, again: boolean): void {
    const put = this.#puts[nth % this.#puts.length];
    if (!put) return;
    this.#stream.push(put.record);
    if (again) return;
    this.#puts = this.#puts.filter((each) => each !== put);
    if (this.#tasks[put.slot] !== put.task) return;
    this.#slot(put.slot).confirmed = put.lsn;
    put.task.inFlight = false;
  }

  step(slot: Slot): void {
    const own = this.#slot(slot);
    const giving = this.#slot(other(slot));
    const task = this.#tasks[slot] ?? this.#start(slot);
    const mayCome = !this.#protocol.completes || !giving.arriving;
    switch (task.phase) {
      case "settle":
        // What it noted and did not get, it does not wait for.
        if (this.#owner !== slot) own.arriving = false;
        if (this.#wish === slot && this.#owner !== slot && mayCome) {
          own.arriving = true;
          task.phase = "move";
        } else task.phase = own.arriving ? "wait" : "stream";
        task.owns = this.#owner === slot;
        return;
      case "move":
        if (this.#owner === slot || !mayCome) {
          task.phase = "settle";
          return;
        }
        this.log.push({ kind: "move", from: this.#owner });
        this.#owner = slot;
        task.phase = "wait";
        return;
      case "wait":
        task.waitFor ??= this.log.length;
        if (this.#protocol.waits && giving.confirmed < task.waitFor) return;
        own.arriving = false;
        if (this.#protocol.takesAnother) this.kill(slot);
        else Object.assign(task, { phase: "stream", owns: this.#owner === slot });
        return;
      case "stream":
        this.#read(slot, task);
    }
  }

  #start(slot: Slot): Task {
    const counted = this.#protocol.oneCount ? this.#slots : [this.#slot(slot)];
    const generation = Math.max(...counted.map((each) => each.generation)) + 1;
    this.#slot(slot).generation = generation;
    const read = this.#slot(slot).confirmed;
    const task: Task = {
      ...{ generation, phase: "settle", owns: false, read },
      ...{ last: null, inFlight: false, waitFor: undefined },
    };
    this.#tasks[slot] = task;
    return task;
  }

  #read(slot: Slot, task: Task): void {
    const entry = this.log[task.read];
    if (task.inFlight || !entry) return;
    const lsn = task.read + 1;
    if (entry.kind === "move" && entry.from === slot && task.owns) {
      this.kill(slot);
      return;
    }
    task.read = lsn;
    if (entry.kind === "move" || this.#ownerAt(lsn) !== slot) {
      this.#slot(slot).confirmed = lsn;
      return;
    }
    const record = { writer: task.generation, position: position(lsn), after: task.last };
    task.last = record.position;
    task.inFlight = true;
    this.#puts.push({ slot, task, lsn, record });
  }

  /** The publication that held the topic at a place of the log. */
  #ownerAt(lsn: number): Slot {
    let owner: Slot = 0;
    for (const entry of this.log.slice(0, lsn)) if (entry.kind === "move") owner = other(entry.from);
    return owner;
  }

  #slot(slot: Slot) {
    return this.#slots[slot] as { confirmed: number; arriving: boolean; generation: number };
  }

  /** Lets everything come to its end; gives what took effect, and what should have. */
  finish(): { readonly effects: readonly PositionText[]; readonly committed: readonly PositionText[] } {
    for (let i = 0; i < 40 + 12 * this.log.length; i++) {
      for (const slot of [0, 1] as const) this.step(slot);
      this.land(0, false);
    }
    const seen = { position: START_OF_HISTORY, writer: 0 };
    const effects: PositionText[] = [];
    for (const { writer, position: at, after } of this.#stream) {
      if (isStaleWriter(seen, writer)) continue;
      seen.writer = writer;
      const verdict = classifyEvent(seen, at, after);
      if (verdict === "duplicate") continue;
      effects.push(verdict === "gap" ? `gap before ${at}` : at);
      seen.position = at;
    }
    const committed = this.log.flatMap(({ kind }, i) => (kind === "change" ? [position(i + 1)] : []));
    return { effects, committed };
  }
}

const slot = fc.constantFrom<Slot>(0, 1);
const acts = fc.array(
  fc.oneof(
    { arbitrary: fc.constant((m: Model) => m.commit()), weight: 3 },
    { arbitrary: slot.map((s) => (m: Model) => m.step(s)), weight: 12 },
    {
      arbitrary: fc.tuple(fc.nat(3), fc.nat(5)).map(
        ([n, k]) =>
          (m: Model) =>
            m.land(n, k === 0),
      ),
      weight: 4,
    },
    { arbitrary: slot.map((s) => (m: Model) => m.wish(s)), weight: 1 },
    { arbitrary: slot.map((s) => (m: Model) => m.kill(s)), weight: 1 },
  ),
  { minLength: 30, maxLength: 200, size: "max" },
);

function holds(protocol: Protocol) {
  return fc.check(
    fc.property(acts, (list) => {
      const model = new Model(protocol);
      for (const act of list) act(model);
      model.commit();
      const { effects, committed } = model.finish();
      expect(effects).toEqual(committed);
    }),
    { numRuns: 2000, seed: 7 },
  );
}

describe("a topic that moves between two slots", () => {
  test("takes effect once and in order, wherever tasks are killed and requests land late", () => {
    const { failed, errorInstance } = holds(WHOLE);
    expect({ failed, errorInstance }).toEqual({ failed: false, errorInstance: null });
  });

  test.each([
    ["the wait for the slot that gives", { waits: false }],
    ["the count of generations over all slots", { oneCount: false }],
    ["the newer generation after the wait", { takesAnother: false }],
    ["that only what has wholly come is given on", { completes: false }],
  ] as const)("is lost or out of order without %s", (_, without) => {
    expect(holds({ ...WHOLE, ...without }).failed).toBe(true);
  });
});
