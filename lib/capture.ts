import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { KinesisClient } from "@aws-sdk/client-kinesis";
import type { ClaimStore } from "./change/claim-store.ts";
import { formatPosition, type PositionText, START_OF_HISTORY } from "./change/position.ts";
import { routeTables } from "./change/route.ts";
import type { TableName } from "./change/table-pattern.ts";
import { registerConsumers } from "./consume/floor.ts";
import { highestEpoch } from "./consume/highest-epoch.ts";
import type { Log } from "./observe/log.ts";
import type { Pipeline } from "./pipeline.ts";
import { runRelay } from "./relay.ts";
import { type AnySourceStatus, checkSource, openSource } from "./source/open-source.ts";
import { OUTBOX_TABLES } from "./source/outbox/envelope.ts";
import type { PostgresConnectionOptions } from "./source/postgres/connection.ts";
import { backfillRecord } from "./state/backfills.ts";
import { CaptureState } from "./state/capture-state.ts";
import { StateLostError } from "./state/errors.ts";
import { mergeSettings, settingsOf } from "./state/settings.ts";
import { claimCheck, type Oversize } from "./stream/claim-check.ts";
import type { StreamMetrics } from "./stream/metrics.ts";
import { omitColumns } from "./stream/omit-columns.ts";
import { writeStream } from "./stream/stream-writer.ts";
import { unreadTopics } from "./unread-topics.ts";

/** What a capture task needs: the definition, and what differs by place. */
export interface CaptureOptions {
  readonly pipeline: Pipeline;
  readonly connection: PostgresConnectionOptions;
  /** A standby that existing rows are read from. */
  readonly standby?: PostgresConnectionOptions | undefined;
  readonly kinesis: KinesisClient;
  readonly dynamodb: DynamoDBClient;
  readonly streamName: string;
  readonly stateTable: string;
  /** Where changes go that are too large for the stream; without it they stop the task. */
  readonly claims?: ClaimStore | undefined;
  readonly log: Log;
  /** After this silence of another capture task its lease is taken over, in milliseconds. Default 15 s. */
  readonly leaseMs?: number | undefined;
  /** Called about every second. */
  readonly onMetrics?: (metrics: CaptureMetrics) => void;
}

/** What a capture task knows of itself. */
export interface CaptureMetrics {
  readonly stream: StreamMetrics;
  readonly source: AnySourceStatus | undefined;
}

/**
 * Runs the capture task: checks the server, takes the lease, opens the source, and writes its changes to the stream until
 * `signal`; then stores and confirms what was read, and gives the lease back.
 *
 * @throws TributaryError of every kind: `retry` says whether starting again helps.
 */
export async function runCapture(options: CaptureOptions, signal: AbortSignal): Promise<void> {
  const { pipeline, connection, dynamodb, stateTable, leaseMs, log } = options;
  const { source } = pipeline;
  if (source.kind === "outbox") {
    const writer = (generation: number) => writerOptions(options, generation);
    return await runRelay({ ...options, pipeline: { ...pipeline, source }, writer }, signal);
  }
  const { tables } = await checkSource({ connection, pipeline, signal });
  for (const { message, remedy } of unreadTopics(pipeline, tables)) log.warn(message, { remedy });
  const state = await CaptureState.take({
    dynamodb,
    table: stateTable,
    pipeline: pipeline.name,
    ...(leaseMs === undefined ? {} : { leaseMs }),
    signal,
    log: (line) => log.info(line),
  });
  log.info("took the capture lease", { generation: state.generation });
  const until = AbortSignal.any([signal, state.lost]);
  try {
    await agree(options, state, tables, until);
    await stream(options, state, until);
    state.lost.throwIfAborted();
  } finally {
    await state.release();
  }
}

/** Stores what must not change, and gives new consumers their floor: both before the first record is written. */
async function agree(
  { pipeline, dynamodb, stateTable }: CaptureOptions,
  state: CaptureState,
  tables: readonly TableName[],
  signal: AbortSignal,
): Promise<void> {
  const floor = await floorOfNow(pipeline, dynamodb, stateTable, state, signal);
  const stored = await state.readSettings();
  const now = settingsOf(pipeline.source, routeTables(pipeline), [...tables, ...outboxTables(pipeline)]);
  await state.writeSettings(mergeSettings(pipeline.name, stored, now));
  await registerConsumers(dynamodb, stateTable, pipeline.name, pipeline.consumers, floor, signal);
}

/** The partitions of the outbox's topics must not change either. */
function outboxTables({ source }: Pipeline): readonly TableName[] {
  return source.kind === "postgres" && source.outbox ? [OUTBOX_TABLES] : [];
}

/**
 * Where a consumer begins that is new now.
 * @throws StateLostError where consumers have marks and the capture task has no record.
 */
async function floorOfNow(
  { name, consumers }: Pipeline,
  dynamodb: DynamoDBClient,
  stateTable: string,
  state: CaptureState,
  signal: AbortSignal,
): Promise<PositionText> {
  const record = (await state.read()) ?? (await state.reading.read());
  if (record) return formatPosition({ epoch: record.epoch, commitLsn: record.confirmedLsn, ordinal: 0 });
  const begun = await state.newEpoch();
  if (begun) return formatPosition({ epoch: begun.epoch, commitLsn: 0n, ordinal: 0 });
  const highest = await highestEpoch(dynamodb, stateTable, name, consumers, signal);
  if (highest > 0) throw new StateLostError(name, highest);
  return START_OF_HISTORY;
}

async function stream(options: CaptureOptions, state: CaptureState, signal: AbortSignal): Promise<void> {
  const { pipeline, connection, standby, kinesis, dynamodb, streamName, stateTable, log, onMetrics } =
    options;
  let status: AnySourceStatus | undefined;
  const source = await openSource({
    connection,
    pipeline,
    record: state,
    backfill: {
      record: backfillRecord(
        // Not the task's end: what is acknowledged then is still written.
        { dynamodb, table: stateTable, pipeline: pipeline.name, signal: state.lost },
        state,
      ),
      standby,
    },
    signal,
    log,
    onStatus: (latest) => {
      status = latest;
    },
  });
  try {
    await writeStream(
      source,
      {
        kinesis,
        streamName,
        writer: state.generation,
        ...writerOptions(options, state.generation),
        superseded: state.lost,
        onMetrics: (metrics) => onMetrics?.({ stream: metrics, source: status }),
        log,
      },
      signal,
    );
  } finally {
    await source.close();
  }
}

/** How the stream is written, whatever the source. */
function writerOptions(options: CaptureOptions, writer: number) {
  const { packing, maxRecordBytes } = options.pipeline.stream;
  return { packing, limits: { maxRecordBytes }, oversize: oversizePolicy(options, writer) };
}

/** What becomes of a change above the record limit; undefined: it stops the task. */
function oversizePolicy({ pipeline, claims, log }: CaptureOptions, writer: number): Oversize | undefined {
  if (pipeline.stream.oversize === "omit") return omitColumns;
  return claims && claimCheck({ store: claims, pipeline: pipeline.name, writer, log });
}
