import { ASSUMPTIONS as A } from "./assumptions.ts";
import { PRICES } from "./bill.ts";

/** The load of a pipeline. */
export interface Load {
  /** On average over the month. */
  readonly changesPerSecond: number;
  /** Of a change event's JSON, on average. */
  readonly bytes: number;
  readonly tables: number;
  /** Of each topic. */
  readonly partitions: number;
  /** Consumers that take every change, and how many of them have an enhanced fan-out. */
  readonly consumers: number;
  readonly fanOut: number;
  readonly handlerMs: number;
  readonly memoryMB: number;
  readonly batchSize: number;
  readonly batchWindowSeconds: number;
  readonly retentionHours: number;
  readonly packing: "batch" | "none";
  /** Peak to average: what a provisioned stream must take. */
  readonly peak: number;
  readonly captureVcpu: number;
  readonly captureMemoryGB: number;
  readonly network: "endpoints" | "nat" | "none";
}

/** Default load. */
export const DEFAULT_LOAD = {
  tables: 5,
  partitions: 64,
  consumers: 1,
  fanOut: 0,
  handlerMs: 1,
  memoryMB: 512,
  batchSize: 1000,
  batchWindowSeconds: 0,
  retentionHours: 168,
  packing: "batch",
  peak: 3,
  captureVcpu: 1,
  captureMemoryGB: 2,
  network: "endpoints",
} as const satisfies Partial<Load>;

/** Seconds of an hour. */
export const SECONDS_PER_HOUR = 3600;
/** Bytes of a GiB. */
export const GIB = 1024 ** 3;

/** Changes that all consumers together give up in a month. */
export function monthlyDeadLetters({ changesPerSecond, consumers }: Load): number {
  const changes = changesPerSecond * PRICES.hoursPerMonth * SECONDS_PER_HOUR;
  return (changes * consumers * A.deadLettersPerMillion) / 1e6;
}

/** The changes as records of the stream. */
export interface StreamLoad {
  readonly recordsPerSecond: number;
  readonly bytesPerRecord: number;
}

/** Changes, each in a record of its own. */
export function unpacked({ changesPerSecond, bytes }: Load): StreamLoad {
  return { recordsPerSecond: changesPerSecond, bytesPerRecord: bytes + A.recordOverheadBytes };
}

/**
 * Changes as the writer packs them: those of one partition that come within a round trip share a record. Changes that come in
 * bursts, or many of one key, are packed better than this.
 */
export function packed(load: Load): StreamLoad {
  if (load.packing === "none") return unpacked(load);
  const { changesPerSecond, bytes, tables, partitions } = load;
  const together = (changesPerSecond * A.packingMs) / 1000;
  const room = Math.max(1, Math.floor((A.recordBytes - A.recordOverheadBytes) / bytes));
  const perRecord = Math.min(room, Math.max(1, together / distinct(together, tables * partitions)));
  return {
    recordsPerSecond: changesPerSecond / perRecord,
    bytesPerRecord: perRecord * bytes + A.recordOverheadBytes,
  };
}

/** Expected number of different `places` that `draws` at random fall on. */
export function distinct(draws: number, places: number): number {
  return places * (1 - (1 - 1 / places) ** draws);
}
