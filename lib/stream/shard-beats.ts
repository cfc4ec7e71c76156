import { awsFailure, REACH_AWS, wasAnswered } from "../aws/failure.ts";
import { SHARD_BEAT_MS, shardBeatRecord, shardNumber } from "../change/shard-beat.ts";
import type { RecordWriter } from "./record-writer.ts";
import type { StreamLog } from "./stream-log.ts";

/** One beat to write: a whole record, for the shard that its hash key lies in. */
export interface BeatRecord {
  /** Number of the shard: the partition of the beat's topic. */
  readonly partition: number;
  readonly explicitHashKey: string;
  readonly data: string;
}

/** The outcome of one round of beats. */
export interface BeatRound {
  readonly records: readonly BeatRecord[];
  readonly nextMs: number;
  readonly isAnswered: boolean;
}

/** Dependencies of the beats of one writer. */
export interface ShardBeatOptions {
  /** `source.name` of the events. */
  readonly name: string;
  /** Since when no capture task had written when this one began, in milliseconds since 1970 UTC. Undefined: not known. */
  readonly quietSince: number | undefined;
  /** Default: an hour. */
  readonly everyMs?: number | undefined;
}

function isTimeout(reason: unknown): boolean {
  return reason instanceof Error && reason.name === "TimeoutError";
}

/** The shards of a stream cannot be listed: asked for again after this. */
const RETRY_MS = 60_000;
/** The same where the stream gave no answer: until it does, capture is said to wait for it. */
const UNANSWERED_RETRY_MS = 5_000;

/**
 * The beats of one writer: a record into each open shard when it begins, and then every hour, so that a consumer can tell
 * an idle shard from one whose records have expired unread (rule 35). Where the shards cannot be listed there are none: capture
 * goes on, and what consumers detect is less.
 */
export class ShardBeats {
  readonly everyMs: number;
  readonly #stream: Pick<RecordWriter, "openShards">;
  readonly #options: ShardBeatOptions & { readonly writer: number; readonly packed: boolean };
  readonly #log: StreamLog;
  #first = true;
  /** No answer came the last time, and that is in the log. */
  #isSilent = false;

  constructor(
    stream: Pick<RecordWriter, "openShards">,
    options: ShardBeatOptions & { readonly writer: number; readonly packed: boolean },
    log: StreamLog,
  ) {
    this.#stream = stream;
    this.#options = options;
    this.#log = log;
    this.everyMs = options.everyMs ?? SHARD_BEAT_MS;
  }

  /** Gives the records of one round, after how long the next one is due, and whether the stream answered, if only to refuse. Never throws. */
  async round(signal: AbortSignal): Promise<BeatRound> {
    try {
      const shards = await this.#stream.openShards(signal);
      const { quietSince, ...about } = this.#options;
      const nowMs = Date.now();
      const records = shards.map(({ shardId, hashKey }) => ({
        partition: shardNumber(shardId),
        explicitHashKey: hashKey,
        data: shardBeatRecord(
          this.#first && quietSince !== undefined ? { shardId, quietSince } : { shardId },
          { ...about, nowMs },
        ),
      }));
      this.#first = false;
      this.#isSilent = false;
      return { records, nextMs: this.everyMs, isAnswered: true };
    } catch (error) {
      const isAnswered = wasAnswered(error);
      if (!(this.#isSilent && !isAnswered) && (!signal.aborted || isTimeout(signal.reason))) {
        this.#log.warn(
          "The stream's shards cannot be listed; consumers cannot tell idle shards from expired ones",
          {
            error: awsFailure(error),
            remedy: isAnswered ? "Permit kinesis:ListShards on the stream." : REACH_AWS,
          },
        );
      }
      this.#isSilent = !isAnswered;
      const nextMs = Math.min(isAnswered ? RETRY_MS : UNANSWERED_RETRY_MS, this.everyMs);
      return { records: [], nextMs, isAnswered };
    }
  }
}
