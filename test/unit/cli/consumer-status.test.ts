import { expect, it } from "vitest";
import type { PartitionStatus } from "../../../lib/admin/consumer-status.ts";
import { statusInWords } from "../../../lib/cli/consumer.ts";

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
