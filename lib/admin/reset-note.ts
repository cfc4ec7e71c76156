import type { ConsumerPlace } from "../consume/fence/consumer-table.ts";
import { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { type Acceptance, type MissingChanges, MissingTable } from "../consume/run/missing-changes.ts";
import { missingKey } from "../state/state-key.ts";

/**
 * In the place of the run of a table's backfill: none was asked for since, so none heals. One that began before may have given rows
 * which the raised generation drops, or which an invocation from before may still overwrite.
 */
export const NO_RUN = Number.MAX_SAFE_INTEGER;

/**
 * Notes what a partition leaves out, and that the same backfills bring what else it lacks. `accepted` names no run yet: see `nameRun`.
 * @throws FenceUnavailableError
 */
export async function noteReset(
  table: ConsumerTable,
  left: Pick<MissingChanges, "topic" | "partition" | "upTo" | "behind" | "writer">,
  open: readonly MissingChanges[],
  accepted: Acceptance,
  signal: AbortSignal,
): Promise<void> {
  const { pipeline, consumer } = table;
  const items = table.until(signal, "note a reset");
  const key = missingKey({ pipeline, consumer }, left);
  // As a whole: what an earlier backfill has swept at this position counts no more.
  await items.put(key, {
    cause: { S: "reset" },
    behind: { S: left.behind },
    writer: { N: String(left.writer) },
    foundAt: { S: new Date().toISOString() },
    accepted: { S: JSON.stringify(accepted) },
  });
  for (const entry of open) {
    if (entry.upTo === left.upTo) continue;
    if (entry.cause === "reset") await items.delete(missingKey({ pipeline, consumer }, entry));
    else await new MissingTable(table).accept(entry, accepted, signal);
  }
}

/**
 * Names the run of a table's backfill that heals what a reset left out, and each later one. Before it is asked for: its end may pass as
 * soon as it is. What was noted anew meanwhile stays without a run.
 * @throws FenceUnavailableError
 */
export async function nameRun(
  place: ConsumerPlace,
  unhealed: readonly MissingChanges[],
  { table, run }: { readonly table: string; readonly run: number },
  signal: AbortSignal,
): Promise<void> {
  const items = new ConsumerTable(place).until(signal, "note the backfill of a reset");
  for (const { accepted, ...entry } of unhealed) {
    const named = accepted?.tables[table];
    if (!accepted || named === undefined || named === run) continue;
    await items.update(missingKey(place, entry), {
      UpdateExpression: "SET accepted=:named",
      ConditionExpression: "accepted=:was",
      ExpressionAttributeValues: {
        ":was": { S: JSON.stringify(accepted) },
        ":named": { S: JSON.stringify({ ...accepted, tables: { ...accepted.tables, [table]: run } }) },
      },
    });
  }
}
