import { setTimeout as delay } from "node:timers/promises";
import { between } from "../../lib/local/shop/catalog.ts";
import { readSlotOfTables } from "../../lib/testing/checker/slot-history.ts";
import { eventually } from "../eventually.ts";
import { type Fault, pick, streaming } from "./faults.ts";

/** What can go wrong only where a pipeline has several slots. The last round of a run: it leaves a slot more behind. */
export const SLOT_FAULTS: readonly Fault[] = [
  {
    name: "tables move to a new slot, tasks killed",
    async inject(rig, random, strength) {
      let kills = 0;
      for (let i = 0; i < strength; i++) {
        const before = await readSlotOfTables(rig.databaseUrl, rig.definition);
        const old = rig.captures;
        const taking = await rig.addSlot("table-moved=kill@1");
        for (const capture of old) if (capture.kill()) kills++;
        await eventually(() => taking.ends.length > 0, {
          what: "tables to move, and a kill at it",
          deadlineMs: 120_000,
        });
        kills++;
        // While the old slot's task comes to the message, and the new one's waits for it.
        for (let kill = 0; kill < 4; kill++) {
          await delay(between(random, 0, 2_500));
          if (pick(random, rig.captures).kill()) kills++;
        }
        for (const capture of rig.captures) await streaming(capture);
        const after = await readSlotOfTables(rig.databaseUrl, rig.definition);
        if ([...after].every(([table, slot]) => before.get(table) === slot))
          throw new Error("no table has moved");
      }
      return kills;
    },
  },
];
