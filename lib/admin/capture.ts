import { isPosition, type PositionText } from "../change/position.ts";
import { shellWord } from "../change/printed-command.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import type { UnhealedTable } from "../source/postgres/contract/unhealed-record.ts";
import type { LogPipeline } from "../source/postgres/definition.ts";
import { isOfIdentity } from "../source/postgres/identity/identity-errors.ts";
import { readAsides, readWantedAsides, unwantAside, wantAside } from "../state/asides.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { readHolds, type StoredHold, wantRelease } from "../state/holds.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { readUnhealed } from "../state/unhealed.ts";
import { type ConsumerBehind, passHold } from "./hold-passage.ts";

/** Holds, missing changes and changes put aside of a pipeline. */
export interface CaptureStatus {
  /** Topics whose changes are stored until they are released, and why. */
  readonly holds: readonly StoredHold[];
  /** Tables of which changes may be missing in the stream. */
  readonly unhealed: readonly UnhealedTable[];
  /** Changes that were put aside: they are in the dead-letter queue of capture. */
  readonly putAside: Awaited<ReturnType<typeof readAsides>>;
  /** Positions of changes that are to be put aside when they come. */
  readonly wanted: readonly PositionText[];
  /** State of each capture task, as its kind of source reports it. */
  readonly tasks: readonly ReturnType<ReturnType<typeof sourceKind>["operate"]["status"]>[];
}

/**
 * Returns how capture stands, and what it holds, lacks and has put aside.
 * @throws StateTableError, StateTableUnavailableError
 */
export async function captureStatus(place: StatePlace, { source }: Pipeline): Promise<CaptureStatus> {
  const { tasks, operate } = sourceKind(source);
  const [holds, unhealed, putAside, wanted, ...records] = await Promise.all([
    readHolds(place),
    readUnhealed(place),
    readAsides(place),
    readWantedAsides(place),
    ...tasks(source).map((slot) => readCaptureRecord({ ...place, slot })),
  ]);
  const standing = records.map((record) => operate.status(source, record));
  return { holds, unhealed, putAside, wanted, tasks: standing };
}

/**
 * Has the capture task give what is held of a topic into the stream, and hold it no more. Where the table or its key is another one
 * since, consumers must first pass what was stored before: they are waited for, and those that are behind when the time is
 * over are returned. The topic is released if there are none.
 *
 * @throws TopicNotHeldError where the topic is not held; StateTableError, StateTableUnavailableError, FenceUnavailableError
 */
export async function releaseTopic(
  place: StatePlace,
  pipeline: LogPipeline,
  topic: string,
  waitMs: number,
): Promise<readonly ConsumerBehind[]> {
  const hold = (await readHolds(place)).find((candidate) => candidate.topic === topic);
  const behind = hold && isOfIdentity(hold.reason.code) ? await passHold(place, pipeline, hold, waitMs) : [];
  if (behind.length === 0) await wantRelease(place, topic);
  return behind;
}

/**
 * Has the capture task put one change aside that cannot become an event: it goes to the dead-letter queue of capture, and
 * its table is read again. Returns the topic that is released with it, if the change holds one.
 *
 * @throws ConfigurationError for what is no position, and where more than this change cannot be given; StateTableError,
 *   StateTableUnavailableError
 */
export async function putAside(place: StatePlace, position: string): Promise<string | undefined> {
  const at = positionOf(position);
  const held = (await readHolds(place)).find(({ reason }) => reason.position === at);
  // All that follows is another table's, or has another key: consumers must have come as far before that is released.
  if (held && isOfIdentity(held.reason.code)) {
    const remedy = `it is not this one change that cannot be given (${held.reason.code}); correct what the status names, then: tributary capture release --topic ${shellWord(held.topic)}`;
    throw new ConfigurationError("The command line", [{ path: "--at", value: at, remedy }]);
  }
  await wantAside(place, at);
  if (held) await wantRelease(place, held.topic);
  return held?.topic;
}

/**
 * Takes `putAside` back, as long as the capture task has not come to the change.
 * @throws ConfigurationError for what is no position; StateTableError, StateTableUnavailableError
 */
export async function cancelPutAside(place: StatePlace, position: string): Promise<void> {
  await unwantAside(place, positionOf(position));
}

function positionOf(text: string): PositionText {
  if (isPosition(text)) return text;
  const remedy = "write the position that the error names, and `tributary capture status`: 34 characters";
  throw new ConfigurationError("The command line", [{ path: "--at", value: text, remedy }]);
}
