import { createHash, randomUUID } from "node:crypto";
import { formatPosition, type PositionText, START_OF_HISTORY } from "../change/position.ts";
import { registerConsumers } from "../consume/fence/floor.ts";
import { highestEpoch } from "../consume/run/highest-epoch.ts";
import type { PipelineOf } from "../definition/pipeline.ts";
import { routeTables } from "../definition/route.ts";
import type { OutboxSource } from "../definition/source.ts";
import { CaptureLeaseLostError } from "../source/capture-lease-lost.ts";
import { OUTBOX_TABLES, OutboxEnvelope } from "../source/outbox/event/envelope.ts";
import { checkOutbox } from "../source/outbox/preflight.ts";
import { Relay } from "../source/outbox/relay.ts";
import { RelayDatabase } from "../source/outbox/relay-database.ts";
import type { TablesStatus } from "../source/tables-status.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { CaptureState } from "../state/capture-state.ts";
import { DEFAULT_LEASE_MS } from "../state/lease.ts";
import { mergeSettings, settingsOf } from "../state/settings.ts";
import { StateLostError, StoredSettingChangedError } from "../state/state-errors.ts";
import { LaneMetrics } from "../stream/lane-metrics.ts";
import type { StreamWriterOptions } from "../stream/stream-writer.ts";
import { writeStream } from "../stream/stream-writer.ts";
import type { CaptureOptions } from "./capture-options.ts";

/** What a relay task needs beside what every capture task does. */
export interface RelayTaskOptions extends Omit<CaptureOptions, "pipeline"> {
  readonly pipeline: PipelineOf<OutboxSource>;
  /** How the stream is written, but for what is each lane's own. */
  readonly writer: (generation: number) => Pick<StreamWriterOptions, "packing" | "limits" | "oversize">;
}

/**
 * Runs a capture task of an outbox that relays read. Several run side by side: the lease is held only while the task
 * stores what must not change; after that it owns lanes, each under a generation of its own (rules 8 and 28).
 *
 * @throws TributaryError of every kind: `retry` says whether starting again helps.
 */
export async function runRelay(options: RelayTaskOptions, signal: AbortSignal): Promise<void> {
  const { pipeline, connection, dynamodb, stateTable, stream, log, onMetrics } = options;
  const { source } = pipeline;
  const leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
  const database = await checkOutbox({ connection, pipeline, signal });
  const id = randomUUID();
  const tables = new RelayDatabase({ connection, table: source.table, id, signal });
  const place = { dynamodb, table: stateTable, pipeline: pipeline.name, signal };
  const lease = { ...place, leaseMs, log: (line: string) => log.info(line) };
  const epoch = await agree(options, database, tables, lease, signal);
  log.info("relays the outbox", { relay: id, epoch });
  let status: TablesStatus | undefined;
  const metrics = new LaneMetrics((written) => onMetrics?.({ stream: written, source: status }));
  const route = routeTables(pipeline);
  const { cloudEvents, malformed, intervalMs, batchRows, keepHours } = source;
  const relay = new Relay({
    database: tables,
    rows: {
      envelope: new OutboxEnvelope({ pipeline, database, route, cloudEvents, now: Date.now }),
      pipeline,
      database,
      epoch,
      malformed,
    },
    ...{ intervalMs, batchRows, keepHours, leaseMs, signal, log },
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
          onMetrics: metrics.of(lane),
          log,
        },
        until,
      ).finally(() => metrics.end(lane)),
    onStatus: (latest) => {
      status = latest;
      metrics.tell();
    },
  });
  try {
    await relay.run();
  } finally {
    metrics.tell(Number.POSITIVE_INFINITY);
  }
}

/**
 * Stores what must not change, and gives new consumers their floor: both before the first record is written. Gives the
 * epoch.
 */
async function agree(
  { pipeline, dynamodb, stateTable }: RelayTaskOptions,
  database: string,
  tables: RelayDatabase,
  lease: Parameters<typeof CaptureState.take>[0],
  signal: AbortSignal,
): Promise<number> {
  const { name, consumers, source } = pipeline;
  const state = await CaptureState.take(lease);
  try {
    const record = await state.reading.read();
    const begun = await state.newEpoch();
    const epoch = record?.epoch ?? begun?.epoch ?? 1;
    if (!record && !begun) {
      const highest = await highestEpoch(dynamodb, stateTable, name, consumers, signal);
      if (highest > 0) throw new StateLostError(name, highest);
    }
    if (record && record.database !== database) {
      const change = { setting: "database", stored: record.database, now: database };
      throw new StoredSettingChangedError(name, [change]);
    }
    const now = settingsOf(source, routeTables(pipeline), [OUTBOX_TABLES]);
    await state.writeSettings(mergeSettings(name, await state.readSettings(), now));
    await registerConsumers(dynamodb, stateTable, name, consumers, floor(), signal);
    // What the lanes publish under a generation before this one is below the floor of a consumer that is new now.
    const heard = consumersHash(consumers);
    if (record && (record.place as { consumers?: string }).consumers !== heard) await tables.disown();
    const confirmedLsn = BigInt(state.generation) << 32n;
    await state.reading.write({ kind: "outbox", epoch, database, confirmedLsn, place: { consumers: heard } });
    return epoch;

    /** Above every position that was published: lanes number their batches from their generation on. */
    function floor(): PositionText {
      if (!record && !begun) return START_OF_HISTORY;
      const commitLsn = record ? BigInt(state.generation) << 32n : 0n;
      return formatPosition({ epoch, commitLsn, ordinal: 0 });
    }
  } finally {
    await state.release();
  }
}

function consumersHash(consumers: RelayTaskOptions["pipeline"]["consumers"]): string {
  const names = consumers.map(({ name, topics }) => [name, [...topics].sort()]);
  return createHash("sha256").update(JSON.stringify(names.sort())).digest("hex").slice(0, 16);
}
