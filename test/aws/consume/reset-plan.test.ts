import { describe, expect, it } from "vitest";
import { resetPartitions } from "../../../lib/admin/reset.ts";
import { planReset, type ResetScope } from "../../../lib/admin/reset-plan.ts";
import { readReset } from "../../../lib/admin/reset-record.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { MissingTable } from "../../../lib/consume/run/missing-changes.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { type Backfill, readBackfill, requestBackfill, writeBackfill } from "../../../lib/state/backfills.ts";
import { persistentTable } from "../../../lib/state/persistent-table.ts";
import { captureKey } from "../../../lib/state/state-key.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench } from "./consumer-bench.ts";

const aws = emulatedAws();
const signal = AbortSignal.timeout(600_000);
const ONE = "shop.one";

/** A consumer of two topics, the first of which has the tables `public.a`, and later `public.b`; the second `public.c`. */
async function planBench() {
  const bench = await consumerBench(aws());
  const place = { dynamodb: aws().dynamodb, table: bench.table, pipeline: "shop", consumer: bench.name };
  const store = { ...place, signal };
  const pipeline = definePipeline({
    name: "shop",
    source: postgres({ tables: ["public.*"] }),
    topics: {
      partitions: 1,
      routes: [
        { match: "^public\\.[abd]$", to: "one" },
        { match: "^public\\.c$", to: "two" },
      ],
    },
    consumers: [{ name: bench.name, topics: ["shop.*"], entry: "./c.ts" }],
  });
  const captures = (...tables: string[]) => {
    const routes = tables.map((table) => [table, { topic: "", partitions: 1, key: null }]);
    const settings = { keyFormat: "murmur3/1", tables: Object.fromEntries(routes) };
    return persistentTable(store).update(captureKey("shop"), {
      UpdateExpression: "SET settings=:s",
      ExpressionAttributeValues: { ":s": { S: JSON.stringify(settings) } },
    });
  };
  const plan = (scope: ResetScope = {}) => planReset(place, pipeline, scope, signal);
  const move = async (scope: ResetScope = {}, onStep?: () => void) => {
    const { topics, only, last: seen, goesOn } = await plan(scope);
    const options = { by: "me", invocationMs: 0, patienceMs: 300, signal, ...(onStep ? { onStep } : {}) };
    return await resetPartitions(place, { topics, only, seen, goesOn }, options);
  };
  return { place, store, captures, plan, move };
}

const dies = () => {
  throw new Error("died");
};

describe("the plan of a reset", () => {
  it("of one that was broken off names the tables that its topics have by now: what is passed of them is read", async () => {
    const { place, captures, plan, move } = await planBench();
    await captures("public.a", "public.c");
    await expect(move({}, dies)).rejects.toThrow("died");
    expect(await plan()).toMatchObject({ goesOn: true });
    await captures("public.a", "public.b", "public.c");
    const outgrown = await plan();
    expect(outgrown).toMatchObject({ goesOn: false });
    expect(outgrown.topics.find(({ topic }) => topic === ONE)?.tables).toEqual(["public.a", "public.b"]);
    expect((await move()).phase).toBe("backfills");
    const noted = await new MissingTable(new ConsumerTable(place)).list(signal);
    expect(noted.map(({ topic, accepted }) => [topic, Object.keys(accepted?.tables ?? {})])).toEqual([
      [ONE, ["public.a", "public.b"]],
      ["shop.two", ["public.c"]],
    ]);
    // Moved as a whole, it goes on: what comes later comes by itself.
    await captures("public.a", "public.b", "public.c", "public.d");
    expect(await plan()).toMatchObject({ goesOn: true, topics: outgrown.topics });
  });

  it("never passes one of a single topic off as one of all", async () => {
    const { place, captures, plan, move } = await planBench();
    await captures("public.a", "public.c");
    await move({ topic: ONE });
    await expect(plan()).rejects.toMatchObject({
      code: "RESET_REFUSED",
      message: expect.stringContaining(`a reset of ${ONE} alone`),
      remedy: expect.stringContaining(`--topic ${ONE}`),
    });
    expect(await plan({ topic: ONE })).toMatchObject({ goesOn: true });
    await expect(plan({ topic: "shop.two" })).rejects.toMatchObject({ code: "RESET_REFUSED" });
    const all = await plan({ anew: true });
    expect(all).toMatchObject({ goesOn: false, only: undefined });
    expect(all.topics.map(({ topic }) => topic)).toEqual([ONE, "shop.two"]);
    await move({ anew: true });
    expect((await readReset(place, signal))?.only).toBeUndefined();
    expect(await plan()).toMatchObject({ goesOn: true });
  });

  it("tells of a table whose last backfill was refused, and refuses beside another's that is under way", async () => {
    const { store, captures, plan } = await planBench();
    await captures("public.a", "public.c");
    await requestBackfill(store, "public.c", { sweep: true, requestedAt: 1 });
    await expect(plan()).rejects.toMatchObject({ code: "BACKFILL_ACTIVE" });
    const backfill = (await readBackfill(store, "public.c")) as Backfill;
    const counts = { lastKey: null, keyColumns: ["id"], chunk: 0, rows: 0, bytes: 0, updatedAt: 1 };
    const progress = { ...counts, startPosition: "0".repeat(34), startedAt: 1, reason: "it is not captured" };
    await writeBackfill(store, backfill, 1, { status: "refused", epoch: 1, progress });
    expect((await plan()).refused).toEqual({ "public.c": "it is not captured" });
  });
});
