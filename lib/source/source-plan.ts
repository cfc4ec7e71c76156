import type { TableName } from "../change/table-pattern.ts";
import type { Pipeline } from "../definition/definition.ts";
import type { NewEpoch, SlotState } from "./postgres/slot/slot-record.ts";
import type { ReadingState } from "./reading-record.ts";

/** A reason why a start would stop, or a limit of what it captures, as the start itself would tell it. */
export interface PlanFinding {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** State that is stored of one capture task, as far as its kind of source plans by it. */
export interface StoredTask {
  readonly slot: SlotState | undefined;
  readonly reading: ReadingState | undefined;
  readonly newEpoch: NewEpoch | undefined;
  /** Of the first task: the number of slots that the pipeline has had. */
  readonly slots: number;
  /** Tables that move here, with the number of the slot that they come from. */
  readonly arriving: Readonly<Record<string, number>>;
  /** Some slots of it are to be dropped. */
  readonly retired: readonly unknown[];
}

/**
 * A change that a start makes at the source: `add` makes something, `remove` takes it away, `change` alters what is there. Tables are as
 * people write them.
 */
export type SourceChange =
  | {
      readonly what: "publication";
      readonly action: "add" | "change" | "remove";
      readonly name: string;
      readonly added: readonly string[];
      readonly removed: readonly string[];
      /** Tables that it holds, and publishes with other columns or another row filter from then on. */
      readonly changed: readonly string[];
      readonly sql: readonly string[];
    }
  | {
      readonly what: "slot";
      /** `change`: one that is there and that nobody has read from is taken. */
      readonly action: "add" | "change" | "remove";
      readonly name: string;
      readonly number: number;
    }
  | {
      readonly what: "table";
      /** `remove`: it is not captured any more. `change`: another slot has it from then on. */
      readonly action: "remove" | "change";
      readonly name: string;
      readonly from?: string;
      readonly to?: string;
    }
  | {
      readonly what: "backfill";
      /** `change`: one that is under way begins anew. `remove`: one that is under way is refused, since its table is not captured. */
      readonly action: "add" | "change" | "remove";
      readonly name: string;
      /** Consumers that keep keys remove what it did not find. */
      readonly sweep: boolean;
      /** The planner's estimate; undefined before the first ANALYZE. */
      readonly rows: number | undefined;
      /** On disk, with large values and without indexes. */
      readonly bytes: number | undefined;
    }
  | {
      readonly what: "reading";
      /** It begins, with nothing known of before. */
      readonly action: "add";
      /** The kind of source. */
      readonly name: string;
      /** Rows that are there already are read too. */
      readonly existing: boolean;
      /** The planner's estimate of those; undefined before the first ANALYZE, and where they are not read. */
      readonly rows: number | undefined;
    }
  | {
      readonly what: "missing changes";
      /** A publication said less for a time: the start notes that changes of the table may be missing. */
      readonly action: "add";
      readonly name: string;
      readonly reason: string;
    };

/** One capture task as it would start. */
export interface PlannedTask {
  /** The pipeline as this task sees it: one of several slots has names of its own. */
  readonly pipeline: Pipeline;
  /** Tables that it captures, before any move here. */
  readonly tables: readonly TableName[];
}

/** The changes that a start would make at the source, and what would stop it. */
export interface SourcePlan {
  /** Name of the database; undefined where a refusal came first. */
  readonly database: string | undefined;
  /** The tasks that were seen, by their number. */
  readonly tasks: ReadonlyMap<number, PlannedTask>;
  readonly changes: readonly SourceChange[];
  /** Reasons why the start would stop. */
  readonly refusals: readonly PlanFinding[];
  /** Limits of what is captured, which a start logs as warnings. */
  readonly warnings: readonly PlanFinding[];
  /** Other things that an operator should know, in sentences. */
  readonly notes: readonly string[];
}
