import { expect, test } from "vitest";
import { ownAsides } from "../../../lib/capture/slot-task.ts";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import type { Aside, AsideRecord } from "../../../lib/source/postgres/aside/aside-record.ts";

const aside = (topic: string, more: Partial<Aside> = {}): Aside => ({
  ...{ topic, table: `public.${topic}`, position: START_OF_HISTORY, code: "TEXT_ENCODING", message: "m" },
  ...{ since: 1, sent: true, reread: false },
  ...more,
});

/** Of two slots: `a` is the first one's, `b` the second one's, `moved` goes from the first to the second. */
function scene() {
  const kept = new Map(["a", "b", "moved"].map((topic) => [topic, aside(topic)]));
  const record: AsideRecord = {
    list: async () => [...kept.values()],
    write: async (written) => void kept.set(written.topic, written),
    remove: async ({ topic }) => void kept.delete(topic),
    wanted: async () => [],
    met: async () => {},
  };
  const of = (slot: number, now: string[], written: string[], others: string[]) =>
    ownAsides(record, slot, { now: new Set(now), written: new Set(written), others: new Set(others) });
  return {
    kept,
    old: of(1, ["a"], ["a", "moved"], ["b", "moved"]),
    new: of(2, ["b", "moved"], ["b", "moved"], ["a", "moved"]),
  };
}

test("a topic's old slot puts its changes aside again, and leaves it to the new one to have the table read again", async () => {
  const { kept, ...slots } = scene();
  const old = await slots.old.list();
  expect(old.map(({ topic, reread }) => `${topic} ${reread}`)).toEqual(["a false", "moved true"]);
  for (const one of old) await slots.old.write({ ...one, reread: true });
  for (const one of old) await slots.old.remove(one);
  expect([...kept.values()]).toEqual([aside("b"), aside("moved")]);
  const found = await slots.new.list();
  expect(found.map(({ topic, reread }) => `${topic} ${reread}`)).toEqual(["b false", "moved false"]);
  for (const one of found) await slots.new.write({ ...one, reread: true });
  expect(kept.get("moved")?.reread).toBe(true);
  for (const one of found) await slots.new.remove(one);
  expect(kept.size).toBe(0);
});
