import {
  type AttributeValue,
  ConditionalCheckFailedException,
  type DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
  type UpdateItemCommandOutput,
} from "@aws-sdk/client-dynamodb";
import { fenceKey } from "../state/table.ts";
import { hasReached } from "./checkpoint.ts";
import {
  beginUpdate,
  closeUpdate,
  GROUP_SIZE,
  type ItemUpdate,
  noteUpdate,
  type OwnProgress,
  overtakeUpdate,
  PARTITIONS_WITH_MORE,
  readPartition,
  readToken,
  type StoredPartition,
  takeUpdate,
} from "./fence-item.ts";
import { counterAhead, FenceToken } from "./fence-token.ts";
import { callTable } from "./table-call.ts";

/** Where a fence item stands. */
export interface FenceGroup {
  readonly topic: string;
  readonly group: number;
}

/** A partition that was taken: what stood there before, and the token that its owner writes with from now on. */
export interface TakenPartition {
  readonly stored: StoredPartition;
  readonly token: FenceToken;
  /** Nothing of the partition's group stood there. */
  readonly isNew: boolean;
}

/**
 * The fence of a consumer in the state table. An invocation takes its partitions before the first effect, and
 * closes them with their new marks after the last one; both are one conditional update an item. Whoever took
 * later owns: a predecessor that still lives cannot move the mark any more. Each write moves the token on, so that a
 * request which arrives a second time, however late, changes nothing (rule 37).
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
    place: FenceGroup,
    partitions: readonly number[],
    owner: string,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<number, TakenPartition>> {
    for (let counter = counterAhead([]); ; ) {
      const update = takeUpdate(partitions, new FenceToken(counter, owner));
      const answer = await this.#try(place, update, "take", signal, "ALL_OLD");
      if (answer) {
        const taken = (partition: number): TakenPartition => ({
          stored: readPartition(answer.Attributes, partition),
          token: new FenceToken(counter, owner),
          isNew: answer.Attributes === undefined,
        });
        return new Map(partitions.map((partition) => [partition, taken(partition)]));
      }
      // Another took it since with a clock that is ahead of ours, or in this very millisecond.
      const stored = await this.#read(place, signal);
      counter = Math.max(
        counter + 1,
        counterAhead(partitions.map((partition) => readToken(stored, partition))),
      );
    }
  }

  /** Notes that a group which is new has nothing to do with what expired before now. */
  async begin(place: FenceGroup, nowMs: number, signal: AbortSignal): Promise<void> {
    await this.#try(place, beginUpdate(nowMs), "begin", signal);
  }

  /**
   * Writes the marks of partitions and gives them back. Returns those that are lost: another invocation has taken
   * them, and has not come as far as this one, or has not seen the newest writer that this one saw.
   */
  async close(
    place: FenceGroup,
    own: readonly OwnProgress[],
    signal: AbortSignal,
  ): Promise<readonly number[]> {
    const more = own.some(
      ({ progress: { attempts, parked, explained, lost } }) =>
        (attempts ?? parked ?? explained ?? lost) !== undefined,
    );
    const parts = more ? PARTITIONS_WITH_MORE : GROUP_SIZE;
    const lost: number[] = [];
    for (let i = 0; i < own.length; i += parts)
      lost.push(...(await this.#close(place, own.slice(i, i + parts), signal)));
    return lost;
  }

  async #close(
    place: FenceGroup,
    own: readonly OwnProgress[],
    signal: AbortSignal,
  ): Promise<readonly number[]> {
    const lost: number[] = [];
    let open = own;
    while (open.length > 0) {
      if (await this.#try(place, closeUpdate(open), "close", signal)) break;
      const stored = await this.#read(place, signal);
      const mine = open.filter(({ progress, token }) => readToken(stored, progress.partition) === token.held);
      for (const { progress } of open.filter((entry) => !mine.includes(entry))) {
        // Our own update whose answer was lost, or a successor that came as far and saw as new a writer: what we did is on record.
        const theirs = readPartition(stored, progress.partition);
        if (!hasReached(theirs, progress)) lost.push(progress.partition);
      }
      open = mine;
    }
    return lost;
  }

  /** Writes where one partition stands and keeps it. Returns whether it is still ours. */
  async note(place: FenceGroup, own: OwnProgress, signal: AbortSignal): Promise<boolean> {
    return (await this.#keep(place, own, noteUpdate, "note", signal)) === "ours";
  }

  /**
   * Writes where a partition stands, from where keys with open dead letters may be overtaken: no redrive is at work
   * there, and none begins with a key that is not listed as it was. Keeps it.
   */
  async overtake(
    place: FenceGroup,
    own: OwnProgress,
    signal: AbortSignal,
  ): Promise<"ours" | "lost" | "redriven"> {
    const update = (it: OwnProgress, next: string) => overtakeUpdate(it, next, Date.now());
    return this.#keep(place, own, update, "overtake", signal);
  }

  /** A write that keeps the partition; `redriven` where it is ours, and was refused for another reason. */
  async #keep(
    place: FenceGroup,
    own: OwnProgress,
    update: (own: OwnProgress, next: string) => ItemUpdate,
    what: string,
    signal: AbortSignal,
  ): Promise<"ours" | "lost" | "redriven"> {
    const { progress, token } = own;
    const next = token.issue();
    if (!(await this.#try(place, update(own, next), what, signal))) {
      const stored = readToken(await this.#read(place, signal), progress.partition);
      if (stored === token.held) return "redriven";
      // Where it is the next one, the write was carried out, and its answer was lost.
      if (stored !== next) return "lost";
    }
    token.advance();
    return "ours";
  }

  /** Returns undefined where the condition does not hold. */
  async #try(
    place: FenceGroup,
    update: ItemUpdate,
    what: string,
    signal: AbortSignal,
    returned: "ALL_OLD" | "NONE" = "NONE",
  ): Promise<UpdateItemCommandOutput | undefined> {
    return callTable(`${what} ${place.topic} group ${place.group}`, signal, async () => {
      try {
        return await this.#update(place, update, signal, returned);
      } catch (error) {
        if (error instanceof ConditionalCheckFailedException) return undefined;
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
