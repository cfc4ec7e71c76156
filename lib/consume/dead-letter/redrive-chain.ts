import { setTimeout as sleep } from "node:timers/promises";
import type { PositionText } from "../../change/position.ts";
import { warnOf } from "../api/context.ts";
import { HoldAtWorkError } from "../hold/hold-errors.ts";
import { failedOf, isSuperseded, type ParkedChains } from "../hold/parked-chains.ts";
import type { StoredChange, StoredDeadLetter } from "../hold/parked-change.ts";
import type { ParkedKeys } from "../hold/parked-keys.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import type { Deadline } from "../run/deadline.ts";
import type { RunningCall, RunningCalls } from "../run/running-calls.ts";
import { deadLetterError } from "./dead-letter.ts";
import { type ChangeOutcome, redriveChange } from "./redrive-change.ts";
import { type FencedPartition, keysOf, type RedriveLease, type RedriveLeases } from "./redrive-lease.ts";

/** A consumer's parts, with those that only a redrive needs. */
export interface RedriveInstance extends ConsumerInstance {
  readonly parking: ParkedChains;
  readonly leases: RedriveLeases;
}

/** The parts that all chains of a redrive share. */
export interface RedriveRun {
  readonly instance: RedriveInstance;
  readonly deadline: Deadline;
  /** Owns leases and claims. */
  readonly owner: string;
  /** The changes to give up: the change at a position, or of each key the one that failed. Undefined: nothing. */
  readonly discard: { readonly position: PositionText | undefined } | undefined;
  /** Changes that may still take effect. */
  left: number;
  /** The consumer was paused meanwhile. */
  paused: boolean;
  redriven: number;
  discarded: number;
}

/** The outcome of a chain's redrive. `gone`: it is not open, and never will be again. */
export type ChainOutcome =
  | { readonly kind: "done" | "open" | "superseded" | "gone"; readonly redriven: number }
  /** `error`: why, where the dead letter does not say it. */
  | { readonly kind: "busy"; readonly redriven: number; readonly error?: string }
  | {
      readonly kind: "failed" | "unhandled";
      readonly redriven: number;
      /** The change that failed. */
      readonly failed?: PositionText;
      readonly attempts: number;
      readonly error: string;
    };

/** Number of times that a redrive looks for a moment at which no invocation has the partition, before it takes it by force. */
const POLLS = 150;
const POLL_MS = 20;

/**
 * Brings the parked changes of one key to effect, in order, from behind the last that did, and parks the key no more
 * when nothing is left. Every step may be the last one of this process: what is on record is then true, and the next
 * redrive goes on behind it.
 */
export class ChainRedrive {
  readonly #run: RedriveRun;
  readonly #lease: RedriveLease;
  readonly #place: { readonly topic: string; readonly partition: number; readonly chain: string };
  readonly #signal: AbortSignal;
  #redriven = 0;
  #begun = false;

  constructor(run: RedriveRun, deadLetter: StoredDeadLetter, lease: RedriveLease) {
    const { topic, partition, chain } = deadLetter;
    this.#run = run;
    this.#lease = lease;
    this.#place = { topic, partition, chain };
    this.#signal = run.deadline.end;
  }

  /** @throws FenceUnavailableError */
  async run(): Promise<ChainOutcome> {
    const { parking } = this.#run.instance;
    // Under the lease only: before, another redrive may have been at work.
    const deadLetter = await parking.deadLetter(this.#place, this.#signal);
    if (!deadLetter) return this.#outcome("gone");
    let applied = deadLetter.applied ?? "";
    for (let polls = 1; ; polls++) {
      const fenced = await this.#lease.read();
      const { checkpoint, parked } = fenced;
      const keys = keysOf(this.#run.instance.consumer, this.#place, fenced);
      const entry = keys.values().find(({ chain }) => chain === this.#place.chain);
      if (parked === undefined || !entry) return this.#notListed(deadLetter, checkpoint);
      if (entry.kind === "overtaken") {
        // Its later change is at work in an invocation, or in a call that ran on. Where it is not, it comes again and asks again.
        const { running } = this.#run.instance;
        if (fenced.held || mayRun(running, fenced.running)) return this.#outcome("busy");
        keys.turn(entry.chain, "skipped");
        if (await this.#lease.replaceParked(fenced, keys.format(checkpoint), "untouched")) continue;
        return this.#outcome("busy");
      }
      for await (const change of parking.changes(this.#place, applied, checkpoint, this.#signal)) {
        const ended = await this.#change(change, deadLetter);
        if (ended) return ended;
        applied = change.position;
      }
      if (await this.#unpark(keys, fenced, polls > POLLS)) {
        await parking.remove(this.#place, this.#signal);
        return this.#outcome("done");
      }
      if (this.#run.deadline.work.aborted) return this.#outcome("open");
      // Nothing is taken from a replay: what it is in the middle of would be done twice.
      if (polls > POLLS && fenced.replayed)
        return { kind: "busy", redriven: this.#redriven, error: HoldAtWorkError.name };
      await sleep(POLL_MS);
    }
  }

  /** One change: to its handler, on record, away. Gives how the chain ended, if it did. */
  async #change(change: StoredChange, deadLetter: StoredDeadLetter): Promise<ChainOutcome | undefined> {
    const first = !this.#begun;
    const { parking } = this.#run.instance;
    const { position } = change;
    if (this.#run.left <= 0 || this.#run.deadline.work.aborted) return this.#outcome("open");
    // Before anything is waited for: others have the same limit.
    this.#run.left--;
    this.#begun = true;
    if (this.#isGivenUp(change, deadLetter, first)) {
      if (!(await this.#lease.isOurs())) return this.#outcome("busy");
      this.#run.discarded++;
    } else {
      const known = first ? deadLetter.attempts : 0;
      const outcome = await this.#apply(change, known, first);
      switch (outcome.kind) {
        case "stopped":
          return this.#outcome("open");
        case "busy":
          return this.#outcome("busy");
        case "unhandled":
          return this.#failed("unhandled", position, known, outcome.error);
        case "failed":
          warnOf(this.#run.instance, "a redriven change failed again", outcome.error, {
            ...{ topic: this.#place.topic, partition: this.#place.partition, position },
            ...{ table: deadLetter.table, attempt: known + outcome.calls },
          });
          return this.#failed("failed", position, known + outcome.calls, outcome.error, outcome.timedOut);
      }
      this.#redriven++;
      this.#run.redriven++;
    }
    // In this order: a change that is deleted and not on record would be applied again, were it written once more.
    await parking.applied(this.#place, position, this.#signal);
    await parking.deleteChange(this.#place, position, this.#signal);
    return undefined;
  }

  /** Only what was named, or failed before this redrive: never one that merely waited. */
  #isGivenUp({ position }: StoredChange, deadLetter: StoredDeadLetter, first: boolean): boolean {
    const { discard } = this.#run;
    if (discard === undefined) return false;
    if (discard.position !== undefined) return position === discard.position;
    const failed = failedOf(deadLetter);
    if (failed === undefined) return false;
    return "at" in failed ? position === failed.at : first && position > failed.behind;
  }

  #apply(change: StoredChange, known: number, first: boolean): Promise<ChangeOutcome> {
    const { instance, deadline, owner } = this.#run;
    let begun = !first;
    const begin = async () => {
      // On record, once, since it may be what ends the process: such a key comes last then.
      if (!begun) await instance.parking.trying(this.#place, this.#signal);
      begun = true;
    };
    const mayCall = () => this.#lease.isOurs();
    const isStopped = () => this.#run.paused;
    return redriveChange(
      { instance, deadline, owner, mayCall, isStopped, begin },
      this.#place,
      change,
      known,
    );
  }

  async #failed(
    kind: "failed" | "unhandled",
    failed: PositionText,
    attempts: number,
    error: unknown,
    timedOut = false,
  ): Promise<ChainOutcome> {
    const facts = deadLetterError(error);
    const lastFailedAt = new Date().toISOString();
    // One whose time was over is told as failed, but not given up without being named.
    const named = timedOut ? "timed out" : failed;
    const failure = { attempts, lastFailedAt, error: facts };
    await this.#run.instance.parking.failedAgain(this.#place, failure, named, this.#signal);
    return { kind, redriven: this.#redriven, failed, attempts, error: facts.name };
  }

  /** Parks the key no more, if nothing was parked since the list was read. */
  async #unpark(keys: ParkedKeys, was: FencedPartition, force: boolean): Promise<boolean> {
    keys.remove(this.#place.chain);
    return (
      (await this.#lease.replaceParked(was, keys.format("") || undefined, "free")) ||
      (force && (await this.#lease.replaceParked(was, keys.format("") || undefined, "by force")))
    );
  }

  /** The key is parked no more: by this redrive (the answer was lost), an earlier one, or a later change. */
  async #notListed({ position }: StoredDeadLetter, checkpoint: PositionText): Promise<ChainOutcome> {
    const { parking } = this.#run.instance;
    // Beyond the checkpoint: its invocation is at work on it, or died there, and it comes again.
    if (position > checkpoint) return this.#outcome("gone");
    // Behind the list: what let go of the chain has noted before whether it superseded it.
    const deadLetter = await parking.deadLetter(this.#place, this.#signal);
    if (deadLetter && isSuperseded(deadLetter)) {
      // Whoever did that may have died before it was on record.
      await parking.supersede(this.#place, this.#signal);
      return this.#outcome("superseded");
    }
    await parking.remove(this.#place, this.#signal);
    return this.#outcome(this.#redriven > 0 ? "done" : "gone");
  }

  #outcome(kind: "done" | "open" | "busy" | "superseded" | "gone"): ChainOutcome {
    return { kind, redriven: this.#redriven };
  }
}

/** Returns whether the call that an invocation speaks of may still act in another process. */
function mayRun({ process }: RunningCalls, known: RunningCall | undefined): boolean {
  return known !== undefined && known.process !== process && Date.now() < known.until;
}
