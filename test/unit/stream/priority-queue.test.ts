import fc from "fast-check";
import { expect, test } from "vitest";
import { PriorityQueue } from "../../../lib/stream/priority-queue.ts";

test("gives the least first, whatever the order of adding and taking", () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.integer({ min: 0, max: 20 }))), (steps) => {
      const queue = new PriorityQueue<string>();
      const model: number[] = [];
      for (const rank of steps) {
        if (rank !== null) {
          queue.add(rank, `item ${rank}`);
          model.push(rank);
          model.sort((a, b) => a - b);
        } else {
          const least = model.shift();
          expect(queue.take()).toBe(least === undefined ? undefined : `item ${least}`);
        }
        expect(queue.size).toBe(model.length);
        expect(queue.leastRank).toBe(model[0]);
      }
    }),
  );
});
