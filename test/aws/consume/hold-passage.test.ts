import { expect, test } from "vitest";
import { passHold } from "../../../lib/admin/hold-passage.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { requireLog } from "../../../lib/source/postgres/definition.ts";
import type { Hold } from "../../../lib/source/postgres/hold/hold-record.ts";
import { at, type Change, chain, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, invoke } from "./consumer-bench.ts";

const aws = emulatedAws();
const signal = AbortSignal.timeout(600_000);

/** A topic of two partitions, held from the first change of commit 5 on; its consumer hears what is delivered. */
async function scene(startPosition?: string) {
  const bench = await consumerBench(aws(), startPosition === undefined ? {} : { startPosition: null });
  const handler = bench.instance((c) => c.on("*", ALL_OPERATIONS, () => {}));
  const pipeline = requireLog(
    definePipeline({
      name: "shop",
      source: postgres({ tables: ["public.orders"] }),
      topics: { partitions: 2 },
      consumers: [
        { name: bench.name, entry: "functions/order-summary.ts", topics: [TOPIC] },
        { name: "another", entry: "functions/another.ts", topics: ["shop.public.items"] },
      ],
    }),
    "test",
  );
  const empty = { first: 0, next: 0, changes: 0, bytes: 0, since: 0, last: START_OF_HISTORY };
  const reason = { code: "KEY_CHANGED", message: "m", remedy: "r", table: "public.orders", position: at(5) };
  const hold: Hold = { ...empty, topic: TOPIC, reason, from: at(5), drained: START_OF_HISTORY };
  const store = { dynamodb: aws().dynamodb, table: bench.table, pipeline: "shop", signal };
  return {
    ...{ bench, store, hold },
    deliver: (...changes: Parameters<typeof packed>) => invoke(handler, [packed(...changes)]),
    pass: (timeoutMs = 0) => passHold(store, pipeline, hold, timeoutMs),
  };
}

/** Stands in a partition behind what was stored before the hold. */
const barrier = (after: number | null): Change => ({
  ...{ op: "m", at: 5, ordinal: 0, after },
  message: { prefix: "tributary.probe", content: "" },
});

test("a hold is passed when each consumer of its topic has passed the mark before it, in every partition", async () => {
  const { bench, deliver, pass } = await scene();
  expect(await pass()).toEqual([{ consumer: bench.name, partitions: [0, 1] }]);
  expect(await deliver(chain(1, 4))).toEqual(DONE);
  expect(await pass()).toEqual([{ consumer: bench.name, partitions: [0, 1] }]);
  expect(await deliver([barrier(4)])).toEqual(DONE);
  expect(await pass()).toEqual([{ consumer: bench.name, partitions: [1] }]);
  const waiting = pass(60_000);
  expect(await deliver([barrier(null)], { partition: 1 })).toEqual(DONE);
  expect(await waiting).toEqual([]);
});

test("a consumer that began behind the hold has nothing to pass", async () => {
  const { bench, store, pass } = await scene(at(6));
  await registerConsumers(
    store.dynamodb,
    bench.table,
    "shop",
    [{ name: bench.name, topics: [TOPIC] }],
    at(6),
  );
  expect(await pass()).toEqual([]);
});
