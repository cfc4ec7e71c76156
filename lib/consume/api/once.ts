import { setTimeout as sleep } from "node:timers/promises";
import { claimKey, type StateKey } from "../../state/state-key.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";
import { ClaimHeldError } from "./handler-errors.ts";

/** Seconds for which a done claim is remembered: longer than a record comes again with the default retention. */
const REMEMBERED_SECONDS = 14 * 24 * 3600;
/** Clocks of two machines may differ by this much, in milliseconds. */
const CLOCK_SKEW_MS = 5_000;
const POLL_MS = 200;
const NAMES = { "#state": "state", "#owner": "owner" };

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
    await this.#table.until(signal, "finish claim").update(this.#key(name), {
      UpdateExpression: "SET #state=:done, expiresAt=:expires REMOVE leaseUntil",
      // Where it is refused, the lease ran out and another took it: it is that one's to finish.
      ConditionExpression: "#owner=:owner",
      ExpressionAttributeNames: NAMES,
      ExpressionAttributeValues: {
        ":done": { S: "done" },
        ":owner": { S: owner },
        ":expires": { N: expiry() },
      },
    });
  }

  /** The handler failed: whoever comes next need not wait for the lease. */
  async release(name: ClaimName, owner: string, signal: AbortSignal): Promise<void> {
    await this.#table.until(signal, "release claim").delete(this.#key(name), {
      ConditionExpression: "#owner=:owner AND #state=:running",
      ExpressionAttributeNames: NAMES,
      ExpressionAttributeValues: { ":owner": { S: owner }, ":running": { S: "running" } },
    });
  }

  /** Returns whether an event's effect is recorded. */
  async isDone(name: ClaimName, signal: AbortSignal): Promise<boolean> {
    const item = await this.#table.until(signal, "read claim").get(this.#key(name));
    return item?.state?.S === "done";
  }

  #tryClaim(name: ClaimName, owner: string, leaseMs: number, signal: AbortSignal): Promise<boolean> {
    const now = Date.now();
    const claim = {
      state: { S: "running" },
      owner: { S: owner },
      leaseUntil: { N: String(now + leaseMs + CLOCK_SKEW_MS) },
      expiresAt: { N: expiry() },
    };
    return this.#table.until(signal, "claim").put(this.#key(name), claim, {
      ConditionExpression:
        "attribute_not_exists(pk) OR (#state=:running AND (#owner=:owner OR leaseUntil<:now))",
      ExpressionAttributeNames: NAMES,
      ExpressionAttributeValues: {
        ":running": { S: "running" },
        ":owner": { S: owner },
        ":now": { N: String(now) },
      },
    });
  }

  #key(name: ClaimName): StateKey {
    return claimKey(this.#table.pipeline, this.#table.consumer, name);
  }
}

function expiry(): string {
  return String(Math.floor(Date.now() / 1000) + REMEMBERED_SECONDS);
}
