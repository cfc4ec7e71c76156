import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { fenceKey } from "../state/table.ts";
import { hasReached } from "./checkpoint.ts";
import {
  closeUpdate,
  GROUP_SIZE,
  type ItemUpdate,
  noteUpdate,
  overtakeUpdate,
  PARTITIONS_WITH_PARKED,
  type PartitionProgress,
  readPartition,
  type StoredPartition,
  takeUpdate,
} from "./fence-item.ts";
import { callTable } from "./table-call.ts";

/** Where a fence item stands. */
export interface FenceGroup {
  readonly topic: string;
  readonly group: number;
}

/**
 * The fence of a consumer in the state table. An invocation takes its partitions before the first effect, and
 * closes them with their new marks after the last one; both are one conditional update an item. Whoever took
 * later owns: a predecessor that still lives cannot move the mark any more.
 */
export class Fence {
  readonly #dynamodb: DynamoDBClient;
  readonly #table: string;
  readonly #pipeline: string;
  readonly #consumer: string;

  constructor(dynamodb: DynamoDBClient, table: string, pipeline: string, consumer: string) {
    this.#dynamodb = dynamodb;
    this.#table = table;
    this.#pipeline = pipeline;
    this.#consumer = consumer;
  }

  /**
   * Takes partitions of a group and tells what stood there before. A token in the answer is one that was not
   * given back: its owner died, or still runs (rule 11). When an answer was lost, it may be our own: then nobody
   * knows, and it counts as not given back.
   */
  async take(
    { topic, group }: FenceGroup,
    partitions: readonly number[],
    token: string,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<number, StoredPartition>> {
    const { Attributes } = await callTable(`take ${topic} group ${group}`, signal, () =>
      this.#update({ topic, group }, takeUpdate(partitions, token), signal, "ALL_OLD"),
    );
    return new Map(partitions.map((partition) => [partition, readPartition(Attributes, partition)]));
  }

  /**
   * Writes the marks of partitions and gives them back. Returns those that are lost: another invocation has taken
   * them, and has not come as far as this one, or has not seen the newest writer that this one saw.
   */
  async close(
    place: FenceGroup,
    progress: readonly PartitionProgress[],
    token: string,
    signal: AbortSignal,
  ): Promise<readonly number[]> {
    const isLong = progress.some(({ parked, explained }) => (parked ?? explained) !== undefined);
    const parts = isLong ? PARTITIONS_WITH_PARKED : GROUP_SIZE;
    const lost: number[] = [];
    for (let i = 0; i < progress.length; i += parts)
      lost.push(...(await this.#close(place, progress.slice(i, i + parts), token, signal)));
    return lost;
  }

  async #close(
    place: FenceGroup,
    progress: readonly PartitionProgress[],
    token: string,
    signal: AbortSignal,
  ): Promise<readonly number[]> {
    const lost: number[] = [];
    let open = progress;
    while (open.length > 0) {
      if (await this.#write(place, closeUpdate(open, token), "close", signal)) break;
      const stored = await this.#read(place, signal);
      const mine = open.filter(({ partition }) => readPartition(stored, partition).token === token);
      for (const entry of open.filter((one) => !mine.includes(one))) {
        // Our own update whose answer was lost, or a successor that came as far and saw as new a writer: what we did is on record.
        if (!hasReached(readPartition(stored, entry.partition), entry)) lost.push(entry.partition);
      }
      open = mine;
    }
    return lost;
  }

  /** Writes where one partition stands and keeps it. Returns whether it is still ours. */
  async note(
    place: FenceGroup,
    progress: PartitionProgress,
    token: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    return this.#write(place, noteUpdate(progress, token), "note", signal);
  }

  /**
   * Writes where a partition stands, from where keys with open dead letters may be overtaken: no redrive is at work
   * there, and none begins with a key that is not listed as it was. Keeps it.
   */
  async overtake(
    place: FenceGroup,
    progress: PartitionProgress,
    token: string,
    signal: AbortSignal,
  ): Promise<"ours" | "lost" | "redriven"> {
    if (await this.#write(place, overtakeUpdate(progress, token, Date.now()), "overtake", signal))
      return "ours";
    const stored = await this.#read(place, signal);
    return readPartition(stored, progress.partition).token === token ? "redriven" : "lost";
  }

  /** Returns false where one of the partitions is another's. */
  async #write(place: FenceGroup, update: ItemUpdate, what: string, signal: AbortSignal): Promise<boolean> {
    return callTable(`${what} ${place.topic} group ${place.group}`, signal, async () => {
      try {
        await this.#update(place, update, signal, "NONE");
        return true;
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return false;
        throw error;
      }
    });
  }

  #update(
    { topic, group }: FenceGroup,
    update: ItemUpdate,
    signal: AbortSignal,
    returned: "ALL_OLD" | "NONE",
  ) {
    return this.#dynamodb.send(
      new UpdateItemCommand({
        TableName: this.#table,
        Key: this.#key({ topic, group }),
        ...update,
        ReturnValues: returned,
      }),
      { abortSignal: signal },
    );
  }

  async #read(place: FenceGroup, signal: AbortSignal): Promise<Record<string, AttributeValue> | undefined> {
    const { Item } = await callTable(`read ${place.topic} group ${place.group}`, signal, () =>
      this.#dynamodb.send(
        new GetItemCommand({ TableName: this.#table, Key: this.#key(place), ConsistentRead: true }),
        { abortSignal: signal },
      ),
    );
    return Item;
  }

  #key({ topic, group }: FenceGroup): Record<string, AttributeValue> {
    const { pk, sk } = fenceKey(this.#pipeline, this.#consumer, topic, group);
    return { pk: { S: pk }, sk: { S: sk } };
  }
}
