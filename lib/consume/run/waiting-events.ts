import type { PositionText } from "../../change/position.ts";
import type { Effects } from "../api/effects.ts";
import type { BatchRegistration, Registration } from "../api/registry.ts";
import type { SeenEvents } from "../fence/classify-event.ts";
import type { Item, Partition, Stop } from "./partition.ts";

/**
 * The events of a partition that wait for one call together, and how far its events were seen: ahead of the checkpoint by
 * those that wait. What waits is done before anything behind it counts as done.
 */
export class WaitingEvents {
  readonly #partition: Partition;
  readonly #effects: Effects;
  readonly #seen: { position: PositionText; writer: number; explained: PositionText | undefined };
  #items: Item[] = [];
  #registration: BatchRegistration | undefined;

  constructor(partition: Partition, effects: Effects) {
    this.#partition = partition;
    this.#effects = effects;
    const { position, writer, explained } = partition.checkpoint;
    this.#seen = { position, writer, explained };
  }

  /** The end of the events that were seen, and who wrote them. */
  get seen(): SeenEvents {
    return this.#seen;
  }

  /** Notes an event that is the next one. */
  see(position: PositionText, writer: number): void {
    if (position > this.#seen.position) this.#seen.explained = undefined;
    this.#seen.position = position;
    this.#seen.writer = writer;
  }

  /** Notes an event that needs no call: it is done once what waits before it is. */
  pass(position: PositionText, writer: number): void {
    this.see(position, writer);
    if (this.#items.length === 0) this.#partition.checkpoint.reach(position, writer);
  }

  /** Notes what the checkpoint says of events that could not be read. */
  seeExplained(): void {
    this.#seen.explained = this.#partition.checkpoint.explained;
    this.#seen.writer = this.#partition.checkpoint.writer;
  }

  /** Returns whether an event can be one more of the same call. */
  joins(registration: Registration, position: PositionText): boolean {
    const [first] = this.#items;
    if (registration !== this.#registration) return first === undefined;
    const limit = this.#limit(this.#registration, position);
    const { length } = this.#items;
    return (
      length < limit && (first === undefined || length < this.#limit(this.#registration, first.position))
    );
  }

  add(registration: BatchRegistration, item: Item): void {
    this.#items.push(item);
    this.#registration = registration;
  }

  /** Makes the call for what waits. */
  async flush(): Promise<Stop | undefined> {
    const [items, registration] = [this.#items, this.#registration];
    this.#items = [];
    this.#registration = undefined;
    if (!registration || items.length === 0) return undefined;
    const stop = await this.#effects.several(registration, items);
    if (!stop) this.#partition.checkpoint.reach(this.#seen.position, this.#seen.writer);
    return stop;
  }

  /** Makes the call for what waits; then returns why the partition goes no further. */
  async flushBefore(stop: Stop): Promise<Stop> {
    return (await this.flush()) ?? stop;
  }

  /** Events in a call: half of what a call held that never came back, so that the culprit is found. */
  #limit({ maxEvents }: BatchRegistration, position: PositionText): number {
    const { attempts } = this.#partition.checkpoint;
    const suspect = attempts && attempts.calls > 0 && position >= attempts.from && position <= attempts.to;
    return suspect ? Math.min(maxEvents, Math.max(1, attempts.count >> 1)) : maxEvents;
  }
}
