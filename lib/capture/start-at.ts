import { type PositionText, START_OF_HISTORY } from "../change/position.ts";
import { shellWord } from "../change/printed-command.ts";
import { defineError } from "../change/tributary-error.ts";
import { noteShardsRead } from "../consume/fence/shard-start.ts";
import { planRegistration, type RegisteredConsumer } from "../consume/fence/start-position.ts";
import type { ConsumerDefinition } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import type { FoundStart, StreamExtent } from "../stream/record-stream.ts";
import type { CaptureOptions } from "./capture-options.ts";

/*
 * `consumers[].startAt`: a consumer whose name is new begins in the past of the stream (rule 65). Looked for before anything is written.
 */

/** What arrived this long after the oldest record of the stream is still there when a new consumer comes to it, in milliseconds. */
const EXPIRY_MARGIN_MS = 2 * 3_600_000;
/** The oldest start is so much later: the change that is begun behind is looked for between. */
const SEARCH_MS = 15 * 60_000;

/** The time from which a consumer is to get changes has left the stream, or will before the consumer has come to it. */
export class StartExpiredError extends defineError("START_EXPIRED", "stop").from(
  (consumer: string, startAt: string, oldestMs: number, retentionMs: number) => ({
    message: `the consumer "${consumer}" is new and is to begin at ${startAt}, and the stream keeps changes for ${retentionMs / 3_600_000} hours: a consumer can begin at ${timeText(oldestMs)} now, and no earlier`,
    remedy: `Write a later time or startAt: "oldest" into the definition. Or take startAt out and, once capture has started, have the tables read for it: tributary backfill start --table <table> --consumer ${shellWord(consumer)}`,
    consumer,
    startAt,
    /** ISO 8601. */
    oldest: timeText(oldestMs),
  }),
) {}

/** Returns the earliest time that a consumer may begin at now, in milliseconds since 1970 UTC. */
export function oldestStart(retentionMs: number, nowMs: number = Date.now()): number {
  // A full minute, which a person may copy.
  const minute = 60_000;
  return Math.ceil((nowMs - retentionMs + EXPIRY_MARGIN_MS + SEARCH_MS) / minute) * minute;
}

/** The `startAt` of a consumer; undefined for "now". */
export function replayOf({ startAt }: Pick<ConsumerDefinition, "startAt">): string | undefined {
  return startAt === "now" ? undefined : startAt;
}

/** Returns what is said of a `startAt` that has no effect, since its consumer has begun already; undefined: it is the one that it began with. */
export function ignoredStart(
  consumer: string,
  startAt: string,
  began: string | undefined,
): { readonly message: string; readonly remedy: string } | undefined {
  if (startAt === began) return undefined;
  return {
    message: `startAt: "${startAt}" of the consumer "${consumer}" has no effect: the consumer ${began === undefined ? "is not new" : `began with startAt: "${began}"`}, and goes on from its checkpoints`,
    remedy:
      "Take startAt out of the definition; to read the changes that are still in the stream again, give the consumer a new name.",
  };
}

/** The parts of the capture task's options that new consumers' starts depend on. */
export type StartAtOptions = Pick<CaptureOptions, "pipeline" | "dynamodb" | "stateTable" | "stream" | "log">;

/** A consumer to register, and the shards that it has nothing to read in before a time. */
export interface RegisteredStart extends RegisteredConsumer {
  readonly read?: { readonly shards: readonly string[]; readonly sinceMs: number } | undefined;
}

/**
 * Finds where the consumers begin that are new and have a `startAt`; the others have none, and a new one has nothing to read from before
 * now (rule 66). Warns of those that are not new. Writes nothing.
 * `position`: where a consumer begins now.
 *
 * @throws StartExpiredError, and what reading the stream or the state table throws.
 */
export async function startsOf(
  { pipeline, dynamodb, stateTable, stream, log }: StartAtOptions,
  position: PositionText,
  signal: AbortSignal,
): Promise<readonly RegisteredStart[]> {
  const starts: RegisteredStart[] = [];
  let extent: StreamExtent | undefined;
  for (const consumer of pipeline.consumers) {
    const startAt = replayOf(consumer);
    const { name, topics } = consumer;
    const place = { dynamodb, table: stateTable, pipeline: pipeline.name, consumer: name };
    // Before it is asked whether the consumer is new: another task may register it behind that, and write.
    const sinceMs = Date.now();
    const known = await planRegistration(place, topics, position, signal);
    if (startAt === undefined) {
      // Of several slots another one may have written behind the position already, and goes on from there.
      const isGivenAgain = known.isNew && position !== START_OF_HISTORY && slotsOf(pipeline) === 1;
      if (isGivenAgain) extent ??= await stream.extent(signal);
      const read = isGivenAgain && extent ? { shards: extent.shards, sinceMs } : undefined;
      starts.push({ name, topics, read });
      continue;
    }
    if (!known.isNew) {
      const ignored = ignoredStart(name, startAt, known.startAt);
      if (ignored) log.warn(ignored.message, { remedy: ignored.remedy });
      starts.push({ name, topics });
      continue;
    }
    // All that there is, is still to come.
    if (position === START_OF_HISTORY) {
      starts.push({ name, topics, start: { startAt, position } });
      continue;
    }
    extent ??= await stream.extent(signal);
    log.info(`the consumer "${name}" is new: looking in the stream for its start`, { startAt });
    const query = { topicPrefix: pipeline.topics.prefix, signal, log };
    const found = await startIn(extent, consumer, startAt, (times) =>
      stream.findStart({ ...query, ...times }),
    );
    log.info(`the consumer "${name}" begins in the past of the stream`, {
      startAt,
      behind: found?.position ?? position,
    });
    starts.push({
      ...{ name, topics },
      start: { startAt, position: found?.position ?? position },
      read: found?.sinceMs === undefined ? undefined : { shards: extent.shards, sinceMs: found.sinceMs },
    });
  }
  return starts;
}

/** Notes that new consumers have nothing to read in the shards from before their start, so that nobody looks for it (rules 35, 65 and 66). */
export async function noteStarts(
  { pipeline, dynamodb, stateTable }: Pick<StartAtOptions, "pipeline" | "dynamodb" | "stateTable">,
  starts: readonly RegisteredStart[],
  signal: AbortSignal,
): Promise<void> {
  for (const { name, read } of starts) {
    if (!read) continue;
    const place = { dynamodb, table: stateTable, pipeline: pipeline.name, consumer: name };
    await noteShardsRead(place, read.shards, read.sinceMs, signal);
  }
}

function slotsOf({ source }: StartAtOptions["pipeline"]): number {
  return sourceKind(source).tasks(source).length;
}

/** Undefined: nothing was committed since. */
async function startIn(
  { retentionMs, createdMs }: StreamExtent,
  { name }: ConsumerDefinition,
  startAt: string,
  find: (times: { readonly keptFromMs: number; readonly timeMs: number }) => Promise<FoundStart | undefined>,
): Promise<Partial<FoundStart> | undefined> {
  const now = Date.now();
  const isWhole = createdMs > now - retentionMs + EXPIRY_MARGIN_MS;
  const oldest = oldestStart(retentionMs, now);
  const timeMs = startAt === "oldest" ? (isWhole ? 0 : oldest) : Date.parse(startAt);
  if (isWhole) {
    // Nothing has expired.
    if (timeMs <= createdMs) return { position: START_OF_HISTORY };
    return await find({ keptFromMs: createdMs, timeMs });
  }
  if (timeMs < oldest) throw new StartExpiredError(name, startAt, oldest, retentionMs);
  return await find({ keptFromMs: now - retentionMs + EXPIRY_MARGIN_MS, timeMs });
}

/** `2026-11-30T21:04Z`. */
function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16)}Z`;
}
