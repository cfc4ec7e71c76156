import { ASSUMPTIONS as A } from "./assumptions.ts";
import { type Bill, bill, type Line, line, PRICES } from "./bill.ts";
import { type Invocations, invocations, lambda, monthlyCalls, stateTable } from "./consumers.ts";
import { advantageStream, onDemandStream, provisionedStream, shardsFor } from "./kinesis.ts";
import {
  GIB,
  type Load,
  monthlyDeadLetters,
  packed,
  SECONDS_PER_HOUR,
  type StreamLoad,
  unpacked,
} from "./load.ts";

const HOURS = PRICES.hoursPerMonth;
const SECONDS = HOURS * SECONDS_PER_HOUR;

/** The pipeline on an on-demand stream in both of its ways to be billed and on a provisioned one, and what else does the same work. */
export interface Estimate {
  readonly load: Load;
  readonly stream: StreamLoad;
  readonly shards: { readonly onDemand: number; readonly provisioned: number };
  readonly bills: readonly Bill[];
}

/** Returns the monthly cost of a load. */
export function estimate(load: Load): Estimate {
  const stream = packed(load);
  const shards = {
    // It grows with its load, and has twice the shards of its peak.
    onDemand: Math.max(A.onDemandShards, 2 * shardsFor(load, stream)),
    provisioned: shardsFor(load, stream),
  };
  return {
    load,
    stream,
    shards,
    bills: [
      bill("Tributary, on-demand stream", [
        ...onDemandStream(load, stream),
        ...around(load, stream, shards.onDemand),
      ]),
      bill("Tributary, On-demand Advantage", [
        ...advantageStream(load, stream),
        ...around(load, stream, shards.onDemand),
      ]),
      bill("Tributary, provisioned stream", [
        ...provisionedStream(load, stream),
        ...around(load, stream, shards.provisioned),
      ]),
      dmsToKinesis(load),
      mskConnect(load),
    ],
  };
}

function around(load: Load, stream: StreamLoad, shards: number): Line[] {
  const called = invocations(load, stream, shards);
  return [
    line("Fargate", "vCPU hours", HOURS * load.captureVcpu, PRICES.fargate.vcpuHour),
    line("Fargate", "GB hours", HOURS * load.captureMemoryGB, PRICES.fargate.gbHour),
    ...lambda(load, called),
    ...stateTable(load, called, shards),
    ...deadLetters(load),
    ...claims(load),
    ...cloudwatch(load, called),
    ...network(load, stream.recordsPerSecond * stream.bytesPerRecord),
    fromDatabase(load),
    ...keysAndSecrets(load),
  ];
}

/** Each is sent, received and deleted. */
function deadLetters(load: Load): Line[] {
  return [line("SQS", "million requests", (monthlyDeadLetters(load) * 3) / 1e6, PRICES.sqs.requestsMillion)];
}

/** The pipeline's own key, what the roles of capture task and consumers ask of it, and the secret of the database. */
function keysAndSecrets({ consumers }: Load): Line[] {
  const requests = (1 + consumers) * A.encryptedParts * A.keyRequestsPerHour * HOURS;
  const { keyMonth, requestsTenThousand, secretMonth } = PRICES.keysAndSecrets;
  return [
    line("KMS and secrets", "keys", 1, keyMonth),
    line("KMS and secrets", "ten thousand requests", requests / 1e4, requestsTenThousand),
    line("KMS and secrets", "secrets", 1, secretMonth),
  ];
}

/** Changes too large for the stream: written once, read by each consumer, kept as long as anything may point to them. */
function claims({ changesPerSecond, consumers, retentionHours }: Load): Line[] {
  const objects = (changesPerSecond * SECONDS * A.oversizePerMillion) / 1e6;
  const keptGb = (objects * A.oversizeBytes * ((retentionHours + A.oversizeDays * 24) / HOURS)) / GIB;
  return [
    line("S3", "thousand objects written", objects / 1e3, PRICES.s3.putThousand),
    line("S3", "thousand objects read", (objects * consumers) / 1e3, PRICES.s3.getThousand),
    line("S3", "GB stored", keptGb, PRICES.s3.gbMonth),
  ];
}

function cloudwatch({ tables, consumers }: Load, called: readonly Invocations[]): Line[] {
  const names = Math.min(tables, A.namedTables + 1);
  const metrics = A.captureMetrics + names * A.tableMetrics + consumers * A.consumerMetrics;
  const captureBytes =
    ((A.captureLineBytes + names * A.tableLineBytes) * A.metricsLinesPerMinute * SECONDS) / 60;
  const callBytes = monthlyCalls(called) * (A.invocationLineBytes + A.lambdaLineBytes);
  const logGb = (captureBytes + callBytes) / GIB;
  const stored = ((logGb * A.logRetentionDays * 24) / HOURS) * A.logCompression;
  return [
    line("CloudWatch", "metrics", metrics, PRICES.cloudwatch.metricMonth),
    line(
      "CloudWatch",
      "metrics of alarms",
      A.captureAlarmMetrics + consumers * A.consumerAlarmMetrics,
      PRICES.cloudwatch.alarmMonth,
    ),
    line(
      "CloudWatch",
      "composite alarms",
      A.captureCompositeAlarms + consumers * A.consumerCompositeAlarms,
      PRICES.cloudwatch.compositeAlarmMonth,
    ),
    line("CloudWatch", "dashboards", 1, PRICES.cloudwatch.dashboardMonth),
    line("CloudWatch", "GB of logs", logGb, PRICES.cloudwatch.logsIngestedGb),
    line("CloudWatch", "GB of logs stored", stored, PRICES.cloudwatch.logsStoredGbMonth),
  ];
}

/** The capture task's way to AWS; functions outside of the VPC need none, and gateway endpoints cost nothing. */
function network({ network: way }: Load, bytesPerSecond: number): Line[] {
  const gb = (bytesPerSecond * SECONDS) / GIB;
  const { endpointHour, endpointGb, natHour, natGb } = PRICES.network;
  if (way === "none") return [];
  if (way === "nat") {
    return [
      line("Network", "NAT gateway hours", HOURS, natHour),
      line("Network", "GB through NAT", gb, natGb),
    ];
  }
  return [
    line("Network", "endpoint hours", HOURS * A.endpoints * A.zones, endpointHour),
    line("Network", "GB through endpoints", gb, endpointGb),
  ];
}

/** Changes come from the database's zone, which is the task's in one of so many cases: the rest is billed on both sides. */
function fromDatabase({ changesPerSecond, bytes }: Load): Line {
  const gb = (changesPerSecond * bytes * SECONDS) / GIB;
  return line("Network", "GB from the database's zone", gb * (1 - 1 / A.zones), PRICES.network.crossZoneGb);
}

/** AWS DMS with a Kinesis target: a record for each change; the same functions, without a fence. */
function dmsToKinesis(load: Load): Bill {
  const stream = unpacked(load);
  const shards = Math.max(A.onDemandShards, 2 * shardsFor(load, stream));
  const { instance, instanceHour, storageGbMonth } = PRICES.dms;
  return bill("DMS to Kinesis, on-demand stream", [
    line("DMS", `hours of one ${instance}`, HOURS, instanceHour),
    line("DMS", "GB of storage", A.dmsStorageGb, storageGbMonth),
    ...onDemandStream(load, stream),
    ...lambda(load, invocations(load, stream, shards)),
    ...network(load, stream.recordsPerSecond * stream.bytesPerRecord),
    fromDatabase(load),
  ]);
}

/** Amazon MSK with a Debezium connector on MSK Connect; the same functions, called from Kafka. */
function mskConnect(load: Load): Bill {
  const stream = unpacked(load);
  const gbPerHour = (stream.recordsPerSecond * stream.bytesPerRecord * SECONDS_PER_HOUR) / GIB;
  const { broker, brokerHour, storageGbMonth, connectUnitHour } = PRICES.msk;
  const units = Math.max(1, Math.ceil((load.changesPerSecond * load.peak) / A.changesPerConnectUnit));
  // With brokers in three zones two thirds of the traffic goes to another one; copies between brokers are free.
  const crossZoneGb = (gbPerHour * HOURS * (1 + load.consumers) * 2) / 3;
  return bill("MSK with Connect (Debezium)", [
    line("MSK", `hours of ${A.mskBrokers} ${broker}`, HOURS * A.mskBrokers, brokerHour),
    line("MSK", "GB of storage", gbPerHour * load.retentionHours * A.mskCopies, storageGbMonth),
    line("MSK", `hours of ${units} Connect units`, HOURS * units, connectUnitHour),
    line("Network", "GB between zones", crossZoneGb, PRICES.network.crossZoneGb),
    fromDatabase(load),
    ...lambda(load, invocations({ ...load, fanOut: 0 }, stream, A.onDemandShards)),
  ]);
}
