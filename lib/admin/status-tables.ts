import { formatTable, parseTable, type TableName } from "../change/table-pattern.ts";
import { captures, type Pipeline } from "../definition/definition.ts";
import { routeTables } from "../definition/route.ts";
import { type BackfillFigures, backfillFigures } from "../state/backfill-figures.ts";
import type { Backfill } from "../state/backfills.ts";
import type { CaptureRecord } from "../state/capture-record.ts";

/** A captured table, as of the last start of its capture task. */
export interface CapturedTable {
  readonly table: string;
  readonly topic: string;
  /** Its slot, where a log is read. */
  readonly slot: number;
  /** Its latest backfill; `none`: it was never asked for. Undefined where that could not be read. */
  readonly backfill:
    | { readonly status: "none" }
    | ({
        readonly status: Backfill["status"];
        readonly run: number;
        readonly reason: string | undefined;
      } & BackfillFigures)
    | undefined;
}

/** Returns the captured tables by their slots, with their backfills. */
export function capturedTables(
  pipeline: Pipeline,
  records: readonly CaptureRecord[],
  backfills: readonly Backfill[] | undefined,
): readonly CapturedTable[] {
  const route = routeTables(pipeline);
  return records.flatMap((record, i) =>
    tablesOf(pipeline, record).map((table) => ({
      table: formatTable(table),
      topic: route(table).topic.name,
      slot: i + 1,
      backfill: backfills && backfillOf(backfills.find((each) => each.table === formatTable(table))),
    })),
  );
}

/** The stored settings keep tables that are captured no more: those that left the definition, or the publication. */
function tablesOf({ source }: Pipeline, { settings, slot }: CaptureRecord): readonly TableName[] {
  const terms = slot?.terms;
  const published =
    terms && !terms.every && terms.schemas.length === 0
      ? new Set(terms.tables.map(({ schema, table }) => formatTable({ schema, table })))
      : undefined;
  return Object.keys(settings?.tables ?? {})
    .filter((name) => published?.has(name) ?? true)
    .map(parseTable)
    .filter((table) => captures(source, table));
}

function backfillOf(backfill: Backfill | undefined): CapturedTable["backfill"] {
  if (!backfill) return { status: "none" };
  const { status, run, progress } = backfill;
  return { status, run, reason: progress?.reason, ...backfillFigures(backfill) };
}
