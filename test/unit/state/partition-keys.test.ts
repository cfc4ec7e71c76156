import { expect, test } from "vitest";
import {
  consumerPartitionKeys,
  pausesPartitionKey,
  pipelinePartitionKeys,
} from "../../../lib/state/partition-keys.ts";
import * as keys from "../../../lib/state/state-key.ts";

const place = { topic: "shop.public.orders", partition: 3, chain: "c", upTo: "p" };

/** Each kind of item, by who has it: a kind that is new stands here, so that a consumer's rights are thought of. */
const CAPTURE: Record<string, keys.StateKey> = {
  captureKey: keys.captureKey("shop", 2),
  capturePartKey: keys.capturePartKey("shop", 1, "a", "1"),
  captureReportKey: keys.captureReportKey("shop", 1, "seat"),
  deployedKey: keys.deployedKey("shop"),
  stateFormatKey: keys.stateFormatKey("shop"),
  knownKeysKey: keys.knownKeysKey("shop", 1),
  backfillKey: keys.backfillKey("shop", "public.orders"),
  backfillBellKey: keys.backfillBellKey("shop"),
  rereadKey: keys.rereadKey("shop", "public.orders"),
  holdKey: keys.holdKey("shop", place.topic),
  holdSegmentKey: keys.holdSegmentKey("shop", place.topic, 1),
  unhealedKey: keys.unhealedKey("shop", "public.orders"),
  asideKey: keys.asideKey("shop", { topic: place.topic, position: "p" }),
  wantedAsideKey: keys.wantedAsideKey("shop", "p"),
};
const CONSUMER: Record<string, (consumer: string) => keys.StateKey> = {
  startPositionKey: (name) => keys.startPositionKey({ pipeline: "shop", consumer: name }),
  fenceKey: (name) => keys.fenceKey({ pipeline: "shop", consumer: name }, place.topic, 1),
  claimKey: (name) => keys.claimKey({ pipeline: "shop", consumer: name }, "claim"),
  parkedChangeKey: (name) =>
    keys.parkedChangeKey({ pipeline: "shop", consumer: name }, place.topic, 3, "c", "p"),
  deadRecordKey: (name) => keys.deadRecordKey({ pipeline: "shop", consumer: name }, "shard", "1"),
  parkedListKey: (name) => keys.parkedListKey({ pipeline: "shop", consumer: name }, place, "1"),
  deadLetterKey: (name) => keys.deadLetterKey({ pipeline: "shop", consumer: name }, place),
  missingKey: (name) => keys.missingKey({ pipeline: "shop", consumer: name }, place),
  resetKey: (name) => keys.resetKey({ pipeline: "shop", consumer: name }),
  shardKey: (name) => keys.shardKey({ pipeline: "shop", consumer: name }, "shard"),
  heldRecordsKey: (name) =>
    keys.heldRecordsKey({ pipeline: "shop", consumer: name }, place.topic, 3, "hold", "record"),
};

test("each kind of key is known here", () => {
  expect([...Object.keys(CAPTURE), ...Object.keys(CONSUMER), "pauseKey"].sort()).toEqual(
    Object.keys(keys).sort(),
  );
});

test.each(Object.entries(CONSUMER))("%s is its consumer's, and no other's", (_, key) => {
  const { pk } = key("orders");
  expect(matches(consumerPartitionKeys("shop", "orders"), pk)).toBe(true);
  for (const other of ["order", "orders-2", "o", "customer-view"])
    expect([other, matches(consumerPartitionKeys("shop", other), pk)]).toEqual([other, false]);
  expect(matches(consumerPartitionKeys("shop-2", "orders"), pk)).toBe(false);
  expect(matches(pipelinePartitionKeys("shop"), pk)).toBe(true);
});

test.each(Object.entries(CAPTURE))("%s is no consumer's", (_, { pk }) => {
  expect(matches(consumerPartitionKeys("shop", "orders"), pk)).toBe(false);
  expect(pk).not.toBe(pausesPartitionKey("shop"));
  expect(matches(pipelinePartitionKeys("shop"), pk)).toBe(true);
  expect(matches(pipelinePartitionKeys("sho"), pk)).toBe(false);
});

/** As IAM's StringLike. */
function matches(patterns: readonly string[], text: string): boolean {
  return patterns.some((pattern) =>
    pattern.endsWith("*") ? text.startsWith(pattern.slice(0, -1)) : text === pattern,
  );
}
