import type { BackfillReport } from "./backfill/backfills.ts";
import type { UnhealedTable } from "./contract/unhealed-record.ts";
import type { HoldReport } from "./hold/held-topics.ts";
import type { LeftoverSlot } from "./slot/leftover-slots.ts";
import type { SlotHealth } from "./slot/slot-watch.ts";

/** The source as metrics report it. */
export interface SourceStatus extends SlotHealth {
  readonly connected: boolean;
  /** Up to here everything was given downstream. */
  readonly receivedLsn: bigint;
  /** End of the server's WAL when we last heard of it. */
  readonly serverLsn: bigint;
  /** Up to here the record and the server know that all is acknowledged. */
  readonly confirmedLsn: bigint;
  /** Number of times the link was opened again. */
  readonly reconnects: number;
  /** The latest backfill of each table. */
  readonly backfills: readonly BackfillReport[];
  /** Rows whose create came without a large value, and that are to be read again; a table with very many of them counts once. */
  readonly rowsAsked: number;
  /** Slots of our name on servers that are not read from; undefined where there is one server only. */
  readonly leftoverSlots?: readonly LeftoverSlot[] | undefined;
  /** Topics whose changes wait for a release. */
  readonly holds: readonly HoldReport[];
  /** Tables of which changes may be missing in the stream. */
  readonly unhealed?: readonly UnhealedTable[];
  /** Changes that were put aside since the task's start. */
  readonly putAside: number;
}
