import { formatLsn } from "../../../change/lsn.ts";
import { formatPosition, parsePosition } from "../../../change/position.ts";
import { shellWord } from "../../../change/printed-command.ts";
import { parseTable, type TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import { isWhole } from "../backfill/backfill-record.ts";
import type { BackfillReport } from "../backfill/backfills.ts";
import type { Sighting } from "./terms.ts";
import type { UnhealedPlace, UnhealedRecord, UnhealedTable } from "./unhealed-record.ts";

/** Dependencies of `UnhealedTables`. */
export interface UnhealedOptions {
  /** Undefined: nothing is kept beyond this task. */
  readonly record: UnhealedRecord | undefined;
  readonly epoch: number;
  /** Returns true for this slot's tables; set where there are several slots. */
  readonly isOwn?: ((table: TableName) => boolean) | undefined;
  readonly log: Log;
}

/** Something that may be missing of a table. */
export interface Loss {
  readonly table: string;
  /** A sentence: what, and why. */
  readonly reason: string;
  /** The last look at which all was well, and the one that saw that it was not. */
  readonly since: Sighting;
  readonly until: Sighting;
  /** The capture task asks for the backfill itself. */
  readonly asks?: boolean;
}

/**
 * The tables of which changes may be missing. Each stays until a backfill of the whole table, with a sweep, that began after the loss
 * was seen has come to its end, or until an operator accepts the loss (`tributary capture release --table`).
 */
export class UnhealedTables {
  readonly #options: UnhealedOptions;
  #tables = new Map<string, UnhealedTable>();

  private constructor(options: UnhealedOptions) {
    this.#options = options;
  }

  /** @throws what the record throws. */
  static async open(options: UnhealedOptions): Promise<UnhealedTables> {
    const unhealed = new UnhealedTables(options);
    await unhealed.#list();
    for (const entry of unhealed.reports) unhealed.#tell(entry);
    return unhealed;
  }

  get reports(): readonly UnhealedTable[] {
    return [...this.#tables.values()];
  }

  /** Notes losses; when this resolves they are on record. @throws what the record throws. */
  async note(losses: readonly Loss[]): Promise<void> {
    for (const { table, reason, since, until, asks = false } of losses) {
      const known = this.#tables.get(table);
      const entry: UnhealedTable = {
        table,
        reasons: [...new Set([...(known?.reasons ?? []), reason])],
        since: known?.since ?? this.#place(since),
        until: this.#place(until),
        asks: asks || known?.asks === true,
      };
      await this.#options.record?.write(entry);
      this.#tables.set(table, entry);
      this.#tell(entry);
    }
  }

  /**
   * Ends what backfills have healed and what operators have accepted. Returns the tables of which a backfill is to be asked for.
   * @throws what the record throws.
   */
  async look(backfills: readonly BackfillReport[]): Promise<readonly string[]> {
    if (this.#tables.size === 0) return [];
    await this.#list();
    const wanted: string[] = [];
    for (const entry of this.#tables.values()) {
      const latest = backfills.find(({ table }) => table === entry.table);
      if (latest && heals(latest, entry)) {
        await this.#options.record?.end(entry.table);
        this.#tables.delete(entry.table);
        this.#options.log.info(`${entry.table} was read again: what may have been missing is there`);
      } else if (entry.asks && !wasRefused(latest, entry)) wanted.push(entry.table);
    }
    return wanted;
  }

  async #list(): Promise<void> {
    const { record, isOwn } = this.#options;
    if (!record) return;
    const found = (await record.list()).filter(({ table }) => isOwn?.(parseTable(table)) ?? true);
    this.#tables = new Map(found.map((entry) => [entry.table, entry]));
  }

  #place({ lsn, atMs }: Sighting): UnhealedPlace {
    return { position: formatPosition({ epoch: this.#options.epoch, commitLsn: lsn, ordinal: 0 }), atMs };
  }

  #tell(entry: UnhealedTable): void {
    this.#options.log.warn(`${entry.table}: changes may be missing in the stream: ${describe(entry)}`, {
      code: "UNHEALED",
      remedy: healingRemedy(entry),
    });
  }
}

/** Changes that may be missing, since when, and up to where. */
export function describe({ reasons, since, until }: UnhealedTable): string {
  const place = ({ position, atMs }: UnhealedPlace) =>
    `${new Date(atMs).toISOString()} (${formatLsn(parsePosition(position).commitLsn)})`;
  return `${reasons.join("; ")}; committed between ${place(since)} and ${place(until)}`;
}

/** The ways out: commands that can be typed as they stand. */
export function healingRemedy({ table, asks }: Pick<UnhealedTable, "table" | "asks">): string {
  if (asks) return `Nothing to do: a backfill of ${table} with a sweep is asked for.`;
  const name = shellWord(table);
  return `Read its rows again, with a sweep: tributary backfill start --table ${name}. Or accept that they are missing: tributary capture release --table ${name}`;
}

/** One that was asked for since did not come to its end: somebody must look why. */
function wasRefused(latest: BackfillReport | undefined, { until }: UnhealedTable): boolean {
  return (
    (latest?.status === "refused" || latest?.status === "cancelled") &&
    latest.request.requestedAt >= until.atMs
  );
}

function heals({ status, request, progress }: BackfillReport, { until }: UnhealedTable): boolean {
  return (
    status === "done" &&
    request.sweep &&
    isWhole(request, 1) &&
    progress !== undefined &&
    progress.startPosition >= until.position
  );
}
