import { setTimeout as sleep } from "node:timers/promises";
import type { ChangeEventJson } from "../change/event.ts";
import type { PositionText } from "../change/position.ts";
import type { ClaimReader } from "./claim-reader.ts";
import type { ConsumerConfiguration } from "./configuration.ts";
import { errorFacts, jsonLogger, type WriteLine } from "./context.ts";
import { type DeadLetterQueue, deadLetterError } from "./dead-letter.ts";
import type { Deadline } from "./deadline.ts";
import { OwnershipLostError } from "./errors.ts";
import type { HandledEvent } from "./event.ts";
import type { Attempts, PartitionProgress } from "./fence-item.ts";
import type { InvocationCounts } from "./observer.ts";
import type { Claims } from "./once.ts";
import type { BatchRecord, Lane } from "./ordered-batch.ts";
import type { Registry } from "./registry.ts";
import { retryDelay } from "./retries.ts";

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

/** An event on its way to a handler. */
export interface Item {
  readonly record: BatchRecord;
  readonly index: number;
  readonly wire: ChangeEventJson;
  readonly position: PositionText;
  readonly event: HandledEvent;
}

/** Why the partition goes no further in this invocation; `attempts` are remembered. */
export interface Stop {
  readonly record: BatchRecord;
  readonly error: unknown;
  readonly attempts: Attempts | undefined;
}

/** What the steps of a partition's run share: where it stands, what is on record, and the way to the dead letters. */
export class Partition {
  readonly lane: Lane;
  readonly start: PartitionStart;
  readonly invocation: Invocation;
  /** Everything up to here took effect, was passed, or lies in the dead letters. */
  mark: PositionText;
  /** The newest writer seen. */
  writer: number;

  constructor(lane: Lane, start: PartitionStart, invocation: Invocation) {
    this.lane = lane;
    this.start = start;
    this.invocation = invocation;
    this.mark = start.mark;
    this.writer = start.writer;
  }

  /** These took effect, and everything before them. */
  took(items: readonly Item[]): void {
    for (const { wire } of items) this.invocation.counts.effect(wire.source.ts_ms);
    this.mark = (items.at(-1) as Item).position;
  }

  /** Waits before a retry; returns false, at once, where the invocation's time would be over. */
  async wait(calls: number): Promise<boolean> {
    const delay = retryDelay(calls);
    if (delay >= this.invocation.deadline.remainingMs()) return false;
    await sleep(delay);
    return true;
  }

  /** Calls for a change that earlier invocations have on record. */
  callsBefore(position: PositionText): { calls: number; since: string | undefined } {
    const earlier = this.start.attempts;
    const known = earlier?.count === 1 && earlier.from === position ? earlier : undefined;
    return { calls: known?.calls ?? 0, since: known?.since };
  }

  /** Whether so many calls never came back that the change is given up. */
  diedOften(calls: number): boolean {
    const { attempts, poison } = this.invocation.configuration;
    return this.start.note !== undefined && calls >= attempts && poison === "skip";
  }

  /** Writes down that a call begins, where the predecessor died. Gives why it must not begin. */
  async noteCall(
    items: readonly Pick<Item, "record" | "position">[],
    calls: number,
    since: string,
  ): Promise<Stop | undefined> {
    if (!this.start.note) return undefined;
    const { record } = items[0] as Pick<Item, "record">;
    const attempts = attemptsOf(items, calls, since);
    const { partition } = this.lane;
    try {
      const ours = await this.start.note({ partition, mark: this.mark, writer: this.writer, attempts });
      return ours ? undefined : { record, error: new OwnershipLostError(this.lane), attempts: undefined };
    } catch (error) {
      return { record, error, attempts: attemptsOf(items, calls - 1, since) };
    }
  }

  /** A change that failed for good: into the dead letters and on, or no further, as the policy says. */
  async poison(
    item: Pick<Item, "record" | "index" | "position">,
    error: unknown,
    calls: number,
    since: string,
  ): Promise<Stop | undefined> {
    const { configuration, consumer, counts, deadline, letters } = this.invocation;
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
          topic: this.lane.topic,
          partition: this.lane.partition,
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
    this.log("a change went to the dead letters", item, calls, error);
    this.mark = position;
    return undefined;
  }

  /** A line of class, code and position; never a value (rule 30). */
  log(message: string, { position }: Pick<Item, "position">, attempt: number, error: unknown): void {
    const { consumer, write } = this.invocation;
    const { topic, partition } = this.lane;
    jsonLogger(write, { consumer, topic, partition, position, attempt, ...errorFacts(error) }).warn(message);
  }
}

/** What is to be remembered of calls; nothing where there was none. */
export function attemptsOf(
  items: readonly Pick<Item, "position">[],
  calls: number,
  since: string,
): Attempts | undefined {
  const [from, to] = [items[0], items.at(-1)];
  if (calls === 0 || !from || !to) return undefined;
  return { from: from.position, to: to.position, count: items.length, calls, since };
}

/** ISO 8601. */
export function now(): string {
  return new Date().toISOString();
}
