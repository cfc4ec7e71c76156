import type { ChangeEventJson, OperationCode } from "../../change/event.ts";
import { printJson } from "../../change/json-print.ts";
import type { PositionText } from "../../change/position.ts";
import { positionOf } from "../../change/record.ts";
import { ConfigurationError, TributaryError } from "../../change/tributary-error.ts";
import type { PartitionName } from "../../consume/consume-errors.ts";
import type { PartitionHold } from "../../consume/hold/hold-state.ts";
import type { StoredChange, StoredDeadLetter } from "../../consume/hold/parked-change.ts";
import { ClaimReader } from "../../consume/run/claim-reader.ts";
import { firstHeldEvent } from "./held-event.ts";
import { type ChangeLetter, type LetterFailure, type RecordLetter, readLetter } from "./letter.ts";
import { QueueReading } from "./letter-queue.ts";
import type { DeadLetterState } from "./list.ts";
import { consumerPlaceOf, type DeadLetterPlace } from "./place.ts";
import { type StoredLetter, StoredLetters } from "./stored-letters.ts";

/** Which dead letters of a consumer are meant: all that is given must fit, and a key or a position must be given. */
export interface DeadLetterChoice {
  readonly consumer: string;
  /** As `redrive` takes it: `17`, or `5,17`; `*`: of held partitions. */
  readonly key?: string | undefined;
  /** Position of any change of the key, one that waits included; for an unreadable record, of its last change. */
  readonly position?: PositionText | undefined;
  readonly topic?: string | undefined;
}

/** A change that waits behind one that failed. */
export interface WaitingChange {
  readonly position: PositionText;
  readonly table: string;
  /** Undefined where the change stands in the claim store, or cannot be read. */
  readonly op: OperationCode | undefined;
}

/** A dead letter as a whole. Holds the rows of the change, and what the handler's error says of them. */
export interface DeadLetterDetail extends LetterFailure {
  readonly consumer: string;
  readonly state: DeadLetterState;
  readonly topic: string | undefined;
  readonly partition: number | undefined;
  readonly key: string | undefined;
  readonly table: string | undefined;
  /** The change that failed, or is tried next. */
  readonly position: PositionText | undefined;
  /** JSON of the change, as capture wrote it; undefined where there is none, or it cannot be read: `unread` says why. */
  readonly event: string | undefined;
  readonly unread: TributaryError | undefined;
  /** The changes that wait behind it, a hundred at most. */
  readonly waiting: readonly WaitingChange[];
  /** How many wait; undefined where that is not counted: of a held partition. */
  readonly waitingCount: number | undefined;
  /** The hold of its partition, if the whole partition waits. */
  readonly hold: Pick<PartitionHold, "since" | "cause" | "bytes" | "tries" | "nextTry"> | undefined;
  /** The record, where one could not be read. */
  readonly record: RecordLetter | undefined;
  /** Ids of the messages in the queue that tell of it. */
  readonly messages: readonly string[];
}

/** Waiting changes that are named. */
const NAMED = 100;
/** Bytes of large changes that are read at once. */
const CLAIM_BYTES = 256 * 1024 * 1024;

/**
 * Shows the dead letters that a choice means, each with the whole change, the error with message and stack, and what waits behind it. Changes
 * nothing. Most often it is one: a key may be parked in several topics.
 *
 * @example
 * const [letter] = await showDeadLetters(place, { consumer: "orders", key: "17" });
 * console.log(letter?.error.stack, letter?.event);
 *
 * @throws ConfigurationError where the choice names neither a key nor a position; DeadLetterQueueUnreadError, DeadLetterQueueMovesError where the
 * state table has nothing that fits and the queue cannot be read; FenceUnavailableError, StateTableError, StateTableUnavailableError
 */
export async function showDeadLetters(
  place: DeadLetterPlace,
  choice: DeadLetterChoice,
): Promise<DeadLetterDetail[]> {
  const { consumer, key, position } = choice;
  if (key === undefined && position === undefined) {
    const remedy = "name a key or a position: tributary dlq list has both";
    throw new ConfigurationError("The choice of dead letters", [
      { path: "key, position", value: undefined, remedy },
    ]);
  }
  const { messages, error } = await messagesOf(place, choice);
  const stored = await StoredLetters.read(consumerPlaceOf(place, consumer), place.state.signal);
  const claims = new ClaimReader(place.openClaims, CLAIM_BYTES);
  const ids = new Map<StoredLetter, string[]>();
  const events = new Map<StoredLetter, ChangeEventJson>();
  const alone: Told[] = [];
  for (const message of messages) {
    const { letter } = message;
    const known = letter.kind === "change" ? await stored.letterOf(letter) : undefined;
    if (known) {
      ids.set(known, [...(ids.get(known) ?? []), message.id]);
      if (letter.kind === "change" && letter.event) events.set(known, letter.event);
    } else if (message.isMeant) alone.push(message);
  }
  const details: DeadLetterDetail[] = [];
  for (const one of stored.letters) {
    if (!one.letter || !(await isMeant(one.letter, choice, stored))) continue;
    // With its stack: not one by one for all of them.
    const letter = (await stored.parking.deadLetter(one.letter, place.state.signal)) ?? one.letter;
    const part = partOf(consumer, one, letter, ids.get(one) ?? []);
    details.push(
      one.hold
        ? { ...part, ...(await firstHeldEvent(place, consumer, one, one.hold, claims)) }
        : { ...part, ...(await changesOf(letter, place, stored, claims, events.get(one))) },
    );
  }
  for (const message of alone) details.push(await ofMessage(message, stored));
  // What is nowhere here may stand where nobody could look.
  if (details.length === 0 && error) throw error;
  return details;
}

/** A message, and whether the choice means it. Without its event where it does not. */
interface Told {
  readonly id: string;
  readonly isMeant: boolean;
  readonly letter: ChangeLetter | RecordLetter;
}

async function messagesOf(
  { sqs, queues, state }: DeadLetterPlace,
  choice: DeadLetterChoice,
): Promise<{ readonly messages: Told[]; readonly error: TributaryError | undefined }> {
  const messages: Told[] = [];
  const url = queues[choice.consumer];
  if (url === undefined) return { messages, error: undefined };
  let reading: QueueReading | undefined;
  try {
    reading = await QueueReading.open(sqs, url, state.signal);
    for await (const { id, body } of reading.messages()) {
      const letter = readLetter(body, choice.consumer);
      if (letter.kind === "foreign") continue;
      const isMeant = isMessageMeant(letter, choice);
      const kept = letter.kind === "change" && !isMeant ? { ...letter, event: undefined } : letter;
      messages.push({ id, isMeant, letter: kept });
    }
    return { messages, error: undefined };
  } catch (failure) {
    if (!(failure instanceof TributaryError)) throw failure;
    return { messages, error: failure };
  } finally {
    await reading?.close();
  }
}

function isMessageMeant(
  letter: ChangeLetter | RecordLetter,
  { key, position, topic }: DeadLetterChoice,
): boolean {
  if (topic !== undefined && letter.topic !== topic) return false;
  if (position !== undefined && position !== (letter.kind === "change" ? letter.position : letter.last))
    return false;
  return key === undefined || (letter.kind === "change" && key === letter.key?.replaceAll("\0", ","));
}

async function isMeant(
  letter: StoredDeadLetter,
  { key, position, topic }: DeadLetterChoice,
  { parking, signal }: StoredLetters,
): Promise<boolean> {
  if (topic !== undefined && letter.topic !== topic) return false;
  if (key !== undefined && letter.key !== key) return false;
  if (position === undefined || position === letter.position) return true;
  return position > letter.position && (await parking.hasChange(letter, position, signal));
}

type ChangePart = Pick<DeadLetterDetail, "position" | "event" | "unread" | "waiting" | "waitingCount">;

function partOf(
  consumer: string,
  { topic, partition, state, hold }: StoredLetter,
  { key, table, attempts, firstFailedAt, lastFailedAt, error }: StoredDeadLetter,
  messages: readonly string[],
): Omit<DeadLetterDetail, keyof ChangePart> {
  const held = hold && {
    ...{ since: hold.since, cause: hold.cause, bytes: hold.bytes, tries: hold.tries, nextTry: hold.nextTry },
  };
  return {
    ...{ consumer, topic, partition, state, key, table: table || undefined, messages, hold: held },
    ...{ attempts: hold?.tries ?? attempts, firstFailedAt, lastFailedAt, error, record: undefined },
  };
}

/** The change of a key that failed, and those behind it. */
async function changesOf(
  letter: StoredDeadLetter,
  place: DeadLetterPlace,
  stored: StoredLetters,
  claims: ClaimReader,
  told: ChangeEventJson | undefined,
): Promise<ChangePart> {
  const position = await stored.failedPosition(letter);
  const waiting: WaitingChange[] = [];
  let count = 0;
  let shown: Pick<ChangePart, "event" | "unread"> = { event: undefined, unread: undefined };
  try {
    for await (const change of stored.changes(letter)) {
      if (change.position === position) shown = await wholeChange(letter, change, place, claims);
      else if (change.position < position) continue;
      else if (++count <= NAMED) waiting.push(waitingOf(change));
    }
  } catch (error) {
    // An item that cannot be read: what stands before it is shown.
    if (!(error instanceof TributaryError) || error.retry === "retry") throw error;
    shown = { ...shown, unread: shown.unread ?? error };
  }
  // Of one that is superseded only the message has it still.
  if (shown.event === undefined && told && positionOf(told) === position)
    shown = { ...shown, event: printJson(told) };
  return { position, ...shown, waiting, waitingCount: count };
}

/** The change as capture wrote it, from where it stands. */
async function wholeChange(
  { topic, partition }: PartitionName,
  { position, json, claim }: StoredChange,
  { state }: DeadLetterPlace,
  claims: ClaimReader,
): Promise<Pick<ChangePart, "event" | "unread">> {
  if (claim === undefined) return { event: json, unread: undefined };
  const record = { kind: "claim", topic, partition, writer: 0, claim, position, after: null } as const;
  try {
    return { event: printJson(await claims.read(record, state.signal)), unread: undefined };
  } catch (error) {
    if (!(error instanceof TributaryError)) throw error;
    return { event: undefined, unread: error };
  }
}

function waitingOf({ position, table, json }: StoredChange): WaitingChange {
  return { position, table, op: json === undefined ? undefined : operationOf(json) };
}

function operationOf(json: string): OperationCode | undefined {
  try {
    return (JSON.parse(json) as Partial<ChangeEventJson>).op;
  } catch {
    return undefined;
  }
}

/** Returns a dead letter that only the queue knows, as its message tells it. */
async function ofMessage({ id, letter }: Told, stored: StoredLetters): Promise<DeadLetterDetail> {
  const { consumer, topic, partition, attempts, firstFailedAt, lastFailedAt, error } = letter;
  const common = {
    ...{ consumer, topic, partition, attempts, firstFailedAt, lastFailedAt, error, messages: [id] },
    ...{ unread: undefined, waiting: [], waitingCount: 0, hold: undefined },
  };
  if (letter.kind === "record") {
    const state = (await stored.isHealed(letter)) ? "mended" : "unreadable record";
    const nothing = { key: undefined, table: undefined, event: undefined };
    return { ...common, ...nothing, state, position: letter.last, record: letter };
  }
  const { event, key, table, position } = letter;
  return {
    ...common,
    ...{ table, position, record: undefined, key: key?.replaceAll("\0", ",") },
    state: (await stored.isMended(letter)) ? "mended" : "passing",
    event: event && positionOf(event) === position ? printJson(event) : undefined,
  };
}
