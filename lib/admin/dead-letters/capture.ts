import type { PositionText } from "../../change/position.ts";
import { ConfigurationError, TributaryError } from "../../change/tributary-error.ts";
import { readAsides } from "../../state/asides.ts";
import { type Backfill, hasEnded, readBackfills } from "../../state/backfills.ts";
import { type PutAsideLetter, readPutAsideLetter } from "./letter.ts";
import { QueueReading } from "./letter-queue.ts";
import type { QueueLook } from "./list.ts";
import type { ClearedQueue } from "./mended.ts";
import type { DeadLetterPlace } from "./place.ts";
import { type RawChange, readRawChange } from "./put-aside-row.ts";

/**
 * State of a change that capture put aside. `read again`: a backfill with a sweep has read its whole table since, so sinks hold its row as it
 * is now. `reading`: such a backfill is under way, or asked for. `open`: its table is not read again.
 */
export type CaptureLetterState = "read again" | "reading" | "open";

/** A change that capture put aside since it cannot become an event. Names only, no row values. */
export interface CaptureDeadLetter {
  readonly state: CaptureLetterState;
  readonly topic: string;
  /** `public.orders`. */
  readonly table: string;
  readonly position: PositionText;
  readonly code: string;
  readonly message: string;
  /** ISO 8601. */
  readonly putAsideAt: string;
  /** Ids of the messages in capture's dead-letter queue; none: it is not sent yet, or was deleted. */
  readonly messages: readonly string[];
}

/** A change that capture put aside, with its row as the server sent it. */
export interface CaptureDeadLetterDetail extends CaptureDeadLetter {
  /** Its place in the database's log; undefined if its message is not in the queue. */
  readonly origin: Pick<PutAsideLetter, "lsn" | "xid" | "column"> | undefined;
  readonly change: RawChange | undefined;
  /** Why its row could not be read. */
  readonly unread: TributaryError | undefined;
}

/** The changes that capture put aside, and what was seen of its queue. */
export interface CaptureDeadLetterList {
  readonly letters: readonly CaptureDeadLetter[];
  readonly queue: Omit<QueueLook, "consumer">;
  /** Messages of capture's queue that are no dead letters of this pipeline. */
  readonly foreign: number;
}

/**
 * Lists the changes that capture put aside: as its queue has them, and those that are on record and not in the queue. Changes nothing.
 *
 * @example
 * const { letters } = await listCaptureDeadLetters(deadLetterPlace(resources));
 *
 * @throws StateTableError, StateTableUnavailableError
 */
export async function listCaptureDeadLetters(place: DeadLetterPlace): Promise<CaptureDeadLetterList> {
  const found = new Map<string, CaptureDeadLetter>();
  // Without their messages' bytes: there may be a thousand.
  const { queue, foreign, read } = await readQueue(place, ({ message: _, ...letter }, id) => ({
    letter,
    id,
  }));
  const backfills = await readBackfills(place.state);
  for (const { letter, id } of read) add(found, factsOf(letter, backfills), [id]);
  for (const { topic, table, position, code, message, since } of await readAsides(place.state)) {
    const state = stateOf(table, position, backfills);
    const putAsideAt = new Date(since).toISOString();
    add(found, { state, topic, table, position, code, message, putAsideAt }, []);
  }
  const letters = [...found.values()].sort((a, b) => (a.position < b.position ? -1 : 1));
  return { letters, queue, foreign };
}

/**
 * Shows changes that capture put aside, each with its row as the server sent it. Two topics may have one at the same position.
 *
 * @example
 * const [letter] = await showCaptureDeadLetters(place, "000000010000000001E446180000000002");
 *
 * @throws DeadLetterQueueUnreadError, DeadLetterQueueMovesError, StateTableError, StateTableUnavailableError
 */
export async function showCaptureDeadLetters(
  place: DeadLetterPlace,
  position: PositionText,
): Promise<CaptureDeadLetterDetail[]> {
  const whole = new Map<string, PutAsideLetter>();
  const { queue } = await readQueue(place, (letter) => {
    if (letter.position === position) whole.set(letter.topic, letter);
  });
  const { letters } = await listCaptureDeadLetters(place);
  const meant = letters.filter((letter) => letter.position === position);
  if (meant.length === 0 && queue.error) throw queue.error;
  const details: CaptureDeadLetterDetail[] = [];
  for (const facts of meant) {
    const letter = whole.get(facts.topic);
    const nothing = { origin: undefined, change: undefined, unread: undefined };
    details.push({ ...facts, ...(letter ? await contentOf(place, letter) : nothing) });
  }
  return details;
}

/**
 * Deletes the messages of capture's queue whose changes need nobody any more: a backfill with a sweep has read their whole table since.
 * Undefined where nobody names the queue.
 * @throws DeadLetterQueueUnreadError, DeadLetterQueueMovesError, StateTableError, StateTableUnavailableError
 */
export async function clearReadAgain(place: DeadLetterPlace): Promise<ClearedQueue | undefined> {
  const { sqs, captureQueue: url, state } = place;
  if (url === undefined) return undefined;
  const backfills = await readBackfills(state);
  const reading = await QueueReading.open(sqs, url, state.signal);
  let removed = 0;
  try {
    for await (const { id, body } of reading.messages()) {
      const letter = readPutAsideLetter(body, state.pipeline);
      if (!letter || stateOf(letter.table, letter.position, backfills) !== "read again") continue;
      await reading.remove(id);
      removed++;
    }
    const { count, inFlight, more } = reading;
    return { removed, left: count - removed, more: more || inFlight > 0 };
  } finally {
    await reading.close();
  }
}

/** A change is in place again by a backfill that began behind it, read the whole table for everyone, and swept. */
function stateOf(table: string, position: PositionText, backfills: readonly Backfill[]): CaptureLetterState {
  const backfill = backfills.find((one) => one.table === table);
  if (!backfill) return "open";
  const { where, consumer, sweep } = backfill.request;
  const isWhole = where === undefined && consumer === undefined && sweep;
  if (!isWhole) return "open";
  const { startPosition } = backfill.progress ?? {};
  // A new epoch reads all tables anew; its positions are greater.
  if (!hasEnded(backfill)) return (startPosition ?? position) >= position ? "reading" : "open";
  return backfill.status === "done" && (startPosition ?? "") > position ? "read again" : "open";
}

function factsOf(
  { topic, table, position, error, putAsideAt }: PutAsideLetter,
  backfills: readonly Backfill[],
): Omit<CaptureDeadLetter, "messages"> {
  const { code, message } = error;
  return { state: stateOf(table, position, backfills), topic, table, position, code, message, putAsideAt };
}

function add(
  found: Map<string, CaptureDeadLetter>,
  letter: Omit<CaptureDeadLetter, "messages">,
  ids: readonly string[],
): void {
  const name = `${letter.position} ${letter.topic}`;
  const messages = [...(found.get(name)?.messages ?? []), ...ids];
  found.set(name, { ...letter, messages });
}

/** Reads capture's queue, one message at a time. */
async function readQueue<T>(
  { sqs, captureQueue: url, state }: DeadLetterPlace,
  use: (letter: PutAsideLetter, id: string) => T,
): Promise<{ queue: Omit<QueueLook, "consumer">; foreign: number; read: T[] }> {
  const read: T[] = [];
  let foreign = 0;
  let reading: QueueReading | undefined;
  let error: TributaryError | undefined;
  try {
    reading = url === undefined ? undefined : await QueueReading.open(sqs, url, state.signal);
    for await (const { id, body } of reading?.messages() ?? []) {
      const letter = readPutAsideLetter(body, state.pipeline);
      if (letter) read.push(use(letter, id));
      else foreign++;
    }
  } catch (failure) {
    if (!(failure instanceof TributaryError)) throw failure;
    error = failure;
  } finally {
    await reading?.close();
  }
  const { count = 0, inFlight = 0, more = false } = reading ?? {};
  return { queue: { url, read: count, inFlight, more, error }, foreign, read };
}

async function contentOf(
  { openClaims, state }: DeadLetterPlace,
  letter: PutAsideLetter,
): Promise<Pick<CaptureDeadLetterDetail, "origin" | "change" | "unread">> {
  const { lsn, xid, column, message, messageClaim } = letter;
  const origin = { lsn, xid, column };
  try {
    if (message !== undefined)
      return { origin, change: readRawChange(Buffer.from(message, "base64"), letter), unread: undefined };
    if (messageClaim === undefined) return { origin, change: undefined, unread: undefined };
    const store = await openClaims();
    if (store === undefined) {
      const remedy = "name the claim store: TRIBUTARY_CLAIM_BUCKET";
      throw new ConfigurationError("The claim store", [
        { path: "TRIBUTARY_CLAIM_BUCKET", value: undefined, remedy },
      ]);
    }
    const bytes = await store.get(messageClaim, state.signal);
    return { origin, change: readRawChange(Buffer.from(bytes), letter), unread: undefined };
  } catch (error) {
    if (!(error instanceof TributaryError)) throw error;
    return { origin, change: undefined, unread: error };
  }
}
