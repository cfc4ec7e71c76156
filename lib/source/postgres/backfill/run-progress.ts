import type { BackfillProgress } from "./backfill-record.ts";
import type { ReadChunk } from "./chunk-reader.ts";
import { pageOrder, type TableShape } from "./table-shape.ts";

/** The progress of a run that has read nothing. */
export function notBegun(startPosition: string): BackfillProgress {
  const now = Date.now();
  const none = { lastKey: null, keyColumns: [], chunk: 0, rows: 0, bytes: 0 };
  return { startPosition, startedAt: now, updatedAt: now, ...none };
}

/** The progress of a run that goes on in the table's order of keys: in another one than before, from the table's beginning. */
export function inOrderOf(shape: TableShape, before: BackfillProgress): BackfillProgress {
  const keyOrder = pageOrder(shape);
  const { lastKey, chunk, rows, bytes } =
    before.keyOrder === keyOrder ? before : notBegun(before.startPosition);
  return {
    startPosition: before.startPosition,
    startedAt: before.startedAt,
    lastKey,
    keyColumns: shape.page.map((column) => column.name),
    keyOrder,
    chunk,
    rows,
    bytes,
    estimatedRows: shape.estimatedRows,
    updatedAt: Date.now(),
  };
}

/** The progress of a run that has given one chunk more. */
export function behind({ lastKey, copied, more }: ReadChunk, before: BackfillProgress): BackfillProgress {
  const now = Date.now();
  return {
    ...before,
    updatedAt: now,
    lastKey: lastKey ?? before.lastKey,
    chunk: before.chunk + 1,
    rows: before.rows + copied.rows,
    bytes: before.bytes + copied.bytes,
    ...(more ? {} : { finishedAt: now }),
  };
}
