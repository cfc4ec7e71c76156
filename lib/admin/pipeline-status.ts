import type { ConsumerLag } from "../capture/consumer-lag.ts";
import type { PositionText } from "../change/position.ts";
import type { CaptureFigures, CaptureReport } from "../state/capture-report.ts";
import type { CaptureStatus } from "./capture.ts";
import type { Standing, StandingState } from "./capture-standing.ts";
import type { PartitionStatus } from "./consumer-status.ts";
import type { RetentionLeft } from "./retention-left.ts";
import type { CapturedTable } from "./status-tables.ts";

/** Status of a pipeline at one moment: plain data that goes to JSON as it is. Moments are in ISO 8601, lengths of time in milliseconds. */
export interface PipelineStatus {
  readonly pipeline: string;
  /** The place that was looked at, for people. */
  readonly place: string;
  readonly at: string;
  /** True if every capture task runs, nothing needs a person, and everything needed to say so could be read. */
  readonly healthy: boolean;
  /** What needs a person, and what is worth knowing; the former first. */
  readonly problems: readonly StatusProblem[];
  /** What could not be read, and why. */
  readonly unknown: readonly UnknownPart[];
  /** One for each slot. */
  readonly captures: readonly CaptureTaskStatus[];
  /** Captured tables as of the last start of their task; none of a source that reads events alone. */
  readonly tables: readonly CapturedTable[] | undefined;
  /** Held topics, tables with missing changes, and changes that are put aside. */
  readonly capture: Omit<CaptureStatus, "tasks"> | undefined;
  /** Messages in the dead-letter queue of capture, where there is one that is known. */
  readonly captureDeadLetters: number | undefined;
  readonly consumers: readonly ConsumerSummary[];
}

/** A part that could not be read. */
export interface UnknownPart {
  readonly part: string;
  readonly reason: string;
  /** Without it nobody can say that the pipeline is healthy. */
  readonly needed: boolean;
  /** True of a dead-letter queue that is not there. */
  readonly isMissing?: boolean;
}

/** Status of the capture task of one slot. */
export interface CaptureTaskStatus {
  readonly slot: number;
  readonly state: StandingState | "UNKNOWN";
  /** When this state began. */
  readonly since: string | undefined;
  /** Time of the task's last report, and its age by the clocks. */
  readonly reportedAt: string | undefined;
  readonly reportAgeMs: number | undefined;
  readonly waiting:
    | { readonly for: string; readonly message: string; readonly code?: string | undefined }
    | undefined;
  /** Who has paused capture, since when and why; the task comes to rest a moment later. */
  readonly paused: Pausing | undefined;
  readonly failure: (Omit<NonNullable<Standing["failure"]>, "at"> & { readonly at: string }) | undefined;
  /** Number of tasks that share the work, where several may. */
  readonly tasks: number;
  /** A further task that does not hold the lease, where there is one. */
  readonly newcomer:
    | {
        readonly state: StandingState;
        readonly code: string | undefined;
        readonly message: string | undefined;
        /** Undefined of a version that does not report it. */
        readonly process?: CaptureReport["process"];
      }
    | undefined;
  readonly lease:
    | {
        readonly owner: string | undefined;
        readonly generation: number;
        readonly beatAgeMs: number | undefined;
      }
    | undefined;
  /** What its kind of source tells of what is stored: name of the slot, epoch, how far it is confirmed. */
  readonly source: Readonly<Record<string, unknown>>;
  /** As last reported; undefined before the task streams. */
  readonly figures: CaptureFigures | undefined;
  /** Part of the WAL budget that is left, in per cent; undefined without a slot, or before it was looked at. */
  readonly walBudgetLeftPercent: number | undefined;
}

/** Status of a consumer, over all its partitions. */
export interface ConsumerSummary {
  readonly name: string;
  readonly topics: readonly string[];
  /** Partitions that it has had anything of. */
  readonly partitions: number;
  /** The furthest checkpoint. */
  readonly checkpoint: PositionText | undefined;
  readonly lag: ConsumerLag;
  readonly paused: Pausing | undefined;
  /** What is left of the stream's retention while it is paused. */
  readonly retention: RetentionLeft | undefined;
  /** Partitions that are held, and that stand before a gap. */
  readonly held: number;
  readonly gaps: number;
  /** Stretches of missing changes whose rows are not in place again. */
  readonly unhealed: number;
  /** Keys with open dead letters, and changes that are parked behind them, themselves included. */
  readonly deadLetterKeys: number;
  readonly parked: number;
  /** Messages in its dead-letter queue; undefined where the queue is not known here. */
  readonly deadLetterMessages: number | undefined;
  /** Partitions that need somebody. */
  readonly attention: readonly PartitionStatus[];
}

/** A pause, for people and programs. */
export interface Pausing {
  readonly by: string;
  readonly since: string;
  readonly reason: string | undefined;
}

/** Something that an operator should know of. */
export interface StatusProblem {
  /** `unhealthy`: it needs a person, or something to pass; `note`: nothing waits for it. */
  readonly severity: "unhealthy" | "note";
  /** The part that it is about: `capture`, `capture slot 2`, `consumer orders`, … */
  readonly part: string;
  /** The code of the error behind it, where there is one. */
  readonly code: string | undefined;
  readonly message: string;
  /** The next step, in words. */
  readonly remedy: string;
  /** The one command that mends it, or shows what to mend, as it is typed. */
  readonly command: string | undefined;
}
