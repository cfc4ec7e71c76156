import { setTimeout as sleep } from "node:timers/promises";
import { isControlEvent } from "../../change/control-event.ts";
import type { ChangeEventJson } from "../../change/event.ts";
import { eventFault } from "../../change/event-check.ts";
import type { PositionText } from "../../change/position.ts";
import { positionOf } from "../../change/record.ts";
import { callHandler } from "../api/handler-call.ts";
import { ClaimHeldError } from "../api/handler-errors.ts";
import type { Registration } from "../api/registry.ts";
import { retryDelay } from "../api/retries.ts";
import { callSchema } from "../api/schema-call.ts";
import { StateItemError } from "../consume-errors.ts";
import type { ChainPlace, StoredChange } from "../hold/parked-change.ts";
import { isClaimFault } from "../run/claim-reader.ts";
import type { ConsumerInstance } from "../run/consumer-instance.ts";
import type { Deadline } from "../run/deadline.ts";
import { HandledEvent, wireRows } from "../run/event.ts";
import { parseExactJson } from "../run/json.ts";
import { isForAnother } from "../run/sweep.ts";
import { HandlerMissingError } from "./redrive-errors.ts";

/** The outcome of one change's redrive. */
export type ChangeOutcome =
  | { readonly kind: "applied" }
  /** `timedOut`: it may be no fault of the change. */
  | {
      readonly kind: "failed";
      readonly calls: number;
      readonly error: unknown;
      readonly timedOut?: boolean;
    }
  /** No handler is registered for it. */
  | { readonly kind: "unhandled"; readonly error: HandlerMissingError }
  /** Another process is at work on it, or this one may not be any more. */
  | { readonly kind: "busy" }
  /** It is not its fault, or its handler still runs. */
  | { readonly kind: "stopped" };

/** The parts that bring a change to effect. */
export interface ChangeRun {
  readonly instance: ConsumerInstance;
  readonly deadline: Deadline;
  /** Owns claims. */
  readonly owner: string;
  /** Asked right before each call: whether the change is this redrive's to apply. */
  readonly mayCall: () => Promise<boolean>;
  /** Whether no call may begin any more, of any change. */
  readonly isStopped: () => boolean;
  /** Called once before the change is looked into, since that may be what ends the process. */
  readonly begin: () => Promise<void>;
}

/** Milliseconds to wait for a claim of another owner: that one may be about to end, or dead, and other keys wait. */
const CLAIM_WAIT_MS = 1_000;

/** Brings one parked change to its handler. `callsBefore` are on record. */
export async function redriveChange(
  run: ChangeRun,
  place: ChainPlace,
  change: StoredChange,
  callsBefore: number,
): Promise<ChangeOutcome> {
  const one = new ChangeRedrive(run, place, change.position, callsBefore);
  const { claim, json } = change;
  if (!claim) return one.apply(() => parse(run.instance, place, change.position, json));
  const { topic, partition } = place;
  const { position } = change;
  const record = { kind: "claim", topic, partition, writer: 0, claim, position, after: null } as const;
  const { oversize } = run.instance;
  const { work } = run.deadline;
  try {
    // With its event in memory, if there is room for it.
    return await oversize.withRoom(record, work, async () => {
      await run.begin();
      const wire = await oversize.read(record, work);
      return one.apply(() => wire);
    });
  } catch (error) {
    return isClaimFault(error) ? { kind: "failed", calls: 1, error } : { kind: "stopped" };
  }
}

/** @throws StateItemError where it is not the change that it should be. */
function parse(
  { consumer, parking }: ConsumerInstance,
  place: ChainPlace,
  position: PositionText,
  json: string | undefined,
): ChangeEventJson {
  const bad = (problem: string) =>
    new StateItemError(consumer, parking.changeKey(place, position).sk, `event${problem}`);
  let wire: unknown;
  try {
    wire = parseExactJson(json ?? "");
  } catch {
    throw bad(" is not JSON");
  }
  const fault = eventFault(wire);
  if (fault) throw bad(`${fault[0] ? `.${fault[0]}` : ""}: expected ${fault[1]}`);
  const event = wire as ChangeEventJson;
  if (positionOf(event) !== position) throw bad(": it is the change at another position");
  return event;
}

class ChangeRedrive {
  readonly #run: ChangeRun;
  readonly #place: ChainPlace;
  readonly #position: PositionText;
  readonly #callsBefore: number;

  constructor(run: ChangeRun, place: ChainPlace, position: PositionText, callsBefore: number) {
    this.#run = run;
    this.#place = place;
    this.#position = position;
    this.#callsBefore = callsBefore;
  }

  async apply(read: () => ChangeEventJson): Promise<ChangeOutcome> {
    let wire: ChangeEventJson;
    let registration: Registration | undefined;
    const { consumer, registry, running } = this.#run.instance;
    const { topic } = this.#place;
    if (running.succeeded(this.#place, this.#position)) return { kind: "applied" };
    await this.#run.begin();
    try {
      wire = read();
      if (isForAnother(wire, consumer)) return { kind: "applied" };
      registration = registry.find(topic, wire);
    } catch (error) {
      return { kind: "failed", calls: 1, error };
    }
    if (!registration) {
      // It was parked because it had one: what is given to the wrong code must not be lost.
      return isControlEvent(wire)
        ? { kind: "applied" }
        : { kind: "unhandled", error: new HandlerMissingError(this.#place, this.#position) };
    }
    return registration.kind === "single" && registration.claim
      ? this.#claimed(registration, wire)
      : this.#prepared(registration, wire);
  }

  async #claimed(registration: Registration, wire: ChangeEventJson): Promise<ChangeOutcome> {
    const { instance, owner, deadline } = this.#run;
    const { claims, running } = instance;
    const { topic, partition } = this.#place;
    const name = `${topic}/${partition}/${this.#position}`;
    const patience = AbortSignal.any([deadline.work, AbortSignal.timeout(CLAIM_WAIT_MS)]);
    try {
      if (!(await claims.claim(name, owner, deadline.untilEndMs(), patience))) return { kind: "applied" };
    } catch (error) {
      if (error instanceof ClaimHeldError) return { kind: "busy" };
      throw error;
    }
    const outcome = await this.#prepared(registration, wire);
    if (outcome.kind === "applied") await claims.done(name, owner, deadline.end);
    // A handler that still runs keeps its claim until the lease is over.
    else if (!running.has(this.#place)) await claims.release(name, owner, deadline.end);
    return outcome;
  }

  async #prepared(registration: Registration, wire: ChangeEventJson): Promise<ChangeOutcome> {
    const schema = registration.kind === "sweep" ? undefined : registration.row;
    const checked = schema && (await callSchema(schema, wire, this.#run.deadline));
    if (checked && checked.kind !== "done") {
      const { kind, error } = checked;
      if (kind === "unavailable" || (kind === "cut-short" && !checked.fair)) return { kind: "stopped" };
      return { kind: "failed", calls: 1, error, timedOut: kind === "cut-short" };
    }
    const rows = checked?.rows ?? wireRows(wire);
    return this.#calls(registration, new HandledEvent(wire, this.#place, this.#position, rows));
  }

  /** Calls the handler as often as the consumer is set to. */
  async #calls(registration: Registration, event: HandledEvent): Promise<ChangeOutcome> {
    const { instance, deadline, mayCall, isStopped } = this.#run;
    const { consumer, running, write } = instance;
    for (let calls = 1; ; calls++) {
      // Before each: during a pause, an invocation that had to overtake this key may have shut us out.
      if (!(await mayCall())) return { kind: "busy" };
      if (isStopped()) return { kind: "stopped" };
      const result = await callHandler(registration, [event], this.#callsBefore + calls, {
        consumer,
        deadline,
        running,
        write,
      });
      if (result.kind === "done") return { kind: "applied" };
      if (result.kind === "unavailable") return { kind: "stopped" };
      // It stays parked, and its lease is kept (see `redriveDeadLetter`), while it may still act.
      if (running.has(this.#place) || (result.kind === "cut-short" && !result.fair))
        return { kind: "stopped" };
      if (result.kind === "cut-short") return { kind: "failed", calls, error: result.error, timedOut: true };
      const delay = retryDelay(calls);
      if (calls >= instance.configuration.attempts || delay >= deadline.remainingMs())
        return { kind: "failed", calls, error: result.error };
      await sleep(delay);
    }
  }
}
