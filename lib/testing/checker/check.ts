import type { PositionText } from "../../change/position.ts";
import { EVERY_PARTITION } from "../../change/topic.ts";

/** An event that the truth demands of a consumer. */
export interface ExpectedEvent {
  readonly topic: string;
  readonly position: PositionText;
  /** Number of partitions that must each get it (a truncate): all of the topic's. Otherwise undefined. */
  readonly partitions?: number;
  /** The row's key as text: all events of a key must be in one partition. */
  readonly key: string;
}

/** One effect that a handler had, in the order of the effects. */
export interface Effect {
  readonly topic: string;
  readonly partition: number;
  readonly position: PositionText;
  /** The invocation of the handler that had it. */
  readonly invocation: string;
  /** False where the sink compared positions and left the change out as an older one. Default true. */
  readonly visible?: boolean;
}

/** The promise of a sink, which decides what counts as a finding. */
export type SinkPromise =
  /** Compares positions: no duplicate is ever visible. */
  | "positions"
  /** Appends: duplicates only where an invocation did not come to its end, and only at the end of what it did. */
  | "append"
  /** `once: "claim"`: as append, and one change of a partition at most. */
  | "once"
  /** Appends under `poison: "park"`, with redrives: in order key by key, since parked keys come later than others. */
  | "parked";

/** Begin and end of an invocation, by one clock. */
export interface InvocationTimes {
  readonly startedAt: number;
  /** Time at which it ended and reported success for everything; undefined: it did not. */
  readonly endedAt: number | undefined;
}

/** Findings about one sink. All must be 0, except `tailDuplicates` where something was killed; with `underWay` the run has failed by its time. */
export interface Findings {
  readonly events: number;
  readonly lost: number;
  readonly extra: number;
  readonly outOfOrder: number;
  readonly duplicates: number;
  /** Duplicates that the sink's promise allows: repeated by the successor of an invocation without an end. */
  readonly tailDuplicates: number;
  /**
   * Only where not everything arrived in time: repetitions by an invocation without an end that had come through a part of what it
   * must repeat. What it had left to do would have made them tails, or shown them to be duplicates.
   */
  readonly underWay: number;
  /** The first findings in words; positions and names, no values. */
  readonly examples: readonly string[];
}

/**
 * Holds what a sink did against the truth. An invocation that `invocations` does not know did not end. `arrived`: whether
 * the run came to its end; else a replay may have been cut off in the middle by looking.
 */
export function checkEffects(
  kind: SinkPromise,
  expected: readonly ExpectedEvent[],
  effects: readonly Effect[],
  invocations: ReadonlyMap<string, InvocationTimes>,
  arrived = true,
): Findings {
  const found = new Tally("lost", "extra", "outOfOrder", "duplicates", "underWay");
  let tailDuplicates = 0;

  const wanted = new Map<string, ExpectedEvent>();
  for (const event of expected) {
    for (let p = 0; p < (event.partitions ?? 1); p++) {
      wanted.set(idOf(event, event.partitions === undefined ? EVERY_PARTITION : p), event);
    }
  }

  const eventOf = (effect: Effect) =>
    wanted.get(idOf(effect, effect.partition)) ?? wanted.get(idOf(effect, EVERY_PARTITION));
  const laneOf =
    kind === "parked" ? (effect: Effect) => `${homeOf(effect)}\0${eventOf(effect)?.key}` : homeOf;
  const seen = new Map<string, Effect[]>();
  const latest = new Map<string, PositionText>();
  const homes = new Map<string, number>();
  for (const effect of effects) {
    const broadcast = idOf(effect, effect.partition);
    const id = wanted.has(broadcast) ? broadcast : idOf(effect, EVERY_PARTITION);
    const event = wanted.get(id);
    if (!event) {
      found.report("extra", describe(effect));
      continue;
    }
    const before = seen.get(id);
    if (before) {
      before.push(effect);
      continue;
    }
    seen.set(id, [effect]);
    const lane = laneOf(effect);
    const last = latest.get(lane);
    if (last !== undefined && effect.position <= last)
      found.report("outOfOrder", `${describe(effect)} came after ${last}`);
    else latest.set(lane, effect.position);
    if (event.partitions === undefined) {
      const key = `${event.topic}\0${event.key}`;
      const home = homes.get(key) ?? effect.partition;
      homes.set(key, home);
      if (home !== effect.partition)
        found.report("outOfOrder", `${describe(effect)}: its key was in partition ${home}`);
    }
  }

  for (const [id, event] of wanted) {
    if (!seen.has(id))
      found.report("lost", `${event.topic} ${event.position}${event.partitions ? ` (${id})` : ""}`);
  }

  const repeated = new Set([...seen].filter(([, all]) => visible(all).length > 1).map(([id]) => id));
  const tails = kind === "positions" ? undefined : new Tails(effects, invocations, laneOf);
  for (const id of repeated) {
    const all = visible(seen.get(id) ?? []);
    for (let i = 1; i < all.length; i++) {
      const [earlier, later] = [all[i - 1] as Effect, all[i] as Effect];
      if (tails?.allow(kind, earlier, later)) tailDuplicates++;
      else
        found.report(
          !arrived && tails?.underWay(kind, earlier, later) ? "underWay" : "duplicates",
          `${describe(later)}, first by ${earlier.invocation}, again by ${later.invocation}`,
        );
    }
  }
  return { events: wanted.size, ...found.counts, tailDuplicates, examples: found.examples };
}

/** Effects of each invocation by partition, to tell its last ones from the others. */
class Tails {
  readonly #done = new Map<string, PositionText[]>();
  /** The last invocation that had an effect, by partition and position. */
  readonly #lastBy = new Map<string, string>();
  readonly #invocations: ReadonlyMap<string, InvocationTimes>;
  readonly #laneOf: (effect: Effect) => string;

  constructor(
    effects: readonly Effect[],
    invocations: ReadonlyMap<string, InvocationTimes>,
    laneOf: (effect: Effect) => string,
  ) {
    this.#invocations = invocations;
    this.#laneOf = laneOf;
    for (const effect of effects) {
      const key = `${effect.invocation}\0${laneOf(effect)}`;
      const list = this.#done.get(key);
      if (list) list.push(effect.position);
      else this.#done.set(key, [effect.position]);
      this.#lastBy.set(`${laneOf(effect)}\0${effect.position}`, effect.invocation);
    }
  }

  /**
   * Returns true if the invocation that was first did not end, or not before the other began, and everything that it did
   * after this came again too.
   */
  allow(kind: SinkPromise, earlier: Effect, later: Effect): boolean {
    if (earlier.invocation === later.invocation) return false;
    const endedAt = this.#invocations.get(earlier.invocation)?.endedAt;
    if (endedAt !== undefined) {
      const next = this.#invocations.get(later.invocation);
      return kind !== "once" && next !== undefined && next.startedAt < endedAt;
    }
    const repeated = this.#repeatedBehind(earlier);
    return kind === "once" ? repeated.length === 0 : repeated.every(Boolean);
  }

  /**
   * Returns true if neither of both ended, and what the first did after this came again from its beginning on, up to a place that the
   * other had come to: behind that, nothing.
   */
  underWay(kind: SinkPromise, earlier: Effect, later: Effect): boolean {
    const { invocation } = later;
    if (kind === "once" || earlier.invocation === invocation) return false;
    if (this.#invocations.get(earlier.invocation)?.endedAt !== undefined) return false;
    if (this.#invocations.get(invocation)?.endedAt !== undefined) return false;
    const repeated = this.#repeatedBehind(earlier);
    return !repeated.slice(repeated.indexOf(false)).some(Boolean);
  }

  /** Of each effect that an invocation had in this lane after this one, whether another had it later. */
  #repeatedBehind(effect: Effect): boolean[] {
    const { invocation, position } = effect;
    const lane = this.#laneOf(effect);
    const done = this.#done.get(`${invocation}\0${lane}`) ?? [];
    return done
      .slice(done.lastIndexOf(position) + 1)
      .map((each) => this.#lastBy.get(`${lane}\0${each}`) !== invocation);
  }
}

function visible(effects: readonly Effect[]): readonly Effect[] {
  return effects.filter((effect) => effect.visible !== false);
}

function idOf(event: { topic: string; position: PositionText }, partition: number): string {
  return `${event.topic}/${partition}/${event.position}`;
}

function homeOf(effect: Effect): string {
  return `${effect.topic}/${effect.partition}`;
}

function describe(effect: Effect): string {
  return `${homeOf(effect)} ${effect.position}`;
}

/** Findings of each kind that are kept in words. */
const EXAMPLES = 5;

/** Counts findings by kind, and keeps the first of each kind in words. */
export class Tally<Kind extends string> {
  readonly counts: Record<Kind, number>;
  readonly examples: string[] = [];

  constructor(...kinds: readonly Kind[]) {
    this.counts = Object.fromEntries(kinds.map((kind) => [kind, 0])) as Record<Kind, number>;
  }

  /** Counts one finding, described by positions and names: no values. */
  report(kind: Kind, text: string): void {
    if (this.counts[kind]++ < EXAMPLES) this.examples.push(`${kind}: ${text}`);
  }
}
