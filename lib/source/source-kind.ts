import type { Pipeline } from "../definition/pipeline.ts";
import type { Log } from "../log.ts";
import type { AsideSettings } from "./postgres/aside/asides.ts";
import type { BackfillSettings } from "./postgres/backfill/backfills.ts";
import type { UnhealedRecord } from "./postgres/contract/unhealed-record.ts";
import type { HoldSettings } from "./postgres/hold/held-topics.ts";
import type { PostgresConnectionOptions } from "./postgres/link/connection-options.ts";
import type { SourceStatus } from "./postgres/postgres-source.ts";
import type { SlotRecord } from "./postgres/slot/slot-record.ts";
import type { Siblings } from "./postgres/slots/assignment.ts";
import type { ReadingRecord } from "./reading-record.ts";
import type { TablesStatus } from "./tables-status.ts";

/** What is known of a source, for metrics: of a log, or of tables that are read. */
export type AnySourceStatus = SourceStatus | TablesStatus;

/** What every kind of source is looked at with. */
export interface SourceCheck {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: Pipeline;
  /** The number of the slot, where a pipeline has several. */
  readonly slot?: number | undefined;
  readonly signal?: AbortSignal;
}

/** What every kind of source is opened with. */
export interface SourceOptions extends SourceCheck {
  /** The place where its kind keeps how far it has come. */
  readonly record: SlotRecord & { readonly reading: ReadingRecord };
  /** Ends reading: `changes` ends. What was read can still be acknowledged until `close`. */
  readonly signal: AbortSignal;
  readonly log: Log;
  /** Where a log is read through several slots. */
  readonly siblings?: Siblings | undefined;
  /** Where the backfills of a log are kept; undefined: existing rows are not read. */
  readonly backfill?: BackfillSettings | undefined;
  /** Where changes of a log are held that cannot become events; undefined: they end the stream. */
  readonly holds?: HoldSettings | undefined;
  /** Where tables of a log are noted of which changes may be missing; undefined: they are only told. */
  readonly unhealed?: UnhealedRecord | undefined;
  /** How changes are put aside; undefined: none is. */
  readonly asides?: AsideSettings | undefined;
  /** Called at least every few seconds. */
  readonly onStatus?: (status: AnySourceStatus) => void;
}
