import { afterEach, expect, test } from "vitest";
import { START_OF_HISTORY } from "../../lib/change/position.ts";
import { holdRecord } from "../../lib/state/holds.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  test("a capture task that knows no claim store does not start where a topic is held", async () => {
    const bench = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => bench.end());
    const table = bench.environment.TRIBUTARY_STATE_TABLE as string;
    const { signal } = new AbortController();
    const store = { dynamodb: aws().dynamodb, table, pipeline: "shop", signal };
    const place = { table: "public.orders", position: START_OF_HISTORY };
    const empty = {
      first: 0,
      next: 0,
      changes: 0,
      bytes: 0,
      last: START_OF_HISTORY,
      drained: START_OF_HISTORY,
    };
    await holdRecord(store, 1).write({
      topic: "shop.public.orders",
      reason: { code: "TEXT_ENCODING", message: "m", remedy: "r", ...place },
      since: 0,
      from: START_OF_HISTORY,
      ...empty,
    });
    const capture = bench.capture({ TRIBUTARY_CLAIM_BUCKET: "" });
    expect(await capture.ended).not.toBe(0);
    expect(capture.lines.join()).toContain("HOLD_STORE_MISSING");
  });
});
