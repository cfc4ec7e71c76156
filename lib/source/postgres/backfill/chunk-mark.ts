import pg from "pg";
import * as z from "zod";

/** Prefixes of the logical messages around a chunk: what the log holds between them may be older or newer than the chunk. */
export const LOW_MARK = "tributary.low";
/** Of the message behind a chunk. */
export const HIGH_MARK = "tributary.high";

const chunkMark = z.object({
  /** The slot whose stream it is for: every slot of the database gets it. */
  slot: z.string(),
  /** The process that wrote it: marks of one that was killed mean nothing. */
  task: z.string(),
  table: z.string(),
  run: z.int(),
  chunk: z.int(),
  /** Counts the reads of the task, so that no two have the same mark. */
  attempt: z.int(),
});

/** Which read of which chunk a mark belongs to (rule 24). */
export type ChunkMark = z.output<typeof chunkMark>;

/** The mark in a message, or undefined where the content is none of ours. */
export function readChunkMark(content: Buffer): ChunkMark | undefined {
  try {
    return chunkMark.parse(JSON.parse(content.toString("utf8")));
  } catch {
    return undefined;
  }
}

/**
 * The statement that writes a mark and flushes the log: the stream shows only what is flushed. From 17 the function
 * does it; before, a commit with a transaction id does (not waiting for standbys).
 * https://www.postgresql.org/docs/current/functions-admin.html#PG-LOGICAL-EMIT-MESSAGE
 */
export function chunkMarkSql(prefix: string, mark: ChunkMark, version: number): string {
  const content = pg.escapeLiteral(JSON.stringify(mark));
  if (version >= 170_000)
    return `SELECT pg_logical_emit_message(false, '${prefix}', ${content}, true) AS lsn`;
  return `BEGIN READ WRITE; SET LOCAL synchronous_commit = local; SELECT pg_current_xact_id(); SELECT pg_logical_emit_message(false, '${prefix}', ${content}) AS lsn; COMMIT`;
}
