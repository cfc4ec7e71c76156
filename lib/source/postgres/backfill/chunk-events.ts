import type { SourceMessage } from "../../../change/change-stream.ts";
import { BACKFILL_END, type BackfillEnd } from "../../../change/control-event.ts";
import { EncodedChange, POSITION_BYTES } from "../../../change/encoded-change.ts";
import { openSource, sourceHead, sourcePlace, sourceTail } from "../../../change/event-envelope.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { commitPrefix } from "../../../change/position.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { partitionOf } from "../../../change/topic.ts";
import { EventBytes } from "../decode/event-bytes.ts";
import { NULL, Tuple, UNCHANGED } from "../decode/pgoutput/tuple.ts";
import type { RelationPlan } from "../decode/relation-plan.ts";
import { RowBytes } from "../decode/row-bytes.ts";
import { RowText } from "../decode/row-text.ts";
import { BackfillRefusedError } from "./backfill-errors.ts";
import type { Backfill } from "./backfill-record.ts";
import { type ChangeWindow, type IncompleteRow, rowKeyText } from "./change-window.ts";
import { COPY_HEADER_BYTES, type CopiedRows, readCopiedRow } from "./copy-out.ts";
import { controlEvent } from "./delivery.ts";
import type { WholeChunk } from "./open-chunks.ts";

/** The place of a chunk's rows in the stream. */
export interface ChunkPlace {
  readonly epoch: number;
  /** `placeOfMessage` of the high watermark. */
  readonly lsn: bigint;
  /** Milliseconds since 1970 UTC. */
  readonly nowMs: number;
  /** Set where the rows are for one consumer alone. */
  readonly backfill: { readonly run: number; readonly consumer: string } | undefined;
}

/** Bytes of events in a slice. */
const SLICE_BYTES = 256 * 1024;
const ROW = Buffer.from('{"op":"r","before":null,"after":');
const ORDINAL_DIGITS = 10;

/**
 * The rows of a chunk as events, in slices, in the order of its key; what changed in the window is left out. Position:
 * (epoch, LSN of the high watermark, place in the chunk from 1). The buffers of the chunk are written to.
 *
 * @throws BackfillRefusedError for a row that is larger than the stream takes, ValueFormatError, TextEncodingError, KeyValueMissingError, KeyColumnError, KeyUnknownError, EventTooLong.
 */
export class ChunkEvents {
  readonly #event = new EventBytes();
  readonly #text = new RowText();
  readonly #rows = new RowBytes(this.#event, this.#text);
  readonly #row = new Tuple();
  readonly #maxEventBytes: number;
  /** Rows given of the last chunk. */
  given = 0;

  /** `maxEventBytes`: what the stream can take. */
  constructor(maxEventBytes = Number.POSITIVE_INFINITY) {
    this.#maxEventBytes = maxEventBytes;
  }

  *slices(
    copied: CopiedRows,
    plan: RelationPlan,
    key: readonly number[],
    window: ChangeWindow,
    { epoch, lsn, nowMs, backfill }: ChunkPlace,
  ): Generator<SourceMessage[]> {
    if (plan.problem) throw plan.problem;
    const lsnText = formatLsn(lsn);
    const showLsn = () => lsnText;
    const prefix = commitPrefix(epoch, lsn);
    const place = sourcePlace({ epoch, commitLsn: lsn, lsn: lsnText, txId: "", timeMs: nowMs });
    const head = Buffer.from(openSource(nowMs) + sourceHead(plan.source) + place);
    const tail = Buffer.from(sourceTail({ ...plan.source, snapshot: "true", backfill }));
    const { partitions } = plan.topic;
    const columns = plan.columns.length;
    const event = this.#event;
    const rows = this.#rows;
    const quiet = window.empty;
    this.given = 0;
    let slice: SourceMessage[] = [];
    let bytes = 0;
    for (const segment of copied.segments) {
      const { end } = segment;
      for (let at = segment.start; at < end; ) {
        const next = at + 1 + segment.buffer.readUInt32BE(at + 1);
        let { buffer } = segment;
        let row = this.#row;
        // Without its line end.
        readCopiedRow(buffer, at + COPY_HEADER_BYTES, next - 1, columns, row);
        at = next;
        if (!quiet) {
          const verdict = window.verdict(rowKeyText(buffer, plan, row, key));
          if (verdict === null) continue;
          if (verdict) ({ buffer, row } = merged(verdict, buffer, row));
        }
        const ordinal = ++this.given;
        event.begin();
        rows.begin(buffer, plan, showLsn);
        const hash = rows.keyHash(row, undefined);
        const partition =
          hash === undefined
            ? partitionOf(rows.text().keyText(row, undefined), partitions)
            : hash % partitions;
        event.copy(ROW);
        rows.row(row, undefined);
        rows.notes();
        event.append(head);
        event.number(ordinal);
        event.append(tail);
        event.close(POSITION_BYTES);
        event.ascii(prefix);
        event.number(ordinal, ORDINAL_DIGITS);
        if (event.end - event.start > this.#maxEventBytes)
          throw tooLarge(plan.table, event.end - event.start, this.#maxEventBytes);
        slice.push(new EncodedChange(plan.topic, partition, plan.table, event));
        bytes += event.end - event.start;
        if (bytes < SLICE_BYTES) continue;
        yield slice;
        slice = [];
        bytes = 0;
      }
    }
    if (slice.length > 0) yield slice;
  }
}

function tooLarge(table: string, bytes: number, most: number): BackfillRefusedError {
  return new BackfillRefusedError(
    table,
    `a row makes an event of ${bytes} bytes, and the stream takes ${most}`,
    'Name a claim bucket (TRIBUTARY_CLAIM_BUCKET), set stream.oversize to "omit", or leave its large column out with source.excludeColumns; then start the backfill again.',
  );
}

/**
 * A row that changed in the window while a stored value of it did not travel: the latest change, with that value as the
 * chunk read it. It did not change in the window, so it is the same at both ends of it.
 */
function merged(change: IncompleteRow, read: Buffer, row: Tuple): { buffer: Buffer; row: Tuple } {
  const parts = [change.message];
  let length = change.message.length;
  const whole = new Tuple();
  whole.reserve(row.count);
  for (let i = 0; i < row.count; i++) {
    const [start, end] = [change.start[i] as number, change.end[i] as number];
    whole.start[i] = start;
    whole.end[i] = end;
    if (start !== UNCHANGED || !change.missing.has(i)) continue;
    const [from, to] = [row.start[i] as number, row.end[i] as number];
    // A value that did not travel is never null: what the chunk read is of before the row's key was another's.
    if (from === NULL) continue;
    parts.push(read.subarray(from, to));
    whole.start[i] = length;
    length += to - from;
    whole.end[i] = length;
  }
  return { buffer: Buffer.concat(parts, length), row: whole };
}

/** Dependencies of `RunEvents`. */
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
