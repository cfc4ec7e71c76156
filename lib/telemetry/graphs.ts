import type { CAPTURE_METRIC, CONSUMER_METRIC, REDRIVE_METRIC } from "./metrics.ts";

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

/** A line in a graph of a capture task: one of its metrics, what RDS says of slots, or the task's load. */
export type CaptureLine = keyof typeof CAPTURE_METRIC | "oldestSlotLag" | "cpu" | "memory";

/** A line in a graph of a consumer: one of its metrics, a percentile, or a metric of its redrive or its function. */
export type ConsumerLine =
  | keyof typeof CONSUMER_METRIC
  | keyof typeof REDRIVE_METRIC
  | "appliedASecond"
  | "p50"
  | "p99"
  | "iteratorAge"
  | "errors";

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
        right: { reconnects: "reconnects" },
        rightUnit: "count",
      },
      {
        title: "WAL held for the slot",
        left: { walHeldBytes: "held", oldestSlotLag: "oldest slot (RDS)" },
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
    title: "Waiting for Kinesis; the task",
    left: { unacknowledgedMs: "waits, ms" },
    right: { cpu: "CPU %", memory: "memory %" },
    unit: "ms",
    rightUnit: "%",
  },
];

/** Of each consumer. */
export const CONSUMER_GRAPHS: readonly Graph<ConsumerLine>[] = [
  {
    title: "Behind the stream",
    left: { iteratorAge: "iterator age" },
    unit: "ms",
  },
  {
    title: "Applied a second; duplicates, redriven",
    left: { appliedASecond: "applied a second" },
    right: { duplicates: "duplicates", redriven: "redriven" },
    unit: "a second",
    rightUnit: "count",
  },
  {
    title: "Commit to effect",
    left: { p50: "p50", p99: "p99" },
    unit: "ms",
  },
  {
    title: "What fails",
    left: {
      retried: "retried",
      parked: "parked",
      deadLettered: "deadLettered",
      gaps: "gaps",
      held: "held",
      heldPartitions: "heldPartitions",
    },
    right: { errors: "errors" },
    unit: "count",
  },
];
