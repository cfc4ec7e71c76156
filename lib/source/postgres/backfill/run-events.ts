import type { SourceMessage } from "../../../change/change-stream.ts";
import { BACKFILL_END, type BackfillEnd } from "../../../change/control-event.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Backfill } from "./backfill-record.ts";
import { ChunkEvents } from "./chunk-events.ts";
import { controlEvent } from "./control-event.ts";
import type { WholeChunk } from "./open-chunk.ts";

/** Whose events they are. */
export interface RunEventsOptions {
  readonly backfill: Backfill;
  readonly table: TableName;
  readonly pipeline: string;
  readonly database: string;
  readonly epoch: number;
  /** Largest event that the stream can take, in bytes. Default: any size. */
  readonly maxEventBytes?: number | undefined;
}

/** A run as events of its table's topic: the rows of its chunks, and behind the last one the end of the backfill. */
export class RunEvents {
  readonly #options: RunEventsOptions;
  readonly #rows: ChunkEvents;

  constructor(options: RunEventsOptions) {
    this.#options = options;
    this.#rows = new ChunkEvents(options.maxEventBytes);
  }

  /** A chunk at its place (`placeOfMessage` of its high watermark), in slices. @throws what `ChunkEvents` throws. */
  *slices(
    { read, plan, window }: WholeChunk,
    lsn: bigint,
    startPosition: string,
  ): Generator<readonly SourceMessage[]> {
    const { backfill, table, pipeline, database, epoch } = this.#options;
    const { run, request } = backfill;
    const { consumer, sweep, where } = request;
    const nowMs = Date.now();
    yield* this.#rows.slices(read.copied, plan, read.shape.pageIndexes, window, {
      epoch,
      lsn,
      nowMs,
      backfill: consumer === undefined ? undefined : { run, consumer },
    });
    if (read.more) return;
    const end: BackfillEnd = {
      table: formatTable(table),
      run,
      startPosition,
      sweep: sweep && where === undefined,
      ...(consumer === undefined ? {} : { consumer }),
    };
    const ordinal = this.#rows.given + 1;
    const place = { pipeline, database, epoch, lsn, ordinal, table, topic: plan.topic, nowMs };
    yield [controlEvent(BACKFILL_END, end, place)];
  }
}
