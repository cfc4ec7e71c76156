/**
 * tributary-cdc/admin: what an operator's command does, for scripts. Each function reads, or does one thing; what it throws is a
 * TributaryError with a code and a remedy.
 *
 * @example
 * import { consumerStatus, needsAttention, openDeadLetters, pipelineState, redrive, redriveFunction } from "tributary-cdc/admin";
 *
 * const shop = pipelineState("shop", { stateTable: "Shop-State-X1" });
 * const partitions = await consumerStatus({ ...shop, consumer: "orders" }, shop.signal);
 * if (partitions.some(needsAttention)) {
 *   const orders = await redriveFunction("Shop-RedriveOrders-X1");
 *   const { letters } = await openDeadLetters(orders, { consumer: "orders" });
 *   await redrive(orders, { consumer: "orders" }, { limit: 1_000 });
 * }
 */

export type { ConsumerLag } from "../capture/consumer-lag.ts";
export type { PositionText } from "../change/position.ts";
export type { PartitionName } from "../consume/consume-errors.ts";
export type {
  RedrivenLetter,
  RedriveReport,
  RedriveRequest,
} from "../consume/dead-letter/redrive-request.ts";
export type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
export type { MissingChanges } from "../consume/run/missing-changes.ts";
export {
  type Backfill,
  type BackfillWanted,
  readBackfill,
  readBackfills,
  requestBackfill,
  wantBackfill,
} from "../state/backfills.ts";
export type { StatePlace } from "../state/persistent-table.ts";
export { acceptUnhealed } from "../state/unhealed.ts";
export {
  type AcceptancePlan,
  type AcceptanceScope,
  type Accepted,
  acceptGap,
  planAcceptance,
} from "./accept-gap.ts";
export { beginEpoch, type EpochOptions, type EpochPlan, planEpoch } from "./begin-epoch.ts";
export { type CaptureStatus, cancelPutAside, captureStatus, putAside, releaseTopic } from "./capture.ts";
export { Sightings, type StandingState } from "./capture-standing.ts";
export { consumerStatus, needsAttention, type PartitionStatus } from "./consumer-status.ts";
export {
  type DatabaseScriptOptions,
  databaseScript,
  readServerSort,
  type ServerSort,
} from "./database-script.ts";
export {
  type CaptureDeadLetter,
  type CaptureDeadLetterDetail,
  type CaptureDeadLetterList,
  type CaptureLetterState,
  clearReadAgain,
  listCaptureDeadLetters,
  showCaptureDeadLetters,
} from "./dead-letters/capture.ts";
export type { LetterFailure, RecordLetter } from "./dead-letters/letter.ts";
export {
  type DeadLetterList,
  type DeadLetterState,
  listDeadLetters,
  type OpenDeadLetter,
  type QueueLook,
} from "./dead-letters/list.ts";
export { acknowledgeMessages, type ClearedQueue, clearMended } from "./dead-letters/mended.ts";
export {
  type DeadLetterPlace,
  type DeadLetterPlaceOptions,
  deadLetterPlace,
} from "./dead-letters/place.ts";
export type { RawChange, RawValue } from "./dead-letters/put-aside-row.ts";
export {
  type DeadLetterChoice,
  type DeadLetterDetail,
  showDeadLetters,
  type WaitingChange,
} from "./dead-letters/show.ts";

export {
  type CheckResult,
  type Diagnosis,
  type DoctorSubject,
  type ExamineOptions,
  examine,
  type Finding,
  type FoundDefinition,
  type HandlerInspection,
  type LoadedHandler,
  type Outcome,
} from "./doctor/index.ts";
export type { ConsumerBehind } from "./hold-passage.ts";
export { captureAtRest, pauseCapture, resumeCapture, type TaskAtRest } from "./pause-capture.ts";
export {
  consumerAtRest,
  MappingNotEnabledError,
  type PausedConsumer,
  type PauseRequest,
  pauseConsumer,
  type ResumedConsumer,
  resumeConsumer,
} from "./pause-consumer.ts";
export type {
  CaptureTaskStatus,
  ConsumerSummary,
  Pausing,
  PipelineStatus,
  StatusProblem,
  UnknownPart,
} from "./pipeline-status.ts";
export type {
  PipelinePlan,
  PlanFinding,
  PlannedChange,
  PlannedStart,
  Unseen,
} from "./plan/pipeline-plan.ts";
export { type PlanOptions, planPipeline } from "./plan/plan.ts";
export {
  leftKeys,
  openDeadLetters,
  type Redrive,
  type RedriveChoice,
  type RedriveOptions,
  type RedriveTotals,
  redrive,
  redriveFunction,
} from "./redrive.ts";
export { openReset, type ResetOptions, type ResetStep, resetPartitions } from "./reset.ts";
export {
  type HealOptions,
  healReset,
  type ResetOutcome,
  type ResetProgress,
  type ResetTable,
} from "./reset-healing.ts";
export { planReset, type ResetClears, type ResetPlan, type ResetScope } from "./reset-plan.ts";
export type { ResetRecord, ResetTopic } from "./reset-record.ts";
export type { CaptureResources, ConsumerResources, PipelineResources } from "./resources.ts";
export { oldestUnapplied } from "./retention.ts";
export { type RetentionLeft, retentionLeft } from "./retention-left.ts";
export { type RowTypes, type RowTypesOptions, rowTypes } from "./row-types/row-types.ts";
export { type DeployedStack, pipelineOfStack, readStack, type StackOptions } from "./stack-resources.ts";
export { type PipelineStateOptions, pipelineState } from "./state.ts";
export { pipelineStatus, type StatusOptions } from "./status.ts";
export type { CapturedTable } from "./status-tables.ts";
export { planTeardown, type TeardownOptions, teardown } from "./teardown.ts";
export { tablesOfTopic } from "./topic-tables.ts";
