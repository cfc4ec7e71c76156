import type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
import { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { StartPositions } from "../consume/fence/start-position.ts";
import type { Pipeline } from "../definition/definition.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { sourceKind } from "../source/index.ts";
import { hasEnded, readBackfills } from "../state/backfills.ts";
import { BackfillActiveError } from "../state/state-errors.ts";
import { consumerStatus, type PartitionStatus } from "./consumer-status.ts";
import { openReset } from "./reset.ts";
import { ResetRefusedError } from "./reset-errors.ts";
import type { ResetRecord, ResetTopic } from "./reset-record.ts";
import { type TopicTables, tablesByTopic } from "./topic-tables.ts";

/** What a reset would do. */
export interface ResetPlan {
  readonly topics: ResetRecord["topics"];
  /** Rows that each table had when it was read last; undefined: never read, or the server had no estimate. */
  readonly rows: Readonly<Record<string, number | undefined>>;
  /** Tables whose last backfill was refused, and why: the reset cannot end before that is mended. */
  readonly refused: Readonly<Record<string, string>>;
  /** The one topic that was asked for. */
  readonly only: string | undefined;
  /** Topics that the consumer has had changes of, and that cannot be read again: they stay as they are. */
  readonly left: readonly string[];
  /** What is passed or cleared. */
  readonly clears: ResetClears;
  /** The reset before: where it has not ended, this goes on with it. */
  readonly last: ResetRecord | undefined;
  readonly goesOn: boolean;
}

/** State of a consumer that a reset clears. */
export interface ResetClears {
  /** Keys with open dead letters, and changes that wait behind them. */
  readonly deadLetters: number;
  readonly parked: number;
  readonly held: number;
  readonly heldBytes: number;
  readonly gaps: number;
  readonly unhealed: number;
}

/** The consumer to reset, and how far. */
export interface ResetScope {
  /** Undefined: all that can be read again. */
  readonly topic?: string | undefined;
  /** Begin anew, also where a reset has not ended. */
  readonly anew?: boolean | undefined;
}

/**
 * Looks what a reset of a consumer would do. Only reads.
 * @throws ResetRefusedError with what to do instead; BackfillActiveError where another kind of backfill of a table is under way;
 * ConsumerNotRegisteredError; StateTableError, StateTableUnavailableError, FenceUnavailableError.
 */
export async function planReset(
  place: ConsumerPlace,
  pipeline: Pipeline,
  { topic: only, anew = false }: ResetScope,
  signal: AbortSignal,
): Promise<ResetPlan> {
  const { consumer } = place;
  const { kind } = pipeline.source;
  if (!sourceKind(pipeline.source).can.backfill)
    throw new ResetRefusedError(
      consumer,
      `a source of kind "${kind}" cannot read rows again beside its changes`,
      `Fill the rebuilt sink from the database yourself, in one transaction, while the consumer runs: changes that come meanwhile overtake only where the sink compares positions. What waits in dead letters is brought by: tributary redrive --consumer ${consumer}`,
    );
  const patterns = pipeline.consumers.find(({ name }) => name === consumer)?.topics ?? [];
  const isOwn = (topic: string) => patterns.some((pattern) => topicPattern(pattern)(topic));
  const found = (await tablesByTopic(place, pipeline, signal)).filter(({ topic }) => isOwn(topic.name));
  const { last, isOpen } = await openReset(place, signal);
  // Half of it was moved: the rest moves behind changes of a table that the record does not name, which nobody would read again.
  const isOutgrown = last?.phase === "partitions" && last.topics.some((topic) => lacksTables(topic, found));
  const isOpenStill = isOpen && !anew;
  const goesOn = isOpenStill && !isOutgrown;
  if (isOpenStill && last?.only !== undefined && only === undefined)
    throw new ResetRefusedError(
      consumer,
      `a reset of ${last.only} alone that ${last.by} began at ${last.at} has not ended`,
      `To go on with it: tributary consumer reset --consumer ${consumer} --topic ${last.only}. To begin anew with all topics: tributary consumer reset --consumer ${consumer} --anew`,
    );
  if (isOpenStill && last && only !== undefined && !last.topics.some(({ topic }) => topic === only))
    throw new ResetRefusedError(
      consumer,
      `a reset of ${topicsOf(last)} that ${last.by} began at ${last.at} has not ended`,
      `Let it end first: tributary consumer reset --consumer ${consumer} goes on with it.`,
    );
  const topics =
    isOpenStill && last
      ? last.topics.map((topic) => withTables(topic, goesOn ? [] : found))
      : found
          .filter(({ topic }) => only === undefined || topic.name === only)
          .map(({ topic, tables }) => ({
            topic: topic.name,
            partitions: topic.partitions,
            tables: [...tables],
          }));
  if (topics.length === 0)
    throw new ResetRefusedError(
      consumer,
      only === undefined
        ? "capture has no table yet whose rows it reads"
        : `no table of ${only} can be read again`,
      only === undefined
        ? `Start the capture task once. Topics of messages and outbox events cannot be read again: publish them anew, or bring their dead letters: tributary redrive --consumer ${consumer}`
        : `Name a topic of a captured table (${found.map(({ topic }) => topic.name).join(", ") || "the consumer reads none"}). Messages and outbox events cannot be read again: publish them anew.`,
    );
  const startPositions = new StartPositions(new ConsumerTable(place));
  for (const { topic } of topics) await startPositions.of(topic, signal);
  const { rows, refused } = await lookAtBackfills(place, topics, goesOn, signal);
  const status = await consumerStatus(place, signal);
  const own = new Set(topics.map(({ topic }) => topic));
  const known = new Set(status.map(({ topic }) => topic));
  return {
    ...{ topics, rows, refused, last, goesOn },
    only: isOpenStill && last ? last.only : only,
    left: only === undefined ? [...known].filter((topic) => !own.has(topic)).sort() : [],
    clears: clearsOf(status.filter(({ topic }) => own.has(topic))),
  };
}

/** A topic with the tables that it has by now, beside those of a record. */
function withTables(topic: ResetTopic, found: readonly TopicTables[]): ResetTopic {
  const now = found.find((one) => one.topic.name === topic.topic)?.tables ?? [];
  return { ...topic, tables: [...new Set([...topic.tables, ...now])] };
}

function lacksTables(topic: ResetTopic, found: readonly TopicTables[]): boolean {
  return withTables(topic, found).tables.length > topic.tables.length;
}

/** Returns the rows of the tables as they were read last, and which could not be. @throws BackfillActiveError */
async function lookAtBackfills(
  place: ConsumerPlace,
  topics: ResetRecord["topics"],
  goesOn: boolean,
  signal: AbortSignal,
): Promise<Pick<ResetPlan, "rows" | "refused">> {
  const all = new Map((await readBackfills({ ...place, signal })).map((one) => [one.table, one]));
  const rows: Record<string, number | undefined> = {};
  const refused: Record<string, string> = {};
  for (const table of topics.flatMap(({ tables }) => tables)) {
    const latest = all.get(table);
    const { consumer, sweep } = latest?.request ?? {};
    const isReplaced = consumer === place.consumer && sweep;
    if (latest && !hasEnded(latest) && !goesOn && !isReplaced)
      throw new BackfillActiveError(table, latest.status);
    rows[table] = latest?.progress?.estimatedRows ?? latest?.progress?.rows;
    if (latest?.status === "refused") refused[table] = latest.progress?.reason ?? "for an unknown reason";
  }
  return { rows, refused };
}

function clearsOf(status: readonly PartitionStatus[]): ResetClears {
  const sum = (of: (one: PartitionStatus) => number) => status.reduce((all, one) => all + of(one), 0);
  return {
    deadLetters: sum(({ deadLetters }) => deadLetters),
    parked: sum(({ parked }) => parked),
    held: sum(({ hold }) => (hold ? 1 : 0)),
    heldBytes: sum(({ hold }) => hold?.bytes ?? 0),
    gaps: sum(({ gap }) => (gap ? 1 : 0)),
    unhealed: sum(({ unhealed }) => unhealed.length),
  };
}

function topicsOf({ topics }: ResetRecord): string {
  return topics.map(({ topic }) => topic).join(", ");
}
