import { describe, expect, it } from "vitest";
import {
  closeUpdate,
  GROUP_SIZE,
  groupOf,
  noteUpdate,
  type OwnProgress,
  overtakeUpdate,
  PARTITIONS_WITH_MORE,
  type PartitionProgress,
  readPartition,
  takeUpdate,
} from "../../../lib/consume/fence/fence-item.ts";
import { counterAhead, FenceToken } from "../../../lib/consume/fence/fence-token.ts";
import type { ConditionalUpdate } from "../../../lib/state/item-update.ts";
import { updated } from "./memory-table.ts";
import { at } from "./records.ts";

/** The last group of the largest topic: names are longest there. */
const partitions = Array.from({ length: GROUP_SIZE }, (_, i) => 4096 - GROUP_SIZE + i);
/** Names a partition's list of keys with open dead letters. */
const parked = "~kJ1x8Qm0aWbq3N9e";
/** As long as they become. */
const token = () => new FenceToken(counterAhead([]), "kJ1x8Qm0aWbq3N9e");
const attempts = { from: at(1), to: at(2), count: 500, calls: 3, since: new Date().toISOString() };

/** Everything DynamoDB could count as an operator or function, so more than it does. */
function operators({ UpdateExpression, ConditionExpression = "" }: ConditionalUpdate): number {
  return (
    `${UpdateExpression} ${ConditionExpression}`.match(/[=<>,(]|\b(SET|REMOVE|AND|OR|NOT)\b/g)?.length ?? 0
  );
}

const plain = { position: at(1), writer: 1, attempts: undefined, parked: undefined };
const own = (partition: number, more: Partial<PartitionProgress> = {}): OwnProgress => ({
  progress: { partition, ...plain, ...more },
  token: token(),
});
/** What a careful invocation closes: each partition with a token of its own. */
function noted(entry: OwnProgress): OwnProgress {
  for (let i = 0; i < 1000; i++) entry.token.issue();
  entry.token.advance();
  return entry;
}

describe("a full group", () => {
  it.each([
    ["take", takeUpdate(partitions, token(), false)],
    ["take after a refusal", takeUpdate(partitions, token(), true)],
    ["close", closeUpdate(partitions.map((partition) => own(partition)))],
    ["close after notes", closeUpdate(partitions.map((partition) => noted(own(partition))))],
    [
      "close with attempts, what is explained and parked keys",
      closeUpdate(
        partitions
          .slice(-PARTITIONS_WITH_MORE)
          .map((partition) => noted(own(partition, { attempts, explained: at(2), parked }))),
      ),
    ],
    ["note", noteUpdate(own(4095, { attempts, parked }), "next")],
    ["overtake", overtakeUpdate(own(4095, { attempts, parked }), "next", { name: "redrive", end: 1 })],
  ])("%s stays inside of DynamoDB's limits on expressions", (_what, update) => {
    expect(operators(update)).toBeLessThanOrEqual(300);
    expect(Buffer.byteLength(update.UpdateExpression)).toBeLessThanOrEqual(4096);
    expect(Buffer.byteLength(update.ConditionExpression ?? "")).toBeLessThanOrEqual(4096);
  });

  it("is one item", () => {
    expect(new Set(partitions.map(groupOf))).toEqual(new Set([4096 / GROUP_SIZE - 1]));
    expect(groupOf(GROUP_SIZE - 1)).toBe(0);
    expect(groupOf(GROUP_SIZE)).toBe(1);
  });

  it("stays far below the size of an item", () => {
    const values = closeUpdate(
      partitions.map((partition) => own(partition, { writer: 2 ** 40, attempts, parked })),
    );
    expect(JSON.stringify(values).length).toBeLessThan(24_000);
  });
});

describe("readPartition", () => {
  it("reads what an update wrote", () => {
    const written = own(7, { position: at(9), writer: 4, attempts, parked });
    const update = noteUpdate(written, "t");
    const item = updated(update.UpdateExpression, {}, update);
    expect(readPartition(item, 7)).toEqual({ position: at(9), writer: 4, token: "t", attempts, parked });
  });

  it("knows nothing of a partition that is not there", () => {
    const nothing = { position: undefined, writer: 0, token: undefined, attempts: undefined };
    expect(readPartition(undefined, 7)).toEqual(nothing);
    expect(readPartition({ m70: { S: at(1) } }, 7)).toEqual(nothing);
  });
});
