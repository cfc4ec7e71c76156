import { expect, test } from "vitest";
import { checkOutbox } from "../../../lib/testing/checker/outbox/check.ts";

const versions = new Map([
  ["1", 2],
  ["2", 1],
]);
const effects = (...all: [string, number][]) =>
  all.map(([order, version]) => ({ order, version, partition: 0 }));

test.each<[string, [string, number][], object]>([
  [
    "all of it",
    [
      ["1", 1],
      ["2", 1],
      ["1", 2],
    ],
    {},
  ],
  [
    "one missing",
    [
      ["1", 1],
      ["1", 2],
    ],
    { lost: 1 },
  ],
  [
    "one of a rolled-back transaction",
    [
      ["1", 1],
      ["2", 1],
      ["1", 2],
      ["1", 3],
    ],
    { extra: 1 },
  ],
  [
    "one of an order that never was",
    [
      ["1", 1],
      ["2", 1],
      ["1", 2],
      ["3", 1],
    ],
    { extra: 1 },
  ],
  [
    "one twice",
    [
      ["1", 1],
      ["1", 1],
      ["2", 1],
      ["1", 2],
    ],
    { duplicates: 1 },
  ],
  [
    "two exchanged",
    [
      ["1", 2],
      ["1", 1],
      ["2", 1],
    ],
    { outOfOrder: 2 },
  ],
])("%s", (_, happened, found) => {
  expect(checkOutbox(versions, effects(...happened))).toMatchObject({
    ...{ events: 3, lost: 0, extra: 0, duplicates: 0, outOfOrder: 0 },
    ...found,
  });
});
