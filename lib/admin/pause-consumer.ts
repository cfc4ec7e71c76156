import { setTimeout as sleep } from "node:timers/promises";
import { awsFailure, REACH_AWS, wasAnswered } from "../aws/failure.ts";
import { defineError } from "../change/tributary-error.ts";
import { isLive, REDRIVE, REPLAY, readLease } from "../consume/fence/partition-lease.ts";
import { PAUSE_SEEN_MS } from "../consume/run/pause-flag.ts";
import type { ConsumerDefinition } from "../definition/definition.ts";
import { noteDisabled, type Pause, readPause, seePause, setPause } from "../state/pauses.ts";
import { persistentTable, type StatePlace } from "../state/persistent-table.ts";
import { NotPausedError } from "../state/state-errors.ts";
import { fenceKey } from "../state/state-key.ts";
import { type ConsumerMapping, type MappingOutcome, switchMapping } from "./event-source-mapping.ts";

/** The event source mapping of a consumer that is to go on cannot be enabled. */
export class MappingNotEnabledError extends defineError("MAPPING_NOT_ENABLED", "stop").from(
  (consumer: string, uuid: string, cause: unknown) => ({
    message: `the event source mapping ${uuid} of consumer "${consumer}" cannot be enabled: Lambda's UpdateEventSourceMapping: ${awsFailure(cause)}`,
    remedy: wasAnswered(cause)
      ? "Nothing was changed, the consumer stays paused. Permit lambda:UpdateEventSourceMapping on it, in its account and region, then repeat the command."
      : `Nothing was changed, the consumer stays paused, and the command may be repeated: ${REACH_AWS}.`,
    cause,
  }),
) {}

/** The operator who pauses, and why. */
export interface PauseRequest {
  readonly by: string;
  readonly reason?: string | undefined;
  /** Of a consumer: when the oldest change was written that it lacks (`oldestUnapplied`). Left out: it lacks nothing yet. */
  readonly oldestAt?: number | undefined;
}

/** Milliseconds between two looks at a pause that is waited for. */
const LOOK_MS = 1_000;

/** A consumer that was paused. */
export interface PausedConsumer {
  readonly pause: Pause;
  /** No invocation that might not know of the pause runs after this; milliseconds since 1970 UTC. */
  readonly completeAt: number;
  /** Undefined where the place has none, or does not tell it. */
  readonly mapping: MappingOutcome | undefined;
}

/** A consumer that was resumed. */
export interface ResumedConsumer {
  /** The pause that ended; undefined where only the event source mapping was disabled. */
  readonly pause: Pause | undefined;
  readonly mapping: MappingOutcome | undefined;
}

/**
 * Pauses a consumer: its changes wait in the stream, and nothing of it takes effect once `completeAt` has passed. Holds through deploys and
 * restarts. `mapping`: disabled too, so that nothing is invoked in vain; where that fails, the pause holds all the same.
 *
 * @example
 * const { completeAt } = await pauseConsumer(shop, orders, { by: "ada", reason: "the sink is being rebuilt" });
 *
 * @throws PausedAlreadyError, which tells who was first; StateTableError, StateTableUnavailableError
 */
export async function pauseConsumer(
  place: StatePlace,
  { name, timeoutSeconds }: Pick<ConsumerDefinition, "name" | "timeoutSeconds">,
  { by, reason, oldestAt }: PauseRequest,
  mapping?: ConsumerMapping,
): Promise<PausedConsumer> {
  const pause = await setPause(
    place,
    { consumer: name },
    {
      ...{ by, reason, since: Date.now() },
      ...(oldestAt !== undefined && { oldestAt }),
      ...(mapping && { mapping: mapping.uuid }),
    },
  );
  // Rule 62: one that was told a moment ago that there is none may begin until then, and has its time.
  const completeAt = Date.now() + PAUSE_SEEN_MS + timeoutSeconds * 1000;
  const outcome = mapping && (await switchMapping(mapping, false, place.signal));
  if (!mapping || !outcome || "error" in outcome) return { pause, completeAt, mapping: outcome };
  if (await noteDisabled(place, { consumer: name }, pause)) return { pause, completeAt, mapping: outcome };
  // Somebody has resumed it, and enabled the mapping before we disabled it: the consumer would stand still without a pause.
  const paused = (await readPause(place, { consumer: name })) !== undefined;
  return { pause, completeAt, mapping: paused ? outcome : await switchMapping(mapping, true, place.signal) };
}

/**
 * Waits until nothing of a paused consumer takes effect any more: until `completeAt`, and for calls of a redrive that take longer.
 * Returns false where somebody has resumed it meanwhile. `onRedrive` is told once that one is waited for.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function consumerAtRest(
  place: StatePlace,
  consumer: string,
  { pause, completeAt }: Pick<PausedConsumer, "pause" | "completeAt">,
  onRedrive: () => void = () => {},
): Promise<boolean> {
  for (let told = false; ; ) {
    if ((await readPause(place, { consumer }))?.id !== pause.id) return false;
    const leftMs = completeAt - Date.now();
    if (leftMs <= 0) {
      if (!(await isRedriven(place, consumer))) return true;
      if (!told) onRedrive();
      told = true;
    }
    await sleep(leftMs > 0 ? Math.min(leftMs, LOOK_MS) : LOOK_MS, undefined, { signal: place.signal });
  }
}

/** Returns whether a redrive is at work in a partition. The lease of one that has died ends within a minute. */
async function isRedriven(place: StatePlace, consumer: string): Promise<boolean> {
  const { pk, sk } = fenceKey({ pipeline: place.pipeline, consumer }, "", 0);
  const fences = { pk, sk: sk.slice(0, sk.indexOf("#") + 1) };
  for await (const item of persistentTable(place).query(fences)) {
    for (const name of Object.keys(item))
      for (const kind of [REDRIVE, REPLAY])
        if (name.startsWith(kind.name) && isLive(readLease(item, kind, Number(name.slice(1))))) return true;
  }
  return false;
}

/**
 * Lets a paused consumer go on where it stopped. The event source mapping is enabled first: should that fail, the consumer stays
 * paused, and this may be repeated.
 * @throws NotPausedError where it is not paused, and its mapping was not disabled; MappingNotEnabledError; StateTableError, StateTableUnavailableError
 */
export async function resumeConsumer(
  place: StatePlace,
  consumer: string,
  mapping?: ConsumerMapping,
): Promise<ResumedConsumer> {
  const target = { consumer };
  for (;;) {
    const seen = await seePause(place, target);
    const outcome = mapping && (await switchMapping(mapping, true, place.signal));
    if (mapping && outcome && "error" in outcome)
      throw new MappingNotEnabledError(consumer, mapping.uuid, outcome.error);
    if (seen && (await seen.end())) return { pause: seen.pause, mapping: outcome };
    const now = await readPause(place, target);
    // `Enabling`: it was disabled, by a pause whose flag is gone.
    if (!seen && !now && outcome && "state" in outcome && outcome.state === "Enabling")
      return { pause: undefined, mapping: outcome };
    if (!now || (seen && now.id !== seen.pause.id)) throw new NotPausedError(place.pipeline, target, now);
    // It began, or its mapping was disabled, since we have looked: once more.
  }
}
