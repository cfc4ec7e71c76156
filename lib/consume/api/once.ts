import { setTimeout as sleep } from "node:timers/promises";
import { attributesOf, updateIf, writeIf } from "../../state/item-update.ts";
import { claimKey, type StateKey } from "../../state/state-key.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";
import { ClaimHeldError } from "./handler-errors.ts";

/** Seconds for which a done claim is remembered: longer than a record comes again with the default retention. */
const REMEMBERED_SECONDS = 14 * 24 * 3600;
/** Clocks of two machines may differ by this much, in milliseconds. */
const CLOCK_SKEW_MS = 5_000;
const POLL_MS = 200;
const NAMES = { ExpressionAttributeNames: { "#state": "state", "#owner": "owner" } };

/** The name of a claim: one event of one handler. */
export type ClaimName = string;

/**
 * Claims of single events, for handlers whose effect must not be repeated after it was recorded as done. A claim is
 * first a lease (in progress, until its owner cannot be alive any more), then done. What stays open is a process
 * that dies between the effect and its record: after the lease, the handler runs again.
 */
export class Claims {
  readonly #table: ConsumerTable;

  constructor(table: ConsumerTable) {
    this.#table = table;
  }

  /**
   * Claims an event for `owner` until `leaseMs` from now, waiting for another owner while `signal` lets it.
   * Returns false when the event is done. The same owner may claim again.
   * @throws ClaimHeldError when another owner still holds it at the end.
   */
  async claim(name: ClaimName, owner: string, leaseMs: number, signal: AbortSignal): Promise<boolean> {
    let held = false;
    for (;;) {
      try {
        if (await this.#tryClaim(name, owner, leaseMs, signal)) return true;
        if (await this.isDone(name, signal)) return false;
        held = true;
        await sleep(POLL_MS, undefined, { signal });
      } catch (error) {
        throw held && signal.aborted ? new ClaimHeldError() : error;
      }
    }
  }

  /** The effect took place: no handler runs for this event any more. */
  async done(name: ClaimName, owner: string, signal: AbortSignal): Promise<void> {
    const set = "SET #state=:done, expiresAt=:expires REMOVE leaseUntil";
    // Where it is refused, the lease ran out and another took it: it is that one's to finish.
    const update = updateIf(set, "#owner=:owner", { done: "done", owner, expires: expiry() });
    await this.#table.until(signal, "finish claim").update(this.#key(name), { ...update, ...NAMES });
  }

  /** The handler failed: whoever comes next need not wait for the lease. */
  async release(name: ClaimName, owner: string, signal: AbortSignal): Promise<void> {
    const own = writeIf("#owner=:owner AND #state=:running", { owner, running: "running" });
    await this.#table.until(signal, "release claim").delete(this.#key(name), { ...own, ...NAMES });
  }

  /** Returns whether an event's effect is recorded. */
  async isDone(name: ClaimName, signal: AbortSignal): Promise<boolean> {
    const item = await this.#table.until(signal, "read claim").get(this.#key(name));
    return item?.state?.S === "done";
  }

  #tryClaim(name: ClaimName, owner: string, leaseMs: number, signal: AbortSignal): Promise<boolean> {
    const now = Date.now();
    const running = "running";
    const leaseUntil = now + leaseMs + CLOCK_SKEW_MS;
    const claim = attributesOf({ state: running, owner, leaseUntil, expiresAt: expiry() });
    const free = writeIf(
      "attribute_not_exists(pk) OR (#state=:running AND (#owner=:owner OR leaseUntil<:now))",
      { running, owner, now },
    );
    return this.#table.until(signal, "claim").put(this.#key(name), claim, { ...free, ...NAMES });
  }

  #key(name: ClaimName): StateKey {
    return claimKey(this.#table, name);
  }
}

function expiry(): number {
  return Math.floor(Date.now() / 1000) + REMEMBERED_SECONDS;
}
