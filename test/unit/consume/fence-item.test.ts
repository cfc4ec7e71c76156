import { describe, expect, it } from "vitest";
import {
  closeUpdate,
  GROUP_SIZE,
  groupOf,
  type ItemUpdate,
  noteUpdate,
  overtakeUpdate,
  PARTITIONS_WITH_PARKED,
  readPartition,
  takeUpdate,
} from "../../../lib/consume/fence-item.ts";
import { PARKING_LIMITS } from "../../../lib/consume/parked-keys.ts";
import { at } from "./records.ts";

/** The last group of the largest topic: names are longest there. */
const partitions = Array.from({ length: GROUP_SIZE }, (_, i) => 4096 - GROUP_SIZE + i);
/** A partition's list of keys with open dead letters, as long as it may be. */
const parked = Array.from({ length: PARKING_LIMITS.keys }, () => "pabcdefghABCDEF7ps.1ekg").join(",");
const attempts = { from: at(1), to: at(2), count: 500, calls: 3, since: new Date().toISOString() };

/** Everything DynamoDB could count as an operator or function, so more than it does. */
function operators({ UpdateExpression, ConditionExpression = "" }: ItemUpdate): number {
  return (
    `${UpdateExpression} ${ConditionExpression}`.match(/[=<>,(]|\b(SET|REMOVE|AND|OR|NOT)\b/g)?.length ?? 0
  );
}

describe("a full group", () => {
  it.each([
    ["take", takeUpdate(partitions, "token")],
    [
      "close",
      closeUpdate(
        partitions.map((partition) => ({
          partition,
          mark: at(1),
          writer: 1,
          attempts: undefined,
          parked: undefined,
        })),
        "t",
      ),
    ],
    [
      "close with attempts",
      closeUpdate(
        partitions.map((partition) => ({ partition, mark: at(1), writer: 1, attempts, parked: undefined })),
        "t",
      ),
    ],
    [
      "close with parked keys",
      closeUpdate(
        partitions
          .slice(-PARTITIONS_WITH_PARKED)
          .map((partition) => ({ partition, mark: at(1), writer: 1, attempts, parked })),
        "t",
      ),
    ],
    ["note", noteUpdate({ partition: 4095, mark: at(1), writer: 1, attempts, parked }, "t")],
    ["overtake", overtakeUpdate({ partition: 4095, mark: at(1), writer: 1, attempts, parked }, "t", 1)],
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
      partitions.map((partition) => ({ partition, mark: at(1), writer: 2 ** 40, attempts, parked })),
      "t",
    );
    expect(JSON.stringify(values).length).toBeLessThan(256_000);
  });
});

describe("readPartition", () => {
  it("reads what an update wrote", () => {
    const { ExpressionAttributeValues: values } = noteUpdate(
      { partition: 7, mark: at(9), writer: 4, attempts, parked },
      "t",
    );
    const item = {
      m7: values[":m7"],
      w7: values[":w7"],
      a7: values[":a7"],
      k7: values[":k7"],
      t7: values[":t"],
    } as never;
    expect(readPartition(item, 7)).toEqual({ mark: at(9), writer: 4, token: "t", attempts, parked });
  });

  it("knows nothing of a partition that is not there", () => {
    const nothing = { mark: undefined, writer: 0, token: undefined, attempts: undefined };
    expect(readPartition(undefined, 7)).toEqual(nothing);
    expect(readPartition({ m70: { S: at(1) } }, 7)).toEqual(nothing);
  });
});
