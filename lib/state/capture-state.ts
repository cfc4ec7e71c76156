import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import type { NewEpoch, SlotRecord, SlotState } from "../source/postgres/slot/slot-record.ts";
import type { ReadingRecord } from "../source/reading-record.ts";
import { updateItem } from "./capture-item.ts";
import { type CaptureLeaseOptions, type TakenLease, takeLease, tryNextGeneration } from "./capture-lease.ts";
import { type LongAttribute, removeOthers, storeLong } from "./capture-parts.ts";
import { type Arriving, bigintsAsText, type RetiredSlot, readCaptureRecord } from "./capture-record.ts";
import { keyRecord } from "./known-keys.ts";
import { ageMs, DEFAULT_LEASE_MS, type Moment, moment } from "./lease.ts";
import type { StoredSettings } from "./settings.ts";

/** Attributes that name each table, and those that name topics: both may be long. */
const NAMES = ["terms", "leaves", "tables"] as const;
const TOPICS = ["arriving", "topics"] as const;

/**
 * The capture task's place in the state table, held under a lease: the generation that all its records carry, the
 * slot state, the stored settings.
 */
export class CaptureState implements SlotRecord {
  /**
   * Greater than all that were given before, to whichever slot of the pipeline; records of an older one are dropped by
   * consumers (rule 8), and a table may come from another slot.
   */
  readonly generation: number;
  /** Aborts, with the error as its reason, when another task has taken over. */
  readonly lost: AbortSignal;
  readonly #options: CaptureLeaseOptions;
  readonly #loss = new AbortController();
  readonly #takenAt = performance.now();
  /** Start of the last renewal that succeeded: nobody takes the lease over within its time from there. */
  #beatAt: Moment;
  #renewal: NodeJS.Timeout | undefined;
  /** The texts that name each table, as this task last wrote them to the record. */
  #long: Partial<Record<(typeof NAMES)[number], string>> = {};

  private constructor(options: CaptureLeaseOptions, { generation, askedAt }: TakenLease) {
    this.#options = options;
    this.generation = generation;
    this.#beatAt = askedAt;
    this.lost = this.#loss.signal;
    this.#renewal = setInterval(() => void this.#renew(), (options.leaseMs ?? DEFAULT_LEASE_MS) / 3);
  }

  /**
   * Takes the lease, waiting for its owner to end or to fall silent.
   * @throws CaptureLeaseHeldError when the owner is alive until the deadline; StateTableError,
   * StateTableUnavailableError.
   */
  static async take(options: CaptureLeaseOptions): Promise<CaptureState> {
    return new CaptureState(options, await takeLease(options));
  }

  /**
   * A generation of its own for one of several writers that share the partitions of a pipeline (rule 28): greater than
   * all that were given before, to them or with the lease. Waits while a task holds the lease, and is alive.
   * @throws CaptureLeaseHeldError, StateTableError, StateTableUnavailableError
   */
  static async nextGeneration(options: CaptureLeaseOptions): Promise<number> {
    const next = await tryNextGeneration(options);
    if (next !== undefined) return next;
    const state = await CaptureState.take(options);
    await state.release();
    return state.generation;
  }

  /**
   * For how long, in milliseconds, nobody else can hold the lease whatever happens; 0 where another one may. A writer to the stream
   * sends nothing then: whoever takes over reads what was written before, and must have it all (rule 39).
   */
  get leftMs(): number {
    if (this.lost.aborted) return 0;
    return Math.max(0, (this.#options.leaseMs ?? DEFAULT_LEASE_MS) - ageMs(this.#beatAt));
  }

  /** Milliseconds since the lease was taken. */
  get heldMs(): number {
    return performance.now() - this.#takenAt;
  }

  /** The slot state as last written, or undefined before the first. */
  async read(): Promise<SlotState | undefined> {
    return (await readCaptureRecord(this.#options)).slot;
  }

  /** @throws CaptureLeaseLostError when another task has taken over. */
  async write({ terms, leaves, tables, ...state }: SlotState): Promise<void> {
    const set: Record<string, AttributeValue> = { slot: { S: bigintsAsText(state) } };
    // What names each table: written only where it changed, and not with each confirmation.
    const changed = Object.entries({ terms, leaves, tables }).flatMap(([name, value]) => {
      const [attribute, text] = [name as (typeof NAMES)[number], value && JSON.stringify(value)];
      return text === undefined || text === this.#long[attribute] ? [] : [{ attribute, text, value }];
    });
    for (const { attribute, value } of changed) set[attribute] = { S: await this.#stored(attribute, value) };
    await this.#update(set);
    for (const { attribute, text } of changed) {
      this.#long[attribute] = text;
      await this.#removeOthers(attribute, set[attribute]?.S);
    }
  }

  /** The same for a source that reads tables: its record, under the same lease. */
  get reading(): ReadingRecord {
    return {
      read: async () => (await readCaptureRecord(this.#options)).reading,
      newEpoch: () => this.newEpoch(),
      write: (state) => this.#update({ reading: { S: bigintsAsText(state) } }),
      keys: keyRecord({ ...this.#options, signal: this.lost }, this.generation),
    };
  }

  /** The epoch that the next first start begins, when `tributary epoch new` has set one. */
  async newEpoch(): Promise<NewEpoch | undefined> {
    return (await readCaptureRecord(this.#options)).newEpoch;
  }

  /**
   * Forgets the slot, or how far tables were read: the next start begins anew, in this epoch, with these settings and so
   * many slots. `retired` is to be dropped at the server: see `forgetRetired`.
   * @throws CaptureLeaseLostError when another task has taken over.
   */
  async beginEpoch(
    epoch: NewEpoch,
    settings: StoredSettings | undefined,
    slots = 1,
    retired: readonly RetiredSlot[] = [],
  ): Promise<void> {
    const held = settings && (await this.#stored("settings", settings));
    await this.#update(
      {
        epoch: { S: bigintsAsText(epoch) },
        ...(retired.length > 0 && { retired: { S: JSON.stringify(retired) } }),
        ...(held !== undefined && { settings: { S: held } }),
        ...(slots > 1 && { slots: { N: String(slots) } }),
      },
      ["slot", ...NAMES, "reading", ...TOPICS, ...(slots > 1 ? [] : ["slots"])],
    );
    this.#long = {};
    if (held !== undefined) await this.#removeOthers("settings", held);
    for (const attribute of [...TOPICS, ...NAMES]) await this.#removeOthers(attribute, undefined);
  }

  /** The settings stored at first start, or undefined before it. */
  async readSettings(): Promise<StoredSettings | undefined> {
    return (await readCaptureRecord(this.#options)).settings;
  }

  /** @throws CaptureLeaseLostError when another task has taken over. */
  async writeSettings(settings: StoredSettings): Promise<void> {
    await this.#replace("settings", settings);
  }

  /** Looks whether the lease is still ours, and renews it. @throws CaptureLeaseLostError when another task has taken over. */
  async confirm(): Promise<void> {
    const askedAt = moment();
    await this.#updateBy(
      "SET #beat = #beat + :one, #beatAt = :now",
      { "#beat": "beat", "#beatAt": "beatAt" },
      { ":one": { N: "1" }, ":now": { N: String(Date.now()) } },
    );
    if (askedAt.monotonic > this.#beatAt.monotonic) this.#beatAt = askedAt;
  }

  /** Tells the tasks of the other slots how many there are (of the first slot). @throws CaptureLeaseLostError */
  async writeSlots(count: number): Promise<void> {
    await this.#update({ slots: { N: String(count) } });
  }

  /** Notes which tables come from where, before they do. @throws CaptureLeaseLostError */
  async writeArriving(tables: Arriving): Promise<void> {
    await this.#replace("arriving", tables);
  }

  /** Notes which topics this slot writes, before it does; what was to arrive has. @throws CaptureLeaseLostError */
  async writeTopics(names: readonly string[]): Promise<void> {
    await this.#replace("topics", names, ["arriving"]);
  }

  /**
   * Forgets a further slot: a new epoch has begun, or it is given up. What the server still has of it stays noted as retired.
   * @throws CaptureLeaseLostError
   */
  async forgetSlot(): Promise<void> {
    const { slot: known, retired: earlier } = await readCaptureRecord(this.#options);
    const retired = known ? [{ slot: known.slot, publication: known.publication }, ...earlier] : earlier;
    const long = ["settings", ...TOPICS, ...NAMES] as const;
    await this.#update({ retired: { S: JSON.stringify(retired) } }, ["slot", ...long]);
    for (const attribute of long) await this.#removeOthers(attribute, undefined);
  }

  /** The server has dropped what was retired. @throws CaptureLeaseLostError */
  async forgetRetired(): Promise<void> {
    await this.#update({}, ["retired"]);
  }

  /** Gives the lease back, so that a successor takes over at once. */
  async release(): Promise<void> {
    clearInterval(this.#renewal);
    if (this.lost.aborted) return;
    await this.#update({}, ["owner"]);
  }

  /** Stores a value that may be long, and returns what the item is to hold of it. */
  #stored(attribute: LongAttribute, value: unknown): Promise<string> {
    return storeLong(this.#options, this.generation, attribute, JSON.stringify(value));
  }

  /** Writes a value that may be long in the place of the one before; others go. */
  async #replace(
    attribute: LongAttribute,
    value: unknown,
    gone: readonly LongAttribute[] = [],
  ): Promise<void> {
    const held = await this.#stored(attribute, value);
    await this.#update({ [attribute]: { S: held } }, gone);
    await this.#removeOthers(attribute, held);
    for (const other of gone) await this.#removeOthers(other, undefined);
  }

  #removeOthers(attribute: LongAttribute, held: string | undefined): Promise<void> {
    return removeOthers(this.#options, this.generation, attribute, held);
  }

  async #renew(): Promise<void> {
    try {
      await this.confirm();
    } catch (error) {
      // An unreachable table is no loss of the lease: the slot's own lock and the generation still hold.
      if (!(error instanceof CaptureLeaseLostError)) {
        this.#options.log(`the capture lease could not be renewed: ${(error as Error).name}`);
      }
    }
  }

  /** Sets attributes of the item, and removes others. @throws CaptureLeaseLostError */
  async #update(set: Readonly<Record<string, AttributeValue>>, gone: readonly string[] = []): Promise<void> {
    const sets = Object.keys(set);
    const clauses = [
      ...(sets.length > 0 ? [`SET ${sets.map((name) => `#${name} = :${name}`).join(", ")}`] : []),
      ...(gone.length > 0 ? [`REMOVE ${gone.map((name) => `#${name}`).join(", ")}`] : []),
    ];
    await this.#updateBy(
      clauses.join(" "),
      Object.fromEntries([...sets, ...gone].map((name) => [`#${name}`, name])),
      Object.fromEntries(sets.map((name) => [`:${name}`, set[name] as AttributeValue])),
    );
  }

  async #updateBy(
    expression: string,
    names: Record<string, string>,
    values: Record<string, AttributeValue>,
  ): Promise<void> {
    if (this.lost.aborted) throw this.lost.reason;
    const updated = await updateItem(this.#options, {
      UpdateExpression: expression,
      ConditionExpression: "#generation = :generation",
      ExpressionAttributeNames: { ...names, "#generation": "generation" },
      ExpressionAttributeValues: { ...values, ":generation": { N: String(this.generation) } },
    });
    if (updated) return;
    clearInterval(this.#renewal);
    const loss = new CaptureLeaseLostError(this.#options.pipeline, this.generation);
    this.#loss.abort(loss);
    throw loss;
  }
}
