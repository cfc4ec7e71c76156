import { setTimeout as sleep } from "node:timers/promises";
import { backfillFigures } from "../state/backfill-figures.ts";
import { type Backfill, hasEnded, readBackfills } from "../state/backfills.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { columns } from "./columns.ts";

/** Selection and format of the events shown. */
export interface ShowOptions {
  /** Only this one. */
  readonly table: string | undefined;
  readonly json: boolean;
  /** Again and again, until all have ended. */
  readonly watch: boolean;
}

const WATCH_MS = 2_000;

/** Prints how far backfills are. */
export async function showBackfills(store: StatePlace, { table, json, watch }: ShowOptions): Promise<void> {
  for (;;) {
    const all = await readBackfills(store);
    const shown = table === undefined ? all : all.filter((backfill) => backfill.table === table);
    process.stdout.write(
      json ? `${JSON.stringify(shown.map(asJson))}\n` : `${backfillLines(shown).join("\n")}\n`,
    );
    if (!watch || shown.every(hasEnded)) return;
    await sleep(WATCH_MS, undefined, { signal: store.signal });
    if (!json) process.stdout.write("\n");
  }
}

/** The fields of `backfill status --json`: docs/12-backfill.md. Times are ISO 8601. */
function asJson(backfill: Backfill): object {
  const { table, run, status, wanted, request, progress, epoch } = backfill;
  const { rows, percent, rowsPerSecond, remainingSeconds } = backfillFigures(backfill);
  const at = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString());
  return {
    ...{ table, run, status, wanted, epoch, rows, percent },
    rowsPerSecond: rowsPerSecond === undefined ? undefined : Math.round(rowsPerSecond),
    remainingSeconds,
    bytes: progress?.bytes ?? 0,
    chunks: progress?.chunk ?? 0,
    ...{ where: request.where, consumer: request.consumer, sweep: request.sweep },
    requestedAt: at(request.requestedAt),
    startedAt: at(progress?.startedAt),
    updatedAt: at(progress?.updatedAt),
    finishedAt: at(progress?.finishedAt),
    reason: progress?.reason,
  };
}

/** The lines that people read: one a table. */
export function backfillLines(backfills: readonly Backfill[]): string[] {
  if (backfills.length === 0) return ["No backfill was ever asked for."];
  const cells = backfills.map((backfill) => {
    const { table, run, request, progress } = backfill;
    const { rows, percent, rowsPerSecond, remainingSeconds } = backfillFigures(backfill);
    const special = [
      request.consumer === undefined ? [] : [`for ${request.consumer}`],
      request.where === undefined ? [] : ["some rows"],
      progress?.reason === undefined ? [] : [progress.reason],
    ].flat();
    return [
      table,
      String(run),
      statusOf(backfill),
      rows.toLocaleString("en-US"),
      percent === undefined ? "–" : `${percent}%`,
      rowsPerSecond === undefined ? "–" : Math.round(rowsPerSecond).toLocaleString("en-US"),
      remainingSeconds === undefined ? "–" : `${remainingSeconds} s`,
      special.join(", "),
    ];
  });
  const all = [["table", "run", "status", "rows", "done", "rows/s", "left", ""], ...cells];
  return columns(all, [1, 3, 4, 5, 6]);
}

/** The status to show: the operator's wish, where the capture task has not acted on it yet. */
function statusOf(backfill: Backfill): string {
  const { status, wanted } = backfill;
  if (hasEnded(backfill) || wanted === "run") return status === "paused" ? "resuming" : status;
  if (wanted === "pause") return status === "paused" ? "paused" : "pausing";
  return "cancelling";
}
