import type { PositionText } from "../change/position.ts";
import type { RecordWriter } from "./record-writer.ts";
import type { StreamLog } from "./stream-log.ts";

/** The stream that a capture task writes, and reads once where the task before it did not end in order. */
export interface RecordStream {
  /** Makes the writer of one run of `writeStream`. */
  writer(): Promise<RecordWriter>;
  /**
   * Reads what a writer has left in the stream behind what it is known to have stored.
   * @throws TributaryError where it cannot be read.
   */
  readTail(query: TailQuery): Promise<Tail>;
  /**
   * Tells what of its records the stream still has.
   * @throws TributaryError where that cannot be asked.
   */
  extent(signal: AbortSignal): Promise<StreamExtent>;
  /**
   * Finds where a consumer begins that is to get what was committed since a time (rule 65). Undefined: nothing was.
   * @throws TributaryError where the stream cannot be read.
   */
  findStart(query: StartQuery): Promise<FoundStart | undefined>;
}

/** The part of its records that a stream still has. */
export interface StreamExtent {
  /** Time for which it keeps records, in milliseconds. */
  readonly retentionMs: number;
  /** In milliseconds since 1970 UTC. */
  readonly createdMs: number;
  /** Names of the shards whose records may still be there. */
  readonly shards: readonly string[];
}

/** The time since which changes are wanted. Times are in milliseconds since 1970 UTC. */
export interface StartQuery {
  /** Of the pipeline: another one's records may be in the stream. */
  readonly topicPrefix: string;
  /** What arrived from here on, has not expired and will not while it is looked for. */
  readonly keptFromMs: number;
  /** What was committed from here on is wanted: later than `keptFromMs`. */
  readonly timeMs: number;
  /** Time without any answer after which it is given up, in milliseconds. Default: two minutes. */
  readonly patienceMs?: number | undefined;
  readonly signal: AbortSignal;
  readonly log: StreamLog;
}

/** The start of a replay. */
export interface FoundStart {
  /** All changes behind it are still in the stream, and all that were committed since the wanted time are behind it. */
  readonly position: PositionText;
  /** No change behind it arrived earlier, in milliseconds since 1970 UTC. */
  readonly sinceMs: number;
}

/** Whose records are looked for, and how far. */
export interface TailQuery {
  /** Of the pipeline: another one's records may be in the stream, whose writers and positions are counted alike. */
  readonly topicPrefix: string;
  /** Generation of the writer. */
  readonly writer: number;
  readonly epoch: number;
  /** Changes from here on. */
  readonly fromLsn: bigint;
  /** The records came later than this, in milliseconds since 1970 UTC. */
  readonly sinceMs: number;
  /** Everything is read that came before this time, of `performance.now()`. */
  readonly untilMs: number;
  /** Time without any answer after which it is given up, in milliseconds. Default: two minutes. */
  readonly patienceMs?: number;
  readonly signal: AbortSignal;
  readonly log: StreamLog;
}

/** The last change of a writer that the stream has, as far as its record tells. */
export interface TailEnd {
  readonly position: PositionText;
  /** Of its transaction, empty for what stands outside of transactions; undefined where the change travels by claim check. */
  readonly txId?: string | undefined;
  readonly timeMs?: number | undefined;
}

/** Findings of reading a tail. */
export interface Tail {
  /** The last change, and where that travels by claim check the last one that does not. */
  readonly ends: readonly TailEnd[];
  /** Number of records read, everybody's included. */
  readonly records: number;
  readonly bytes: number;
}
