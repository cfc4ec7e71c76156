import { setTimeout as sleep } from "node:timers/promises";
import type { ChangeEventJson } from "../change/event.ts";
import type { PositionText } from "../change/position.ts";
import { isClaimFault } from "./claim-reader.ts";
import { deadLetterError } from "./dead-letter.ts";
import type { Deadline } from "./deadline.ts";
import { HandledEvent, wireRows } from "./event.ts";
import { callHandler } from "./handler-call.ts";
import type { ConsumerInstance } from "./invocation.ts";
import { parseExactJson } from "./json.ts";
import { ParkedKeys } from "./parked-keys.ts";
import type { Letter, StoredChange } from "./parking-table.ts";
import type { FencedPartition, RedriveLease } from "./redrive-lease.ts";
import type { Registration } from "./registry.ts";
import { retryDelay } from "./retries.ts";
import { validateRows } from "./schema.ts";

/** What all chains of a redrive share. */
export interface RedriveRun {
  readonly instance: ConsumerInstance;
  readonly deadline: Deadline;
  /** Owns leases and claims. */
  readonly owner: string;
  readonly discard: boolean;
  /** Changes that may still take effect. */
  left: number;
  redriven: number;
  discarded: number;
}

/** How a chain's redrive ended. `gone`: it is not open, and never will be again. */
export type ChainOutcome =
  | { readonly kind: "done" | "open" | "busy" | "superseded" | "gone"; readonly redriven: number }
  | { readonly kind: "failed"; readonly redriven: number; readonly attempts: number; readonly error: string };

/** How one change ended. `stopped`: it is not its fault. */
type ChangeOutcome =
  | { readonly kind: "applied" }
  | { readonly kind: "failed"; readonly calls: number; readonly error: unknown }
  | { readonly kind: "stopped" };

/** How often a redrive looks for a moment at which no invocation has the partition, before it takes it by force. */
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

  constructor(run: RedriveRun, letter: Letter, lease: RedriveLease) {
    const { topic, partition, chain } = letter;
    this.#run = run;
    this.#lease = lease;
    this.#place = { topic, partition, chain };
    this.#signal = run.deadline.end;
  }

  /** @throws FenceUnavailableError */
  async run(): Promise<ChainOutcome> {
    const { parking } = this.#run.instance;
    // Under the lease only: before, another redrive may have been at work.
    const letter = await parking.letter(this.#place, this.#signal);
    if (!letter) return this.#outcome("gone");
    let applied = letter.applied ?? "";
    for (let polls = 1; ; polls++) {
      const fenced = await this.#lease.read();
      const { mark, parked } = fenced;
      const keys = ParkedKeys.parse(parked);
      const entry = keys.values().find(({ chain }) => chain === this.#place.chain);
      if (parked === undefined || !entry) return this.#notListed(letter, mark);
      if (entry.kind === "overtaken") return this.#outcome("busy");
      for await (const change of parking.changes(this.#place, applied, mark, this.#signal)) {
        const ended = await this.#change(change, letter);
        if (ended) return ended;
        applied = change.position;
      }
      if (await this.#unpark(keys, fenced, polls > POLLS)) {
        await parking.remove(this.#place, this.#signal);
        return this.#outcome("done");
      }
      if (this.#run.deadline.work.aborted) return this.#outcome("open");
      await sleep(POLL_MS);
    }
  }

  /** One change: to its handler, on record, away. Gives how the chain ended, if it did. */
  async #change(change: StoredChange, letter: Letter): Promise<ChainOutcome | undefined> {
    const first = !this.#begun;
    const { parking, running } = this.#run.instance;
    if (this.#run.left <= 0 || this.#run.deadline.work.aborted) return this.#outcome("open");
    // A call of an earlier redrive, or of an invocation, may still act in this process.
    if (!(await running.haveEnded(this.#place, undefined, this.#run.deadline.work)))
      return this.#outcome("busy");
    // Right before the effect: an invocation that had to overtake this key may have shut us out.
    if (!(await this.#lease.isOurs())) return this.#outcome("busy");
    this.#run.left--;
    this.#begun = true;
    if (this.#run.discard && first) this.#run.discarded++;
    else {
      const known = first ? letter.attempts : 0;
      // On record before the call, since it may be what ends the process: such a key comes last then.
      if (first) await parking.trying(this.#place, this.#signal);
      const outcome = running.succeeded(this.#place, change.position)
        ? ({ kind: "applied" } as const)
        : await this.#bounded(change, known);
      if (outcome.kind === "stopped") return this.#outcome("open");
      if (outcome.kind === "failed") return this.#failed(known + outcome.calls, outcome.error);
      this.#redriven++;
      this.#run.redriven++;
    }
    await parking.applied(this.#place, change.position, this.#signal);
    await parking.deleteChange(this.#place, change.position, this.#signal);
    return undefined;
  }

  async #failed(attempts: number, error: unknown): Promise<ChainOutcome> {
    const facts = deadLetterError(error);
    const lastFailedAt = new Date().toISOString();
    await this.#run.instance.parking.failed(
      this.#place,
      { attempts, lastFailedAt, error: facts },
      this.#signal,
    );
    return { kind: "failed", redriven: this.#redriven, attempts, error: facts.name };
  }

  /** With the change's event in memory, if there is room for it. */
  async #bounded(change: StoredChange, callsBefore: number): Promise<ChangeOutcome> {
    const { claim, json = "", position } = change;
    if (!claim) return this.#apply(parseExactJson(json) as ChangeEventJson, position, callsBefore);
    const { oversize } = this.#run.instance;
    const { topic, partition } = this.#place;
    const record = { kind: "claim", topic, partition, writer: 0, claim, position, after: null } as const;
    const { work } = this.#run.deadline;
    try {
      return await oversize.withRoom(record, work, async () =>
        this.#apply(await oversize.read(record, work), position, callsBefore),
      );
    } catch (error) {
      return isClaimFault(error) ? { kind: "failed", calls: 1, error } : { kind: "stopped" };
    }
  }

  async #apply(wire: ChangeEventJson, position: PositionText, callsBefore: number): Promise<ChangeOutcome> {
    const { registry, claims } = this.#run.instance;
    const { topic, partition } = this.#place;
    const registration = registry.find(topic, wire);
    if (!registration) return { kind: "applied" };
    let event: HandledEvent;
    try {
      const row = registration.kind === "sweep" ? undefined : registration.row;
      const rows = row ? await validateRows(row, wire) : wireRows(wire);
      event = new HandledEvent(wire, this.#place, position, rows);
    } catch (error) {
      return { kind: "failed", calls: 1, error };
    }
    if (registration.kind !== "single" || !registration.claim)
      return this.#calls(registration, event, callsBefore);
    const name = `${topic}/${partition}/${position}`;
    const { owner, deadline } = this.#run;
    if (!(await claims.claim(name, owner, deadline.untilEndMs(), deadline.work))) return { kind: "applied" };
    const outcome = await this.#calls(registration, event, callsBefore);
    if (outcome.kind === "applied") await claims.done(name, owner, this.#signal);
    else if (!this.#run.instance.running.has(this.#place)) await claims.release(name, owner, this.#signal);
    return outcome;
  }

  /** Calls the handler as often as the consumer is set to. */
  async #calls(registration: Registration, event: HandledEvent, callsBefore: number): Promise<ChangeOutcome> {
    const { instance, deadline } = this.#run;
    const { consumer, running, write } = instance;
    for (let calls = 1; ; calls++) {
      const result = await callHandler(registration, [event], callsBefore + calls, {
        consumer,
        deadline,
        running,
        write,
      });
      if (result.kind === "done") return { kind: "applied" };
      const cutShort = result.kind === "cut-short" && !result.fair;
      if (result.kind === "unavailable" || cutShort) return { kind: "stopped" };
      // It stays parked, and its lease ends by itself (see `redriveLetter`): who comes next waits so long.
      if (running.has(this.#place)) return { kind: "failed", calls, error: result.error };
      const delay = retryDelay(calls);
      if (calls >= instance.configuration.attempts || delay >= deadline.remainingMs())
        return { kind: "failed", calls, error: result.error };
      await sleep(delay);
    }
  }

  /** Parks the key no more, if nothing was parked since the list was read. */
  async #unpark(keys: ParkedKeys, was: FencedPartition, force: boolean): Promise<boolean> {
    keys.remove(this.#place.chain);
    return (
      (await this.#lease.replaceParked(was, keys.format("") || undefined, false)) ||
      (force && (await this.#lease.replaceParked(was, keys.format("") || undefined, true)))
    );
  }

  /** The key is parked no more: by this redrive (the answer was lost), an earlier one, or a later change. */
  async #notListed(letter: Letter, mark: PositionText): Promise<ChainOutcome> {
    const { parking } = this.#run.instance;
    // Beyond the mark: its invocation is at work on it, or died there, and it comes again.
    if (letter.position > mark) return this.#outcome("gone");
    if (letter.superseded) {
      await parking.deleteChanges(this.#place, this.#signal);
      return this.#outcome("superseded");
    }
    await parking.remove(this.#place, this.#signal);
    return this.#outcome(this.#redriven > 0 ? "done" : "gone");
  }

  #outcome(kind: "done" | "open" | "busy" | "superseded" | "gone"): ChainOutcome {
    return { kind, redriven: this.#redriven };
  }
}
