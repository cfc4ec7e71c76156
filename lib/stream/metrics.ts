import type { SourcePlace } from "../change/change-stream.ts";
import type { PositionText } from "../change/position.ts";

/** Work of the writer since it started, and its present state. Counters only grow. */
export interface StreamMetrics<Place extends SourcePlace = bigint> {
  /** Copies of changes stored (a truncate counts once for each partition; control events are none), and their records and requests. */
  readonly changes: number;
  readonly records: number;
  /** Bytes of the stored records, partition keys included. */
  readonly bytes: number;
  /** PutRecords requests answered or given up. */
  readonly requests: number;
  /** Entries that failed and are sent again; `throttles` are those of them that Kinesis throttled. */
  readonly retries: number;
  readonly throttles: number;
  /** Changes above the record limit that something else was written for. */
  readonly oversize: number;
  /** Changes taken from the source, by table. */
  readonly tables: ReadonlyMap<string, TableCounts>;
  /** Bytes of events not yet stored. */
  readonly bufferedBytes: number;
  /** Age of the oldest message not yet acknowledged, in milliseconds; 0 when all are. */
  readonly oldestUnacknowledgedMs: number;
  /** Time since the writer first asked the stream for something, in milliseconds, while the stream has done nothing of it; otherwise 0, or left out. */
  readonly unansweredMs?: number;
  readonly acknowledgedPlace: Place | undefined;
  /** Commit time at the server of the latest acknowledged commit, milliseconds since 1970 UTC. */
  readonly acknowledgedCommitTimeMs: number | undefined;
  /** Returns the last change of each topic that was taken from the source; what of it is acknowledged, the age of what is not tells. */
  readonly newest?: () => ReadonlyMap<string, OfferedChange>;
}

/** The place of a change in its topic. */
export interface OfferedChange {
  readonly partition: number;
  readonly position: PositionText;
}

/** Changes taken of one table. */
export interface TableCounts {
  readonly changes: number;
  /** Bytes of their events. */
  readonly bytes: number;
}
