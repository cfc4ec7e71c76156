import { readBackfillEnd } from "../../change/control-event.ts";
import type { ChangeEventJson } from "../../change/event.ts";
import type { PositionText } from "../../change/position.ts";
import type { PartitionName } from "../consume-errors.ts";

/**
 * A backfill of a table has ended: what a sink still holds of it below a position is not in the source any more.
 *
 * @example
 * const sweep = ({ partition, before }: Sweep) =>
 *   database.query("DELETE FROM orders WHERE topic_partition = $1 AND position < $2", [partition, before]);
 */
export interface Sweep {
  /** The control event's position as text, unique in its topic partition: for idempotency keys. */
  readonly id: PositionText;
  readonly topic: string;
  readonly partition: number;
  readonly schema: string;
  readonly table: string;
  /** Rows of this table in this partition with a smaller position are to be removed, and kept out should they come late. */
  readonly before: PositionText;
  /** Counts the table's backfills. */
  readonly run: number;
}

/**
 * Returns the sweep that a control event asks for; undefined where it asks for none.
 * @throws RecordFormatError
 */
export function sweepOf(
  wire: ChangeEventJson,
  { topic, partition }: PartitionName,
  id: PositionText,
): Sweep | undefined {
  const end = readBackfillEnd(wire);
  if (!end?.sweep) return undefined;
  const { schema, table } = wire.source;
  return { id, topic, partition, schema, table, before: end.startPosition, run: end.run };
}

/** Returns whether an event is a backfill's for one consumer, and that one is not this. */
export function isForAnother(wire: ChangeEventJson, consumer: string): boolean {
  const addressee = wire.source.backfill?.consumer;
  return addressee !== undefined && addressee !== consumer;
}

/**
 * Returns the position below which an event removes all rows of its table in its partition. A truncate below
 * its own, a sweep below its bound; undefined for all others.
 */
export function removesBelow(wire: ChangeEventJson, position: PositionText): PositionText | undefined {
  if (wire.op === "t") return position;
  const end = readBackfillEnd(wire);
  return end?.sweep ? end.startPosition : undefined;
}
