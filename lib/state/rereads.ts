import * as z from "zod";
import type { AskedTable, RereadRecord } from "../source/postgres/reread/reread-record.ts";
import type { CaptureState } from "./capture-state.ts";
import { LeasedTable } from "./leased-table.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { rereadKey } from "./state-key.ts";
import type { StateItem } from "./state-table.ts";

const position = z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/);

const stored = z.object({
  rows: z.array(z.object({ key: z.record(z.string(), z.string()), at: position })),
  whole: position.optional(),
});

/** Returns the rows and tables that are to be read again. @throws StateTableError, StateTableUnavailableError */
export async function readRereads(place: StatePlace): Promise<AskedTable[]> {
  const key = rereadKey(place.pipeline);
  const asked: AskedTable[] = [];
  for await (const item of persistentTable(place).query(key))
    asked.push(parse((item.sk?.S ?? "").slice(key.sk.length), item));
  return asked;
}

/** The rows to be read again as the capture task that holds the lease keeps them. */
export function rereadRecord(
  place: StatePlace,
  lease: Pick<CaptureState, "generation" | "confirm">,
): RereadRecord {
  const { pipeline } = place;
  const state = new LeasedTable(place, lease.generation);
  return {
    list: () => readRereads(place),
    read: async (table) => {
      const item = await persistentTable(place).get(rereadKey(pipeline, table));
      return item && parse(table, item);
    },
    write: async ({ table, ...asked }) => {
      // What a later task finds here must not go because of rows that an older one gave: consumers may have dropped those.
      await lease.confirm();
      const key = rereadKey(pipeline, table);
      if (asked.rows.length === 0 && asked.whole === undefined) await state.delete(key);
      else await state.put(key, { asked: { S: JSON.stringify(asked) } });
    },
  };
}

function parse(table: string, item: StateItem): AskedTable {
  return { table, ...stored.parse(JSON.parse(item.asked?.S ?? "null")) };
}
