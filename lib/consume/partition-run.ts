import { setTimeout as sleep } from "node:timers/promises";
import type { ChangeEventJson } from "../change/event.ts";
import type { PositionText } from "../change/position.ts";
import { type ClaimRecord, positionOf } from "../change/record.ts";
import { type ClaimReader, isClaimFault } from "./claim-reader.ts";
import type { ConsumerConfiguration } from "./configuration.ts";
import { errorFacts, jsonLogger, type WriteLine } from "./context.ts";
import { type DeadLetterQueue, deadLetterError } from "./dead-letter.ts";
import type { Deadline } from "./deadline.ts";
import { GapError, HandlerDiedError, HandlerTimeoutError, OwnershipLostError } from "./errors.ts";
import { HandledEvent, wireRows } from "./event.ts";
import type { Attempts, PartitionProgress } from "./fence-item.ts";
import { type CallResult, callHandler } from "./handler-call.ts";
import { isStaleWriter, judge } from "./judge.ts";
import type { InvocationCounts } from "./observer.ts";
import type { Claims } from "./once.ts";
import type { BatchRecord, Lane } from "./ordered-batch.ts";
import type { BatchRegistration, Registration, Registry, SingleRegistration } from "./registry.ts";
import { retryDelay } from "./retries.ts";
import { validateRows } from "./schema.ts";

/** What all partition runs of an invocation share. */
export interface Invocation {
  readonly consumer: string;
  readonly registry: Registry;
  readonly configuration: ConsumerConfiguration;
  readonly deadline: Deadline;
  readonly counts: InvocationCounts;
  readonly letters: DeadLetterQueue | undefined;
  readonly claims: Claims;
  readonly oversize: ClaimReader;
  /** The fence token; it also owns claims. */
  readonly token: string;
  readonly write: WriteLine;
}

/** Where a partition stood when it was taken. */
export interface PartitionStart {
  readonly mark: PositionText;
  readonly writer: number;
  readonly attempts: Attempts | undefined;
  /** Present where the predecessor died (rule 11): called before each handler call; false when no longer ours. */
  readonly note: ((progress: PartitionProgress) => Promise<boolean>) | undefined;
}

/** Where a partition stands after its run. */
export interface PartitionOutcome {
  readonly progress: PartitionProgress;
  /** The record that must come again, and why. */
  readonly stopped: { readonly record: BatchRecord; readonly error: unknown } | undefined;
}

/** An event on its way to a handler. */
interface Item {
  readonly record: BatchRecord;
  readonly index: number;
  readonly wire: ChangeEventJson;
  readonly position: PositionText;
  readonly event: HandledEvent;
}

/** Why the partition goes no further in this invocation; `attempts` are remembered. */
interface Stop {
  readonly record: BatchRecord;
  readonly error: unknown;
  readonly attempts: Attempts | undefined;
}

/** Applies the events of one partition in order, until the end or the first that must come again. */
export class PartitionRun {
  readonly #lane: Lane;
  readonly #start: PartitionStart;
  readonly #invocation: Invocation;
  /** Everything up to here took effect, was passed, or lies in the dead letters. */
  #mark: PositionText;
  /** Everything up to here was judged: ahead of `#mark` by the events that wait in `#chunk`. */
  #judged: PositionText;
  #writer: number;
  #chunk: Item[] = [];
  #chunkOf: BatchRegistration | undefined;

  constructor(lane: Lane, start: PartitionStart, invocation: Invocation) {
    this.#lane = lane;
    this.#start = start;
    this.#invocation = invocation;
    this.#mark = start.mark;
    this.#judged = start.mark;
    this.#writer = start.writer;
  }

  /** Never throws. */
  async run(): Promise<PartitionOutcome> {
    const stop = await this.#run();
    const earlier = this.#start.attempts;
    // Calls that are on record stay there until their changes are done.
    const attempts = stop?.attempts ?? (earlier && earlier.to > this.#mark ? earlier : undefined);
    return {
      progress: { partition: this.#lane.partition, mark: this.#mark, writer: this.#writer, attempts },
      stopped: stop,
    };
  }

  async #run(): Promise<Stop | undefined> {
    for (const record of this.#lane.records) {
      const { mark, writer } = { mark: this.#judged, writer: this.#writer };
      if (isStaleWriter({ mark, writer }, record.writer)) {
        this.#invocation.counts.staleWriter++;
        continue;
      }
      this.#writer = record.writer;
      if (record.claimed) {
        const stop = await this.#oversized(record, record.claimed);
        if (stop) return stop;
      }
      for (const [index, wire] of record.events.entries()) {
        const stop = await this.#event(record, index, wire);
        if (stop) return stop;
      }
    }
    return this.#flush();
  }

  async #event(record: BatchRecord, index: number, wire: ChangeEventJson): Promise<Stop | undefined> {
    const position = positionOf(wire);
    const turn = await this.#turn(record, position, wire.source.after);
    return turn === "apply" ? this.#apply(record, index, wire, position) : turn;
  }

  /** An event that did not travel: read only when its turn has come, and then alone. */
  async #oversized(record: BatchRecord, claimed: ClaimRecord): Promise<Stop | undefined> {
    const turn = await this.#turn(record, claimed.position, claimed.after);
    if (turn !== "apply") return turn;
    const before = await this.#flush();
    if (before) return before;
    const { oversize, deadline } = this.#invocation;
    try {
      return await oversize.withRoom(claimed, deadline.work, async () => {
        const wire = await this.#read(record, claimed);
        if (wire === "given up") {
          this.#judged = claimed.position;
          return undefined;
        }
        if ("record" in wire) return wire;
        return (await this.#apply(record, 0, wire, claimed.position)) ?? (await this.#flush());
      });
    } catch (error) {
      return { record, error, attempts: undefined };
    }
  }

  /** The event of a claim. What is wrong with its object alone counts as a failure of the change. */
  async #read(record: BatchRecord, claimed: ClaimRecord): Promise<ChangeEventJson | Stop | "given up"> {
    const { configuration, deadline, oversize } = this.#invocation;
    const item = { record, index: 0, position: claimed.position };
    const known = this.#callsBefore(item.position);
    let { calls } = known;
    const since = known.since ?? now();
    const giveUp = async (error: unknown) => (await this.#poison(item, error, calls, since)) ?? "given up";
    if (this.#diedOften(calls)) return giveUp(new HandlerDiedError(calls));
    for (;;) {
      calls++;
      // Large as it is, it may be what ends the process.
      const lost = await this.#noteCall([item], calls, since);
      if (lost) return lost;
      try {
        return await oversize.read(claimed, deadline.work);
      } catch (error) {
        if (!isClaimFault(error)) return { record, error, attempts: attemptsOf([item], calls - 1, since) };
        this.#log("a change could not be read", item, calls, error);
        if (calls >= configuration.attempts) return giveUp(error);
        if (!(await this.#wait(calls))) {
          return { record, error, attempts: attemptsOf([item], calls, since) };
        }
      }
    }
  }

  /** Whether it is an event's turn to take effect; if not, it is a duplicate, or the partition stops at a gap. */
  async #turn(
    record: BatchRecord,
    position: PositionText,
    after: PositionText | null,
  ): Promise<"apply" | Stop | undefined> {
    const { counts } = this.#invocation;
    const verdict = judge({ mark: this.#judged, writer: this.#writer }, position, after);
    if (verdict === "duplicate") {
      counts.duplicates++;
      return undefined;
    }
    if (verdict === "gap") {
      const stop = await this.#flush();
      if (stop) return stop;
      counts.gaps++;
      const error = new GapError(this.#lane, this.#judged, position, after as PositionText);
      return { record, error, attempts: undefined };
    }
    return "apply";
  }

  async #apply(
    record: BatchRecord,
    index: number,
    wire: ChangeEventJson,
    position: PositionText,
  ): Promise<Stop | undefined> {
    const { counts, registry } = this.#invocation;
    const registration = registry.find(this.#lane.topic, wire);
    if (!registration) {
      counts.unhandled++;
      this.#judged = position;
      if (this.#chunk.length === 0) this.#mark = position;
      return undefined;
    }
    if (!this.#joins(registration, position)) {
      const stop = await this.#flush();
      if (stop) return stop;
    }
    const item = await this.#prepare(registration, record, index, wire, position);
    if ("error" in item) {
      const stop = (await this.#flush()) ?? (await this.#poison(item, item.error, 1, now()));
      if (!stop) this.#judged = position;
      return stop;
    }
    this.#judged = position;
    if (registration.kind === "single") return this.#single(registration, item);
    this.#chunk.push(item);
    this.#chunkOf = registration;
    return undefined;
  }

  /** Whether an event can be one more of the waiting chunk. */
  #joins(registration: Registration, position: PositionText): boolean {
    if (registration !== this.#chunkOf) return this.#chunk.length === 0;
    const limits = [this.#limit(this.#chunkOf, position)];
    if (this.#chunk[0]) limits.push(this.#limit(this.#chunkOf, this.#chunk[0].position));
    return this.#chunk.length < Math.min(...limits);
  }

  /** Events in a call: half of what a call held that never came back, so that the culprit is found. */
  #limit({ maxEvents }: BatchRegistration, position: PositionText): number {
    const { attempts } = this.#start;
    const suspect = attempts && position >= attempts.from && position <= attempts.to;
    return suspect ? Math.min(maxEvents, Math.max(1, attempts.count >> 1)) : maxEvents;
  }

  async #prepare(
    { row }: Registration,
    record: BatchRecord,
    index: number,
    wire: ChangeEventJson,
    position: PositionText,
  ): Promise<Item | (Omit<Item, "event"> & { readonly error: unknown })> {
    const item = { record, index, wire, position };
    try {
      const rows = row ? await validateRows(row, wire) : wireRows(wire);
      return { ...item, event: new HandledEvent(wire, this.#lane, position, rows) };
    } catch (error) {
      return { ...item, error };
    }
  }

  /** Applies what waits in the chunk. */
  async #flush(): Promise<Stop | undefined> {
    const [items, registration] = [this.#chunk, this.#chunkOf];
    this.#chunk = [];
    this.#chunkOf = undefined;
    if (!registration || items.length === 0) return undefined;
    const stop = await this.#several(registration, items);
    if (!stop) this.#mark = this.#judged;
    return stop;
  }

  /** A call for several events; after a failure in halves, down to the single event (rule 18). */
  async #several(registration: BatchRegistration, items: readonly Item[]): Promise<Stop | undefined> {
    const [first, ...rest] = items as [Item, ...Item[]];
    if (rest.length === 0) return this.#single(registration, first);
    const result = await this.#call(registration, items, 1, now());
    if ("record" in result) return result;
    switch (result.kind) {
      case "done":
        this.#took(items);
        return undefined;
      case "some-failed":
        return this.#failedOnes(registration, items, result);
      case "failed": {
        this.#invocation.counts.retried++;
        this.#log("a handler failed, its events are tried in halves", first, 1, result.error);
        const middle = items.length >> 1;
        return (
          (await this.#several(registration, items.slice(0, middle))) ??
          (await this.#several(registration, items.slice(middle)))
        );
      }
      default:
        // Cut short although it had its share of time: fewer events next time.
        return {
          record: first.record,
          error: result.error,
          attempts: result.kind === "cut-short" && result.fair ? attemptsOf(items, 1, now()) : undefined,
        };
    }
  }

  /** Tries again what failed of a call, and only that; what still fails at the end is given up one by one. */
  async #failedOnes(
    registration: BatchRegistration,
    items: readonly Item[],
    first: Extract<CallResult, { kind: "some-failed" }>,
  ): Promise<Stop | undefined> {
    const since = now();
    let failed = first.indexes.map((i) => items[i] as Item);
    let result: CallResult = first;
    for (
      let calls = 2;
      result.kind === "some-failed" && calls <= this.#invocation.configuration.attempts;
      calls++
    ) {
      const [before] = failed as [Item, ...Item[]];
      this.#log("some events of a handler failed", before, calls - 1, result.error);
      if (!(await this.#wait(calls - 1))) {
        return { record: before.record, error: result.error, attempts: attemptsOf(failed, calls - 1, since) };
      }
      this.#invocation.counts.retried++;
      const again = await this.#call(registration, failed, calls, since);
      if ("record" in again) return again;
      if (again.kind === "unavailable" || again.kind === "cut-short") {
        return { record: before.record, error: again.error, attempts: attemptsOf(failed, calls - 1, since) };
      }
      result = again;
      if (again.kind === "done") failed = [];
      if (again.kind === "some-failed") failed = again.indexes.map((i) => failed[i] as Item);
    }
    const left = new Set(failed);
    for (const item of items) {
      if (!left.has(item)) {
        this.#took([item]);
        continue;
      }
      const stop =
        result.kind === "some-failed"
          ? await this.#poison(item, result.error, this.#invocation.configuration.attempts, since)
          : await this.#attempts(registration, item);
      if (stop) return stop;
    }
    return undefined;
  }

  async #single(registration: Registration, item: Item): Promise<Stop | undefined> {
    return registration.kind === "single" && registration.claim
      ? this.#claimed(registration, item)
      : this.#attempts(registration, item);
  }

  /** Under a claim: not again once it was recorded as done. */
  async #claimed(registration: SingleRegistration, item: Item): Promise<Stop | undefined> {
    const { claims, token, counts, deadline } = this.#invocation;
    const name = `${this.#lane.topic}/${this.#lane.partition}/${item.position}`;
    try {
      if (!(await claims.claim(name, token, deadline.untilEndMs(), deadline.work))) {
        counts.duplicates++;
        this.#mark = item.position;
        return undefined;
      }
      let recorded = false;
      const stop = await this.#attempts(registration, item, async () => {
        await claims.done(name, token, deadline.end);
        recorded = true;
      });
      // Whoever comes next need not wait for the lease, unless the handler still runs.
      if (!recorded && !(stop?.error instanceof HandlerTimeoutError)) {
        await claims.release(name, token, deadline.end);
      }
      return stop;
    } catch (error) {
      return { record: item.record, error, attempts: undefined };
    }
  }

  /** Calls a handler for one event until it succeeds, is given up, or time runs out. */
  async #attempts(
    registration: Registration,
    item: Item,
    recordSuccess?: () => Promise<void>,
  ): Promise<Stop | undefined> {
    const { configuration, counts } = this.#invocation;
    let { calls, since } = this.#callsBefore(item.position);
    if (this.#diedOften(calls)) return this.#poison(item, new HandlerDiedError(calls), calls, since ?? now());
    for (;;) {
      calls++;
      if (calls > 1) counts.retried++;
      const result = await this.#call(registration, [item], calls, since ?? now());
      if ("record" in result) return result;
      if (result.kind === "done") {
        await recordSuccess?.();
        this.#took([item]);
        return undefined;
      }
      const { error } = result;
      this.#log("a handler failed", item, calls, error);
      since ??= now();
      if (result.kind === "unavailable" || (result.kind === "cut-short" && !result.fair)) {
        return { record: item.record, error, attempts: attemptsOf([item], calls - 1, since) };
      }
      if (calls >= configuration.attempts) return this.#poison(item, error, calls, since);
      if (!(await this.#wait(calls))) {
        return { record: item.record, error, attempts: attemptsOf([item], calls, since) };
      }
    }
  }

  /** Waits before a retry; returns false, at once, where the invocation's time would be over. */
  async #wait(calls: number): Promise<boolean> {
    const delay = retryDelay(calls);
    if (delay >= this.#invocation.deadline.remainingMs()) return false;
    await sleep(delay);
    return true;
  }

  /** One call of the handler, noted before where the predecessor died. */
  async #call(
    registration: Registration,
    items: readonly Item[],
    calls: number,
    since: string,
  ): Promise<CallResult | Stop> {
    const { record } = items[0] as Item;
    if (this.#invocation.deadline.work.aborted) {
      return { record, error: new HandlerTimeoutError(), attempts: attemptsOf(items, calls - 1, since) };
    }
    const lost = await this.#noteCall(items, calls, since);
    if (lost) return lost;
    return callHandler(
      registration,
      items.map(({ event }) => event),
      calls,
      this.#invocation,
    );
  }

  /** Calls for a change that earlier invocations have on record. */
  #callsBefore(position: PositionText): { calls: number; since: string | undefined } {
    const earlier = this.#start.attempts;
    const known = earlier?.count === 1 && earlier.from === position ? earlier : undefined;
    return { calls: known?.calls ?? 0, since: known?.since };
  }

  /** Whether so many calls never came back that the change is given up. */
  #diedOften(calls: number): boolean {
    const { attempts, poison } = this.#invocation.configuration;
    return this.#start.note !== undefined && calls >= attempts && poison === "skip";
  }

  /** Writes down that a call begins, where the predecessor died. Gives why it must not begin. */
  async #noteCall(
    items: readonly Pick<Item, "record" | "position">[],
    calls: number,
    since: string,
  ): Promise<Stop | undefined> {
    if (!this.#start.note) return undefined;
    const { record } = items[0] as Pick<Item, "record">;
    const attempts = attemptsOf(items, calls, since);
    const { partition } = this.#lane;
    try {
      const ours = await this.#start.note({ partition, mark: this.#mark, writer: this.#writer, attempts });
      return ours ? undefined : { record, error: new OwnershipLostError(this.#lane), attempts: undefined };
    } catch (error) {
      return { record, error, attempts: attemptsOf(items, calls - 1, since) };
    }
  }

  #took(items: readonly Item[]): void {
    for (const { wire } of items) this.#invocation.counts.effect(wire.source.ts_ms);
    this.#mark = (items.at(-1) as Item).position;
  }

  /** A change that failed for good: into the dead letters and on, or no further, as the policy says. */
  async #poison(
    item: Pick<Item, "record" | "index" | "position">,
    error: unknown,
    calls: number,
    since: string,
  ): Promise<Stop | undefined> {
    const { configuration, consumer, counts, deadline, letters } = this.#invocation;
    const { record, position } = item;
    const stop = (reason: unknown): Stop => ({
      record,
      error: reason,
      attempts: attemptsOf([item], calls, since),
    });
    if (configuration.poison === "stop" || !letters) {
      counts.held++;
      return stop(error);
    }
    try {
      await letters.send(
        {
          consumer,
          topic: this.#lane.topic,
          partition: this.#lane.partition,
          position,
          shardId: record.shardId,
          sequenceNumber: record.sequenceNumber,
          attempts: calls,
          firstFailedAt: since,
          lastFailedAt: now(),
          error: deadLetterError(error),
          ...(record.claimed
            ? { payloadClaim: record.claimed.claim }
            : { payload: record.verbatim(item.index) }),
        },
        deadline.end,
      );
    } catch (refusal) {
      return stop(refusal);
    }
    counts.deadLettered++;
    this.#log("a change went to the dead letters", item, calls, error);
    this.#mark = position;
    return undefined;
  }

  #log(message: string, { position }: Pick<Item, "position">, attempt: number, error: unknown): void {
    const { consumer, write } = this.#invocation;
    const { topic, partition } = this.#lane;
    jsonLogger(write, { consumer, topic, partition, position, attempt, ...errorFacts(error) }).warn(message);
  }
}

function attemptsOf(
  items: readonly Pick<Item, "position">[],
  calls: number,
  since: string,
): Attempts | undefined {
  const [from, to] = [items[0], items.at(-1)];
  if (calls === 0 || !from || !to) return undefined;
  return { from: from.position, to: to.position, count: items.length, calls, since };
}

function now(): string {
  return new Date().toISOString();
}
