import { CONTROL_EVENTS, type SourceChange } from "../../../change/change-stream.ts";
import type { BackfillEnd, Probe } from "../../../change/control-event.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { messageEvent } from "../../../change/message-event.ts";
import type { TableName } from "../../../change/table-pattern.ts";
import { EVERY_PARTITION, type Topic } from "../../../change/topic.ts";

/** Where a control event stands and whose it is. */
export interface ControlEventPlace {
  readonly pipeline: string;
  readonly database: string;
  readonly epoch: number;
  /** `placeOfMessage` of the logical message behind it. */
  readonly lsn: bigint;
  /** A free one at that LSN: behind the rows of a chunk. */
  readonly ordinal: number;
  readonly table: TableName;
  readonly topic: Topic;
  /** Milliseconds since 1970 UTC. */
  readonly nowMs: number;
}

/** A control event of a table's topic, in every partition. Format: docs, "Formats on the wire". */
export function controlEvent(
  prefix: string,
  content: BackfillEnd | Probe,
  place: ControlEventPlace,
): SourceChange {
  const { pipeline, database, epoch, lsn, ordinal, table, topic, nowMs } = place;
  const consumer = "consumer" in content ? content.consumer : undefined;
  return {
    kind: "change",
    topic,
    partition: EVERY_PARTITION,
    ...messageEvent(
      {
        ...{ pipeline, database, prefix, nowMs },
        content: Buffer.from(JSON.stringify(content)),
        transactional: false,
        source: {
          ...{ schema: table.schema, table: table.table, snapshot: "true" },
          ...(consumer === undefined || !("run" in content)
            ? {}
            : { backfill: { run: content.run, consumer } }),
        },
      },
      { epoch, commitLsn: lsn, ordinal, lsn: formatLsn(lsn), txId: "", timeMs: nowMs },
    ),
    // Not one of the table's changes, where these are counted.
    table: CONTROL_EVENTS,
  };
}
