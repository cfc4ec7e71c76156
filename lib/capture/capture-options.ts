import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { SourcePlace } from "../change/change-stream.ts";
import type { ClaimStore } from "../change/claim-store.ts";
import type { Pipeline } from "../definition/definition.ts";
import type { Log } from "../log.ts";
import type { AsideQueue } from "../source/postgres/aside/aside-record.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import type { AnySourceStatus } from "../source/source-kind.ts";
import type { Pauses } from "../state/pauses.ts";
import type { StreamMetrics } from "../stream/metrics.ts";
import type { RecordStream } from "../stream/record-stream.ts";

/** Options of a capture task: the definition, and what differs between a laptop and AWS. */
export interface CaptureOptions {
  readonly pipeline: Pipeline;
  /** The number of the slot that it reads, where the pipeline has several. Default 1. */
  readonly slot?: number | undefined;
  readonly connection: PostgresConnectionOptions;
  /** A standby that existing rows are read from. */
  readonly standby?: PostgresConnectionOptions | undefined;
  readonly stream: RecordStream;
  readonly dynamodb: DynamoDBClient;
  readonly stateTable: string;
  /** The dead-letter queue for changes that cannot become events. */
  readonly deadLetters?: AsideQueue | undefined;
  /** The store for changes that are too large for the stream; without one they stop the task. */
  readonly claims?: ClaimStore | undefined;
  readonly log: Log;
  /** What the task reports of itself in the state table. */
  readonly report?: CaptureReporting | undefined;
  /** After this silence of another capture task its lease is taken over, in milliseconds. Default 15 s. */
  readonly leaseMs?: number | undefined;
  /** Called about every second. */
  readonly onMetrics?: (metrics: CaptureMetrics) => void;
  /** Called with what is paused, about every 5 s. */
  readonly onPauses?: (pauses: Pauses) => void;
}

/** The events of a capture task that its report on itself tells, beside its figures and what its log says that it waits for. */
export interface CaptureReporting {
  /** The task holds the lease now, under this generation. */
  tookLease(generation: number): void;
  /** The task stands still because somebody wants that, in words; undefined: it goes on. */
  paused(why: string | undefined): void;
}

/** Figures that a capture task reports about every second. */
export interface CaptureMetrics {
  readonly stream: StreamMetrics<SourcePlace>;
  readonly source: AnySourceStatus | undefined;
  /** While capture is paused: since when, in milliseconds since 1970 UTC. The counters of `stream` begin anew then. */
  readonly paused?: { readonly since: number } | undefined;
}
