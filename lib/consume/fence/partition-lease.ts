import { type PlainValues, updateIf } from "../../state/item-update.ts";
import type { StateItem } from "../../state/state-table.ts";
import type { PartitionItem } from "./partition-item.ts";

/** A kind of lease: its attributes in the fence's item, and its time. */
export interface LeaseKind {
  /** Attributes, before the partition's number: who has it, and until when. */
  readonly name: string;
  readonly end: string;
  /** One who has not renewed it for so long is dead; clocks of two machines may differ by a part of it. */
  readonly leaseMs: number;
  readonly renewalMs: number;
}

/** A lease that another has; `name` is undefined once it was given back. */
export interface LeaseState {
  readonly name: string | undefined;
  /** Milliseconds since 1970. */
  readonly end: number;
}

/** A redrive of keys (redrive-lease.ts). */
export const REDRIVE: LeaseKind = { name: "r", end: "u", leaseMs: 60_000, renewalMs: 15_000 };
/** Whoever calls handlers for what a partition holds (replay-lease.ts). */
export const REPLAY: LeaseKind = { name: "v", end: "x", leaseMs: 30_000, renewalMs: 5_000 };

/**
 * Takes a lease, which is renewed until it is given back; while another has it, tells until when. `name` is one that no lease
 * had before. By force, it is taken from who has it: that one finds out before its next effect.
 *
 * A late duplicate of any request changes nothing (rule 37), of one that was refused neither: each take moves the end on, which
 * stays in the item when a lease is given back. So a take names the end that it saw, and is not sent while it saw another's
 * lease: were it refused for as long as somebody has the lease, its duplicate would take the lease for nobody after that.
 */
export async function takeLease(
  item: PartitionItem,
  kind: LeaseKind,
  name: string,
  force = false,
): Promise<PartitionLease | LeaseState> {
  const { partition } = item.place;
  const [r, u] = [`${kind.name}${partition}`, `${kind.end}${partition}`];
  for (let asked = 0; ; ) {
    const seen = readLease(await item.read(), kind, partition);
    // The answer was lost.
    if (seen.name === name) return new PartitionLease(item, kind, name, asked);
    if (!force && isLive(seen)) return seen;
    // The clock of the one who had it last may be ahead of ours.
    asked = Math.max(endOf(kind), seen.end + 1);
    const unchanged = asSeen(seen, u);
    const values = { r: name, u: asked, ...unchanged.values };
    const taken = await item.update(
      `take ${r}`,
      updateIf(`SET ${r}=:r,${u}=:u`, unchanged.condition, values),
    );
    if (taken) return new PartitionLease(item, kind, name, asked);
  }
}

/** The condition that nobody has taken or renewed the lease since it was seen; its end stands in the attribute `u`. */
export function asSeen(
  { end }: LeaseState,
  u: string,
): { readonly condition: string; readonly values: PlainValues } {
  return end === 0
    ? { condition: `attribute_not_exists(${u})`, values: {} }
    : { condition: `${u}=:seen`, values: { seen: end } };
}

/** The condition that nobody has it, or its time is over; `:now` is the time. */
export function freeOf({ name, end }: LeaseKind, partition: number): string {
  return `(attribute_not_exists(${name}${partition}) OR ${end}${partition}<:now)`;
}

/** Returns whether somebody has it, and may be alive. */
export function isLive(state: LeaseState | undefined): boolean {
  return state?.name !== undefined && state.end >= Date.now();
}

/** Reads a lease from the item of a fence. */
export function readLease(item: StateItem | undefined, kind: LeaseKind, partition: number): LeaseState {
  const end = Number(item?.[`${kind.end}${partition}`]?.N ?? "0");
  return { name: item?.[`${kind.name}${partition}`]?.S, end };
}

/** A lease of something in a partition, while it is ours. */
export class PartitionLease {
  readonly item: PartitionItem;
  readonly name: string;
  readonly #kind: LeaseKind;
  readonly #renewal: NodeJS.Timeout;
  #end: number;

  constructor(item: PartitionItem, kind: LeaseKind, name: string, end: number) {
    this.item = item;
    this.name = name;
    this.#kind = kind;
    this.#end = end;
    // A handler may take its time; where the lease is lost, the question before the next effect tells.
    this.#renewal = setInterval(() => void this.renew().catch(() => {}), kind.renewalMs).unref();
    item.signal.addEventListener("abort", () => this.abandon(), { once: true });
  }

  /** The item as it stands now, if the lease still is ours: asked before each effect. */
  async renew(): Promise<StateItem | undefined> {
    const { partition } = this.item.place;
    const [r, u] = [`${this.#kind.name}${partition}`, `${this.#kind.end}${partition}`];
    const end = Math.max(endOf(this.#kind), this.#end + 1);
    this.#end = end;
    // A write: what is read may be old by the time it is answered, and who shuts us out removes the lease.
    const renewed = await this.item.update(
      `renew ${r}`,
      updateIf(`SET ${u}=:u`, `${r}=:r AND ${u}<:u`, { r: this.name, u: end }),
    );
    if (renewed) return renewed;
    // It was carried out and its answer was lost, or one that began later came first.
    const item = await this.item.read();
    const stored = readLease(item, this.#kind, partition);
    return stored.name === this.name && stored.end >= end ? item : undefined;
  }

  /** Renews the lease no more. */
  abandon(): void {
    clearInterval(this.#renewal);
  }

  /** Gives the lease back. */
  async release(signal?: AbortSignal): Promise<void> {
    this.abandon();
    const r = `${this.#kind.name}${this.item.place.partition}`;
    const update = updateIf(`REMOVE ${r}`, `${r}=:r`, { r: this.name });
    await this.item.update(`give back ${r}`, update, signal);
  }
}

function endOf({ leaseMs }: LeaseKind): number {
  return Date.now() + leaseMs;
}
