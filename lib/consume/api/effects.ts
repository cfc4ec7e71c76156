import {
  attemptsOf,
  type Item,
  now,
  overtakes,
  type Partition,
  type Stop,
  stopAt,
} from "../run/partition.ts";
import { type CallResult, callHandler } from "./handler-call.ts";
import { HandlerDiedError, HandlerTimeoutError } from "./handler-errors.ts";
import type { BatchRegistration, Registration, SingleRegistration } from "./registry.ts";

/** Brings events of one partition to their handlers: retries, halves, claims, and what failed for good. */
export class Effects {
  readonly #partition: Partition;

  constructor(partition: Partition) {
    this.#partition = partition;
  }

  /** Events that follow each other, in one call if that succeeds; those that must wait are parked. */
  async several(registration: BatchRegistration, all: readonly Item[]): Promise<Stop | undefined> {
    if (this.#partition.parking.isEmpty) return this.#together(registration, all);
    let items: Item[] = [];
    const flush = async (upTo: Item): Promise<Stop | undefined> => {
      const stop = items.length > 0 ? await this.#together(registration, items) : undefined;
      items = [];
      // Past those too that wait behind the last one that took effect.
      if (!stop) this.#partition.passed(upTo);
      return stop;
    };
    // A change of this very batch may have been parked since it was put together.
    for (const [i, item] of all.entries()) {
      if (i > 0 && item.wire.op === "t" && !this.#partition.parking.isEmpty) {
        const stop = await flush(all[i - 1] as Item);
        if (stop) return stop;
      }
      const waits = await this.#partition.waits(item);
      if (waits === false) items.push(item);
      else if (waits !== true) return waits;
    }
    return flush(all.at(-1) as Item);
  }

  /** A call for several events; after a failure in halves, down to the single event (rule 18). */
  async #together(registration: BatchRegistration, items: readonly Item[]): Promise<Stop | undefined> {
    const [first, ...rest] = items as [Item, ...Item[]];
    if (rest.length === 0) return this.single(registration, first);
    const result = await this.#call(registration, items, 1, now());
    if ("record" in result) return result;
    switch (result.kind) {
      case "done":
        for (const item of items) this.#partition.took(item);
        return undefined;
      case "unavailable": {
        const open = itemsAt(items, result.indexes);
        const [before] = open as [Item, ...Item[]];
        const done = items.indexOf(before);
        for (const item of items.slice(0, done)) this.#partition.took(item);
        this.#tookAhead(items.slice(done), open);
        return stopAt(before.record, result.error);
      }
      case "some-failed":
        return this.#failedOnes(registration, items, result);
      case "failed": {
        this.#partition.invocation.counts.retried++;
        this.#partition.log("a handler failed, its events are tried in halves", first, 1, result.error);
        const middle = items.length >> 1;
        return (
          (await this.several(registration, items.slice(0, middle))) ??
          (await this.several(registration, items.slice(middle)))
        );
      }
      default:
        // Cut short although it had its share of time: fewer events next time.
        return stopAt(
          first.record,
          result.error,
          this.#partition.attemptsOf(items, result.fair ? 1 : 0, now()),
        );
    }
  }

  /** Tries again what failed of a call, and only that; what still fails at the end is given up one by one. */
  async #failedOnes(
    registration: BatchRegistration,
    all: readonly Item[],
    first: Extract<CallResult, { kind: "some-failed" }>,
  ): Promise<Stop | undefined> {
    const since = now();
    let failed = first.indexes.map((i) => all[i] as Item);
    const items = all.slice(first.indexes[0]);
    for (const item of all.slice(0, first.indexes[0])) this.#partition.took(item);
    let result: CallResult = first;
    const stopped = (stop: Stop, open: readonly Item[]): Stop => {
      this.#tookAhead(items, open);
      return stop;
    };
    for (
      let calls = 2;
      result.kind === "some-failed" && calls <= this.#partition.invocation.configuration.attempts;
      calls++
    ) {
      const [before] = failed as [Item, ...Item[]];
      this.#partition.log("some events of a handler failed", before, calls - 1, result.error);
      if (!(await this.#partition.wait(calls - 1))) {
        const attempts = attemptsOf(failed, calls - 1, since);
        return stopped(stopAt(before.record, result.error, attempts), failed);
      }
      this.#partition.invocation.counts.retried++;
      const again = await this.#call(registration, failed, calls, since);
      if ("record" in again) return stopped(again, failed);
      if (again.kind === "unavailable" || again.kind === "cut-short") {
        const attempts = this.#partition.attemptsOf(failed, calls - 1, since);
        const open = again.kind === "unavailable" ? itemsAt(failed, again.indexes) : failed;
        return stopped(stopAt(before.record, again.error, attempts), open);
      }
      result = again;
      if (again.kind === "done") failed = [];
      if (again.kind === "some-failed") failed = again.indexes.map((i) => failed[i] as Item);
    }
    const left = new Set(failed);
    for (const [i, item] of items.entries()) {
      if (!left.has(item)) {
        this.#partition.took(item);
        continue;
      }
      const waits = await this.#partition.waits(item);
      if (waits === true) {
        this.#partition.passed(item);
        continue;
      }
      if (waits !== false) return stopped(waits, [...left]);
      const { attempts } = this.#partition.invocation.configuration;
      const overtaken = items.slice(i).some((later) => !left.has(later) && overtakes(later.wire, item.wire));
      const stop =
        result.kind === "some-failed"
          ? await this.#partition.poison(item, result.error, attempts, since, overtaken)
          : await this.#attempts(registration, item, { overtaken });
      if (stop) return stopped(stop, [...left]);
    }
    return undefined;
  }

  /** All of a call took effect but what is open still: it need not be called again. */
  #tookAhead(items: readonly Item[], open: readonly Item[]): void {
    const left = new Set(open);
    const ahead = items.filter((item) => !left.has(item));
    this.#partition.checkpoint.tookAhead(ahead.map(({ position }) => position));
  }

  /** A call for one event. Gives a promise only where something is to be waited for. */
  single(registration: Registration, item: Item): Stop | undefined | Promise<Stop | undefined> {
    if (registration.kind === "single" && registration.claim) return this.#claimed(registration, item);
    const { checkpoint, start, invocation } = this.#partition;
    const { deadline } = invocation;
    const asks = start.note !== undefined || start.right?.isFresh() === false;
    if (checkpoint.attempts || asks || deadline.hasAborted) return this.#attempts(registration, item);
    const begun = callHandler(registration, [item.event], 1, invocation);
    if (begun instanceof Promise || begun.kind !== "done")
      return this.#attempts(registration, item, { begun });
    this.#partition.took(item);
    return undefined;
  }

  /** Under a claim: not again once it was recorded as done. */
  async #claimed(registration: SingleRegistration, item: Item): Promise<Stop | undefined> {
    const { claims, token, counts, deadline, running } = this.#partition.invocation;
    const name = `${this.#partition.lane.topic}/${this.#partition.lane.partition}/${item.position}`;
    try {
      if (!(await claims.claim(name, token, deadline.untilEndMs(), deadline.work))) {
        counts.duplicates++;
        this.#partition.parking.effect(item);
        this.#partition.passed(item);
        return undefined;
      }
      let recorded = false;
      const recordSuccess = async () => {
        await claims.done(name, token, deadline.end);
        recorded = true;
      };
      const stop = await this.#attempts(registration, item, { recordSuccess });
      // Whoever comes next need not wait for the lease, unless the handler still runs.
      if (!recorded && !running.has(this.#partition.lane)) {
        await claims.release(name, token, deadline.end);
      }
      return stop;
    } catch (error) {
      return stopAt(item.record, error);
    }
  }

  /** Calls a handler for one event until it succeeds, is given up, or time runs out. */
  async #attempts(
    registration: Registration,
    item: Item,
    {
      overtaken,
      recordSuccess,
      begun,
    }: {
      readonly overtaken?: boolean;
      readonly recordSuccess?: () => Promise<void>;
      /** The first call, where it was made already. */
      readonly begun?: CallResult | Promise<CallResult>;
    } = {},
  ): Promise<Stop | undefined> {
    const { configuration, counts, running } = this.#partition.invocation;
    let { calls, since } = this.#partition.callsBefore(item.position);
    if (!begun && running.succeeded(this.#partition.lane, item.position))
      return this.#done(item, recordSuccess);
    if (this.#partition.diedOften(calls))
      return this.#partition.poison(item, new HandlerDiedError(calls), calls, since ?? now(), overtaken);
    if (this.#partition.ranOnOften(item.position, calls))
      return this.#partition.poison(item, new HandlerTimeoutError(), calls, since ?? now(), overtaken);
    for (;;) {
      calls++;
      if (calls > 1) counts.retried++;
      const result = await (calls === 1 && begun
        ? begun
        : this.#call(registration, [item], calls, since ?? now()));
      if ("record" in result) return result;
      if (result.kind === "done") return this.#done(item, recordSuccess);
      const { error } = result;
      this.#partition.log("a handler failed", item, calls, error);
      since ??= now();
      if (result.kind === "unavailable" || (result.kind === "cut-short" && !result.fair)) {
        return stopAt(item.record, error, this.#partition.attemptsOf([item], calls - 1, since));
      }
      // Not given up while it may still act: the next invocation does, when it has ended.
      if (running.has(this.#partition.lane)) {
        return stopAt(item.record, error, this.#partition.attemptsOf([item], calls, since));
      }
      if (calls >= configuration.attempts) {
        return this.#partition.poison(item, error, calls, since, overtaken);
      }
      if (!(await this.#partition.wait(calls))) {
        return stopAt(item.record, error, attemptsOf([item], calls, since));
      }
    }
  }

  async #done(item: Item, recordSuccess: (() => Promise<void>) | undefined): Promise<undefined> {
    await recordSuccess?.();
    this.#partition.took(item);
  }

  /** One call of the handler, noted before where the predecessor died. */
  async #call(
    registration: Registration,
    items: readonly Item[],
    calls: number,
    since: string,
  ): Promise<CallResult | Stop> {
    const { record } = items[0] as Item;
    if (this.#partition.invocation.deadline.hasAborted) {
      return stopAt(record, new HandlerTimeoutError(), attemptsOf(items, calls - 1, since));
    }
    const lost = await this.#partition.noteCall(items, calls, since);
    if (lost) return lost;
    return callHandler(
      registration,
      items.map(({ event }) => event),
      calls,
      this.#partition.invocation,
    );
  }
}

/** The items at these places; without places all. */
function itemsAt(items: readonly Item[], places: readonly number[] | undefined): readonly Item[] {
  return places ? places.map((i) => items[i] as Item) : items;
}
