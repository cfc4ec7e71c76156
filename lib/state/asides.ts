import * as z from "zod";
import type { PositionText } from "../change/position.ts";
import type { Aside, AsideRecord } from "../source/postgres/aside/aside-record.ts";
import { LeasedTable } from "./leased-table.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { asideKey, wantedAsideKey } from "./state-key.ts";

const stored = z.object({
  topic: z.string(),
  table: z.string(),
  position: z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/),
  code: z.string(),
  message: z.string(),
  since: z.number(),
  sent: z.boolean(),
  reread: z.boolean(),
});

/** Returns the changes that were put aside and that the slot has not passed. @throws StateTableError, StateTableUnavailableError */
export async function readAsides(place: StatePlace): Promise<Aside[]> {
  const asides: Aside[] = [];
  for await (const item of persistentTable(place).query(asideKey(place.pipeline)))
    asides.push(stored.parse(JSON.parse(item.aside?.S ?? "null")));
  return asides;
}

/** Returns the positions of changes that operators want put aside. @throws StateTableError, StateTableUnavailableError */
export async function readWantedAsides(place: StatePlace): Promise<PositionText[]> {
  const key = wantedAsideKey(place.pipeline);
  const positions: PositionText[] = [];
  for await (const { sk } of persistentTable(place).query(key))
    positions.push((sk?.S ?? "").slice(key.sk.length));
  return positions;
}

/** Asks the capture task to put one change aside when it comes to it. @throws StateTableError, StateTableUnavailableError */
export async function wantAside(place: StatePlace, position: PositionText): Promise<void> {
  await persistentTable(place).put(wantedAsideKey(place.pipeline, position), {});
}

/** Takes that back; a change that was put aside already stays so. @throws StateTableError, StateTableUnavailableError */
export async function unwantAside(place: StatePlace, position: PositionText): Promise<void> {
  await persistentTable(place).delete(wantedAsideKey(place.pipeline, position));
}

/** Changes that were put aside, as the capture task that holds the lease keeps them. */
export function asideRecord(place: StatePlace, generation: number): AsideRecord {
  const table = new LeasedTable(place, generation);
  const keyOf = ({ topic, position }: Aside) => asideKey(place.pipeline, { topic, position });
  return {
    list: () => readAsides(place),
    write: (aside) => table.put(keyOf(aside), { aside: { S: JSON.stringify(aside) } }),
    remove: (aside) => table.delete(keyOf(aside)),
    wanted: () => readWantedAsides(place),
    met: (position) => unwantAside(place, position),
  };
}
