import pg from "pg";
import * as z from "zod";

/** Prefixes of the logical messages around a chunk: what the log holds between them may be older or newer than the chunk. */
export const LOW_WATERMARK = "tributary.low";
/** Of the message behind a chunk. */
export const HIGH_WATERMARK = "tributary.high";

const watermarkContent = z.object({
  /** The slot whose stream it is for: every slot of the database gets it. */
  slot: z.string(),
  /** The process that wrote it: watermarks of one that was killed mean nothing. */
  task: z.string(),
  table: z.string(),
  run: z.int(),
  chunk: z.int(),
  /** Counts the reads of the task, so that no two have the same watermark. */
  attempt: z.int(),
});

/** Which read of which chunk a watermark belongs to (rule 24). */
export type Watermark = z.output<typeof watermarkContent>;

/** The watermark in a message, or undefined where the content is none of ours. */
export function readWatermark(content: Buffer): Watermark | undefined {
  try {
    return watermarkContent.parse(JSON.parse(content.toString("utf8")));
  } catch {
    return undefined;
  }
}

/**
 * The statement that writes a watermark and flushes the log: the stream shows only what is flushed. From 17 the function
 * does it; before, a commit with a transaction id does (not waiting for standbys).
 * https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 */
export function watermarkSql(prefix: string, watermark: Watermark, version: number): string {
  const content = pg.escapeLiteral(JSON.stringify(watermark));
  if (version >= 170_000)
    return `SELECT pg_logical_emit_message(false, '${prefix}', ${content}, true) AS lsn`;
  return `BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT pg_current_xact_id(); SELECT pg_logical_emit_message(false, '${prefix}', ${content}) AS lsn; COMMIT`;
}
