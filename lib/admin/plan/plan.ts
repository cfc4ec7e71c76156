import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import type { Environment } from "../../aws/clients.ts";
import {
  checkLanesDatabase,
  lanesStartPosition,
  settingsAtStart,
  startPositionNow,
} from "../../capture/agreement.ts";
import { ignoredStart, oldestStart, replayOf, StartExpiredError } from "../../capture/start-at.ts";
import { unreadTopics } from "../../capture/unread-topics.ts";
import { type PositionText, START_OF_HISTORY } from "../../change/position.ts";
import { formatTable, parseTable, type TableName } from "../../change/table-pattern.ts";
import { planRegistration } from "../../consume/fence/start-position.ts";
import { captures, type Pipeline } from "../../definition/definition.ts";
import { sourceKind } from "../../source/index.ts";
import { refusalsOf } from "../../source/plan-refusals.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import { PostgresUnreachableError } from "../../source/postgres/postgres-errors.ts";
import type { PlannedTask, SourcePlan } from "../../source/source-plan.ts";
import { readBackfills } from "../../state/backfills.ts";
import { type CaptureRecord, EMPTY_CAPTURE_RECORD, readCaptureRecord } from "../../state/capture-record.ts";
import { type Pause, type PauseTarget, pausedBy, pausedName, resumeCommand } from "../../state/pause.ts";
import { readPauses } from "../../state/pauses.ts";
import type { StoredSettings } from "../../state/settings.ts";
import type { PipelineResources } from "../resources.ts";
import { compareDeployed } from "./deployed.ts";
import type {
  PipelinePlan,
  PlanFinding,
  PlannedChange,
  PlannedStart,
  StateChange,
  Unseen,
} from "./pipeline-plan.ts";
import { renamedConsumers } from "./renamed-consumer.ts";

/** Options of `planPipeline`. */
export interface PlanOptions {
  readonly pipeline: Pipeline;
  /** How to reach the database; a text says why nobody can tell. */
  readonly connection: PostgresConnectionOptions | string;
  /** The pipeline's state table. Undefined: there is none yet, and all is as at a first start. */
  readonly state: { readonly dynamodb: DynamoDBClient; readonly stateTable: string } | undefined;
  /** Names of the consumers that are deployed; undefined where nobody can tell. */
  readonly deployedConsumers?: readonly string[] | undefined;
  /** The stack that the pipeline is deployed in, and variables that AWS is reached by; undefined: it is not compared with the definition. */
  readonly deployed?:
    | { readonly resources: PipelineResources; readonly environment: Environment }
    | undefined;
  readonly signal: AbortSignal;
}

/** The findings so far. */
interface Findings {
  readonly changes: PlannedChange[];
  readonly refusals: PlanFinding[];
  readonly unseen: Unseen[];
}

/** In this order they are told: from the source to the consumers. */
const ORDER: readonly PlannedChange["what"][] = [
  ...(["epoch", "publication", "slot", "reading", "table", "missing changes", "backfill"] as const),
  ...(["consumer", "topic", "deployed"] as const),
];

/**
 * Says what a start of the capture task with this definition would change, and what it would refuse: by the code that the start itself asks.
 * Touches nothing. A database that cannot be reached is listed as not seen.
 *
 * @example
 * const plan = await planPipeline({ pipeline, connection, state: { dynamodb, stateTable: "Shop-State-X1" }, signal });
 * if (plan.refusals.length > 0) throw new Error(plan.refusals.map(({ message }) => message).join("\n"));
 *
 * @throws StateTableError, StateTableUnavailableError, the errors of `connect` but PostgresUnreachableError.
 */
export async function planPipeline(options: PlanOptions): Promise<PipelinePlan> {
  const { pipeline, state } = options;
  const found: Findings = { changes: [], refusals: [], unseen: [] };
  if (!state) found.unseen.push({ what: "state", why: "no state table is named: planned as a first start" });
  const records = await recordsOf(options);
  const source = await planSource(options, records, found);
  const [first = EMPTY_CAPTURE_RECORD] = records;
  const { newEpoch } = first;
  if (newEpoch && !first.slot && !first.reading) {
    const epoch = { what: "epoch", action: "change", name: String(newEpoch.epoch) } as const;
    found.changes.push({ ...epoch, epoch: newEpoch.epoch });
  }
  const tables = planSettings(options, records, source, found);
  const ignored = await planConsumers(options, records, found);
  if (options.deployed) {
    const { resources, environment } = options.deployed;
    const { changes, unseen } = await compareDeployed(pipeline, resources, environment, options.signal);
    found.changes.push(...changes);
    found.unseen.push(...unseen);
  }
  const changes = found.changes.toSorted((a, b) => ORDER.indexOf(a.what) - ORDER.indexOf(b.what));
  const unread = source ? unreadTopics(pipeline, tables) : [];
  return {
    pipeline: pipeline.name,
    changes,
    refusals: distinct(found.refusals),
    warnings: source?.warnings ?? [],
    notes: [
      ...(source?.notes ?? []),
      ...unread.map(({ message, remedy }) => `${message}. ${remedy}`),
      ...ignored,
      ...renamedConsumers(changes),
      ...(await pausesOf(options)),
    ],
    unseen: found.unseen,
  };
}

/** The records of all tasks that the pipeline has or had, by their number less one. */
async function recordsOf({ pipeline, state, signal }: PlanOptions): Promise<readonly CaptureRecord[]> {
  const wanted = sourceKind(pipeline.source).tasks(pipeline.source).length;
  if (!state) return Array.from({ length: wanted }, () => EMPTY_CAPTURE_RECORD);
  const place = { dynamodb: state.dynamodb, table: state.stateTable, pipeline: pipeline.name, signal };
  const first = await readCaptureRecord(place);
  const others = Array.from({ length: Math.max(wanted, first.slots) - 1 }, (_, i) => i + 2);
  return [first, ...(await Promise.all(others.map((slot) => readCaptureRecord({ ...place, slot }))))];
}

/** Undefined where the database was not seen. */
async function planSource(
  { pipeline, connection, state, signal }: PlanOptions,
  records: readonly CaptureRecord[],
  found: Findings,
): Promise<SourcePlan | undefined> {
  const what = "database";
  if (typeof connection === "string") {
    found.unseen.push({ what, why: connection });
    return undefined;
  }
  const backfills = state
    ? await readBackfills({
        ...{ dynamodb: state.dynamodb, table: state.stateTable },
        ...{ pipeline: pipeline.name, signal },
      })
    : [];
  const stored = new Map(records.map((record, i) => [i + 1, record]));
  const kind = sourceKind(pipeline.source);
  try {
    const source = await kind.operate.plan({ pipeline, connection, signal, stored, backfills });
    found.changes.push(...source.changes);
    found.refusals.push(...source.refusals);
    if (source.database !== undefined && kind.reading.by === "lanes")
      refused(found, () => checkLanesDatabase(pipeline.name, records[0]?.reading, source.database as string));
    return source;
  } catch (error) {
    if (!(error instanceof PostgresUnreachableError)) throw error;
    found.unseen.push({ what, why: error.message });
    return undefined;
  }
}

/** Compares the settings that are stored with those that a start would store; returns the tables that are captured. */
function planSettings(
  { pipeline }: PlanOptions,
  records: readonly CaptureRecord[],
  source: SourcePlan | undefined,
  found: Findings,
): readonly TableName[] {
  const stored: StoredSettings["tables"] = Object.assign(
    {},
    ...records.map(({ settings }) => settings?.tables ?? {}),
  );
  // Of what is stored, that can be judged without the database.
  const known = Object.keys(stored)
    .map(parseTable)
    .filter((table) => captures(pipeline.source, table));
  const seen = source?.tasks ?? new Map<number, PlannedTask>();
  const tasks = seen.size > 0 ? seen : new Map([[1, { pipeline, tables: known }]]);
  for (const [number, { pipeline: own, tables }] of tasks) {
    refused(found, () => {
      const after = settingsAtStart(own, records[number - 1] ?? EMPTY_CAPTURE_RECORD, records, tables);
      for (const name of tables.map(formatTable)) {
        const route = after.tables[name];
        if (route && !Object.hasOwn(stored, name))
          found.changes.push({ what: "table", action: "add", name, ...route });
      }
    });
  }
  return [...seen.values()].flatMap(({ tables }) => tables);
}

/** Returns what the definition says of consumers and has no effect, in sentences. */
async function planConsumers(
  { pipeline, state, deployedConsumers, signal }: PlanOptions,
  records: readonly CaptureRecord[],
  found: Findings,
): Promise<readonly string[]> {
  const ignored: string[] = [];
  const position = await startPositionOf({ pipeline, state, signal }, records, found);
  const start = plannedStart(pipeline, records, position);
  for (const consumer of pipeline.consumers) {
    const { name, topics } = consumer;
    const plan = state
      ? await planRegistration(
          { dynamodb: state.dynamodb, table: state.stateTable, pipeline: pipeline.name, consumer: name },
          topics,
          position ?? START_OF_HISTORY,
          signal,
        )
      : {
          isNew: true,
          startAt: undefined,
          taken: topics.map((pattern) => ({ pattern, startPosition: START_OF_HISTORY })),
          givenUp: [],
        };
    if (plan.isNew) found.changes.push({ what: "consumer", action: "add", name });
    const startAt = replayOf(consumer);
    const without =
      startAt === undefined || plan.isNew ? undefined : ignoredStart(name, startAt, plan.startAt);
    if (without) ignored.push(`${without.message}. ${without.remedy}`);
    const isReplay = plan.isNew && startAt !== undefined && start && start.from !== "beginning";
    if (isReplay) refused(found, () => checkStart(pipeline, name, startAt));
    const begins: PlannedStart | undefined = isReplay ? { from: "startAt", startAt } : start;
    const topic = { what: "topic", consumer: name } as const;
    const changes: StateChange[] = [
      ...plan.taken.map(({ pattern }) => ({
        ...topic,
        action: "add" as const,
        name: pattern,
        start: begins,
      })),
      ...plan.givenUp.map((pattern) => ({
        ...topic,
        ...{ action: "remove" as const, name: pattern, start: undefined },
      })),
    ];
    found.changes.push(...changes);
  }
  if (deployedConsumers) {
    const names = new Set(pipeline.consumers.map(({ name }) => name));
    for (const name of deployedConsumers)
      if (!names.has(name)) found.changes.push({ what: "consumer", action: "remove", name });
  } else if (state) {
    found.unseen.push({
      what: "removed consumers",
      why: "the state table is not asked for all its keys: a stack, or tributary dev, tells which consumers are deployed",
    });
  }
  return ignored;
}

/** By the retention of the definition: the start asks the stream. @throws StartExpiredError */
function checkStart({ stream }: Pipeline, consumer: string, startAt: string): void {
  const retentionMs = stream.retentionHours * 3_600_000;
  if (startAt !== "oldest" && Date.parse(startAt) < Date.now() - retentionMs)
    throw new StartExpiredError(consumer, startAt, oldestStart(retentionMs), retentionMs);
}

/** Undefined where the start would stop before it gives one. */
async function startPositionOf(
  { pipeline, state, signal }: Pick<PlanOptions, "pipeline" | "state" | "signal">,
  records: readonly CaptureRecord[],
  found: Findings,
): Promise<PositionText | undefined> {
  if (!state) return START_OF_HISTORY;
  const [own = EMPTY_CAPTURE_RECORD] = records;
  try {
    return sourceKind(pipeline.source).reading.by === "lanes"
      ? await lanesStartPosition({ pipeline, ...state }, own, 0, signal)
      : await startPositionNow({ pipeline, ...state }, own, records, signal);
  } catch (error) {
    found.refusals.push(...refusalsOf(error));
    return undefined;
  }
}

/** Returns what is paused, in sentences: a start goes on with it. */
async function pausesOf({ pipeline, state, signal }: PlanOptions): Promise<readonly string[]> {
  if (!state) return [];
  const place = { dynamodb: state.dynamodb, table: state.stateTable, pipeline: pipeline.name, signal };
  const { capture, consumers } = await readPauses(place);
  const paused = (target: PauseTarget, pause: Pause) =>
    `${pausedName(target)} is paused ${pausedBy(pause)}, and stays so over a start: ${resumeCommand(target)}`;
  return [
    ...(capture ? [paused("capture", capture)] : []),
    ...[...consumers].map(([consumer, pause]) => paused({ consumer }, pause)),
  ];
}

function plannedStart(
  { source }: Pipeline,
  [first]: readonly CaptureRecord[],
  position: PositionText | undefined,
): PlannedStart | undefined {
  if (position === undefined) return undefined;
  if (position === START_OF_HISTORY) return { from: "beginning" };
  // The generation of a task that reads lanes is known when it has begun.
  if (sourceKind(source).reading.by === "lanes" && first?.reading) return { from: "start" };
  return { from: "position", position };
}

/** What would stop the start is a finding here. */
function refused(found: Findings, look: () => void): void {
  try {
    look();
  } catch (error) {
    found.refusals.push(...refusalsOf(error));
  }
}

function distinct(findings: readonly PlanFinding[]): readonly PlanFinding[] {
  return [...new Map(findings.map((finding) => [finding.message, finding])).values()];
}
