import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { isOwnPlace, type PositionText, parsePosition } from "../../change/position.ts";
import { startPositionKey } from "../../state/state-key.ts";
import type { StateItem } from "../../state/state-table.ts";
import { ConsumerTable } from "../fence/consumer-table.ts";
import { positionsOf } from "../fence/start-position.ts";

/** A checkpoint of a partition (`lib/consume/fence/fence-item.ts`). */
const CHECKPOINT = /^m(\d+)$/;

/** The consumers whose checkpoints are read, and the table that they stand in. */
interface CheckpointsPlace {
  readonly dynamodb: DynamoDBClient;
  /** The state table. */
  readonly table: string;
  readonly pipeline: string;
  readonly consumers: readonly { readonly name: string }[];
  readonly signal: AbortSignal;
}

/**
 * The highest epoch in which a change took effect anywhere, as far as the state table knows; 0 before any. A pipeline
 * that began anew below it would write positions that its consumers drop as old.
 */
export async function highestEpoch(
  dynamodb: DynamoDBClient,
  table: string,
  pipeline: string,
  consumers: readonly { readonly name: string }[],
  signal: AbortSignal,
): Promise<number> {
  let highest: PositionText = "";
  for await (const item of itemsOf({ dynamodb, table, pipeline, consumers, signal })) {
    const checkpoints = Object.entries(item).flatMap(([name, { S: checkpoint = "" }]) =>
      CHECKPOINT.test(name) ? checkpoint : [],
    );
    for (const position of [...checkpoints, ...positionsOf(item)]) if (position > highest) highest = position;
  }
  return highest === "" ? 0 : parsePosition(highest).epoch;
}

/** The furthest checkpoint that something in the log, given by one capture task, has left; undefined where none has. */
export async function furthestCheckpoint(
  place: CheckpointsPlace,
  writer: number,
): Promise<PositionText | undefined> {
  let furthest: PositionText | undefined;
  for await (const item of itemsOf(place)) {
    for (const [name, { S: checkpoint = "" }] of Object.entries(item)) {
      const [, partition] = CHECKPOINT.exec(name) ?? [];
      if (partition === undefined || Number(item[`w${partition}`]?.N) !== writer) continue;
      if (isOwnPlace(checkpoint) && checkpoint > (furthest ?? "")) furthest = checkpoint;
    }
  }
  return furthest;
}

/** Yields all items of the consumers. @throws FenceUnavailableError */
async function* itemsOf({ consumers, signal, ...place }: CheckpointsPlace): AsyncGenerator<StateItem> {
  for (const { name } of consumers) {
    const table = new ConsumerTable({ ...place, consumer: name });
    const { pk } = startPositionKey({ pipeline: place.pipeline, consumer: name });
    yield* table.until(signal, `read the marks of ${name}`).query({ pk, sk: "" });
  }
}
