import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { CallRight } from "../run/partition.ts";
import { readToken } from "./fence-item.ts";
import type { FenceToken } from "./fence-token.ts";
import type { PartitionItem } from "./partition-item.ts";
import { type LeaseState, PartitionLease, REPLAY, takeLease } from "./partition-lease.ts";

/*
 * One replay of a hold at a time. The token says who may write, and goes to whoever takes it: an invocation has records to
 * store, and cannot leave them to a redrive. But the one it is taken from may be alive, with a handler at work on the very
 * changes. So handlers are called for held changes under this lease alone, attributes `v<p>` and `x<p>`:
 *
 * - A redrive takes the lease before the token: nothing is taken from an invocation that replays. While the lease is renewed it
 *   is busy; of one that died, the lease ends.
 * - An invocation that takes the token from a redrive at work waits for the lease, before it writes anything. The redrive
 *   makes no more calls, writes for its successor what it has come to (`Fence.handOver`), and gives the lease back.
 * - One that was frozen, and wakes when its lease was another's since, calls no handler: it asks before.
 */

/** A right that was confirmed so lately holds: a small part of the lease. By two clocks, of which a freeze may stop one. */
const FRESH_MS = 1_000;
/** An answer that took longer says nothing any more. */
const ANSWER_MS = REPLAY.leaseMs / 2;

/** Between two looks at whether another has ended, and how many follow once that one is known to be alive. */
const POLL_MS = 250;
const POLLS = 8;

/** The right to call handlers for what one partition holds, while it is ours. */
export class ReplayLease implements CallRight {
  readonly #lease: PartitionLease;
  readonly #token: FenceToken;
  #confirmed: ClockReading | undefined;

  /** `token`: of who has the lease, in the same partition. */
  constructor(lease: PartitionLease, token: FenceToken) {
    this.#lease = lease;
    this.#token = token;
  }

  /** Names it in the fence. */
  get name(): string {
    return this.#lease.name;
  }

  isFresh(): boolean {
    return this.#confirmed !== undefined && isWithin(this.#confirmed, FRESH_MS);
  }

  /** Returns whether lease and token still are ours. */
  async confirm(): Promise<boolean> {
    for (;;) {
      const asked = { wall: Date.now(), elapsed: performance.now() };
      const item = await this.#lease.renew();
      if (readToken(item, this.#lease.item.place.partition) !== this.#token.held) return false;
      this.#confirmed = asked;
      if (isWithin(asked, ANSWER_MS)) return true;
    }
  }

  /** Renews it no more. */
  abandon(): void {
    this.#lease.abandon();
  }

  /** Gives it back. */
  release(signal: AbortSignal): Promise<void> {
    return this.#lease.release(signal);
  }
}

interface ClockReading {
  readonly wall: number;
  readonly elapsed: number;
}

function isWithin({ wall, elapsed }: ClockReading, ms: number): boolean {
  return Math.abs(Date.now() - wall) < ms && performance.now() - elapsed < ms;
}

/** Takes the lease, to be combined with the token; while another has it, tells until when. */
export function takeReplay(
  item: PartitionItem,
  owner: string,
  force = false,
): Promise<PartitionLease | LeaseState> {
  return takeLease(item, REPLAY, `${owner}.${randomBytes(6).toString("base64url")}`, force);
}

/**
 * The same; where another has it, waits until that one ends, or its lease does: it died. One that renews it is alive, and is
 * waited for a little. `waits` is told before.
 */
export async function awaitReplay(
  item: PartitionItem,
  owner: string,
  signal: AbortSignal,
  waits: (until: number) => void,
): Promise<PartitionLease | LeaseState> {
  let first: LeaseState | undefined;
  for (let left = POLLS; ; ) {
    const taken = await takeReplay(item, owner);
    if (taken instanceof PartitionLease) return taken;
    if (!first) waits(taken.end);
    first ??= taken;
    const isAlive = taken.name !== first.name || taken.end > first.end;
    if (signal.aborted || (isAlive && left-- <= 0)) return taken;
    await sleep(POLL_MS, undefined, { signal }).catch(() => {});
  }
}
