import type { PositionText } from "../../change/position.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import { type Letter, readLetter } from "./letter.ts";
import { QueueReading } from "./letter-queue.ts";
import { consumerPlaceOf, type DeadLetterPlace } from "./place.ts";
import { type StoredLetter, StoredLetters, type StoredState } from "./stored-letters.ts";

/**
 * State of an open dead letter. Beside those of the state table, of what stands in the queue alone: `mended`: the change took effect or was
 * given up, and only its message is left; `unreadable record`: a record that could not be read, so no change is known; `foreign`: a
 * message that is no dead letter of this consumer.
 */
export type DeadLetterState = StoredState | "mended" | "unreadable record" | "foreign";

/** An open dead letter of a consumer: of a key, of a held partition, or a message that stands in the queue alone. Holds no row values but the key's. */
export interface OpenDeadLetter {
  readonly consumer: string;
  readonly state: DeadLetterState;
  readonly topic: string | undefined;
  readonly partition: number | undefined;
  /** As `redrive` takes it: `17`, or `5,17`; `*`: of a held partition. Undefined where nobody knows it. */
  readonly key: string | undefined;
  readonly table: string | undefined;
  /** The change that failed; of a held partition, its checkpoint: the change behind it waits. Undefined where nobody knows it. */
  readonly position: PositionText | undefined;
  /** Class of the error. */
  readonly error: string | undefined;
  readonly attempts: number | undefined;
  /** ISO 8601. */
  readonly firstFailedAt: string | undefined;
  readonly lastFailedAt: string | undefined;
  /** Changes of the key that wait behind it. */
  readonly waiting: number | undefined;
  /** Bytes of records that a held partition stores. */
  readonly heldBytes: number | undefined;
  /** Ids of the messages in the queue that tell of it. */
  readonly messages: readonly string[];
}

/** Result of reading one consumer's dead-letter queue. */
export interface QueueLook {
  readonly consumer: string;
  /** Undefined: nobody names the queue, so it was not read. */
  readonly url: string | undefined;
  /** Messages that were read. */
  readonly read: number;
  /** Messages that somebody else is reading right now: they were not seen. */
  readonly inFlight: number;
  /** There are more than were read. */
  readonly more: boolean;
  /** Why it could not be read. */
  readonly error: TributaryError | undefined;
}

/** The open dead letters of some consumers, and what was seen of their queues. */
export interface DeadLetterList {
  readonly letters: readonly OpenDeadLetter[];
  readonly queues: readonly QueueLook[];
}

/** A message, and what it tells. */
export interface ReadMessage {
  readonly id: string;
  readonly sentAt: string;
  readonly letter: Letter;
}

/**
 * Lists the open dead letters of consumers, from the state table and from their queues. Changes nothing: messages that are read show again at
 * once, and a queue that cannot be read is told of beside what the state table holds.
 *
 * @example
 * const place = deadLetterPlace(resources);
 * const { letters } = await listDeadLetters(place, ["orders"]);
 * for (const { key, position, error, waiting } of letters) console.log(key, position, error, waiting);
 *
 * @throws FenceUnavailableError, StateTableError, StateTableUnavailableError
 */
export async function listDeadLetters(
  place: DeadLetterPlace,
  consumers: readonly string[],
): Promise<DeadLetterList> {
  const lists = await Promise.all(consumers.map((consumer) => listOf(place, consumer)));
  return { letters: lists.flatMap(({ letters }) => letters), queues: lists.map(({ queue }) => queue) };
}

async function listOf(
  place: DeadLetterPlace,
  consumer: string,
): Promise<{ letters: OpenDeadLetter[]; queue: QueueLook }> {
  // The queue first: a message tells of what was stored before it was sent.
  const { messages, queue } = await lookInto(place, consumer);
  const stored = await StoredLetters.read(consumerPlaceOf(place, consumer), place.state.signal);
  const ids = new Map<StoredLetter, string[]>(stored.letters.map((letter) => [letter, []]));
  const alone: OpenDeadLetter[] = [];
  for (const message of messages) {
    const { letter, id } = message;
    const known = letter.kind === "change" ? await stored.letterOf(letter) : undefined;
    if (known) ids.get(known)?.push(id);
    else alone.push(await ofMessage(consumer, message, stored));
  }
  const letters: OpenDeadLetter[] = [];
  for (const [letter, messages] of ids) letters.push(await ofStored(consumer, letter, messages, stored));
  return { letters: [...letters.sort(byPlace), ...alone], queue };
}

/** Reads what a consumer's queue holds, and shows it again. Never throws. */
export async function lookInto(
  { sqs, queues, state }: DeadLetterPlace,
  consumer: string,
): Promise<{ messages: ReadMessage[]; queue: QueueLook }> {
  const url = queues[consumer];
  const messages: ReadMessage[] = [];
  const nothing = { consumer, url, read: 0, inFlight: 0, more: false, error: undefined };
  if (url === undefined) return { messages, queue: nothing };
  let reading: QueueReading | undefined;
  let error: TributaryError | undefined;
  try {
    reading = await QueueReading.open(sqs, url, state.signal);
    for await (const message of reading.messages()) messages.push(read(message, consumer));
  } catch (failure) {
    if (!(failure instanceof TributaryError)) throw failure;
    error = failure;
  } finally {
    await reading?.close();
  }
  const { count = 0, inFlight = 0, more = false } = reading ?? {};
  return { messages, queue: { consumer, url, read: count, inFlight, more, error } };
}

/** Without rows and stacks: there may be a thousand. */
function read(
  { id, body, sentAt }: { readonly id: string; readonly body: string; readonly sentAt: string },
  consumer: string,
): ReadMessage {
  const letter = readLetter(body, consumer);
  if (letter.kind === "foreign") return { id, sentAt, letter };
  const error = { ...letter.error, message: "", stack: "" };
  return {
    ...{ id, sentAt },
    letter: letter.kind === "change" ? { ...letter, event: undefined, error } : { ...letter, error },
  };
}

async function ofStored(
  consumer: string,
  { topic, partition, state, letter, entry, hold, problem }: StoredLetter,
  messages: readonly string[],
  stored: StoredLetters,
): Promise<OpenDeadLetter> {
  const isKey = letter !== undefined && entry !== undefined;
  return {
    ...{ consumer, state, topic, partition, messages },
    key: letter?.key,
    table: letter?.table || undefined,
    position: isKey ? await stored.failedPosition(letter) : letter?.position,
    error: hold?.cause ?? letter?.error.name ?? problem?.name,
    attempts: hold?.tries ?? letter?.attempts,
    firstFailedAt: letter?.firstFailedAt,
    lastFailedAt: letter?.lastFailedAt,
    waiting: isKey ? await waitingBehind(letter, entry, stored) : undefined,
    heldBytes: hold?.bytes,
  };
}

type Letters = Pick<StoredLetters, "outlines">;

/** A list counts what was put into it: where a redrive has come further, what is left is counted. */
async function waitingBehind(
  letter: NonNullable<StoredLetter["letter"]>,
  { kind, items }: NonNullable<StoredLetter["entry"]>,
  stored: Letters,
): Promise<number> {
  // Under `skip` nothing waits: those of its changes failed themselves.
  if (kind !== "parked") return 0;
  if (letter.applied === undefined) return items - 1;
  let left = 0;
  for await (const _ of stored.outlines(letter)) left++;
  return Math.max(0, left - 1);
}

async function ofMessage(
  consumer: string,
  { id, sentAt, letter }: ReadMessage,
  stored: StoredLetters,
): Promise<OpenDeadLetter> {
  const nothing = {
    ...{ consumer, topic: undefined, partition: undefined, key: undefined, table: undefined },
    ...{ position: undefined, error: undefined, attempts: undefined, lastFailedAt: undefined },
    ...{ waiting: undefined, heldBytes: undefined, messages: [id], firstFailedAt: sentAt },
  };
  if (letter.kind === "foreign") return { ...nothing, state: "foreign" };
  const { topic, partition, attempts, firstFailedAt, lastFailedAt, error } = letter;
  const facts = {
    ...{ ...nothing, topic, partition, attempts, firstFailedAt, lastFailedAt, error: error.name },
  };
  if (letter.kind === "record") {
    const isHealed = await stored.isHealed(letter);
    return { ...facts, position: letter.last, state: isHealed ? "mended" : "unreadable record" };
  }
  const { position, table } = letter;
  const key = letter.key?.replaceAll("\0", ",");
  return { ...facts, position, table, key, state: (await stored.isMended(letter)) ? "mended" : "passing" };
}

function byPlace(a: OpenDeadLetter, b: OpenDeadLetter): number {
  const [one, other] = [a, b].map(({ topic, partition = 0 }) => `${topic}/${String(partition).padStart(6)}`);
  return (one as string) < (other as string) ? -1 : one === other ? 0 : 1;
}
