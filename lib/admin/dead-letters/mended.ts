import { readLetter } from "./letter.ts";
import { QueueReading } from "./letter-queue.ts";
import { consumerPlaceOf, type DeadLetterPlace } from "./place.ts";
import { StoredLetters } from "./stored-letters.ts";

/** The outcome of clearing a queue. */
export interface ClearedQueue {
  /** Messages that were deleted: what they told of is mended. */
  readonly removed: number;
  /** Messages that stay: what they tell of is open, or nobody has acknowledged it. */
  readonly left: number;
  /** There may be more than were read. */
  readonly more: boolean;
}

/**
 * Deletes the messages of a consumer's dead-letter queue that tell of changes which took effect or were given up, so that its alarm goes quiet.
 * A message that tells of anything else stays: a key that is still parked, a change that was superseded, a record that could not be read and
 * whose rows are not in place again. Undefined where nobody names the queue.
 *
 * @example
 * await redrive(run, { consumer: "orders" });
 * const cleared = await clearMended(place, "orders");
 *
 * @throws DeadLetterQueueUnreadError, DeadLetterQueueMovesError, FenceUnavailableError, StateTableError, StateTableUnavailableError
 */
export async function clearMended(
  place: Pick<DeadLetterPlace, "sqs" | "queues" | "state">,
  consumer: string,
): Promise<ClearedQueue | undefined> {
  const { sqs, queues, state } = place;
  const url = queues[consumer];
  if (url === undefined) return undefined;
  const reading = await QueueReading.open(sqs, url, state.signal);
  try {
    const messages: { readonly id: string; readonly letter: ReturnType<typeof readLetter> }[] = [];
    for await (const { id, body } of reading.messages()) {
      const letter = readLetter(body, consumer);
      messages.push({ id, letter: letter.kind === "change" ? { ...letter, event: undefined } : letter });
    }
    let removed = 0;
    if (messages.length > 0) {
      // Behind the messages: what is missing in the state table now was there when they were sent.
      const stored = await StoredLetters.read(consumerPlaceOf(place, consumer), state.signal);
      for (const { id, letter } of messages) {
        if (letter.kind === "foreign") continue;
        const isMended =
          letter.kind === "change" ? await stored.isMended(letter) : await stored.isHealed(letter);
        if (!isMended) continue;
        await reading.remove(id);
        removed++;
      }
    }
    const { count, inFlight, more } = reading;
    return { removed, left: count - removed, more: more || inFlight > 0 };
  } finally {
    await reading.close();
  }
}

/**
 * Deletes messages of a queue by their ids, and no other. Returns how many there were still.
 * @throws DeadLetterQueueUnreadError, DeadLetterQueueMovesError
 */
export async function acknowledgeMessages(
  { sqs, state }: Pick<DeadLetterPlace, "sqs" | "state">,
  url: string,
  ids: ReadonlySet<string>,
): Promise<number> {
  const reading = await QueueReading.open(sqs, url, state.signal);
  let removed = 0;
  try {
    for await (const { id } of reading.messages()) {
      if (!ids.has(id)) continue;
      await reading.remove(id);
      if (++removed === ids.size) break;
    }
  } finally {
    await reading.close();
  }
  return removed;
}
