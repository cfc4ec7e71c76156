import { ASSUMPTIONS as A } from "./assumptions.ts";
import { type Line, line, PRICES } from "./bill.ts";
import { distinct, type Load, SECONDS_PER_HOUR, type StreamLoad } from "./load.ts";

const SECONDS = PRICES.hoursPerMonth * SECONDS_PER_HOUR;

/** Invocations of one consumer. */
export interface Invocations {
  readonly perSecond: number;
  /** Changes in one, on average. */
  readonly changes: number;
}

/** How often Lambda calls one consumer: once a poll or window and shard, where there is a record; oftener when batches are full. */
export function invocations(load: Load, stream: StreamLoad, shards: number): Invocations {
  const pause = Math.max(1 / A.pollsPerSecond, load.batchWindowSeconds);
  const byTime = distinct(stream.recordsPerSecond * pause, shards) / pause;
  const perSecond = Math.max(byTime, stream.recordsPerSecond / load.batchSize);
  return { perSecond, changes: perSecond === 0 ? 0 : load.changesPerSecond / perSecond };
}

/** What all consumers' functions cost in a month. */
export function lambda(load: Load, { perSecond, changes }: Invocations): Line[] {
  const seconds = (A.invocationMs + changes * load.handlerMs) / 1000;
  const calls = perSecond * SECONDS * load.consumers;
  return [
    line("Lambda", "million invocations", calls / 1e6, PRICES.lambda.requestsMillion),
    line("Lambda", "GB-seconds", calls * seconds * (load.memoryMB / 1024), PRICES.lambda.gbSecond),
  ];
}

/** Write units of one invocation: each group of partitions that it meets is taken and closed. */
export function fenceUnits(load: Load, { changes }: Invocations, shards: number): number {
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

/** What the state table costs in a month: the fence of all consumers, and the capture task's record. */
export function stateTable(load: Load, called: Invocations, shards: number): Line[] {
  const fence = called.perSecond * fenceUnits(load, called, shards) * load.consumers;
  const capture = A.captureWritesPerSecond * A.captureWriteUnits;
  const price = PRICES.dynamodb.writeUnitsMillion;
  return [
    line("DynamoDB", "million write units of the fence", (fence * SECONDS) / 1e6, price),
    line("DynamoDB", "million write units of capture", (capture * SECONDS) / 1e6, price),
  ];
}
