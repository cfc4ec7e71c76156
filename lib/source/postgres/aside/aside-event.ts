import { CONTROL_EVENTS, type SourceChange } from "../../../change/change-stream.ts";
import { PUT_ASIDE, type PutAside } from "../../../change/control-event.ts";
import { messageEvent } from "../../../change/event-envelope.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { parsePosition } from "../../../change/position.ts";
import { EVERY_PARTITION } from "../../../change/topic.ts";
import { commitTimeMs } from "../decode/transaction.ts";
import type { HeldMessage } from "../hold/held-change.ts";

/** Dependencies of `RunEvents`. */
export interface AsideSource {
  readonly pipeline: string;
  readonly database: string;
}

/**
 * Makes the event that stands in the stream at the place of a change that was put aside: a control event in every partition, since its key is not
 * known.
 */
export function asideEvent(
  { pipeline, database }: AsideSource,
  change: HeldMessage,
  code: string,
): SourceChange {
  const { topic, table, relation, begin, lsn } = change;
  const { epoch, commitLsn, ordinal } = parsePosition(change.position);
  const content: PutAside = { table, position: change.position, code };
  return {
    kind: "change",
    topic,
    partition: EVERY_PARTITION,
    ...messageEvent(
      {
        ...{ pipeline, database, prefix: PUT_ASIDE, nowMs: Date.now() },
        content: Buffer.from(JSON.stringify(content)),
        ...{ transactional: true, schema: relation.schema, table: relation.table },
      },
      {
        ...{ epoch, commitLsn, ordinal },
        lsn: formatLsn(lsn),
        txId: String(begin.xid),
        timeMs: commitTimeMs(begin),
      },
    ),
    // Not one of the table's changes, where these are counted.
    table: CONTROL_EVENTS,
  };
}
