import type { PositionText } from "../../change/position.ts";
import { type PartitionName, StateItemError } from "../../consume/consume-errors.ts";
import { type FencedPartition, keysOf, RedriveLeases } from "../../consume/dead-letter/redrive-lease.ts";
import { type ConsumerPlace, ConsumerTable } from "../../consume/fence/consumer-table.ts";
import { heldBy } from "../../consume/hold/hold.ts";
import type { PartitionHold } from "../../consume/hold/hold-state.ts";
import { failedOf, isSuperseded, ParkedChains } from "../../consume/hold/parked-chains.ts";
import type { ChainPlace, StoredChange, StoredDeadLetter } from "../../consume/hold/parked-change.ts";
import { outlineOf } from "../../consume/hold/parked-items.ts";
import { chainOf, type ParkedKey } from "../../consume/hold/parked-keys.ts";
import { isHealed, MissingTable } from "../../consume/run/missing-changes.ts";
import type { ChangeLetter, RecordLetter } from "./letter.ts";

/**
 * State of a dead letter that the state table has. `parked`: later changes of its key wait behind it. `skipped`: they do not. `held`: all of
 * its partition waits. `superseded`: a later change took effect, so a redrive refuses it. `passing`: an invocation is at work on it now, or
 * died there and comes again. `unreadable`: its item cannot be read.
 */
export type StoredState = "parked" | "skipped" | "held" | "superseded" | "passing" | "unreadable";

/** A dead letter of the state table. */
export interface StoredLetter extends PartitionName {
  readonly state: StoredState;
  /** Missing where it cannot be read. */
  readonly letter: StoredDeadLetter | undefined;
  /** As the partition lists the key. */
  readonly entry: ParkedKey | undefined;
  /** What the partition holds. */
  readonly hold: PartitionHold | undefined;
  /** Why it cannot be read. */
  readonly problem: StateItemError | undefined;
}

/** A change that a dead letter holds, without its event. */
export type Outline = Pick<StoredChange, "position" | "table">;

/** The dead letters of one consumer, as the state table has them at one moment, and what they say of messages that tell of them. */
export class StoredLetters {
  readonly letters: readonly StoredLetter[];
  readonly parking: ParkedChains;
  readonly #table: ConsumerTable;
  readonly #leases: RedriveLeases;
  readonly signal: AbortSignal;
  readonly #partitions: Map<string, FencedPartition>;

  private constructor(
    table: ConsumerTable,
    letters: readonly StoredLetter[],
    partitions: Map<string, FencedPartition>,
    signal: AbortSignal,
  ) {
    this.#table = table;
    this.letters = letters;
    this.parking = new ParkedChains(table);
    this.#leases = new RedriveLeases(table);
    this.#partitions = partitions;
    this.signal = signal;
  }

  /**
   * Reads them. What a process left that died in the middle of a redrive is not among them: it is over.
   * @throws FenceUnavailableError, StateTableError, StateTableUnavailableError
   */
  static async read(place: ConsumerPlace, signal: AbortSignal): Promise<StoredLetters> {
    const table = new ConsumerTable(place);
    const leases = new RedriveLeases(table);
    const partitions = new Map<string, FencedPartition>();
    const letters: StoredLetter[] = [];
    const parking = new ParkedChains(table);
    for await (const one of parking.deadLetters(signal)) {
      const { topic = "", partition = -1 } = (one instanceof StateItemError ? one.place : one) ?? {};
      if (one instanceof StateItemError) {
        const rest = { letter: undefined, entry: undefined, hold: undefined };
        letters.push({ topic, partition, state: "unreadable", ...rest, problem: one });
        continue;
      }
      const name = nameOf({ topic, partition });
      const fenced = partitions.get(name) ?? (await leases.look(topic, partition, signal));
      partitions.set(name, fenced);
      const letter = withoutStack(one);
      const found =
        storedLetter(place.consumer, letter, fenced) ?? (await supersededLetter(parking, letter, signal));
      if (found !== undefined) letters.push(found);
    }
    return new StoredLetters(table, letters, partitions, signal);
  }

  /** Returns the dead letter that a message tells of, if the state table has it still. */
  async letterOf(message: ChangeLetter): Promise<StoredLetter | undefined> {
    const there = this.letters.filter(
      ({ topic, partition }) => topic === message.topic && partition === message.partition,
    );
    for (const one of there) if (one.letter && (await this.#isOf(message, one.letter))) return one;
    // What tells neither key nor item may be of one whose changes are gone, or cannot be read: of those that have them it is none.
    const isVague = message.key === undefined && message.item === undefined;
    return there.find(
      ({ letter, state }) =>
        !letter || (isVague && state === "superseded" && message.position > letter.position),
    );
  }

  /**
   * Returns whether the change that a message tells of needs nobody any more: its partition has passed it, and it is parked no more, since it
   * took effect or was given up. This must have been read after the message.
   */
  async isMended(message: ChangeLetter): Promise<boolean> {
    if ((await this.letterOf(message)) !== undefined) return false;
    const { checkpoint, fault } = await this.#partition(message);
    // Behind its checkpoint a change is parked, or through: its item was written before the message was sent.
    return fault === undefined && checkpoint >= message.position;
  }

  /** Returns whether the rows of a record that could not be read are in place again. */
  async isHealed({ topic, partition, last }: RecordLetter): Promise<boolean> {
    if (topic === undefined || partition === undefined || last === undefined) return false;
    const missing = await new MissingTable(this.#table).list(this.signal, { topic, partition });
    const own = missing.find(({ upTo, cause }) => upTo === last && cause === "unreadable");
    return own !== undefined && isHealed(own);
  }

  /** Returns the position of the change of a dead letter that failed, or else of the one that is tried next. */
  async failedPosition(letter: StoredDeadLetter): Promise<PositionText> {
    const failed = failedOf(letter);
    if (failed !== undefined && "at" in failed) return failed.at;
    for await (const { position } of this.outlines(letter)) return position;
    return letter.position;
  }

  /** Yields the changes of a key that are not done, in their order, without their events. */
  async *outlines(letter: StoredDeadLetter): AsyncGenerator<Outline> {
    const { checkpoint } = await this.#partition(letter);
    const between = [letter.applied ?? "", checkpoint] as const;
    const table = this.#table.until(this.signal, "read parked changes");
    const query = { between, pageSize: 200, attributes: ["sk", "table", "position"] };
    for await (const item of table.query(this.parking.changeKey(letter, ""), query)) {
      const change = outlineOf(this.#table.consumer, item);
      if (change.position > between[0] && change.position <= between[1]) yield change;
    }
  }

  /** Yields the same changes whole. @throws StateItemError at one that cannot be read */
  async *changes(letter: StoredDeadLetter): AsyncGenerator<StoredChange> {
    const { checkpoint } = await this.#partition(letter);
    yield* this.parking.changes(letter, letter.applied ?? "", checkpoint, this.signal);
  }

  async #partition({ topic, partition }: PartitionName): Promise<FencedPartition> {
    const name = nameOf({ topic, partition });
    const known = this.#partitions.get(name) ?? (await this.#leases.look(topic, partition, this.signal));
    this.#partitions.set(name, known);
    return known;
  }

  /** A message names the first change of its key that failed, or under `skip` a later one of them. */
  async #isOf(message: ChangeLetter, letter: StoredDeadLetter): Promise<boolean> {
    if (heldBy(letter.chain) !== undefined || message.position < letter.position) return false;
    if (message.position === letter.position) return true;
    if (message.key !== undefined) return chainOf(message.key, letter.position) === letter.chain;
    if (message.item !== undefined) return message.item.includes(`#${letter.chain}#`);
    return this.parking.hasChange(letter, message.position, this.signal);
  }
}

/** Reads the checkpoint of a partition; empty where it has none. @throws FenceUnavailableError */
export async function readCheckpoint(
  place: ConsumerPlace,
  { topic, partition }: PartitionName,
  signal: AbortSignal,
): Promise<PositionText> {
  return (await new RedriveLeases(new ConsumerTable(place)).look(topic, partition, signal)).checkpoint;
}

/** Undefined: it is over, and only its item is left. @throws StateItemError */
function storedLetter(
  consumer: string,
  letter: StoredDeadLetter,
  fenced: FencedPartition,
): StoredLetter | undefined {
  const { topic, partition, chain, position } = letter;
  const common = { topic, partition, letter, entry: undefined, hold: undefined, problem: undefined };
  const holdOf = heldBy(chain);
  if (holdOf !== undefined)
    return fenced.hold?.id === holdOf ? { ...common, state: "held", hold: fenced.hold } : undefined;
  let keys: ReturnType<typeof keysOf>;
  try {
    keys = keysOf(consumer, { topic, partition }, fenced);
  } catch (error) {
    if (!(error instanceof StateItemError)) throw error;
    return { ...common, state: "unreadable", problem: error };
  }
  const entry = keys.values().find((key) => key.chain === chain);
  if (entry) return { ...common, state: entry.kind === "parked" ? "parked" : "skipped", entry };
  if (letter.superseded) return { ...common, state: "superseded" };
  if (position > fenced.checkpoint) return { ...common, state: "passing" };
  return isSuperseded(letter) ? { ...common, state: "superseded" } : undefined;
}

/**
 * A dead letter that seems to be over, read again behind its partition: whoever superseded it since it was read has noted that before the
 * partition let go of it.
 */
async function supersededLetter(
  parking: ParkedChains,
  place: ChainPlace,
  signal: AbortSignal,
): Promise<StoredLetter | undefined> {
  if (heldBy(place.chain) !== undefined) return undefined;
  const letter = await parking.deadLetter(place, signal);
  if (letter === undefined || !isSuperseded(letter)) return undefined;
  const { topic, partition } = place;
  const common = { topic, partition, letter: withoutStack(letter), entry: undefined, hold: undefined };
  return { ...common, state: "superseded", problem: undefined };
}

/** Thousands of stacks need not be held: who shows one reads it again. */
function withoutStack(letter: StoredDeadLetter): StoredDeadLetter {
  return { ...letter, error: { ...letter.error, stack: "" } };
}

function nameOf({ topic, partition }: ChainPlace | PartitionName): string {
  return `${topic}/${partition}`;
}
