import { serverBehind } from "../batch/batch-errors.ts";
import type { Query } from "../batch/batch-reader.ts";
import { parseSnapshot } from "../batch/snapshot.ts";
import type { PollingSource } from "./definition.ts";
import { type Look, type LookStart, valuesBefore, withMark } from "./place.ts";
import type { PolledTable } from "./polled-table.ts";
import { ended, newer } from "./row-conditions.ts";

/** A look that is not through. */
export type LookUnderWay = Look & { readonly under: NonNullable<Look["under"]> };

/** Start of the very first look. */
export const FIRST_LOOK: LookStart = {
  number: 0,
  from: null,
  low: null,
  lowValues: {},
  marks: [],
  fullUntil: null,
};

/** The server's clock and snapshot. */
interface Now {
  /** Clock, milliseconds since 1970, taken before the rest. */
  readonly clock: number;
  /** Start of the oldest transaction, as far as the role may see. */
  readonly oldest: number | null;
  readonly prepared: boolean;
  readonly standby: boolean;
  readonly snapshot: string;
}

/** The server's clock against ours: when it goes back by more than this, the column is not trusted for one look. */
const CLOCK_JUMP_MS = 1000;

/** Begins looks: knows the clocks of the last one. */
export class Looks {
  readonly #source: PollingSource;
  readonly #tables: ReadonlyMap<string, PolledTable>;
  /** Of the last look: the server's clock and ours. */
  #clocks: { readonly server: number; readonly own: number } | undefined;

  constructor(source: PollingSource, tables: ReadonlyMap<string, PolledTable>) {
    this.#source = source;
    this.#tables = tables;
  }

  /** The server's clock may have been set meanwhile. */
  forgetClocks(): void {
    this.#clocks = undefined;
  }

  /**
   * Begins a look: up to which transaction, from which value on, in which tables there is something. None on a replica that is
   * behind the one that was asked before: it would give older states.
   * @throws ServerBehindError on a primary that has lost what was seen there.
   */
  async begin(query: Query, start: LookStart): Promise<LookUnderWay | undefined> {
    const asked = performance.now();
    const now = await this.#now(query);
    const { xmin: to, xmax } = parseSnapshot(now.snapshot);
    if (start.from !== null && to < BigInt(start.from)) {
      if (now.standby) return undefined;
      throw serverBehind(to, start.from);
    }
    const fullUntil = start.fullUntil === "" ? xmax.toString() : start.fullUntil;
    const unsure = start.from !== null && fullUntil !== null && BigInt(start.from) < BigInt(fullUntil);
    const full = this.#full(start, now) || unsure;
    const tables = [...this.#tables.keys()];
    const [found] = await query<{ there: boolean[]; highest: (string | null)[] }>(
      `SELECT ARRAY[${tables.map((name) => this.#exists(name, start, to, full)).join(", ")}]::bool[] AS there,
              ARRAY[${tables.map((name) => this.#highest(name)).join(", ")}]::text[] AS highest`,
    );
    const values = Object.fromEntries(
      tables.flatMap((name, i) => {
        const highest = found?.highest[i];
        return typeof highest === "string" ? [[name, highest]] : [];
      }),
    );
    // What begins after this has not been assigned what was seen: the clock was read before.
    const marks = withMark(start.marks, { at: now.clock + (performance.now() - asked) + 1, values });
    const begin = this.#oldestBegin(start, now);
    const next = {
      ...{ from: to.toString(), low: begin, marks },
      fullUntil: start.from === null ? "" : unsure ? fullUntil : null,
      lowValues: begin === null ? {} : { ...valuesBefore(marks, begin - this.#source.skewSeconds * 1000) },
    };
    return {
      ...start,
      under: {
        ...{ to: to.toString(), full, last: null, next },
        tables: tables.filter((_, i) => found?.there[i]),
      },
    };
  }

  async #now(query: Query): Promise<Now> {
    // In this order: a transaction that the snapshot does not see as ended is among those that were seen to run, or began later.
    const [clock] = await query<Omit<Now, "snapshot">>(
      `WITH c AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS clock)
       SELECT c.clock, (SELECT (extract(epoch FROM min(xact_start)) * 1000)::float8 FROM pg_stat_activity
                WHERE coalesce(backend_type, '') NOT IN ('autovacuum worker', 'walsender')) AS oldest,
              EXISTS (SELECT FROM pg_prepared_xacts) AS prepared, pg_is_in_recovery() AS standby FROM c`,
    );
    const [seen] = await query<{ snapshot: string }>("SELECT pg_current_snapshot()::text AS snapshot");
    return { ...(clock as Omit<Now, "snapshot">), snapshot: seen?.snapshot ?? "" };
  }

  /** No value of a transaction that has not ended is older than this; null: nobody can say. */
  #oldestBegin({ low }: LookStart, { clock, oldest, prepared }: Now): number | null {
    const { longestTransactionSeconds } = this.#source;
    if (longestTransactionSeconds !== undefined) return clock - longestTransactionSeconds * 1000;
    const begin = Math.min(clock, oldest ?? clock);
    // Nobody says when a prepared transaction began: it ran at the last look, or began later.
    if (!prepared) return begin;
    return low === null ? null : Math.min(begin, low);
  }

  /** At a start and after a jump of the clock: by transaction ids alone, whatever the column says. */
  #full({ from }: LookStart, { clock }: Now): boolean {
    const own = performance.now();
    const before = this.#clocks;
    this.#clocks = { server: clock, own };
    const back = before !== undefined && own - before.own - (clock - before.server) > CLOCK_JUMP_MS;
    return from === null || !before || back;
  }

  #exists(name: string, start: LookStart, to: bigint, full: boolean): string {
    const table = this.#tables.get(name) as PolledTable;
    const where = [
      ...newer(table, { ...start, full, lowValue: start.lowValues[name] ?? null }, this.#source),
      ...ended(start.from, to.toString()),
    ];
    return `EXISTS (SELECT FROM ${table.quoted} AS tributary_t${where.length > 0 ? ` WHERE ${where.join(" AND ")}` : ""})`;
  }

  #highest(name: string): string {
    const { grows, quoted, column } = this.#tables.get(name) as PolledTable;
    return grows === "number" ? `(SELECT max(${column.quoted})::text FROM ${quoted})` : "NULL";
  }
}
