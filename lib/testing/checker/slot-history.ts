import { formatTable, type TableName } from "../../change/table-pattern.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { sourceKind } from "../../source/index.ts";
import { slotNames, slotNumbers } from "../../source/postgres/slots/assignment.ts";
import { withClient } from "./local-parts.ts";
import type { TruthChange, TruthMove } from "./truth.ts";

/** A committed change, and the slot that had its table at that commit. */
export interface SlotChange extends TruthChange {
  readonly slot: string;
}

/** The names of a pipeline's slots in their order; of a source without slots, none. */
export function slotsOf(pipeline: Pipeline): readonly string[] {
  const definition = sourceKind(pipeline.source).throughSlots?.(pipeline);
  return definition ? slotNumbers(definition).map((number) => slotNames(definition.source, number).slot) : [];
}

/** Returns the slot that has each table now, by the publication that holds it; with one slot nothing is asked. */
export async function readSlotOfTables(
  databaseUrl: string,
  pipeline: Pipeline,
): Promise<ReadonlyMap<string, string>> {
  const source = sourceKind(pipeline.source).throughSlots?.(pipeline).source;
  if (!source || source.slots === 1) return new Map();
  const slots = new Map(
    slotNumbers({ source }).map((number) => {
      const { publication, slot } = slotNames(source, number);
      return [publication, slot];
    }),
  );
  return withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<TableName & { publication: string }>(
      `SELECT pubname::text AS publication, schemaname::text AS schema, tablename::text AS "table"
         FROM pg_publication_tables WHERE pubname = ANY ($1)`,
      [[...slots.keys()]],
    );
    return new Map(rows.map((row) => [formatTable(row), slots.get(row.publication) as string]));
  });
}

/**
 * The changes as the slots give them. A move's message names the slot that its tables left, so that the slots of now, and
 * back over the moves, say which one had a table at each commit. Each slot counts ordinals over its own tables alone, since
 * the server filters the log by its publication (rule 1).
 *
 * @param changes in commit order
 * @param slotOfTable as `readSlotOfTables` gives it; empty: `only` has all tables
 */
export function changesBySlot(
  changes: readonly TruthChange[],
  slotOfTable: ReadonlyMap<string, string>,
  moves: readonly TruthMove[],
  only: string,
): SlotChange[] {
  const leaving = new Map<string, TruthMove[]>();
  for (const move of moves)
    for (const table of move.tables) leaving.set(table, [...(leaving.get(table) ?? []), move]);
  const slotAt = ({ table, commitLsn }: TruthChange): string => {
    const slot =
      leaving.get(table)?.find((move) => commitLsn < move.commitLsn)?.from ?? slotOfTable.get(table);
    if (slot === undefined && slotOfTable.size > 0) throw new Error(`no slot's publication holds ${table}`);
    return slot ?? only;
  };
  let commitLsn: bigint | undefined;
  const ordinals = new Map<string, number>();
  return changes.map((change) => {
    if (change.commitLsn !== commitLsn) ordinals.clear();
    commitLsn = change.commitLsn;
    const slot = slotAt(change);
    const ordinal = ordinals.get(slot) ?? 1;
    ordinals.set(slot, ordinal + (change.op === "u" ? 2 : 1));
    return { ...change, slot, ordinal };
  });
}
