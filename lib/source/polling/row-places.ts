import { createHash } from "node:crypto";
import type { RowChange } from "../batch/row-messages.ts";

const UNDER = 1n << 32n;

/** Returns the place of a row of a batch: after a crash the same one. */
export function placeOf(number: number, key: readonly string[]): bigint {
  return (BigInt(number) * UNDER) | hash(key);
}

/** In the order of their places. */
export function byPlace(a: RowChange, b: RowChange): number {
  return a.commitLsn < b.commitLsn ? -1 : a.commitLsn > b.commitLsn ? 1 : 0;
}

/** As many rows from the beginning as have places of their own in a batch. */
export function distinct<Row>(rows: readonly Row[], keyOf: (row: Row) => readonly string[]): readonly Row[] {
  const places = new Set<bigint>();
  const end = rows.findIndex((row) => places.size === places.add(hash(keyOf(row))).size);
  return end === -1 ? rows : rows.slice(0, end);
}

/** 32 bits of the key. */
function hash(key: readonly string[]): bigint {
  return BigInt(createHash("sha256").update(JSON.stringify(key)).digest().readUInt32BE(0));
}
