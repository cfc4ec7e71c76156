import { randomUUID } from "node:crypto";
import * as z from "zod";
import { type Pause, type PauseTarget, pausedBy } from "./pause.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { NotPausedError, PausedAlreadyError } from "./state-errors.ts";
import { pauseKey } from "./state-key.ts";
import type { StateItem } from "./state-table.ts";

export type { Pause, PauseTarget } from "./pause.ts";

/*
 * Rules 62 and 64. One item for each pause, in the state table and nowhere else: so it outlives a deploy, a restart and a hand-over, and stands
 * the same on a laptop as on AWS.
 */

/** The pauses of a pipeline. */
export interface Pauses {
  readonly capture: Pause | undefined;
  /** By the name of the consumer; one that is not paused is not there. */
  readonly consumers: ReadonlyMap<string, Pause>;
}

const stored = z.object({
  id: z.string(),
  by: z.string(),
  since: z.number(),
  reason: z.string().optional(),
  oldestAt: z.number().optional(),
  mapping: z.string().optional(),
});

/** Whatever stands there is a pause, as it is to a consumer's functions: one that could not be read would keep all others from being seen. */
const UNREADABLE = { by: "somebody", since: 0, reason: "what stands in the state table cannot be read" };

const CONSUMER = "consumer#";

/** Returns what is paused now. `cut`: `place.signal` cuts the call. @throws StateTableError, StateTableUnavailableError */
export async function readPauses(place: StatePlace, cut = false): Promise<Pauses> {
  let capture: Pause | undefined;
  const consumers = new Map<string, Pause>();
  for await (const item of persistentTable(place, cut).query(pauseKey(place.pipeline))) {
    const name = item.sk?.S ?? "";
    const pause = parse(item);
    if (name.startsWith(CONSUMER)) consumers.set(name.slice(CONSUMER.length), pause);
    else if (name === "capture") capture = pause;
  }
  return { capture, consumers };
}

/** Returns the pause of one target, or undefined. @throws StateTableError, StateTableUnavailableError */
export async function readPause(place: StatePlace, target: PauseTarget): Promise<Pause | undefined> {
  const item = await persistentTable(place).get(keyOf(place, target));
  return item && parse(item);
}

/**
 * Writes a pause, and returns it.
 * @throws PausedAlreadyError, which tells who was first; StateTableError, StateTableUnavailableError
 */
export async function setPause(
  place: StatePlace,
  target: PauseTarget,
  request: Omit<Pause, "id">,
): Promise<Pause> {
  const pause = { id: randomUUID(), ...request };
  const written = await persistentTable(place).put(
    keyOf(place, target),
    // Handlers are small: what they say of a pause stands there as text.
    { pause: { S: JSON.stringify(pause) }, told: { S: pausedBy(pause) } },
    { ConditionExpression: "attribute_not_exists(pk)" },
  );
  if (written) return pause;
  const now = await readPause(place, target);
  // Ours already: the answer to our first try was lost. Or it ended meanwhile, and ours is to begin.
  if (now?.id === pause.id) return pause;
  if (!now) return await setPause(place, target, request);
  throw new PausedAlreadyError(place.pipeline, target, now);
}

/** A pause as it stands in the table. */
export interface SeenPause {
  readonly pause: Pause;
  /**
   * Ends it, if it still stands as it was seen. Returns false where it has become another, or its event source mapping was
   * disabled meanwhile. @throws StateTableError, StateTableUnavailableError
   */
  end(): Promise<boolean>;
}

/** Returns the pause of one target as it stands, or undefined. @throws StateTableError, StateTableUnavailableError */
export async function seePause(place: StatePlace, target: PauseTarget): Promise<SeenPause | undefined> {
  const table = persistentTable(place);
  const key = keyOf(place, target);
  const item = await table.get(key);
  if (!item) return undefined;
  const { pause, disabled } = item;
  const same = pause ? "#pause = :seen" : "attribute_not_exists(#pause)";
  return {
    pause: parse(item),
    end: () =>
      table.delete(key, {
        ConditionExpression: `attribute_not_exists(pk) OR (${same} AND ${disabled ? "attribute_exists(disabled)" : "attribute_not_exists(disabled)"})`,
        ExpressionAttributeNames: { "#pause": "pause" },
        ...(pause && { ExpressionAttributeValues: { ":seen": pause } }),
      }),
  };
}

/**
 * Notes that the event source mapping was disabled with a pause, so that whoever ends it now enables it behind that. Returns
 * false where it has ended meanwhile. @throws StateTableError, StateTableUnavailableError
 */
export async function noteDisabled(place: StatePlace, target: PauseTarget, pause: Pause): Promise<boolean> {
  const written = await persistentTable(place).update(keyOf(place, target), {
    UpdateExpression: "SET disabled = :true",
    ConditionExpression: "#pause = :pause",
    ExpressionAttributeNames: { "#pause": "pause" },
    ExpressionAttributeValues: { ":true": { BOOL: true }, ":pause": { S: JSON.stringify(pause) } },
  });
  return written !== undefined;
}

/**
 * Ends a pause, and returns the one that was there. Two operators who end the same one at once have both done it.
 * @throws NotPausedError where there is none, or where it ended meanwhile and another one began; StateTableError, StateTableUnavailableError
 */
export async function clearPause(place: StatePlace, target: PauseTarget): Promise<Pause> {
  for (;;) {
    const seen = await seePause(place, target);
    if (!seen) throw new NotPausedError(place.pipeline, target);
    if (await seen.end()) return seen.pause;
    const now = await readPause(place, target);
    if (now?.id !== seen.pause.id) throw new NotPausedError(place.pipeline, target, now);
  }
}

function keyOf({ pipeline }: StatePlace, target: PauseTarget) {
  return pauseKey(pipeline, target === "capture" ? target : CONSUMER + target.consumer);
}

function parse(item: StateItem): Pause {
  const text = item.pause?.S ?? "";
  try {
    const { reason, ...pause } = stored.parse(JSON.parse(text));
    return { ...pause, reason };
  } catch {
    return { ...UNREADABLE, id: text };
  }
}
