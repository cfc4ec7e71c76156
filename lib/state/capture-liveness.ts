import { setTimeout as sleep } from "node:timers/promises";
import { type DynamoDBClient, GetItemCommand } from "@aws-sdk/client-dynamodb";
import { captureKey } from "./state-key.ts";

const POLL_MS = 200;

/**
 * Whether a capture task is alive: its lease is held, and renewed while we look. Answers as soon as it was renewed, which
 * a living task does every third of `leaseMs`; at the latest after `leaseMs`. Takes nothing.
 */
export async function captureIsAlive(
  {
    dynamodb,
    table,
    pipeline,
    slot,
    signal,
  }: {
    readonly dynamodb: DynamoDBClient;
    readonly table: string;
    readonly pipeline: string;
    /** The number of the slot. Default 1. */
    readonly slot?: number;
    readonly signal: AbortSignal;
  },
  leaseMs: number,
): Promise<boolean> {
  const { pk, sk } = captureKey(pipeline, slot);
  const read = async (): Promise<string | undefined> => {
    const { Item } = await dynamodb.send(
      new GetItemCommand({ TableName: table, Key: { pk: { S: pk }, sk: { S: sk } }, ConsistentRead: true }),
      { abortSignal: signal },
    );
    return Item?.owner?.S === undefined ? undefined : `${Item.generation?.N}/${Item.beat?.N ?? "0"}`;
  };
  const first = await read();
  const deadline = performance.now() + leaseMs;
  for (let now = first; now !== undefined && performance.now() < deadline; now = await read()) {
    if (now !== first) return true;
    await sleep(POLL_MS, undefined, { signal });
  }
  return false;
}
