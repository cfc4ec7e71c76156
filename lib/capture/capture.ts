import type { TableName } from "../change/table-pattern.ts";
import { registerConsumers } from "../consume/fence/start-position.ts";
import type { Pipeline } from "../definition/definition.ts";
import { openSource, sourceKind } from "../source/index.ts";
import type { AsideSettings } from "../source/postgres/aside/asides.ts";
import type { LogPipeline } from "../source/postgres/definition.ts";
import type { HoldSettings } from "../source/postgres/hold/held-topics.ts";
import type { AnySourceStatus } from "../source/source-kind.ts";
import { asideRecord } from "../state/asides.ts";
import { backfillRecord } from "../state/backfills.ts";
import type { CaptureRecord } from "../state/capture-record.ts";
import { CaptureState } from "../state/capture-state.ts";
import { holdRecord } from "../state/holds.ts";
import { rereadRecord } from "../state/rereads.ts";
import { CaptureQueueMissingError, HoldStoreMissingError } from "../state/state-errors.ts";
import { unhealedRecord } from "../state/unhealed.ts";
import { claimCheck, MAX_CLAIM_BYTES, type Oversize } from "../stream/claim-check.ts";
import { omitColumns } from "../stream/omit-columns.ts";
import { writeStream } from "../stream/stream-writer.ts";
import { recordsOfSlots, settingsAtStart, startPositionNow } from "./agreement.ts";
import type { CaptureOptions } from "./capture-options.ts";
import { withPauses } from "./capture-pause.ts";
import { runLanes } from "./relay.ts";
import { agreeOnSlots, type Part, soleSlot, takePart } from "./slot-task.ts";
import { noteStarts, startsOf } from "./start-at.ts";
import { settleTail } from "./stored-tail.ts";
import { unreadTopics } from "./unread-topics.ts";

/**
 * Runs the capture task: checks the server, takes the lease, opens the source, and writes its changes to the stream until
 * `signal`; then stores and confirms what was read, and gives the lease back. Stands still while capture is paused.
 *
 * @throws TributaryError of every kind: `retry` says whether starting again helps.
 */
export async function runCapture(options: CaptureOptions, signal: AbortSignal): Promise<void> {
  await withPauses(options, runOnce, signal);
}

async function runOnce(options: CaptureOptions, signal: AbortSignal): Promise<void> {
  const { pipeline, connection, dynamodb, stateTable, leaseMs, log, slot = 1 } = options;
  const kind = sourceKind(pipeline.source);
  const { reading } = kind;
  if (reading.by === "lanes") {
    const writer = (generation: number) => writerOptions(options, generation);
    return await runLanes({ ...options, kind, reading, writer }, signal);
  }
  const { tables } = await kind.check({ connection, pipeline, slot, signal });
  const quietSince = await lastBeat(options, signal);
  for (;;) {
    const state = await CaptureState.take({
      dynamodb,
      table: stateTable,
      pipeline: pipeline.name,
      slot,
      ...(leaseMs === undefined ? {} : { leaseMs }),
      signal,
      log: (line, fields) => log.info(line, fields),
    });
    options.report?.tookLease(state.generation);
    log.info("took the capture lease", { generation: state.generation });
    const until = AbortSignal.any([signal, state.lost]);
    try {
      const part = await partOf({ ...options, slot }, tables, state, until);
      if (part) {
        await agree({ ...options, pipeline: part.pipeline, slot }, state, part, until);
        await stream({ ...options, pipeline: part.pipeline, slot }, quietSince, state, part, until);
        state.lost.throwIfAborted();
        return;
      }
    } finally {
      await state.release();
    }
  }
}

/** Undefined: tables have come from another slot, and the lease is to be taken anew. */
async function partOf(
  options: CaptureOptions & { readonly slot: number },
  tables: readonly TableName[],
  state: CaptureState,
  signal: AbortSignal,
): Promise<Part | undefined> {
  const { pipeline, slot, log } = options;
  let part: Part | undefined = { pipeline, tables, all: tables };
  const definition = throughSlots(pipeline);
  if (definition) {
    const epoch = await agreeOnSlots(options, definition, slot, state, signal);
    part =
      definition.source.slots === 1
        ? { ...part, siblings: soleSlot(definition) }
        : await takePart(options, definition, slot, epoch, state, signal);
  }
  if (part && slot === 1)
    for (const { message, remedy } of unreadTopics(pipeline, part.all)) log.warn(message, { remedy });
  return part;
}

/** Stores what must not change, and gives new consumers their start position: both before the first record is written. */
async function agree(
  options: CaptureOptions,
  state: CaptureState,
  { tables }: Part,
  signal: AbortSignal,
): Promise<void> {
  const { pipeline, dynamodb, stateTable } = options;
  const records = await recordsOfSlots(options, signal);
  const own = records[(options.slot ?? 1) - 1] as CaptureRecord;
  const startPosition = await startPositionNow(options, own, records, signal);
  const settings = settingsAtStart(pipeline, own, records, tables);
  const starts = await startsOf(options, startPosition, signal);
  await state.writeSettings(settings);
  await noteStarts(options, starts, signal);
  await registerConsumers(dynamodb, stateTable, pipeline.name, starts, startPosition, signal);
}

/** The pipeline, where its source is read through slots. */
function throughSlots(pipeline: Pipeline): LogPipeline | undefined {
  return sourceKind(pipeline.source).throughSlots?.(pipeline);
}

/** Returns the time at which a task of any slot last showed that it was alive: nothing was written between then and this one's start. */
async function lastBeat(options: CaptureOptions, signal: AbortSignal): Promise<number | undefined> {
  const beats = (await recordsOfSlots(options, signal)).flatMap(({ beatAt }) => beatAt ?? []);
  return beats.length > 0 ? Math.max(...beats) : undefined;
}

async function stream(
  options: CaptureOptions,
  quietSince: number | undefined,
  state: CaptureState,
  part: Part,
  signal: AbortSignal,
): Promise<void> {
  const { pipeline, connection, standby, dynamodb, stateTable, log, onMetrics } = options;
  let status: AnySourceStatus | undefined;
  // Not the task's end: what is acknowledged then is still written.
  const store = { dynamodb, table: stateTable, pipeline: pipeline.name, signal: state.lost };
  const backfills = backfillRecord(store, state);
  if (throughSlots(pipeline)) await settleTail(options, state, signal);
  const source = await openSource({
    connection,
    pipeline,
    record: state,
    siblings: part.siblings,
    backfill: {
      record: part.ownBackfills?.(backfills) ?? backfills,
      rereads: rereadRecord(store, state),
      standby,
      maxEventBytes: maxRowBytes(options),
    },
    holds: await holdsOf(options, state, part),
    unhealed: unhealedRecord(
      { dynamodb, table: stateTable, pipeline: pipeline.name, signal: state.lost },
      state.generation,
    ),
    asides: await asidesOf(options, state, part),
    signal,
    log,
    onStatus: (latest) => {
      status = latest;
    },
  });
  try {
    await writeStream(
      source,
      await options.stream.writer(),
      {
        writer: state.generation,
        ...writerOptions(options, state.generation),
        superseded: state.lost,
        leaseLeftMs: () => state.leftMs,
        // One task does for all: a shard has records of every slot.
        beats: (options.slot ?? 1) === 1 ? { name: pipeline.topics.prefix, quietSince } : undefined,
        onMetrics: (metrics) => onMetrics?.({ stream: metrics, source: status }),
        log,
      },
      signal,
    );
  } finally {
    await source.close();
  }
}

/** Of a record, beside its one event. */
const RECORD_OVERHEAD_BYTES = 1024;

/** Largest event of an existing row that the stream can take: nothing that a backfill reads may stop the stream. */
function maxRowBytes({ pipeline: { stream }, claims }: CaptureOptions): number | undefined {
  if (stream.oversize === "omit") return undefined;
  return (claims ? MAX_CLAIM_BYTES : stream.maxRecordBytes) - RECORD_OVERHEAD_BYTES;
}

/**
 * Returns the store for changes that cannot become events and are held; without a claim store they end the stream.
 * @throws HoldStoreMissingError where there is none, and topics are held.
 */
async function holdsOf(
  { claims, dynamodb, stateTable, pipeline }: CaptureOptions,
  state: CaptureState,
  part: Part,
): Promise<HoldSettings | undefined> {
  const { generation, lost: signal } = state;
  const whole = holdRecord({ dynamodb, table: stateTable, pipeline: pipeline.name, signal }, generation);
  const record = part.ownHolds?.(whole) ?? whole;
  if (claims) return { record, store: claims, generation };
  const held = throughSlots(pipeline) ? await record.list() : [];
  if (held.length > 0) throw new HoldStoreMissingError(held.map(({ topic }) => topic));
  return undefined;
}

/**
 * Returns the way to put changes aside that cannot become events; undefined where there is no queue for them.
 * @throws CaptureQueueMissingError where there is none, and changes are to be put aside.
 */
async function asidesOf(
  { deadLetters, dynamodb, stateTable, pipeline }: CaptureOptions,
  state: CaptureState,
  part: Part,
): Promise<AsideSettings | undefined> {
  const { name } = pipeline;
  const source = throughSlots(pipeline)?.source;
  if (!source) return undefined;
  const { generation, lost: signal } = state;
  const whole = asideRecord({ dynamodb, table: stateTable, pipeline: name, signal }, generation);
  const record = part.ownAsides?.(whole) ?? whole;
  if (deadLetters) return { record, queue: deadLetters };
  if (source.undecodable === "dead-letter")
    throw new CaptureQueueMissingError('source.undecodable is "dead-letter"');
  const known = [...(await record.list()).map(({ position }) => position), ...(await record.wanted())];
  if (known.length > 0) throw new CaptureQueueMissingError(`the change at ${known[0]} is to be put aside`);
  return undefined;
}

/** Options of the stream's writer, whatever the source. */
function writerOptions(options: CaptureOptions, writer: number) {
  const { packing, maxRecordBytes } = options.pipeline.stream;
  return { packing, limits: { maxRecordBytes }, oversize: oversizePolicy(options, writer) };
}

/** Returns what to do with a change above the record limit; undefined: it stops the task. */
function oversizePolicy({ pipeline, claims, log }: CaptureOptions, writer: number): Oversize | undefined {
  if (pipeline.stream.oversize === "omit") return omitColumns;
  return claims && claimCheck({ store: claims, pipeline: pipeline.name, writer, log });
}
