import type { CaptureFigures, CaptureProcess } from "./capture-process.ts";

/** The capture tasks of a pipeline: one, or one for each of its slots. */
export class CaptureProcesses {
  readonly #processes: readonly CaptureProcess[];

  constructor(processes: readonly CaptureProcess[]) {
    this.#processes = processes;
  }

  /** Resolves once all stream; rejects with CaptureFailedError when one cannot. */
  get ready(): Promise<unknown> {
    return Promise.all(this.#processes.map((process) => process.ready));
  }

  /** Their counts together; the lag is that of the task that is furthest behind. */
  get figures(): CaptureFigures {
    const all = this.#processes.map(({ figures }) => figures);
    const [only] = all;
    if (only && all.length === 1) return only;
    const most = (values: readonly (number | undefined)[]) =>
      values.reduce((a, b) => (a === undefined || b === undefined ? (a ?? b) : Math.max(a, b)), undefined);
    const lsns = all.map(({ acknowledgedLsn }) => acknowledgedLsn);
    return {
      changes: all.reduce((sum, { changes }) => sum + changes, 0),
      // A table has one slot; one that moved has been read by two.
      tables: all.reduce<Record<string, number>>((sum, { tables }) => {
        for (const [table, count] of Object.entries(tables)) sum[table] = (sum[table] ?? 0) + count;
        return sum;
      }, {}),
      lagMs: most(all.map(({ lagMs }) => lagMs)),
      lagBytes: most(all.map(({ lagBytes }) => lagBytes)),
      restarts: all.reduce((sum, { restarts }) => sum + restarts, 0),
      backfills: all.flatMap(({ backfills }) => backfills),
      // Up to here all of them are: nothing is known while one says nothing.
      acknowledgedLsn: lsns.reduce(
        (a, b) => (a === undefined || b === undefined ? undefined : a < b ? a : b),
        lsns[0],
      ),
    };
  }

  /** Lets them store and confirm what they have read, then ends them. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.stop()));
  }
}
