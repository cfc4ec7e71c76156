import { expect, test } from "vitest";
import { Beats } from "../../../lib/source/outbox/beats.ts";

test("alive is whose beat moves, whatever the server's clock says", () => {
  let now = 0;
  const beats = new Beats(() => now);
  const see = (all: Record<string, string>) => beats.see(new Map(Object.entries(all)));
  see({ a: "12:00", dead: "12:00" });
  expect([...beats.living(100)]).toEqual(["a", "dead"]);
  now = 90;
  // The clock was set back: for all that stands there, the dead one has beaten in the future.
  see({ a: "11:00", dead: "12:00" });
  expect([...beats.living(100)]).toEqual(["a", "dead"]);
  now = 100;
  see({ a: "11:01", dead: "12:00", fresh: "09:00" });
  expect([...beats.living(100)]).toEqual(["a", "fresh"]);
  expect(beats.silent(100)).toEqual([{ id: "dead", beat: "12:00" }]);
  // Gone from the database, gone from here; and who comes back is new.
  see({ a: "11:01" });
  see({ a: "11:01", dead: "12:00" });
  expect([...beats.living(100)]).toEqual(["a", "dead"]);
});
