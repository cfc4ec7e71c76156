import { expect, test } from "vitest";
import { ownHolds } from "../../../lib/capture/slot-task.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import type { Hold } from "../../../lib/source/postgres/hold/hold-record.ts";
import { MemoryHolds } from "../../postgres/hold-record.ts";

function hold(topic: string): Hold {
  const position = START_OF_HISTORY;
  return {
    topic,
    reason: { code: "TEXT_ENCODING", message: "", remedy: "", table: "public.t", position },
    since: 0,
    ...{ from: position, last: position, drained: position, first: 0, next: 0, changes: 0, bytes: 0 },
  };
}

/** Of two slots: `a` is the first one's, `b` the second one's, `moved` goes from the first to the second, `gone` has no table. */
async function listed(slot: number, topics: { now: string[]; written: string[]; others: string[] }) {
  const record = new MemoryHolds();
  for (const topic of ["a", "b", "moved", "gone"]) {
    await record.write(hold(topic));
    record.wanted.add(topic);
  }
  const { now, written, others } = topics;
  const whole = { list: () => record.list() } as MemoryHolds;
  const own = ownHolds(whole, slot, {
    now: new Set(now),
    written: new Set(written),
    others: new Set(others),
  });
  return (await own.list()).map(({ topic, released }) => `${topic}${released ? " released" : ""}`);
}

test("each of several slots' tasks has the holds of its own topics, and releases no other", async () => {
  expect(await listed(1, { now: ["a"], written: ["a", "moved"], others: ["b", "moved"] })).toEqual([
    "a released",
    "moved",
    "gone released",
  ]);
  expect(await listed(2, { now: ["b", "moved"], written: ["b", "moved"], others: ["a", "moved"] })).toEqual([
    "b released",
    "moved released",
  ]);
});
