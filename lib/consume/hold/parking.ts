import type { ChangeEventJson } from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import type { RecordHeader } from "../../change/record.ts";
import type { ConsumerConfiguration } from "../api/configuration.ts";
import { OwnershipLostError } from "../consume-errors.ts";
import { type DeadLetter, type DeadLetterQueue, deadLetterError } from "../dead-letter/dead-letter.ts";
import { DeadLetterTooLargeError, RedriveUnderWayError } from "../dead-letter/dead-letter-errors.ts";
import type { BatchRecord } from "../run/batch-record.ts";
import type { InvocationCounts } from "../run/observer.ts";
import { ParkingFullError } from "./hold-errors.ts";
import type { ChainPlace } from "./parked-change.ts";
import { chainOf, keyLabel, PARKING_LIMITS, ParkedKeys, type ParkedKind, parkingKey } from "./parked-keys.ts";
import type { ParkedPayload, ParkedPayloads } from "./parked-payload.ts";
import type { ParkingTable } from "./parking-table.ts";

/** A change as parking needs it; `wire` is missing where the change could not be read. */
export interface ParkableChange {
  readonly record: BatchRecord;
  readonly index: number;
  readonly position: PositionText;
  readonly wire?: ChangeEventJson;
}

/** The final failure of a change. */
export interface Failure {
  readonly error: unknown;
  readonly attempts: number;
  readonly firstFailedAt: string;
}

/** The parts that parking needs. */
export interface ParkingParts {
  readonly consumer: string;
  readonly configuration: ConsumerConfiguration;
  readonly table: ParkingTable;
  readonly payloads: ParkedPayloads;
  /** None under the policy `stop`. */
  readonly deadLetters: DeadLetterQueue | undefined;
  readonly counts: InvocationCounts;
  /** For what must be finished although the time for handlers is over. */
  readonly signal: AbortSignal;
}

/** Writes where the partition stands, its list of parked keys too, unless a redrive is at work there. */
export type Overtake = () => Promise<"ours" | "lost" | "redriven">;

/**
 * The parked changes of one partition, while an invocation owns it. Changes are stored as they are met; they count
 * when the fence's checkpoint has passed them, which is written together with the list of keys.
 */
export class Parking {
  readonly #place: Pick<RecordHeader, "topic" | "partition">;
  readonly #parts: ParkingParts;
  readonly #overtake: Overtake;
  readonly #superseded: ChainPlace[] = [];
  /** Chains that are noted as overtaken. */
  readonly #overtaken = new Set<string>();
  #keys: ParkedKeys;

  constructor(
    place: Pick<RecordHeader, "topic" | "partition">,
    stored: string | undefined,
    parts: ParkingParts,
    overtake: Overtake,
  ) {
    this.#place = { topic: place.topic, partition: place.partition };
    this.#parts = parts;
    this.#overtake = overtake;
    this.#keys = ParkedKeys.parse(stored);
  }

  /** Returns whether no key of the partition has an open dead letter: so it is nearly always. */
  get isEmpty(): boolean {
    return this.#keys.size === 0;
  }

  /** The list of keys as the fence is to hold it with this checkpoint. */
  format(checkpoint: PositionText): string | undefined {
    return this.#keys.format(checkpoint);
  }

  /** Chains that are open no more once the list is written: to be removed then. */
  get superseded(): readonly ChainPlace[] {
    return this.#superseded;
  }

  /**
   * Returns whether a change must wait behind a parked one of its key; then it is stored. One whose key has a skipped dead letter
   * need not wait, but from here on redrive cannot begin with that dead letter any more.
   * @throws ParkingFullError, RedriveUnderWayError, OwnershipLostError and errors of the state table and claim store.
   */
  async waits(change: ParkableChange & { readonly wire: ChangeEventJson }): Promise<boolean> {
    if (this.isEmpty) return false;
    const key = parkingKey(change.wire);
    const entry = key === undefined ? undefined : this.#keys.find(key);
    if (key === undefined || !entry) return false;
    if (entry.kind === "parked") {
      const payload = await this.#payload(change);
      this.#checkRoom(key, payload);
      await this.#store({ ...this.#place, chain: entry.chain }, change, payload, false);
      this.#keys.add(key, "parked", change.position, kibOf(payload));
      this.#parts.counts.parkedBehind++;
      return true;
    }
    if (entry.kind === "skipped") {
      const before = this.#keys;
      this.#keys = ParkedKeys.copy(before);
      this.#keys.turn(entry.chain, "overtaken");
      await this.#commit(before);
    }
    await this.#noteOvertaken(entry.chain);
    return false;
  }

  /** Notes that a change took effect: a skipped dead letter of its key is superseded. */
  effect({ wire }: { readonly wire: ChangeEventJson }): void {
    if (this.isEmpty) return;
    const key = parkingKey(wire);
    const entry = key === undefined ? undefined : this.#keys.find(key);
    if (entry?.kind === "overtaken") this.#supersede(entry.chain);
  }

  /**
   * A truncate or sweep is about to take effect: parked changes of its table below `bound` never will. Before its
   * handler is called, so that no redrive is at work on them meanwhile.
   * @throws RedriveUnderWayError, OwnershipLostError and errors of the state table.
   */
  async supersedeBelow(bound: PositionText, wire: ChangeEventJson, position: PositionText): Promise<void> {
    if (this.isEmpty) return;
    const { table, signal } = this.#parts;
    const before = this.#keys;
    const left = ParkedKeys.copy(before);
    const gone: string[] = [];
    for (const { chain } of before.values()) {
      const range = { bound, position };
      if (!(await table.isSuperseded({ ...this.#place, chain }, tableOf(wire), range, signal))) continue;
      left.remove(chain);
      gone.push(chain);
    }
    for (const chain of gone) await this.#noteOvertaken(chain);
    this.#keys = left;
    await this.#commit(before);
    for (const chain of gone) this.#superseded.push({ ...this.#place, chain });
    this.#parts.counts.superseded += gone.length;
  }

  /**
   * A change failed for good: it is stored and the queue is told. Without a key, or where a later change of the key
   * took effect already, the dead letter is closed from the beginning: nothing waits behind it, redrive refuses it.
   * @throws ParkingFullError, DeadLetterRefusedError, DeadLetterTooLargeError and errors of the state table and claim
   *   store: then the change is not done.
   */
  async poison(change: ParkableChange, failure: Failure, closed: boolean): Promise<void> {
    const { configuration, counts, table, signal } = this.#parts;
    const key = change.wire && parkingKey(change.wire);
    const open = key !== undefined && !closed;
    const payload = await this.#payload(change);
    if (open) this.#checkRoom(key, payload);
    const earlier = open ? this.#keys.find(key) : undefined;
    const place = { ...this.#place, chain: earlier?.chain ?? chainOf(key ?? "", change.position) };
    await this.#store(place, change, payload, !open);
    const lastFailedAt = new Date().toISOString();
    const error = deadLetterError(failure.error);
    const { attempts, firstFailedAt } = failure;
    if (earlier) await table.failed(place, { attempts, lastFailedAt, error }, signal);
    else {
      const facts = {
        key: keyLabel(key ?? ""),
        table: change.wire ? tableOf(change.wire) : "",
        position: change.position,
      };
      const deadLetter = { ...place, ...facts, attempts, firstFailedAt, lastFailedAt, error };
      await table.putDeadLetter(open ? deadLetter : { ...deadLetter, superseded: true }, signal);
    }
    await this.#notify(place, change, payload, { attempts, firstFailedAt, lastFailedAt, error });
    counts.deadLettered++;
    if (!open) return;
    const kind: ParkedKind = configuration.poison === "park" ? "parked" : "skipped";
    this.#keys.add(key, kind, change.position, kibOf(payload));
    if (kind === "parked") counts.parked++;
  }

  /** The whole event where the queue takes it, or where it stands (rule 16). */
  async #notify(
    place: ChainPlace,
    { record, index, position }: ParkableChange,
    payload: ParkedPayload,
    failure: Pick<DeadLetter, "attempts" | "firstFailedAt" | "lastFailedAt" | "error">,
  ): Promise<void> {
    const { consumer, deadLetters, table, signal } = this.#parts;
    const { shardId, sequenceNumber } = record;
    const deadLetter = { consumer, ...this.#place, position, shardId, sequenceNumber, ...failure };
    const pointer = payload.claim
      ? { payloadClaim: payload.claim }
      : { payloadItem: { table: table.table, ...table.changeKey(place, position) } };
    if (record.claimed) return deadLetters?.send({ ...deadLetter, ...pointer }, signal);
    try {
      await deadLetters?.send(deadLetter, signal, record.verbatim(index));
    } catch (error) {
      if (!(error instanceof DeadLetterTooLargeError)) throw error;
      await deadLetters?.send({ ...deadLetter, ...pointer }, signal);
    }
  }

  async #payload({ record, index, position }: ParkableChange): Promise<ParkedPayload> {
    const { payloads, signal } = this.#parts;
    if (record.claimed) return { claim: record.claimed.claim, bytes: record.claimed.claim.bytes };
    return payloads.of(record.verbatim(index), position, record, signal);
  }

  async #store(
    place: ChainPlace,
    { position, wire }: ParkableChange,
    { json, claim }: ParkedPayload,
    closed: boolean,
  ): Promise<void> {
    const { table, signal } = this.#parts;
    const payload = claim ? { claim } : { json: json ?? "" };
    await table.putChange(place, { position, table: wire ? tableOf(wire) : "", ...payload }, closed, signal);
  }

  #checkRoom(key: string, payload: ParkedPayload): void {
    if (this.#keys.hasRoom(key, kibOf(payload), PARKING_LIMITS)) return;
    this.#parts.counts.parkingFull++;
    throw new ParkingFullError(this.#place, PARKING_LIMITS);
  }

  #supersede(chain: string): void {
    this.#keys.remove(chain);
    this.#superseded.push({ ...this.#place, chain });
    this.#parts.counts.superseded++;
  }

  async #noteOvertaken(chain: string): Promise<void> {
    if (this.#overtaken.has(chain)) return;
    await this.#parts.table.overtaken({ ...this.#place, chain }, this.#parts.signal);
    this.#overtaken.add(chain);
  }

  /** Writes the list as it is now; where that does not succeed, it is again what it was. */
  async #commit(before: ParkedKeys): Promise<void> {
    let outcome: Awaited<ReturnType<Overtake>> | undefined;
    try {
      outcome = await this.#overtake();
    } finally {
      if (outcome !== "ours") this.#keys = before;
    }
    if (outcome === "redriven") throw new RedriveUnderWayError(this.#place);
    if (outcome === "lost") throw new OwnershipLostError(this.#place);
  }
}

function kibOf({ bytes }: ParkedPayload): number {
  return Math.max(1, Math.ceil(bytes / 1024));
}

function tableOf({ source }: ChangeEventJson): string {
  return `${source.schema}.${source.table}`;
}
