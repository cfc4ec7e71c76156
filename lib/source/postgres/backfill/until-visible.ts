import { setTimeout as delay } from "node:timers/promises";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { ChunkReader } from "./chunk-reader.ts";
import type { OpenChunk } from "./open-chunk.ts";
import { Snapshot } from "./snapshot.ts";
import type { StreamedTransactions } from "./streamed-transactions.ts";

/** What is waited for, and how. */
export interface UntilVisibleOptions {
  readonly table: TableName;
  readonly reader: Pick<ChunkReader, "query">;
  readonly streamed: StreamedTransactions;
  readonly log: Log;
  /** A moment, or until something happens that may be it. */
  readonly sleep: (until: AbortSignal) => Promise<void>;
}

const SEEN_POLL_MS = 5;
const TELL_AFTER_MS = 2_500;
const TELL_EVERY_MS = 60_000;

/**
 * Waits for the low watermark to come out of the slot, and until all that came before it is visible: a chunk that is read
 * then has nothing against it. Beside a synchronous standby some commit is on its way at any time, and a standby that does
 * not answer may hold it for hours.
 * @throws the signal's reason, the server's errors.
 */
export async function untilVisible(
  chunk: OpenChunk,
  { table, reader, streamed, log, sleep }: UntilVisibleOptions,
  until: AbortSignal,
): Promise<void> {
  while (chunk.window === undefined && !chunk.ended) {
    until.throwIfAborted();
    await sleep(until);
  }
  let tellAt = performance.now() + TELL_AFTER_MS;
  for (let waitMs = SEEN_POLL_MS; !chunk.ended; waitMs = Math.min(waitMs * 2, 1_000)) {
    const { rows } = await reader.query("SELECT pg_current_snapshot()::text AS snapshot");
    const xid = chunk.hidden(streamed, Snapshot.parse((rows[0] as { snapshot: string }).snapshot));
    if (xid === undefined) return;
    if (performance.now() >= tellAt) {
      tellAt = performance.now() + TELL_EVERY_MS;
      log.info(
        `reading rows of ${formatTable(table)} waits for transaction ${xid}: it is in the log, and other sessions do not see it yet`,
        { remedy: "See whether a synchronous standby answers: SELECT * FROM pg_stat_replication" },
      );
    }
    await delay(waitMs, undefined, { signal: until });
  }
}
