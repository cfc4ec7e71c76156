import type pg from "pg";
import type { Log } from "../../../log.ts";
import type { TableFacts } from "../preflight/table-facts.ts";
import type { SlotRecord, SlotState } from "../slot/slot-record.ts";
import { ALL_CHANGES, type ContractTable, compareTerms } from "./difference.ts";
import { lossesOf, tellWidened } from "./losses.ts";
import { type PublicationTerms, readTerms, type Sighting } from "./terms.ts";
import type { UnhealedTables } from "./unhealed-tables.ts";

/** Dependencies of `keepContract`. */
export interface ContractAtStart {
  readonly state: SlotState;
  readonly record: SlotRecord | undefined;
  readonly tables: readonly TableFacts[];
  /** `server_version_num`. */
  readonly version: number;
  readonly unhealed: UnhealedTables;
  readonly log: Log;
}

/**
 * Compares the publication with what it said when it was last looked at, lets `alter` put it right, and takes it from there. What may
 * be missing is on record before what the publication says now is, and what our own ALTER does is on record before it is done:
 * whatever is cut in between, nothing is forgotten and nothing of ours is taken for somebody's.
 *
 * @throws what `alter`, the records and the server throw.
 */
export async function keepContract(
  client: pg.Client,
  options: ContractAtStart,
  alter: (onAlter: (xid: string) => Promise<void>) => Promise<void>,
): Promise<SlotState> {
  const { state, record, tables, version, unhealed, log } = options;
  const name = state.publication;
  const contracted = tables.map(contractTable);
  // A publication made anew is told where history is checked; there is nothing to compare it with.
  const read = async () => {
    const found = await readTerms((sql) => client.query(sql), name, version);
    return found && (state.publicationOid ?? found.terms.oid) === found.terms.oid ? found : undefined;
  };
  const compare = async (before: PublicationTerms, since: Sighting, now: Looked) => {
    const differences = compareTerms(before, now.terms, contracted);
    await unhealed.note(lossesOf(name, differences, since, now.seen));
    // One that joins is new to the definition, or came from another slot.
    tellWidened(
      log,
      name,
      differences.filter(({ what }) => what !== ALL_CHANGES),
    );
  };
  const found = await read();
  if (!found) {
    await alter(async () => {});
    return state;
  }
  if (state.terms) await compare(state.terms, state.termsSeen ?? found.seen, found);
  let own: string | undefined;
  await alter(async (xid) => {
    own = xid;
    // What was right stays the measure until the outcome is known.
    await record?.write({ ...state, terms: { ...(state.terms ?? found.terms), own } });
  });
  const now = await read();
  if (!now) return state;
  // Who was quicker than we is found too.
  await compare({ ...found.terms, ...(own === undefined ? {} : { own }) }, found.seen, now);
  const after = { ...state, publicationOid: now.terms.oid, terms: now.terms, termsSeen: now.seen };
  if (own !== undefined || JSON.stringify(now.terms) !== JSON.stringify(state.terms))
    await record?.write(after);
  return after;
}

type Looked = NonNullable<Awaited<ReturnType<typeof readTerms>>>;

/** A captured table, as far as a publication's terms touch it. */
export function contractTable({ oid, schema, table, kind, columns }: TableFacts): ContractTable {
  return { oid, schema, table, kind, generated: columns.some((column) => column.generated === "s") };
}
