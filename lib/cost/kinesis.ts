import { ASSUMPTIONS as A } from "./assumptions.ts";
import { type Line, line, PRICES } from "./bill.ts";
import { GIB, type Load, SECONDS_PER_HOUR, type StreamLoad } from "./load.ts";

const HOURS = PRICES.hoursPerMonth;
const FREE_HOURS = 24;
const LONG_HOURS = 168;
const PUT_UNIT_BYTES = 25 * 1024;
const MIB = 1024 ** 2;

/** Returns the monthly cost of an on-demand stream: records count in whole KB; every consumer reads everything, one with fan-out at a price of its own. */
export function onDemandStream(load: Load, stream: StreamLoad): Line[] {
  const prices = PRICES.kinesisOnDemand;
  const billed = Math.ceil(stream.bytesPerRecord / 1024) * 1024;
  const gbPerHour = (stream.recordsPerSecond * billed * SECONDS_PER_HOUR) / GIB;
  const part = "Kinesis";
  return [
    line(part, "stream hours", HOURS, prices.streamHour),
    line(part, "GB ingested", gbPerHour * HOURS, prices.ingestedGb),
    line(part, "GB retrieved", gbPerHour * HOURS * (load.consumers - load.fanOut), prices.retrievedGb),
    line(part, "GB by fan-out", gbPerHour * HOURS * load.fanOut, prices.fanOutGb),
    ...retained(part, load, gbPerHour, prices),
  ].filter(({ quantity }) => quantity > 0);
}

/**
 * Returns the monthly cost under On-demand Advantage, a choice of the whole account: no stream hours and lower prices, and a
 * minimum, which this stream pays alone where it is the account's only one.
 */
export function advantageStream(load: Load, stream: StreamLoad): Line[] {
  const prices = PRICES.kinesisOnDemandAdvantage;
  const billed = Math.ceil(stream.bytesPerRecord / 1024) * 1024;
  const gb = (stream.recordsPerSecond * billed * SECONDS_PER_HOUR * HOURS) / GIB;
  const least = (A.advantageMiBps * SECONDS_PER_HOUR * HOURS) / 1024;
  const fanned = gb * load.fanOut;
  const part = "Kinesis";
  return [
    line(part, `GB ingested, ${A.advantageMiBps} MiB/s at least`, Math.max(gb, least), prices.ingestedGb),
    line(
      part,
      `GB retrieved, ${A.advantageMiBps} MiB/s at least`,
      Math.max(gb * (load.consumers - load.fanOut), least - fanned),
      prices.retrievedGb,
    ),
    line(part, "GB by fan-out", fanned, prices.fanOutGb),
    ...retained(part, load, gb / HOURS, prices),
  ].filter(({ quantity }) => quantity > 0);
}

/** Kept beyond a day: what stands in the stream at any time. */
function retained(
  part: string,
  { retentionHours }: Load,
  gbPerHour: number,
  prices: { readonly retainedGbMonth: number; readonly longRetainedGbMonth: number },
): Line[] {
  const extended = Math.max(0, Math.min(retentionHours, LONG_HOURS) - FREE_HOURS);
  const long = Math.max(0, retentionHours - LONG_HOURS);
  return [
    line(part, "GB retained to 7 days", gbPerHour * extended, prices.retainedGbMonth),
    line(part, "GB retained beyond", gbPerHour * long, prices.longRetainedGbMonth),
  ];
}

/** Shards that take the peak in, and let those consumers read it that share them. */
export function shardsFor(load: Load, { recordsPerSecond, bytesPerRecord }: StreamLoad): number {
  const MBps = (recordsPerSecond * bytesPerRecord * load.peak) / MIB;
  return Math.max(
    1,
    Math.ceil(MBps / A.shardInMBps),
    Math.ceil((recordsPerSecond * load.peak) / A.shardInRecords),
    Math.ceil((MBps * (load.consumers - load.fanOut)) / A.shardOutMBps),
  );
}

/** Returns the monthly cost of a provisioned stream with just enough shards. */
export function provisionedStream(load: Load, stream: StreamLoad): Line[] {
  const prices = PRICES.kinesisProvisioned;
  const shards = shardsFor(load, stream);
  const units = stream.recordsPerSecond * Math.ceil(stream.bytesPerRecord / PUT_UNIT_BYTES);
  const gbPerHour = (stream.recordsPerSecond * stream.bytesPerRecord * SECONDS_PER_HOUR) / GIB;
  const part = "Kinesis";
  const long = Math.max(0, load.retentionHours - LONG_HOURS);
  return [
    line(part, `hours of ${shards} shards`, HOURS * shards, prices.shardHour),
    line(part, "million PUT units", (units * SECONDS_PER_HOUR * HOURS) / 1e6, prices.putUnitsMillion),
    line(
      part,
      "shard hours of extended retention",
      load.retentionHours > FREE_HOURS ? HOURS * shards : 0,
      prices.retainedShardHour,
    ),
    line(part, "GB retained beyond 7 days", gbPerHour * long, prices.longRetainedGbMonth),
    line(part, "hours of fan-out, by shard", HOURS * shards * load.fanOut, prices.fanOutShardHour),
    line(part, "GB by fan-out", gbPerHour * HOURS * load.fanOut, prices.fanOutGb),
  ].filter(({ quantity }) => quantity > 0);
}
