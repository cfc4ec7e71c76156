import type { TableName } from "../../change/table-pattern.ts";
import { captures } from "../../definition/definition.ts";
import type { Log } from "../../log.ts";
import type { AsideSettings } from "./aside/asides.ts";
import type { BackfillSettings } from "./backfill/backfills.ts";
import type { ContractTable } from "./contract/difference.ts";
import type { UnhealedRecord } from "./contract/unhealed-record.ts";
import type { UnhealedTables } from "./contract/unhealed-tables.ts";
import type { TextEncoding } from "./decode/values/text.ts";
import type { LogPipeline } from "./definition.ts";
import type { HoldSettings } from "./hold/held-topics.ts";
import type { PostgresConnectionOptions } from "./link/connection-options.ts";
import type { SlotRecord, SlotState } from "./slot/slot-record.ts";
import type { Siblings } from "./slots/assignment.ts";
import type { SourceStatus } from "./source-status.ts";

/** Settings and records of a log that is read. */
export interface LogSettings {
  /** Set if the log is read through several slots. */
  readonly siblings?: Siblings | undefined;
  /** Left out: existing rows are not read. */
  readonly backfill?: BackfillSettings | undefined;
  /** Left out: a change that cannot become an event ends the stream. */
  readonly holds?: HoldSettings | undefined;
  /** Tables of which changes may be missing; left out: they are only told. */
  readonly unhealed?: UnhealedRecord | undefined;
  /** Left out: no change is put aside. */
  readonly asides?: AsideSettings | undefined;
}

/** Dependencies and settings of `PostgresChangeStream`. */
export interface PostgresChangeStreamOptions extends Pick<LogSettings, "backfill" | "holds" | "asides"> {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  readonly record: SlotRecord;
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly onStatus: (status: SourceStatus) => void;
  readonly walSenderTimeoutMs: number;
  readonly takeoverMs: number;
  readonly state: SlotState;
  readonly tables: readonly (TableName & { readonly oid: number })[];
  /** The tables that must stay in the publication. */
  readonly contract: readonly ContractTable[];
  /** Publications of the pipeline's other slots. */
  readonly others: readonly string[];
  readonly unhealed: UnhealedTables;
  /** Tells which of the pipeline's tables are this slot's, where it has several; undefined: all. */
  readonly isOwn?: ((table: TableName) => boolean) | undefined;
  /** Tells whether a topic may be another slot's. */
  readonly isForeign?: ((topic: string, commitLsn: bigint) => boolean) | undefined;
  readonly encoding: TextEncoding;
  /** `server_version_num`. */
  readonly serverVersion: number;
  /** OIDs of the tables that the publication was made to hold at this start. */
  readonly published: ReadonlySet<number>;
  /** True if the record outlives the task. */
  readonly keeps: boolean;
}

/** Returns true if a table is captured by this slot. */
export function isCaptured(
  { pipeline, isOwn }: Pick<PostgresChangeStreamOptions, "pipeline" | "isOwn">,
  table: TableName,
): boolean {
  return captures(pipeline.source, table) && (isOwn?.(table) ?? true);
}
