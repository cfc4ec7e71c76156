import { createHash } from "node:crypto";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { routeTables } from "../../../definition/route.ts";
import { OUTBOX_TABLES } from "../../outbox/event/envelope.ts";
import type { LogPipeline } from "../definition.ts";
import { slotSuffix } from "../definition.ts";

/** The numbers of a pipeline's slots: 1, and the further ones. */
export function slotNumbers({ source }: Pick<LogPipeline, "source">): readonly number[] {
  return Array.from({ length: source.slots }, (_, i) => i + 1);
}

/** The names of one slot and its publication; those of the first are the definition's own. */
export function slotNames(
  { slot, publication }: Pick<LogPipeline["source"], "slot" | "publication">,
  number: number,
): { readonly slot: string; readonly publication: string } {
  const suffix = slotSuffix(number);
  return { slot: slot + suffix, publication: publication + suffix };
}

/**
 * The slot that a table should have, by its topic, so that tables routed together stay together (rule 3). By the highest
 * hash: one slot more takes its share from the others, and nothing moves between those. What stands in for tables (the
 * outbox, and what could share topics with its events) is the first one's.
 */
export function wantedSlot(pipeline: Pick<LogPipeline, "source" | "topics">, table: TableName): number {
  if (isOutbox(pipeline, table)) return 1;
  const topic = routeTables(pipeline)(table).topic.name;
  const weights = slotNumbers(pipeline).map((number) => weight(topic, number));
  return weights.indexOf(weights.reduce((a, b) => (b > a ? b : a))) + 1;
}

/** Returns true if a table is the outbox, or stands where its events would. */
export function isOutbox({ source: { outbox } }: Pick<LogPipeline, "source">, table: TableName): boolean {
  return (
    outbox !== undefined && (formatTable(table) === outbox.table || table.schema === OUTBOX_TABLES.schema)
  );
}

function weight(topic: string, slot: number): bigint {
  return createHash("md5").update(`${slot} ${topic}`).digest().readBigUInt64BE();
}

/**
 * The pipeline as one slot's task sees it: names of its own; logical messages and the outbox are the first one's. All tables
 * stay: what the log still holds of one that has moved away is the old slot's to give.
 */
export function pipelineOfSlot(pipeline: LogPipeline, number: number): LogPipeline {
  const { source } = pipeline;
  const first = number === 1;
  return {
    ...pipeline,
    source: {
      ...source,
      ...slotNames(source, number),
      messages: first ? source.messages : [],
      outbox: first ? source.outbox : undefined,
    },
  };
}

/** The slots beside one of several, as its source must know them. */
export interface Siblings {
  /** The epoch that a further slot joins; undefined for the first: its record says. */
  readonly epoch: number | undefined;
  /** Their publications, and those that may come: what they hold is theirs. */
  readonly publications: readonly string[];
  /** Returns true if a table is this slot's; the others are theirs. */
  readonly isOwn: (table: TableName) => boolean;
  /** Returns true if a topic that a change of this commit goes to may be another slot's: a table was renamed. */
  readonly isForeign: (topic: string, commitLsn: bigint) => boolean;
}
