import type { SourceChange } from "../../lib/change/change-stream.ts";
import type { ChangeEventJson, WireRow } from "../../lib/change/event.ts";
import { eventually } from "../eventually.ts";
import type { MemoryBackfills } from "./backfill-record.ts";
import type { OpenSource } from "./source.ts";

/** An event as a consumer gets it, but for its place in its partition. */
export function parsed(change: SourceChange): ChangeEventJson {
  return JSON.parse(`${change.json}}}`);
}

/** A consumer that keeps the rows of a table by key: what it holds after these events, in their order. */
export function replay(changes: readonly SourceChange[], table: string): Map<string, WireRow> {
  const rows = new Map<string, WireRow>();
  for (const change of changes) {
    if (change.table !== table) continue;
    const { op, before, after, unchanged, source } = parsed(change);
    const keyOf = (row: WireRow | null) => JSON.stringify(source.key.map((column) => row?.[column]));
    if (op === "t") rows.clear();
    else if (op === "d") rows.delete(keyOf(before));
    else if (op === "m") continue;
    else {
      const key = keyOf(after);
      const held = rows.get(key);
      const kept = Object.fromEntries(
        (unchanged ?? []).flatMap((c) => (held && c in held ? [[c, held[c]]] : [])),
      );
      rows.set(key, { ...kept, ...after } as WireRow);
    }
  }
  return rows;
}

/** Waits for an end of a table's backfill. */
export async function ended(
  record: MemoryBackfills,
  table: string,
  source: OpenSource,
  status = "done",
): Promise<void> {
  await eventually(
    () => {
      if (source.error) throw source.error;
      const now = record.items.get(table);
      if (now && ["done", "refused"].includes(now.status) && now.status !== status)
        throw new Error(`${now.status}: ${now.progress?.reason}`);
      return now?.status === status;
    },
    { what: `the backfill of ${table} to be ${status}`, deadlineMs: 40_000 },
  );
}

/** Waits until the record says what a backfill waits for. */
export async function waitsFor(record: MemoryBackfills, table: string, what: RegExp): Promise<void> {
  await eventually(() => what.test(record.of(table).progress?.reason ?? ""), {
    what: `${table} to wait for ${what}`,
    deadlineMs: 20_000,
  });
}

/** How many rows backfills gave. */
export function rowsGiven(source: OpenSource): number {
  return source.changes.filter(({ json }) => json.startsWith('{"op":"r"')).length;
}
