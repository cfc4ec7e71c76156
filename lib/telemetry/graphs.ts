import type {
  CAPTURE_METRIC,
  CONSUMER_METRIC,
  PAUSE_METRIC,
  REDRIVE_METRIC,
  STANDING_METRIC,
} from "./metrics.ts";

/*
 * The graphs of our metrics on the dashboard (cdk/constructs/pipeline-dashboard.ts): a row answers a question, a graph a part of it.
 */

/** One part of a question, and the metrics that answer it, each with its label. */
export interface Graph<M extends string> {
  readonly title: string;
  readonly left: Lines<M>;
  readonly right?: Lines<M>;
  readonly unit?: string;
  readonly rightUnit?: string;
}

/** Labels of metrics, in the order in which they are drawn. */
export type Lines<M extends string> = Readonly<Partial<Record<M, string>>>;

/** A line in a graph of a capture task: one of its metrics, what RDS says of slots and disk, or the task's load. */
export type CaptureLine = keyof typeof CAPTURE_METRIC | "oldestSlotLag" | "freeStorage" | "cpu" | "memory";

/** A line in a graph of a consumer: one of its metrics, a percentile, or a metric of its redrive, its function or what capture sees of it. */
export type ConsumerLine =
  | keyof typeof CONSUMER_METRIC
  | keyof typeof REDRIVE_METRIC
  | keyof typeof STANDING_METRIC
  | keyof typeof PAUSE_METRIC
  | "appliedASecond"
  | "p50"
  | "p99"
  | "iteratorAge"
  | "errors"
  | "functionThrottles";

/** The first row, by what the capture task reads. */
export const SOURCE_ROW: Readonly<
  Record<"slots" | "tables", { readonly heading: string; readonly graphs: readonly Graph<CaptureLine>[] }>
> = {
  slots: {
    heading: "1. PostgreSQL: is its log read, and is there room for it?",
    graphs: [
      {
        title: "Lag behind PostgreSQL",
        left: { replicationLagBytes: "bytes" },
        right: { replicationLagMs: "milliseconds" },
        unit: "bytes",
        rightUnit: "ms",
      },
      {
        title: "Slot read by us (1) or not (0)",
        left: { slotActive: "active" },
        right: { reconnects: "reconnects", leftoverSlots: "slots left on other servers" },
        rightUnit: "count",
      },
      {
        title: "WAL held for the slot",
        left: {
          walHeldBytes: "held",
          oldestSlotLag: "oldest slot (RDS)",
          freeStorage: "free storage (RDS)",
        },
        right: { walBudgetLeft: "budget left %" },
        unit: "bytes",
        rightUnit: "%",
      },
      {
        title: "Topics held, and what is stored of them; changes put aside; tables with missing changes",
        left: { heldTopics: "topics", putAside: "put aside", unhealedTables: "tables" },
        right: { heldBytes: "bytes" },
        unit: "count",
        rightUnit: "bytes",
      },
      {
        title: "Time until the slot is lost; oldest transaction",
        left: { walLossSeconds: "until lost" },
        right: { oldestTransactionSeconds: "oldest transaction" },
        unit: "s",
        rightUnit: "s",
      },
    ],
  },
  tables: {
    heading: "1. PostgreSQL: are its tables read?",
    graphs: [
      {
        title: "Age of what waits",
        left: { replicationLagMs: "milliseconds" },
        unit: "ms",
      },
      {
        title: "Connected (1) or not (0)",
        left: { sourceConnected: "connected" },
        right: { reconnects: "reconnects" },
        rightUnit: "count",
      },
      {
        title: "Oldest transaction",
        left: { oldestTransactionSeconds: "oldest transaction" },
        unit: "s",
      },
    ],
  },
};

/** Of each capture task, beside what is drawn by table. */
export const CAPTURE_GRAPHS: readonly Graph<CaptureLine>[] = [
  {
    title: "Retries, throttles, oversize",
    left: { retries: "retries", throttles: "throttles", oversize: "oversize" },
    unit: "count",
  },
  {
    title: "Acknowledged by Kinesis",
    left: { bytes: "bytes" },
    right: { requests: "requests" },
    unit: "bytes",
    rightUnit: "count",
  },
  {
    title: "Waiting for Kinesis",
    left: { unacknowledgedMs: "oldest, ms" },
    right: { bufferedBytes: "bytes" },
    unit: "ms",
    rightUnit: "bytes",
  },
  {
    title: "The task",
    left: { cpu: "CPU %", memory: "memory %" },
    unit: "%",
  },
];

/** Of each consumer. */
export const CONSUMER_GRAPHS: readonly Graph<ConsumerLine>[] = [
  {
    title: "Behind the stream",
    left: { iteratorAge: "iterator age", lagMs: "oldest change that it lacks" },
    right: { retentionUsed: "paused: % of the retention" },
    unit: "ms",
    rightUnit: "%",
  },
  {
    title: "Commit to effect",
    left: { p50: "p50", p99: "p99" },
    unit: "ms",
  },
  {
    title: "Applied a second; passed over",
    left: { appliedASecond: "applied a second" },
    right: {
      duplicates: "duplicates",
      unhandled: "unhandled",
      passed: "not for it",
      superseded: "superseded",
      staleWriter: "records of an old writer",
    },
    unit: "a second",
    rightUnit: "count",
  },
  {
    title: "What fails",
    left: {
      retried: "retried",
      parked: "parked",
      parkedBehind: "parked behind",
      deadLettered: "dead letters",
      gaps: "gaps",
      held: "tries of held changes",
      failedPartitions: "partitions that come again",
    },
    right: { errors: "errors", functionThrottles: "throttles" },
    unit: "count",
    rightUnit: "count",
  },
  {
    title: "What waits for somebody",
    left: {
      openKeys: "keys with open dead letters",
      openHolds: "open holds",
      heldPartitions: "partitions held",
      holdFull: "holds that are full",
      parkingFull: "parking is full",
    },
    right: { heldBytes: "bytes held" },
    unit: "count",
    rightUnit: "bytes",
  },
  {
    title: "Redrive",
    left: { redriven: "redriven", discarded: "discarded", failed: "keys that failed again" },
    unit: "count",
  },
];
