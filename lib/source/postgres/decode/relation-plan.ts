import type { SourceMembers } from "../../../change/event-envelope.ts";
import type { Position } from "../../../change/position.ts";
import type { Topic } from "../../../change/topic.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";
import type { RelationFacts } from "../catalog/type-catalog.ts";
import type { OutboxTableError } from "./decode-errors.ts";
import type { OutboxColumns } from "./outbox-events.ts";
import type { Relation } from "./pgoutput/messages.ts";
import type { Tuple } from "./pgoutput/tuple.ts";
import type { ColumnType } from "./values/column-type.ts";

/** A column as the changes of its relation are read. */
export interface PlannedColumn {
  readonly name: string;
  /** `"id":` */
  readonly prefix: string;
  /** The same as UTF-8. */
  readonly prefixBytes: Buffer;
  readonly type: ColumnType;
  /** Part of the replica identity, and so of every old row. */
  readonly identity: boolean;
}

/** All that the changes of one relation need, computed once. */
export interface RelationPlan {
  /** As the server told it. */
  readonly relation: Relation;
  readonly columns: readonly PlannedColumn[];
  /** As people write it: `public.orders`. */
  readonly table: string;
  /** True if its changes are given; ordinals count either way. */
  readonly captured: boolean;
  readonly topic: Topic;
  /** Indexes of the columns whose values choose the partition. */
  readonly key: readonly number[];
  /** Indexes of the columns whose change is a key change: the row's own key and the partition's. */
  readonly watched: readonly number[];
  /** True if an old row that is told as whole is whole. */
  readonly wholeOldRows: boolean;
  /** Facts of the catalog, where it was asked. */
  readonly facts: RelationFacts | undefined;
  /** True if the definition captures the table. */
  readonly byDefinition: boolean;
  readonly source: SourceMembers;
  /** The members of `source` that all its changes share: in front of their place, and behind it. */
  readonly sourceTail: string;
  readonly sourceHeadBytes: Buffer;
  readonly sourceTailBytes: Buffer;
  /** Set for the outbox table: its inserts are events, and nothing else of it is given (`captured` is false). */
  readonly outbox: OutboxColumns | OutboxTableError | undefined;
  /** Why its changes cannot be given: thrown at the first one, since not every relation told has changes. */
  readonly problem: TributaryError | undefined;
  /** Thrown at an update or delete, unless the whole old row came: the log's identity lacks columns of the table's key. */
  readonly unseen: TributaryError | undefined;
  /** Set while a backfill of the table has a window open. */
  listener: ChangeListener | undefined;
  /** The plan that counts from a later position on: the table has another key there, or its changes cannot be given. */
  readonly later: { readonly from: Position; readonly plan: RelationPlan } | undefined;
}

/**
 * Sees the changes of a relation beside their way downstream: the windows of a backfill. What is passed is reused from
 * change to change.
 */
export interface ChangeListener {
  inserted(buffer: Buffer, plan: RelationPlan, row: Tuple): void;
  /** `old`: the old row or its key, undefined where the key stayed. `whole`: it holds all values. */
  updated(buffer: Buffer, plan: RelationPlan, row: Tuple, old: Tuple | undefined, whole: boolean): void;
  deleted(buffer: Buffer, plan: RelationPlan, old: Tuple): void;
  truncated(plan: RelationPlan): void;
}

/** Of the plans of a relation, the one that counts at a position. */
export function planAt(first: RelationPlan, epoch: number, commitLsn: bigint, ordinal: number): RelationPlan {
  let plan = first;
  while (plan.later) {
    const { from } = plan.later;
    const reached =
      epoch > from.epoch ||
      (epoch === from.epoch &&
        (commitLsn > from.commitLsn || (commitLsn === from.commitLsn && ordinal >= from.ordinal)));
    if (!reached) break;
    plan = plan.later.plan;
  }
  return plan;
}

/** The last of the plans of a relation: what is read beside the log is as it is now. */
export function lastPlan(first: RelationPlan): RelationPlan {
  let plan = first;
  while (plan.later) plan = plan.later.plan;
  return plan;
}
