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
  mapping: z.string().optional(),
});

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

/**
 * Ends a pause, and returns the one that was there. Two operators who end the same one at once have both done it.
 * @throws NotPausedError where there is none, or where it ended meanwhile and another one began; StateTableError, StateTableUnavailableError
 */
export async function clearPause(place: StatePlace, target: PauseTarget): Promise<Pause> {
  const key = keyOf(place, target);
  const item = await persistentTable(place).get(key);
  if (!item?.pause) throw new NotPausedError(place.pipeline, target);
  // Only the one that was seen: it may have ended meanwhile, and another operator have paused anew.
  const ended = await persistentTable(place).delete(key, {
    ConditionExpression: "attribute_not_exists(pk) OR #pause = :seen",
    ExpressionAttributeNames: { "#pause": "pause" },
    ExpressionAttributeValues: { ":seen": item.pause },
  });
  if (!ended) throw new NotPausedError(place.pipeline, target, await readPause(place, target));
  return parse(item);
}

function keyOf({ pipeline }: StatePlace, target: PauseTarget) {
  return pauseKey(pipeline, target === "capture" ? target : CONSUMER + target.consumer);
}

function parse(item: StateItem): Pause {
  const { reason, ...pause } = stored.parse(JSON.parse(item.pause?.S ?? "null"));
  return { ...pause, reason };
}
