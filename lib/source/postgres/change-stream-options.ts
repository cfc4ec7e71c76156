import type { TableName } from "../../change/table-pattern.ts";
import { captures } from "../../definition/definition.ts";
import type { Log } from "../../log.ts";
import type { AsideSettings } from "./aside/asides.ts";
import type { BackfillSettings } from "./backfill/backfills.ts";
import type { ContractTable } from "./contract/difference.ts";
import type { UnhealedTables } from "./contract/unhealed-tables.ts";
import type { TextEncoding } from "./decode/values/text.ts";
import type { LogPipeline } from "./definition.ts";
import type { HoldSettings } from "./hold/held-topics.ts";
import type { PostgresConnectionOptions } from "./link/connection-options.ts";
import type { SlotRecord, SlotState } from "./slot/slot-record.ts";
import type { SourceStatus } from "./source-status.ts";

/** Dependencies and settings of `PostgresChangeStream`. */
export interface PostgresChangeStreamOptions {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  readonly record: SlotRecord;
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly onStatus: (status: SourceStatus) => void;
  readonly walSenderTimeoutMs: number;
  readonly takeoverMs: number;
  readonly state: SlotState;
  readonly tables: readonly TableName[];
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
  /** Undefined: existing rows are not read. */
  readonly backfill: BackfillSettings | undefined;
  /** Undefined: a change that cannot become an event ends the stream. */
  readonly holds: HoldSettings | undefined;
  /** OIDs of the tables that the publication was made to hold at this start. */
  readonly published: ReadonlySet<number>;
  /** Whether the record outlives the task. */
  readonly keeps: boolean;
  /** Undefined: no change is put aside. */
  readonly asides: AsideSettings | undefined;
}

/** Whether a table is captured by this slot. */
export function isCaptured(
  { pipeline, isOwn }: Pick<PostgresChangeStreamOptions, "pipeline" | "isOwn">,
  table: TableName,
): boolean {
  return captures(pipeline.source, table) && (isOwn?.(table) ?? true);
}
