import { expect, it } from "vitest";
import type { PartitionStatus } from "../../../lib/admin/consumer-status.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import { statusInWords } from "../../../lib/cli/consumer.ts";
import type { MissingChanges } from "../../../lib/consume/run/missing-changes.ts";

const LAST = formatPosition({ epoch: 1, commitLsn: 16n, ordinal: 1 });
const DAY_MS = 24 * 3600 * 1000;

function heldFor(days: number): PartitionStatus {
  const since = new Date(Date.now() - days * DAY_MS).toISOString();
  return {
    ...{ topic: "shop.public.orders", partition: 12, checkpoint: undefined, writer: 3 },
    hold: { since, cause: "Error", bytes: 2_048 },
    ...{ gap: undefined, unhealed: [], deadLetters: 0, parked: 0 },
  };
}

it("says of a hold that the objects of what it holds expire, a month before they do", () => {
  const told = (days: number) => statusInWords(heldFor(days), "orders").join("\n");
  expect(told(59)).toMatch(/held since .*: Error, 2 KB: tributary redrive --consumer orders$/m);
  expect(told(59)).not.toContain("claim store");
  expect(told(61)).toContain("are gone from the claim store 90 days after they were written");
});

it("has a lost object restored before its loss is accepted, and says so once", () => {
  const range = { ...{ topic: "shop.public.orders", partition: 12, writer: 3 }, behind: LAST, upTo: LAST };
  const gap = { ...range, cause: "object", foundAt: "2026-11-30T10:00:00.000Z" } as MissingChanges;
  const lines = statusInWords({ ...heldFor(1), gap }, "orders");
  const commands = lines.filter((line) => line.includes("tributary "));
  expect(commands).toEqual([
    "    restore the object, then: tributary redrive --consumer orders",
    "    where it is gone for good: tributary consumer accept-gap --consumer orders --topic 'shop.public.orders' --partition 12",
  ]);
  const other = statusInWords({ ...heldFor(1), gap: { ...gap, cause: "gap" } }, "orders").join("\n");
  expect(other).toMatch(/^ {4}tributary consumer accept-gap/m);
  expect(other).not.toContain("restore");
});
