import type { PositionText } from "../../change/position.ts";
import type { PlanFinding, SourceChange } from "../../source/source-plan.ts";

export type { PlanFinding, SourceChange } from "../../source/source-plan.ts";

/** A change that a start makes to what the pipeline has in its state table. */
export type StateChange =
  | {
      readonly what: "table";
      /** It is captured for the first time. */
      readonly action: "add";
      readonly name: string;
      readonly topic: string;
      /** Never changed after. */
      readonly partitions: number;
      /** Columns of `topics.keys`; null where the row's own key counts. */
      readonly key: readonly string[] | null;
    }
  | {
      readonly what: "consumer";
      /** `remove`: what stands of it in the state table stays. */
      readonly action: "add" | "remove";
      readonly name: string;
    }
  | {
      readonly what: "topic";
      /** `remove`: changes from then on are not the consumer's business. */
      readonly action: "add" | "remove";
      /** The pattern. */
      readonly name: string;
      readonly consumer: string;
      readonly start: PlannedStart | undefined;
    }
  | {
      readonly what: "epoch";
      readonly action: "change";
      readonly name: string;
      readonly epoch: number;
    };

/**
 * The place where a consumer begins with a topic. `beginning`: with the first change that is captured. `position`: with changes behind it, the
 * confirmed position as it is now. `start`: with changes that are published after the start. `startAt`: with changes that are in the stream already,
 * as the definition says; the start looks for the place.
 */
export type PlannedStart =
  | { readonly from: "beginning" }
  | { readonly from: "position"; readonly position: PositionText }
  | { readonly from: "start" }
  | { readonly from: "startAt"; readonly startAt: string };

/** A difference between a deployed resource and the definition. */
export interface DeployedChange {
  readonly what: "deployed";
  readonly action: "change";
  /** The resource: `event source mapping of orders`. */
  readonly name: string;
  readonly setting: string;
  readonly deployed: string;
  readonly wanted: string;
}

/** A change that a start or a deploy would make. */
export type PlannedChange = SourceChange | StateChange | DeployedChange;

/** Something that could not be looked at, and why. */
export interface Unseen {
  readonly what: string;
  readonly why: string;
  /** It was asked for, and refused or not answered: whether it would change is not known. */
  readonly failed?: true;
}

/** The changes that a start of a definition would make. */
export interface PipelinePlan {
  readonly pipeline: string;
  readonly changes: readonly PlannedChange[];
  /** Reasons why the start would stop, with the remedy that it would print. */
  readonly refusals: readonly PlanFinding[];
  /** Limits of what is captured, which a start logs as warnings. */
  readonly warnings: readonly PlanFinding[];
  /** Other things that an operator should know, in sentences. */
  readonly notes: readonly string[];
  readonly unseen: readonly Unseen[];
}
