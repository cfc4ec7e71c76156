import { ASSUMPTIONS as A } from "./assumptions.ts";
import { type Line, line, PRICES } from "./bill.ts";
import { distinct, type Load, monthlyDeadLetters, SECONDS_PER_HOUR, type StreamLoad } from "./load.ts";

const SECONDS = PRICES.hoursPerMonth * SECONDS_PER_HOUR;

/** Invocations of each of so many consumers that are alike. */
export interface Invocations {
  readonly consumers: number;
  readonly perSecond: number;
  /** Changes in one, on average. */
  readonly changes: number;
}

/**
 * Estimates the calls of each consumer: one a poll (or push, or window) and shard, where there is a record; oftener when
 * batches are full.
 */
export function invocations(load: Load, stream: StreamLoad, shards: number): Invocations[] {
  const called = (consumers: number, readsPerSecond: number): Invocations => {
    const pause = Math.max(1 / readsPerSecond, load.batchWindowSeconds);
    const byTime = distinct(stream.recordsPerSecond * pause, shards) / pause;
    const perSecond = Math.max(byTime, stream.recordsPerSecond / load.batchSize);
    return { consumers, perSecond, changes: perSecond === 0 ? 0 : load.changesPerSecond / perSecond };
  };
  return [
    called(load.consumers - load.fanOut, A.pollsPerSecond),
    called(load.fanOut, A.fanOutPushesPerSecond),
  ].filter(({ consumers }) => consumers > 0);
}

/** Invocations of all consumers in a month. */
export function monthlyCalls(called: readonly Invocations[]): number {
  return sum(called, ({ consumers, perSecond }) => consumers * perSecond * SECONDS);
}

/** Returns the monthly cost of all consumers' functions. */
export function lambda(load: Load, called: readonly Invocations[]): Line[] {
  const seconds = sum(
    called,
    ({ consumers, perSecond, changes }) =>
      (consumers * perSecond * SECONDS * (A.invocationMs + changes * load.handlerMs)) / 1000,
  );
  return [
    line("Lambda", "million invocations", monthlyCalls(called) / 1e6, PRICES.lambda.requestsMillion),
    line("Lambda", "GB-seconds", seconds * (load.memoryMB / 1024), PRICES.lambda.gbSecond),
  ];
}

/** Write units of one invocation: each group of partitions that it meets is taken and closed. */
export function fenceUnits(load: Load, changes: number, shards: number): number {
  // A shard holds partitions that follow one another.
  const ofShard = Math.max(1, load.partitions / shards);
  const groups = Math.min(
    Math.ceil(load.partitions / A.fenceGroup),
    Math.max(1, 1 + (ofShard - 1) / A.fenceGroup),
  );
  const topics = distinct(changes, load.tables);
  const taken = distinct(changes / Math.max(1, topics), ofShard) / groups;
  const inGroup = Math.min(A.fenceGroup, load.partitions);
  const itemBytes = A.fenceKeyBytes + inGroup * A.fenceMarkBytes + taken * A.fenceTokenBytes;
  return topics * groups * 2 * Math.ceil(itemBytes / 1024);
}

/** Returns the monthly cost of the state table: the fence of all consumers, the capture task's record, and dead letters. */
export function stateTable(load: Load, called: readonly Invocations[], shards: number): Line[] {
  const fence = sum(
    called,
    ({ consumers, perSecond, changes }) => consumers * perSecond * fenceUnits(load, changes, shards),
  );
  const capture = A.captureWritesPerSecond * A.captureWriteUnits;
  const letters = monthlyDeadLetters(load);
  const letterWrites = letters * (Math.ceil(load.bytes / 1024) + A.deadLetterWrites);
  const letterReads = letters * Math.ceil(load.bytes / 4096);
  const { writeUnitsMillion, readUnitsMillion } = PRICES.dynamodb;
  return [
    line("DynamoDB", "million write units of the fence", (fence * SECONDS) / 1e6, writeUnitsMillion),
    line("DynamoDB", "million write units of capture", (capture * SECONDS) / 1e6, writeUnitsMillion),
    line("DynamoDB", "million write units of dead letters", letterWrites / 1e6, writeUnitsMillion),
    line("DynamoDB", "million read units of redrive", letterReads / 1e6, readUnitsMillion),
  ];
}

function sum(called: readonly Invocations[], of: (one: Invocations) => number): number {
  return called.reduce((total, one) => total + of(one), 0);
}
