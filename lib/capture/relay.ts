import { createHash } from "node:crypto";
import { registerConsumers } from "../consume/fence/start-position.ts";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import type { AnySourceStatus, LaneReading, LaneSource, SourceKind } from "../source/source-kind.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { CaptureState } from "../state/capture-state.ts";
import { DEFAULT_LEASE_MS } from "../state/lease.ts";
import { LaneMetrics } from "../stream/lane-metrics.ts";
import type { StreamWriterOptions } from "../stream/stream-writer.ts";
import { writeStream } from "../stream/stream-writer.ts";
import { checkLanesDatabase, lanesStartPosition, settingsAtStart } from "./agreement.ts";
import type { CaptureOptions } from "./capture-options.ts";

/** Options of a task that reads lanes, beside those of every capture task. */
export interface LaneTaskOptions extends CaptureOptions {
  readonly kind: SourceKind;
  readonly reading: LaneReading;
  /** Options of the stream's writer that all lanes share. */
  readonly writer: (generation: number) => Pick<StreamWriterOptions, "packing" | "limits" | "oversize">;
}

/**
 * Runs a capture task of a source whose lanes several tasks share. They run side by side: the lease is held only while the task
 * stores what must not change; after that it owns lanes, each under a generation of its own (rules 8 and 28).
 *
 * @throws TributaryError of every kind: `retry` says whether starting again helps.
 */
export async function runLanes(options: LaneTaskOptions, signal: AbortSignal): Promise<void> {
  const { pipeline, connection, dynamodb, stateTable, stream, log, onMetrics } = options;
  const leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
  const lanes = await options.reading.open({ connection, pipeline, leaseMs, signal, log });
  const place = { dynamodb, table: stateTable, pipeline: pipeline.name, signal };
  const lease = { ...place, leaseMs, log: log.info };
  const epoch = await agree(options, lanes, lease, signal);
  let status: AnySourceStatus | undefined;
  const metrics = new LaneMetrics((written) => onMetrics?.({ stream: written, source: status }));
  try {
    await lanes.run({
      epoch,
      nextGeneration: () => CaptureState.nextGeneration(lease),
      check: async () => {
        const { reading } = await readCaptureRecord(place);
        if (reading?.epoch !== epoch) throw new CaptureLeaseLostError(pipeline.name, epoch);
      },
      write: async (lane, until) =>
        writeStream(
          lane,
          await stream.writer(),
          {
            writer: lane.generation,
            ...options.writer(lane.generation),
            superseded: lane.lost,
            onMetrics: metrics.callbackFor(lane),
            log,
          },
          until,
        ).finally(() => metrics.end(lane)),
      onStatus: (latest) => {
        status = latest;
        metrics.reportIfDue();
      },
    });
  } finally {
    metrics.report();
  }
}

/**
 * Stores what must not change, and gives new consumers their start position: both before the first record is written. Gives the
 * epoch.
 */
async function agree(
  { pipeline, kind, dynamodb, stateTable }: LaneTaskOptions,
  lanes: LaneSource,
  lease: Parameters<typeof CaptureState.take>[0],
  signal: AbortSignal,
): Promise<number> {
  const { name, consumers } = pipeline;
  const { database } = lanes;
  const state = await CaptureState.take(lease);
  try {
    const record = await state.reading.read();
    const begun = await state.newEpoch();
    const settings = await state.readSettings();
    const epoch = record?.epoch ?? begun?.epoch ?? 1;
    const startPosition = await lanesStartPosition(
      { pipeline, dynamodb, stateTable },
      { reading: record, newEpoch: begun },
      state.generation,
      signal,
    );
    checkLanesDatabase(name, record, database);
    await state.writeSettings(settingsAtStart(pipeline, { settings }, [{ settings }], []));
    await registerConsumers(dynamodb, stateTable, name, consumers, startPosition, signal);
    // What the lanes publish under a generation before this one is below the start position of a consumer that is new now.
    const heard = consumersHash(consumers);
    if (record && (record.place as { consumers?: string }).consumers !== heard) await lanes.disown();
    const confirmedLsn = BigInt(state.generation) << 32n;
    await state.reading.write({
      kind: kind.kind,
      epoch,
      database,
      confirmedLsn,
      place: { consumers: heard },
    });
    return epoch;
  } finally {
    await state.release();
  }
}

function consumersHash(consumers: CaptureOptions["pipeline"]["consumers"]): string {
  const names = consumers.map(({ name, topics }) => [name, [...topics].sort()]);
  return createHash("sha256").update(JSON.stringify(names.sort())).digest("hex").slice(0, 16);
}
