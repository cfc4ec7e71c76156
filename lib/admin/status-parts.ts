import type { ConsumerLag } from "../capture/consumer-lag.ts";
import type { PositionText } from "../change/position.ts";
import type { ConsumerDefinition, Pipeline } from "../definition/definition.ts";
import { sourceKind } from "../source/index.ts";
import type { StoredLease } from "../state/capture-liveness.ts";
import type { CaptureRecord } from "../state/capture-record.ts";
import type { CaptureFigures, CaptureReport, NewestChange, StoredReport } from "../state/capture-report.ts";
import type { Pause } from "../state/pauses.ts";
import type { CaptureStatus } from "./capture.ts";
import { standingOf } from "./capture-standing.ts";
import { needsAttention, type PartitionStatus } from "./consumer-status.ts";
import type { CaptureTaskStatus, ConsumerSummary, Pausing } from "./pipeline-status.ts";
import type { RetentionLeft } from "./retention-left.ts";

/** Returns a stored pause as the status shows it. */
export function pausingOf(pause: Pause | undefined): Pausing | undefined {
  return pause && { by: pause.by, since: iso(pause.since), reason: pause.reason };
}

/** A task that is alive has reported within so many of the times that its reports are apart. */
const OVERDUE = 3;

/** What was read of the capture task of one slot; undefined where it could not be. */
interface CaptureFacts {
  /** Of all slots. */
  readonly reports: readonly StoredReport[] | undefined;
  readonly record: CaptureRecord | undefined;
  /** Undefined if the leases could not be read. */
  readonly leases: readonly unknown[] | undefined;
  readonly lease: StoredLease | undefined;
  readonly pause: Pause | undefined;
  readonly isAlive: (report: CaptureReport) => boolean;
  /** Milliseconds since 1970 UTC. */
  readonly wall: number;
}

/** Returns the status of the capture task of one slot. */
export function captureOf(
  slot: number,
  { source }: Pipeline,
  { reports, record, leases, lease, pause, isAlive, wall }: CaptureFacts,
): CaptureTaskStatus {
  const own = reports?.filter((each) => each.slot === slot);
  const standing = standingOf(own ?? [], lease, isAlive, wall);
  const { report, failure, newcomer } = standing;
  const figures = report?.figures;
  // Without reports or lease nobody knows whether there is none.
  const isKnown = reports !== undefined && (report !== undefined || leases !== undefined);
  return {
    slot,
    state: isKnown ? standing.state : "UNKNOWN",
    since: report && iso(report.since),
    reportedAt: report && iso(report.at),
    reportAgeMs: report && Math.max(0, wall - report.at),
    waiting: standing.state === "WAITING" ? (report?.waiting ?? startsAgain(failure?.code)) : undefined,
    paused: pausingOf(pause),
    failure: failure && { ...failure, at: iso(failure.at) },
    tasks: standing.tasks,
    newcomer: newcomer && {
      state: newcomer.state,
      code: newcomer.failure?.code,
      message: newcomer.failure?.message ?? newcomer.report?.waiting?.message,
      process: newcomer.report?.process,
    },
    lease: lease && {
      owner: lease.owner,
      generation: lease.generation,
      beatAgeMs: lease.beatAt === undefined ? undefined : Math.max(0, wall - lease.beatAt),
    },
    source: record ? sourceKind(source).operate.status(source, record) : {},
    figures,
    walBudgetLeftPercent: figures && walBudgetLeft(figures),
  };
}

function startsAgain(code: string | undefined) {
  return { for: "restart", message: `to be started again${code === undefined ? "" : ` after ${code}`}` };
}

/** As the metric of the capture task counts it. https://www.postgresql.org/docs/current/view-pg-replication-slots.html */
function walBudgetLeft({ walHeldBytes, safeWalBytes }: CaptureFigures): number | undefined {
  if (walHeldBytes === undefined) return undefined;
  if (safeWalBytes === undefined) return 100;
  if (safeWalBytes <= 0) return 0;
  return (100 * safeWalBytes) / (safeWalBytes + walHeldBytes);
}

/**
 * Returns the newest changes of each topic, of all tasks, with their times by the reader's clock: that of a task which reports is off by
 * as much as its report is older than it can be, or younger than now.
 */
export function newestOf(
  reports: readonly StoredReport[],
  isAlive: (report: CaptureReport) => boolean = () => false,
  wall = Date.now(),
): Readonly<Record<string, readonly NewestChange[]>> {
  const newest: Record<string, readonly NewestChange[]> = {};
  for (const { report } of reports) {
    if (!report) continue;
    const age = wall - report.at;
    const oldest = isAlive(report) ? OVERDUE * report.everyMs : Number.POSITIVE_INFINITY;
    const skew = age - Math.min(Math.max(age, 0), oldest);
    for (const [topic, changes] of Object.entries(report.newest ?? {})) {
      const [known] = newest[topic] ?? [];
      const [latest] = changes;
      if (latest && (!known || latest.at + skew > known.at))
        newest[topic] = changes.map((change) => ({ ...change, at: change.at + skew }));
    }
  }
  return newest;
}

/** Returns the status of a consumer over all its partitions. */
export function summaryOf(
  { name, topics }: ConsumerDefinition,
  partitions: readonly PartitionStatus[] | undefined,
  {
    lag = { state: "unknown", reason: "the state table could not be read" },
    paused,
    retention,
    messages,
  }: {
    readonly lag: ConsumerLag | undefined;
    readonly paused: Pausing | undefined;
    readonly retention: RetentionLeft | undefined;
    readonly messages: number | undefined;
  },
): ConsumerSummary {
  const all = partitions ?? [];
  const sum = (count: (status: PartitionStatus) => number) =>
    all.reduce((total, each) => total + count(each), 0);
  const checkpoints = all.flatMap(({ checkpoint }): PositionText[] => (checkpoint ? [checkpoint] : []));
  return {
    ...{ name, topics, lag, paused, retention },
    partitions: all.length,
    checkpoint: checkpoints.toSorted().at(-1),
    held: sum(({ hold }) => (hold ? 1 : 0)),
    gaps: sum(({ gap }) => (gap ? 1 : 0)),
    unhealed: sum(({ unhealed }) => unhealed.length),
    deadLetterKeys: sum(({ deadLetters }) => deadLetters),
    parked: sum(({ parked }) => parked),
    deadLetterMessages: messages,
    attention: all.filter(needsAttention),
  };
}

/** The state of the tasks is told apart. */
export function withoutTasks({ tasks: _, ...capture }: CaptureStatus): Omit<CaptureStatus, "tasks"> {
  return capture;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
