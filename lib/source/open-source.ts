import type { TableName } from "../change/table-pattern.ts";
import { ConfigurationError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { Pipeline, SourceDefinition } from "../pipeline.ts";
import type { ChangeStream } from "./change-source.ts";
import { checkOutbox } from "./outbox/preflight.ts";
import type { AsideSettings } from "./postgres/aside/asides.ts";
import type { BackfillSettings } from "./postgres/backfill/backfills.ts";
import type { PostgresConnectionOptions } from "./postgres/connection.ts";
import type { UnhealedRecord } from "./postgres/contract/unhealed-record.ts";
import type { HoldSettings } from "./postgres/hold/held-topics.ts";
import { openPostgresSource, preflight, type SourceStatus } from "./postgres/postgres-source.ts";
import type { SlotRecord } from "./postgres/slot-record.ts";
import type { Siblings } from "./postgres/slots/assignment.ts";
import { checkPolling, openPollingSource } from "./query/polling-source.ts";
import type { ReadingRecord } from "./reading-record.ts";
import type { TablesStatus } from "./tables-status.ts";
import { checkTriggers, openTriggerSource } from "./trigger/trigger-source.ts";

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

/**
 * Looks whether the database is fit for the definition, whatever its kind of source; touches nothing.
 * @throws PreflightError with all problems, and the errors of `connect`.
 */
export async function checkSource(options: SourceCheck): Promise<{ readonly tables: readonly TableName[] }> {
  const { source } = options.pipeline;
  switch (source.kind) {
    case "postgres":
      return await preflight({ ...options, pipeline: { ...options.pipeline, source } });
    case "triggers":
      return await checkTriggers({ ...options, pipeline: { ...options.pipeline, source } });
    case "polling":
      return await checkPolling({ ...options, pipeline: { ...options.pipeline, source } });
    case "outbox":
      await checkOutbox({ ...options, pipeline: { ...options.pipeline, source } });
      return { tables: [] };
    default:
      throw notYet(source);
  }
}

/**
 * Opens the source of a pipeline, whatever its kind.
 * @throws TributaryError of every kind; each says what to do.
 */
export async function openSource(options: SourceOptions): Promise<ChangeStream> {
  const { source } = options.pipeline;
  switch (source.kind) {
    case "postgres":
      return await openPostgresSource({ ...options, pipeline: { ...options.pipeline, source } });
    case "triggers":
      return await openTriggerSource({ ...options, pipeline: { ...options.pipeline, source } });
    case "polling":
      return await openPollingSource({ ...options, pipeline: { ...options.pipeline, source } });
    default:
      throw notYet(source);
  }
}

function notYet({ kind }: SourceDefinition): ConfigurationError {
  return new ConfigurationError("The pipeline definition", [
    { path: "source.kind", value: kind, remedy: "this kind cannot be opened yet: write postgres({…})" },
  ]);
}
