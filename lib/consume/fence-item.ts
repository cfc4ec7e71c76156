import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import type { PositionText } from "../change/position.ts";
import type { Attempts, CheckpointValue } from "./checkpoint.ts";

/*
 * The fence's items: one for a consumer, topic and group of partitions. Attributes of partition p: `m<p>`, `w<p>` and
 * `a<p>` its checkpoint (mark, writer and calls without an outcome), `e<p>` what lies behind that mark in the dead letters
 * (the mark and `explained`: void beside another mark), `t<p>` the token of the invocation that holds it,
 * `k<p>` its keys with open dead letters (parked-keys.ts), `r<p>` and `u<p>` a redrive at work and how long (redrive-lease.ts).
 * All of a batch's partitions of a group move in one update; a group is as large as DynamoDB's limits on
 * expressions allow (300 operators, 4 KB), which a test computes, since emulators do not enforce them.
 * https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
 */

/** Partitions in an item. */
export const GROUP_SIZE = 32;

/** Partitions in one update of an item where some have keys with open dead letters: DynamoDB's limits again. */
export const PARTITIONS_WITH_PARKED = 16;

/** The group that a partition belongs to. */
export function groupOf(partition: number): number {
  return Math.floor(partition / GROUP_SIZE);
}

/** What an item holds of a partition. */
export interface StoredPartition {
  readonly mark: PositionText | undefined;
  readonly writer: number;
  readonly token: string | undefined;
  readonly attempts: Attempts | undefined;
  readonly explained: PositionText | undefined;
  /** See `ParkedKeys`. */
  readonly parked: string | undefined;
}

/** What is to be written of a partition. */
export interface PartitionProgress extends CheckpointValue {
  readonly partition: number;
  /** See `ParkedKeys`; empty: none any more; undefined: none, and there was none. */
  readonly parked: string | undefined;
}

/** The parts of an UpdateItem request that differ. */
export interface ItemUpdate {
  readonly UpdateExpression: string;
  readonly ConditionExpression?: string;
  readonly ExpressionAttributeValues: Record<string, AttributeValue>;
}

/** Reads a partition's attributes. */
export function readPartition(
  item: Record<string, AttributeValue> | undefined,
  partition: number,
): StoredPartition {
  const attempts = item?.[`a${partition}`]?.S;
  const mark = item?.[`m${partition}`]?.S;
  const explained = item?.[`e${partition}`]?.S;
  return {
    mark,
    writer: Number(item?.[`w${partition}`]?.N ?? "0"),
    token: item?.[`t${partition}`]?.S,
    attempts: attempts === undefined ? undefined : (JSON.parse(attempts) as Attempts),
    explained: mark !== undefined && explained?.startsWith(mark) ? explained.slice(mark.length) : undefined,
    parked: item?.[`k${partition}`]?.S,
  };
}

/** Makes the invocation the owner of partitions; asked for all old attributes, it replaces the read. */
export function takeUpdate(partitions: readonly number[], token: string): ItemUpdate {
  return {
    UpdateExpression: `SET ${partitions.map((p) => `t${p}=:t`).join(",")}`,
    ExpressionAttributeValues: { ":t": { S: token } },
  };
}

/** Writes marks and gives the partitions back; refused as a whole where one of them is another's. */
export function closeUpdate(progress: readonly PartitionProgress[], token: string): ItemUpdate {
  return progressUpdate(progress, token, true);
}

/** Writes where a partition stands and keeps it. */
export function noteUpdate(progress: PartitionProgress, token: string): ItemUpdate {
  return progressUpdate([progress], token, false);
}

/**
 * Writes where a partition stands before keys with open dead letters are overtaken, and keeps it; refused while a
 * redrive is at work there. One whose time is over is shut out.
 */
export function overtakeUpdate(progress: PartitionProgress, token: string, nowMs: number): ItemUpdate {
  const update = progressUpdate([progress], token, false);
  const p = progress.partition;
  return {
    UpdateExpression: `${update.UpdateExpression}${update.UpdateExpression.includes(" REMOVE ") ? "," : " REMOVE "}r${p},u${p}`,
    ConditionExpression: `${update.ConditionExpression} AND (attribute_not_exists(r${p}) OR u${p}<:now)`,
    ExpressionAttributeValues: { ...update.ExpressionAttributeValues, ":now": { N: String(nowMs) } },
  };
}

function progressUpdate(
  progress: readonly PartitionProgress[],
  token: string,
  giveBack: boolean,
): ItemUpdate {
  const set: string[] = [];
  const remove: string[] = [];
  const values: Record<string, AttributeValue> = { ":t": { S: token } };
  for (const { partition: p, mark, writer, attempts, explained, parked } of progress) {
    set.push(`m${p}=:m${p}`, `w${p}=:w${p}`);
    values[`:m${p}`] = { S: mark };
    values[`:w${p}`] = { N: String(writer) };
    if (attempts) {
      set.push(`a${p}=:a${p}`);
      values[`:a${p}`] = { S: JSON.stringify(attempts) };
    } else remove.push(`a${p}`);
    if (explained !== undefined) {
      set.push(`e${p}=:e${p}`);
      values[`:e${p}`] = { S: mark + explained };
    }
    if (parked === "") remove.push(`k${p}`);
    else if (parked !== undefined) {
      set.push(`k${p}=:k${p}`);
      values[`:k${p}`] = { S: parked };
    }
    if (giveBack) remove.push(`t${p}`);
  }
  return {
    UpdateExpression: `SET ${set.join(",")}${remove.length > 0 ? ` REMOVE ${remove.join(",")}` : ""}`,
    ConditionExpression: progress.map(({ partition: p }) => `t${p}=:t`).join(" AND "),
    ExpressionAttributeValues: values,
  };
}
