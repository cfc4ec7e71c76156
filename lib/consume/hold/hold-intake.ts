import type { PositionText } from "../../change/position.ts";
import { positionOf } from "../../change/record.ts";
import type { CheckpointValue } from "../fence/checkpoint.ts";
import type { BatchRecord } from "../run/batch-record.ts";
import { fillHole, HOLD_BYTES, sequenceKey, withHole } from "./hold.ts";
import type { Hole, PartitionHold } from "./hold-state.ts";

/** The records of an invocation that go into a hold. */
export interface Intake {
  /** Records to be stored, in order; where one may be missing between two of them, they stand apart. */
  readonly runs: readonly (readonly BatchRecord[])[];
  /** The hold once they are stored. */
  readonly hold: PartitionHold;
  /** A record that was missing has come. */
  readonly filled: boolean;
  /** The first for which there is no room: it and all behind it come again. */
  readonly refused: BatchRecord | undefined;
  readonly stale: number;
  readonly duplicates: number;
}

/**
 * Chooses what is to be held of the records that came: a copy of the stream from the checkpoint on, without what a
 * newer writer has superseded. What stands in the hold already (it came again) is not stored twice, unless it fills a hole.
 */
export function takeIn(
  records: readonly BatchRecord[],
  start: PartitionHold,
  checkpoint: CheckpointValue,
  bytesOf: (record: BatchRecord) => number,
): Intake {
  let { last, bytes } = start;
  let holes: readonly Hole[] = start.holes;
  let { position, writer } = start.intake;
  let [stale, duplicates, filled] = [0, 0, false];
  const runs: BatchRecord[][] = [];
  /** The run that the next record follows: not what filled a hole, whose place is before that. */
  let tail: BatchRecord[] | undefined;
  /** The same in a hole: what is left of it. */
  let fill: { readonly run: BatchRecord[]; readonly rest: Hole } | undefined;
  let refused: BatchRecord | undefined;
  for (const record of records) {
    const key = sequenceKey(record.sequenceNumber);
    const hole = key <= last ? holes.find(([from, to]) => key > from && key < to) : undefined;
    if (key <= last && !hole) {
      duplicates++;
      continue;
    }
    if (!record.barred) {
      if (record.writer < (hole ? checkpoint.writer : writer)) {
        stale++;
        continue;
      }
      if (lastPosition(record) <= checkpoint.position && record.writer <= checkpoint.writer) {
        duplicates++;
        continue;
      }
    }
    const size = bytesOf(record);
    // What fills a hole is let in: without it the hold never ends.
    if (bytes + size > HOLD_BYTES && !hole) {
      refused = record;
      break;
    }
    bytes += size;
    if (hole) {
      filled = true;
      const before = fill?.rest === hole ? fill.run : undefined;
      const follows = isNext(record, before, hole[2]);
      const [, to, known] = hole;
      const rest: Hole = [
        key,
        to,
        record.barred || lastPosition(record) < known ? known : lastPosition(record),
      ];
      holes = fillHole(holes, hole, follows ? [rest] : [[hole[0], key, known], rest]);
      const run = follows && isAlike(record, before) ? (before as BatchRecord[]) : [];
      if (run.length === 0) runs.push(run);
      run.push(record);
      fill = { run, rest };
      continue;
    }
    const isGap = !isNext(record, tail, position);
    if (isGap) holes = withHole(holes, [last, key, position]);
    if (isGap || tail === undefined || !isAlike(record, tail)) {
      tail = [];
      runs.push(tail);
    }
    tail.push(record);
    last = key;
    if (record.barred) continue;
    if (lastPosition(record) > position && !record.unreadable) position = lastPosition(record);
    if (record.writer > writer) writer = record.writer;
  }
  return {
    ...{ runs, filled, refused, stale, duplicates },
    hold: { ...start, intake: { position, writer }, last, bytes, holes },
  };
}

/** Returns whether nothing can be missing between a record and those before it, which end at `position`. */
function isNext(
  record: BatchRecord,
  before: readonly BatchRecord[] | undefined,
  position: PositionText,
): boolean {
  // Of one that says nothing nobody knows; a row of them, as a newer library writes them, counts as whole.
  if (record.barred) return isAlike(record, before);
  const after = predecessor(record);
  return after === null || after <= position;
}

/** Records of which nothing is known stand apart: others may yet come between them and the next. */
function isAlike(record: BatchRecord, before: readonly BatchRecord[] | undefined): boolean {
  const last = before?.at(-1);
  return last !== undefined && (last.barred === undefined) === (record.barred === undefined);
}

/** The position of a record's last event, also where it is not there yet or cannot be read. */
export function lastPosition(record: BatchRecord): PositionText {
  const known = record.range?.last ?? record.unreadable?.last ?? record.claimed?.position;
  const last = known === undefined ? record.events.at(-1) : undefined;
  return known ?? (last ? positionOf(last) : "");
}

/** Returns the position that a record's first event follows; null where a writer begins. */
function predecessor(record: BatchRecord): PositionText | null {
  const known = record.range ?? record.unreadable ?? record.claimed;
  return known ? known.after : (record.events[0]?.source.after ?? null);
}
