import type * as z from "zod";
import type { ChangeStream, SourcePlace } from "../change/change-stream.ts";
import type { TableName } from "../change/table-pattern.ts";
import type { ConfigurationProblem, TributaryError } from "../change/tributary-error.ts";
import type { PipelineOf, SourceDefinition } from "../definition/definition.ts";
import type { Log } from "../log.ts";
import type { OutboxPlan } from "../publish/install.ts";
import type { Backfill } from "./postgres/backfill/backfill-record.ts";
import type { LogSettings } from "./postgres/change-stream-options.ts";
import type { LogPipeline } from "./postgres/definition.ts";
import type { PostgresConnectionOptions } from "./postgres/link/connection-options.ts";
import type { PreflightProblem } from "./postgres/postgres-errors.ts";
import type { SourceStatus } from "./postgres/postgres-source.ts";
import type { ScriptPart, SetUpOptions } from "./postgres/set-up/script.ts";
import type { SlotRecord, SlotState } from "./postgres/slot/slot-record.ts";
import type { ReadingRecord, ReadingState } from "./reading-record.ts";
import type { SourcePlan, StoredTask } from "./source-plan.ts";
import type { TablesStatus } from "./tables-status.ts";

/**
 * A way of capture: all that the rest of the system asks of one. `index.ts` lists them, and nothing outside of a kind's folder
 * asks which one it is. What takes a driver is imported when it is called: whoever reads a definition needs none.
 */
export interface SourceKind<D extends SourceDefinition = SourceDefinition> {
  /** Its name in definitions, and in what is stored. */
  readonly kind: string;
  /** Its part of a pipeline definition. */
  readonly definition: DefinitionRules<D>;
  /**
   * Looks whether the database is fit for the definition; touches nothing.
   * @throws PreflightError with all problems, and the errors of `connect`.
   */
  check(options: SourceCheck<D>): Promise<SourceFindings>;
  /** The way its changes are read. */
  readonly reading: StreamReading<D> | LaneReading<D>;
  /** Settings that are stored at first start, and refused when they have changed. */
  settings(source: D): SourceSettings;
  /** The numbers of its capture tasks: 1, and a further one for each slot beyond the first. */
  tasks(source: D): readonly number[];
  /** Of a log that is read through slots: the pipeline, for what has to do with them. Left out: it has none. */
  throughSlots?(pipeline: PipelineOf<D>): LogPipeline;
  /** Metrics of its capture task beside those of every one: alarms and dashboard follow from it. */
  readonly metrics: MetricSet;
  readonly can: Capabilities;
  /** Returns true if rows that are there before the first change are read at the first start. */
  readsExisting(source: D): boolean;
  /** Events that applications publish through it. */
  events(source: D): PublishedEvents;
  /** Plan of its outbox in the database; undefined if it has none. */
  outbox(pipeline: Pick<PipelineOf<D>, "source" | "topics">): OutboxPlan | undefined;
  /** Statements that make a database ready whose tables nothing else has prepared; run by the owner of the tables. */
  prepare(pipeline: PipelineOf<D>): Promise<readonly string[]>;
  /**
   * Writes the script by which an administrator makes a database ready for a role that captures; each statement may be run again. Reads the
   * catalog where there is a session, and touches nothing.
   * @throws ConfigurationError where only the database could tell what the definition means.
   */
  setUp(options: SetUpOptions<D>): Promise<readonly ScriptPart[]>;
  /** The acts of an operator. All of it is required: a kind that cannot be torn down leaves a slot behind. */
  readonly operate: {
    readonly teardown: SourceTeardown<D>;
    /**
     * Says what a start would change at the source, and what would stop it, by the code that the start itself asks. Touches nothing.
     * @throws the errors of `connect`.
     */
    plan(place: SourcePlanPlace<D>): Promise<SourcePlan>;
    /** Says what the next start does after a new epoch, in a sentence. */
    newEpoch(source: D): string;
    /** Returns how one of its tasks stands, of what is stored: `tributary capture status --json` prints it. */
    status(source: D, stored: StoredSource): Readonly<Record<string, unknown>>;
  };
}

/** What a check finds of a database that is fit. */
export interface SourceFindings {
  /** The tables that are captured. */
  readonly tables: readonly TableName[];
  /** What does not stop a start, and is logged there. */
  readonly warnings?: readonly PreflightProblem[];
}

/** State that is stored of a capture task: of a log, or of tables that are read. */
export interface StoredSource {
  readonly slot: SlotState | undefined;
  readonly reading: ReadingState | undefined;
}

/** Rules for the definition of a kind's pipelines. */
export interface DefinitionRules<D extends SourceDefinition = SourceDefinition> {
  /** An object with the literal `kind`. */
  readonly schema: z.ZodObject;
  /** Fills in what follows from the rest of the definition. */
  complete?(source: SourceDefinition, pipeline: string): D;
  /** Returns a conflict with the topics of the pipeline: the field, and what to write instead. */
  conflict?(
    source: SourceDefinition,
    topics: { readonly routes: readonly unknown[] },
  ): { readonly field: string; readonly message: string } | undefined;
  /** Names that are not free for a pipeline. */
  taken?(source: D): readonly ConfigurationProblem[];
}

/** The changes of one task, under the capture lease, as one ordered stream. */
export interface StreamReading<D extends SourceDefinition = SourceDefinition> {
  readonly by: "stream";
  /** @throws TributaryError of every kind; each says what to do. */
  open(options: SourceOptions<D>): Promise<ChangeStream<SourcePlace>>;
}

/** Lanes that several tasks share, each a stream of its own. */
export interface LaneReading<D extends SourceDefinition = SourceDefinition> {
  readonly by: "lanes";
  /** Looks as `check` does, and opens nothing yet. */
  open(options: LaneOptions<D>): Promise<LaneSource>;
}

/** Options of opening lanes. */
export interface LaneOptions<D extends SourceDefinition = SourceDefinition> extends SourceCheck<D> {
  /** A task silent for this long loses its lanes to the others, in milliseconds. */
  readonly leaseMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** One lane while this task has it. */
export interface SourceLane extends ChangeStream<SourcePlace> {
  /** Grows with every change of hands of any lane; all its records carry it (rule 8). */
  readonly generation: number;
  /** Aborts when another task has taken it. */
  readonly lost: AbortSignal;
}

/** A task's share of the lanes. */
export interface LaneSource {
  /** Name of the database. */
  readonly database: string;
  /** Takes all lanes from all tasks: what is published from now on has a newer generation. */
  disown(): Promise<void>;
  /** Reads lanes until the signal that they were opened with. */
  run(task: LaneTask): Promise<void>;
}

/** The capture task's part in running lanes. */
export interface LaneTask {
  readonly epoch: number;
  /** A generation greater than every one given before, to any task. */
  readonly nextGeneration: () => Promise<number>;
  /** Throws where this task must end: the pipeline has begun a new epoch. */
  readonly check: () => Promise<void>;
  /** Writes a lane to the stream until it ends, is lost, or the signal aborts. */
  readonly write: (lane: SourceLane, until: AbortSignal) => Promise<void>;
  readonly onStatus: (status: AnySourceStatus) => void;
}

/** The source's part of the stored settings. */
export interface SourceSettings {
  /** Its kind; undefined for the log, which came first. */
  readonly source: string | undefined;
  readonly publication: string | undefined;
  readonly slot: string | undefined;
  /** Stand-ins for tables in them beside those that are captured: their partitions must not change either. */
  readonly beside: readonly TableName[];
}

/** `slots`: whether each is read, and the WAL it holds back. `tables`: whether they are read, and the age of what waits there. */
export type MetricSet = "slots" | "tables";

/** Abilities of a kind beyond giving changes. */
export interface Capabilities {
  /** `events`: it gives what applications publish, and no rows. */
  readonly give: "rows" | "events";
  /** Reads existing rows into the stream when it is asked to. */
  readonly backfill: boolean;
  /** Puts changes aside that cannot become events. */
  readonly putAside: boolean;
}

/** Events that applications publish through a source. */
export interface PublishedEvents {
  /** The table that they are written to and no topic is named after. */
  readonly table: string | undefined;
  /** Topics of the outbox, which the applications alone know. */
  readonly outbox: boolean;
  /** The topic of logical messages. */
  readonly messages: boolean;
}

/** One of the pipeline's tasks, to be torn down. */
export interface TeardownPlace<D extends SourceDefinition = SourceDefinition> {
  readonly pipeline: PipelineOf<D>;
  /** The number of the capture task whose it is. */
  readonly number: number;
  readonly connection: PostgresConnectionOptions;
  readonly signal: AbortSignal;
}

/** Takes away what a pipeline leaves behind at its server and what harms it there. */
export interface SourceTeardown<
  D extends SourceDefinition = SourceDefinition,
  Plan extends TeardownPlan = TeardownPlan,
> {
  /** Returns what removing would remove now; touches nothing. */
  plan(place: TeardownPlace<D>): Promise<Plan>;
  /** Removes it, while the capture lease is held; gives what it found. */
  remove(place: TeardownPlace<D>): Promise<Plan>;
  /** The plans of all tasks, in words. */
  describe(
    plans: readonly Plan[],
    pipeline: PipelineOf<D>,
    when: "will be" | "was",
  ): Promise<readonly string[]>;
  /** Things that stay at the server, because others may need them. */
  readonly remains: string;
}

/** State at the server; each kind adds its own. */
export interface TeardownPlan {
  /** There is something to remove. */
  readonly removes: boolean;
  /** Why it cannot be removed now, if so. */
  readonly inUse: TributaryError | undefined;
}

/** Status of a source, for metrics: of a log, or of tables that are read. */
export type AnySourceStatus = SourceStatus | TablesStatus;

/** Options of a check, for every kind of source. */
export interface SourceCheck<D extends SourceDefinition = SourceDefinition> {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: PipelineOf<D>;
  /** The number of the slot, where a pipeline has several. */
  readonly slot?: number | undefined;
  readonly signal?: AbortSignal;
}

/** Dependencies of a plan. */
export interface SourcePlanPlace<D extends SourceDefinition = SourceDefinition>
  extends Omit<SourceCheck<D>, "slot"> {
  /** By the number of the task; of further slots that the definition no longer has, too. */
  readonly stored: ReadonlyMap<number, StoredTask>;
  /** The latest backfill of each table. */
  readonly backfills: readonly Backfill[];
}

/** Options of opening, for every kind of source. */
export interface SourceOptions<D extends SourceDefinition = SourceDefinition>
  extends SourceCheck<D>,
    LogSettings {
  /** The place where its kind keeps how far it has come. */
  readonly record: SlotRecord & { readonly reading: ReadingRecord };
  /** Ends reading: `changes` ends. What was read can still be acknowledged until `close`. */
  readonly signal: AbortSignal;
  readonly log: Log;
  /** Called at least every few seconds. */
  readonly onStatus?: (status: AnySourceStatus) => void;
}
