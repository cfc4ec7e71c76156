import * as z from "zod";
import type { UnhealedRecord, UnhealedTable } from "../source/postgres/contract/unhealed-record.ts";
import { LeasedTable } from "./leased-table.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { TableNotUnhealedError } from "./state-errors.ts";
import { unhealedKey } from "./state-key.ts";

const moment = z.object({ position: z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/), atMs: z.number() });

const stored = z.object({
  reasons: z.array(z.string()),
  since: moment,
  until: moment,
  asks: z.boolean(),
});

/** Returns the tables of which changes may be missing. @throws StateTableError, StateTableUnavailableError */
export async function readUnhealed(place: StatePlace): Promise<readonly UnhealedTable[]> {
  const key = unhealedKey(place.pipeline);
  const tables: UnhealedTable[] = [];
  for await (const { sk, unhealed } of persistentTable(place).query(key))
    if (unhealed?.S !== undefined)
      tables.push({ table: (sk?.S ?? "").slice(key.sk.length), ...stored.parse(JSON.parse(unhealed.S)) });
  return tables;
}

/**
 * Accepts that changes of a table are missing: an operator's act.
 * @throws TableNotUnhealedError, StateTableError, StateTableUnavailableError
 */
export async function acceptUnhealed(place: StatePlace, table: string): Promise<void> {
  const known = (await readUnhealed(place)).map((entry) => entry.table);
  if (!known.includes(table)) throw new TableNotUnhealedError(place.pipeline, table, known);
  // Refused where the capture task was quicker: a backfill has healed it.
  await persistentTable(place).update(unhealedKey(place.pipeline, table), {
    // The generation stays: an older task brings it no more.
    UpdateExpression: "REMOVE unhealed",
    ConditionExpression: "attribute_exists(pk)",
  });
}

/** The unhealed tables of a pipeline as the capture task that holds the lease keeps them. */
export function unhealedRecord(place: StatePlace, generation: number): UnhealedRecord {
  const { pipeline } = place;
  const state = new LeasedTable(place, generation);
  return {
    list: () => readUnhealed(place),
    write: ({ table, ...entry }) =>
      state.update(unhealedKey(pipeline, table), ", unhealed = :unhealed", {
        ":unhealed": { S: JSON.stringify(entry) },
      }),
    end: (table) => state.delete(unhealedKey(pipeline, table)),
  };
}
