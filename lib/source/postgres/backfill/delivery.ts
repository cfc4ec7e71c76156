import * as z from "zod";
import type { SourceMessage } from "../../../change/change-stream.ts";
import { CONTROL_EVENTS, type SourceChange } from "../../../change/change-stream.ts";
import type { BackfillEnd, Probe } from "../../../change/control-event.ts";
import { PROBE } from "../../../change/control-event.ts";
import { messageEvent } from "../../../change/event-envelope.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { EVERY_PARTITION, type Topic } from "../../../change/topic.ts";
import type { RouteTable } from "../../../definition/route.ts";
import { placeOfMessage } from "../decode/pgoutput/messages.ts";
import type { SlotState } from "../slot/slot-record.ts";

/** Rows of a chunk, or a control event, that go into the stream at the place of a logical message of ours. */
export interface Delivery {
  /** The end of the message's record: acknowledged when everything before it is durable, and this. */
  readonly lsn: bigint;
  /** The events. An error in them ends the backfill, not the stream. */
  readonly slices: Iterable<readonly SourceMessage[]>;
  /** All of it was given. */
  given(): void;
  /** It could not be given whole: what was given does no harm. */
  failed(error: unknown): void;
}

/** The place and the owner of a control event. */
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
        ...{ transactional: false, schema: table.schema, table: table.table, snapshot: "true" },
        backfill: consumer === undefined || !("run" in content) ? undefined : { run: content.run, consumer },
      },
      { epoch, commitLsn: lsn, ordinal, lsn: formatLsn(lsn), txId: "", timeMs: nowMs },
    ),
    // Not one of the table's changes, where these are counted.
    table: CONTROL_EVENTS,
  };
}

const probe = z.object({ slot: z.string(), table: z.string(), id: z.string().min(1).max(200) });

/** A probe of ours as a control event of its table's topic; undefined where it is another slot's, or names no captured table. */
export function probeDelivery(
  content: Buffer,
  lsn: bigint,
  options: {
    readonly pipeline: { readonly name: string };
    readonly state: Pick<SlotState, "slot" | "database" | "epoch">;
    readonly tables: readonly TableName[];
    readonly route: RouteTable;
  },
): Delivery | undefined {
  const { pipeline, state, tables, route } = options;
  let asked: z.output<typeof probe>;
  try {
    asked = probe.parse(JSON.parse(content.toString("utf8")));
  } catch {
    return undefined;
  }
  const table = tables.find((candidate) => formatTable(candidate) === asked.table);
  if (!table || asked.slot !== state.slot) return undefined;
  const { database, epoch } = state;
  const place = { pipeline: pipeline.name, database, epoch, lsn: placeOfMessage(lsn), ordinal: 1, table };
  const event = controlEvent(PROBE, asked, { ...place, topic: route(table).topic, nowMs: Date.now() });
  return { lsn, slices: [[event]], given: () => {}, failed: () => {} };
}
