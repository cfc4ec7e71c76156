import type { CONSUMER_METRIC, REDRIVE_METRIC } from "./metrics.ts";

/*
 * The meanings of a consumer's metrics, in Markdown, for docs/11-operations.md. Apart from the metrics, whose names every consumer's
 * bundle has.
 */

/** Of `REDRIVE_METRIC`. */
export const REDRIVE_MEANING: Readonly<Record<keyof typeof REDRIVE_METRIC, string>> = {
  redriven: "parked changes that took effect",
  discarded: "parked changes that were given up",
  failed: "keys that failed again",
};

/** Of `CONSUMER_METRIC`. */
export const CONSUMER_MEANING: Readonly<Record<keyof typeof CONSUMER_METRIC, string>> = {
  applied: "changes that took effect",
  duplicates: "changes that had taken effect before",
  unhandled: "changes that no handler is registered for",
  passed: "control events, and rows of a backfill for another consumer",
  retried: "handler calls beyond a change's first",
  deadLettered: "changes that were given up",
  parked: "changes that failed and were set aside",
  parkedBehind: "changes set aside because they wait behind one of their key",
  parkingFull: "partitions stopped by the bound of what may be set aside",
  superseded: "open dead letters that a later change made pointless",
  gaps: "partitions stopped because a change before never came",
  held: "tries that ended at a change which failed and cannot be passed",
  heldPartitions: "partitions that wait for somebody while their shards go on, at the end of an invocation",
  heldBytes: "bytes of the records that held partitions keep",
  holdFull: "partitions of which no more can be held: their shards wait",
  failedPartitions: "partitions whose records come again, whatever the reason",
  staleWriter: "records dropped because a newer capture task had written behind them",
  commitToEffectMs:
    "from commit to effect: up to 20 values an invocation, evenly spread over its changes, the slowest among them. Percentiles weigh invocations alike, small or large",
};
