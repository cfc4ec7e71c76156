import type { KinesisStreamRecord } from "aws-lambda";
import { type PartitionName, RecordNotSupportedError } from "../consume-errors.ts";
import { giveUpRecord, type RecordGiver } from "../dead-letter/dead-record.ts";
import type { BatchRecord, UnreadableRecord } from "../run/batch-record.ts";
import { orderedBatch, type PartitionLane } from "../run/ordered-batch.ts";

/**
 * A record of which nothing is known, as one of the partition that its key names: the partition goes no further there,
 * and the others do. Undefined where the key is no partition's, or where the record may be given up.
 */
function asBarred(
  record: UnreadableRecord,
  giver: Pick<RecordGiver, "configuration" | "deadLetters">,
): BatchRecord | undefined {
  const { configuration, deadLetters } = giver;
  const waits =
    record.error instanceof RecordNotSupportedError || configuration.poison === "stop" || !deadLetters;
  const place = waits ? partitionOf(record.partitionKey) : undefined;
  return place && barred(record, place);
}

/** Puts such records into their lanes; `rest`: those that are given up, or keep their shard back. */
export function withBarred(
  lanes: readonly PartitionLane[],
  unreadable: readonly UnreadableRecord[],
  giver: Pick<RecordGiver, "configuration" | "deadLetters">,
): { lanes: readonly PartitionLane[]; rest: readonly UnreadableRecord[] } {
  if (unreadable.length === 0) return { lanes, rest: unreadable };
  const all = lanes.map((lane) => ({ ...lane, records: [...lane.records] }));
  const rest: UnreadableRecord[] = [];
  for (const record of unreadable) {
    const placed = asBarred(record, giver);
    if (!placed) {
      rest.push(record);
      continue;
    }
    const { topic, partition } = placed;
    const lane = all.find((one) => one.topic === topic && one.partition === partition);
    if (lane) lane.records.push(placed);
    else all.push({ topic, partition, records: [placed] });
  }
  for (const { records } of all) records.sort((a, b) => a.index - b.index);
  return { lanes: all, rest };
}

/** The records that a partition holds, as its lane. */
export async function barredLane(
  giver: RecordGiver,
  { topic, partition }: PartitionName,
  records: readonly KinesisStreamRecord[],
): Promise<PartitionLane> {
  const { lanes, unreadable } = orderedBatch(records);
  const own = lanes.find((lane) => lane.topic === topic && lane.partition === partition)?.records ?? [];
  for (const record of unreadable) {
    if (asBarred(record, giver)) own.push(barred(record, { topic, partition }));
    else await giveUpRecord(giver, record);
  }
  return { topic, partition, records: own.sort((a, b) => a.index - b.index) };
}

function barred(record: UnreadableRecord, { topic, partition }: PartitionName): BatchRecord {
  const { index, sequenceNumber, shardId, error } = record;
  const verbatim = () => {
    throw error;
  };
  return {
    ...{ index, sequenceNumber, shardId, topic, partition },
    writer: 0,
    events: [],
    barred: error,
    verbatim,
  };
}

/** Capture writes every record under the key `topic/partition`. */
function partitionOf(key: string): PartitionName | undefined {
  const slash = key.lastIndexOf("/");
  const number = key.slice(slash + 1);
  if (slash <= 0 || !/^\d{1,5}$/.test(number)) return undefined;
  return { topic: key.slice(0, slash), partition: Number(number) };
}
