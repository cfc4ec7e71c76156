import { setTimeout as sleep } from "node:timers/promises";
import { formatLsn } from "../change/lsn.ts";
import { type PositionText, parsePosition, START_OF_HISTORY } from "../change/position.ts";
import { furthestCheckpoint } from "../consume/run/highest-epoch.ts";
import type { LogPlace, SlotState } from "../source/postgres/slot/slot-record.ts";
import type { CaptureState } from "../state/capture-state.ts";
import { readHoldsOf, type StoredHold } from "../state/holds.ts";
import type { TailEnd } from "../stream/record-stream.ts";
import type { CaptureOptions } from "./capture-options.ts";

/*
 * Finds what a task that crashed may have written beyond its confirmed position (rule 39). Its writes end with its lease, so
 * the task that took the lease over can read all of them; the last place is noted in the slot's record, and the server must show that it
 * has it before anything is given. One place is enough: the log grows at its end alone.
 */

/**
 * A request that was given up by its writer may still be on its way for so long, in milliseconds, and what the stream has
 * taken is read by everybody then.
 */
const STRAGGLERS_MS = 2_000;
/** No stream keeps records for less than a day: what was written longer ago may have expired, and checkpoints may be ahead. */
const RETAINED_MS = 23 * 3_600_000;

/**
 * Settles what the slot's last task left: reads the stream's end where that task did not end in order, and notes what it found.
 * Costs nothing where it did.
 *
 * @throws StreamNotFoundError, StreamAccessError, StreamTailError, CaptureLeaseLostError, and the state table's errors.
 */
export async function settleTail(
  options: CaptureOptions,
  state: CaptureState,
  signal: AbortSignal,
): Promise<void> {
  const slot = await state.read();
  const writer = slot?.sent?.writer;
  if (!slot?.sent || writer === undefined) return;
  const { stream, log } = options;
  const { confirmedLsn: fromLsn, epoch } = slot;
  const sinceMs = slot.sent.sinceMs ?? 0;
  log.info("the capture task before did not end in order: reading what it left in the stream", {
    generation: writer,
    confirmed: formatLsn(fromLsn),
  });
  const begun = performance.now();
  const untilMs = begun + Math.max(0, STRAGGLERS_MS - state.heldMs);
  const until = { epoch, fromLsn, sinceMs, untilMs, signal, log };
  const { prefix: topicPrefix } = options.pipeline.topics;
  const tail = await stream.readTail({ topicPrefix, writer, ...until });
  await sleep(Math.max(0, untilMs - performance.now()), undefined, { signal });
  const beyond = [
    ...(await heldPlaces(options, writer, signal)),
    ...(Date.now() - sinceMs > RETAINED_MS ? await checkpointPlaces(options, writer, signal) : []),
  ].filter((position) => isBeyond(position, slot));
  const places = [...tail.ends.map(placeOf), ...beyond.map((position) => placeOf({ position }))];
  await state.write({ ...slot, sent: { places: [...slot.sent.places, ...places] } });
  log.info("read what the capture task before left in the stream", {
    records: tail.records,
    bytes: tail.bytes,
    seconds: Math.round(performance.now() - begun) / 1000,
    ...(places.length > 0 ? { places: places.map(({ lsn }) => formatLsn(lsn)) } : {}),
  });
}

/** Returns the last places of held topics: their changes are stored outside the stream, but count as given all the same. */
async function heldPlaces(
  { dynamodb, stateTable, pipeline }: CaptureOptions,
  generation: number,
  signal: AbortSignal,
): Promise<readonly PositionText[]> {
  const holds = await readHoldsOf(
    { dynamodb, table: stateTable, pipeline: pipeline.name, signal },
    generation,
  );
  // Another slot's task may have stored it, whose log this slot does not replay. Where nobody noted who did: of a hold that is being
  // released the last change was read before.
  const isIts = ({ by, drained }: StoredHold) =>
    by === undefined ? drained === START_OF_HISTORY : by === generation;
  return holds.filter(isIts).map(({ last }) => last);
}

async function checkpointPlaces(
  { dynamodb, stateTable, pipeline }: CaptureOptions,
  writer: number,
  signal: AbortSignal,
): Promise<readonly PositionText[]> {
  const { name, consumers } = pipeline;
  const place = { dynamodb, table: stateTable, pipeline: name, consumers, signal };
  const checkpoint = await furthestCheckpoint(place, writer);
  return checkpoint === undefined ? [] : [checkpoint];
}

function isBeyond(position: PositionText, { epoch, confirmedLsn }: SlotState): boolean {
  const place = parsePosition(position);
  return place.epoch === epoch && place.commitLsn >= confirmedLsn;
}

function placeOf({ position, txId, timeMs }: TailEnd): LogPlace {
  const { commitLsn: lsn } = parsePosition(position);
  if (txId === undefined || timeMs === undefined) return { lsn };
  return txId === "" ? { lsn, message: true } : { lsn, commit: { xid: Number(txId), timeMs } };
}
