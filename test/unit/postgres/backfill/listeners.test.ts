import { expect, test } from "vitest";
import { Listeners } from "../../../../lib/source/postgres/decode/listeners.ts";
import type { Tuple } from "../../../../lib/source/postgres/decode/pgoutput/tuple.ts";
import type { ChangeListener, RelationPlan } from "../../../../lib/source/postgres/decode/relation-plan.ts";

const [buffer, plan, row] = [Buffer.alloc(0), {} as RelationPlan, {} as Tuple];

/** A listener that notes what it sees. */
function noting(name: string, seen: string[]): ChangeListener {
  return {
    inserted: () => void seen.push(`${name} insert`),
    updated: (_buffer, _plan, _row, old, whole) => void seen.push(`${name} update ${old === row} ${whole}`),
    deleted: () => void seen.push(`${name} delete`),
    truncated: () => void seen.push(`${name} truncate`),
  };
}

test("both see a table's changes while both listen, the one alone when the other has ended, and nobody then", () => {
  const now = new Map<string, ChangeListener | undefined>();
  const listeners = new Listeners((table, listener) => void now.set(table, listener));
  const seen: string[] = [];
  const all = (table: string) => {
    const listener = now.get(table);
    listener?.inserted(buffer, plan, row);
    listener?.updated(buffer, plan, row, row, true);
    listener?.deleted(buffer, plan, row);
    listener?.truncated(plan);
    return seen
      .splice(0)
      .map((line) => line.split(" ")[0])
      .join("");
  };
  listeners.set("backfill", "t", noting("b", seen));
  expect(all("t")).toBe("bbbb");
  listeners.set("reread", "t", noting("r", seen));
  now.get("t")?.updated(buffer, plan, row, row, true);
  expect(seen.splice(0)).toEqual(["b update true true", "r update true true"]);
  expect(all("t")).toBe("brbrbrbr");
  expect(all("other")).toBe("");
  listeners.set("backfill", "t", noting("c", seen));
  expect(all("t")).toBe("crcrcrcr");
  listeners.set("backfill", "t", undefined);
  expect(all("t")).toBe("rrrr");
  listeners.set("reread", "t", undefined);
  expect(now.get("t")).toBeUndefined();
});
