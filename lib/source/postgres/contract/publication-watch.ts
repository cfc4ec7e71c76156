import pg from "pg";
import * as z from "zod";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import type { Log } from "../../../log.ts";
import type { TextQuery } from "../link/connection-options.ts";
import { PublicationNarrowedError, PublicationReplacedError } from "../postgres-errors.ts";
import { ALL_CHANGES, type ContractTable, compareTerms, type TermsDifference } from "./difference.ts";
import { lossesOf, tellWidened } from "./losses.ts";
import { type PublicationTerms, readTerms, type Sighting } from "./terms.ts";
import type { Loss } from "./unhealed-tables.ts";

const oidRow = z.object({ oid: z.number() });

/** The publication's OID; undefined where there is none of that name. */
export async function readPublicationOid(query: TextQuery, name: string): Promise<number | undefined> {
  const { rows } = await query(
    `SELECT oid::int8::float8 AS oid FROM pg_publication WHERE pubname = ${pg.escapeLiteral(name)}`,
  );
  return rows[0] === undefined ? undefined : oidRow.parse(rows[0]).oid;
}

/**
 * Checks that a publication still is the one that the slot was begun with. From 18 on the server passes over changes in
 * silence while a publication is missing, so one of the same name that was made anew hides a gap; older servers stop.
 *
 * @throws PublicationReplacedError
 */
export function checkPublication(name: string, stored: number | undefined, now: number | undefined): void {
  if (stored === undefined || stored === now) return;
  throw new PublicationReplacedError({
    message: `the publication "${name}" was dropped${now === undefined ? "" : " and made anew"} since the pipeline was started: what was committed while it was away may not have been sent`,
    remedy: `Changes may be missing, and a new epoch must begin: ${NEW_EPOCH_DROP_SLOT} (see docs, PostgreSQL, "A new epoch"). Change a publication with ALTER PUBLICATION.`,
  });
}

/** Dependencies of `PublicationWatch`. */
export interface PublicationWatchOptions {
  readonly name: string;
  /** As stored at first start. */
  readonly oid: number | undefined;
  /** Its terms when it was last looked at; undefined: the first look takes them as they are. */
  readonly terms?: PublicationTerms | undefined;
  readonly seen?: Sighting | undefined;
  readonly captures: (table: TableName) => boolean;
  /** The captured tables; undefined: those that the publication names at the first look. */
  readonly tables?: readonly ContractTable[];
  /** Publications of the pipeline's other slots, which tables move to. */
  readonly others?: readonly string[];
  /** `server_version_num`. Default: none of 15's. */
  readonly version?: number;
  readonly query: TextQuery;
  readonly log: Log;
  /** Puts losses on record. */
  readonly note?: (losses: readonly Loss[]) => Promise<void>;
  /** Puts what it says now on record, where that is something new. */
  readonly store?: (terms: PublicationTerms, seen: Sighting) => Promise<void>;
  /** It says the same as before. */
  readonly saw?: (seen: Sighting) => void;
}

/** Looks at the publication while its changes are streamed: the log does not say when it stops to be whole. */
export class PublicationWatch {
  readonly #options: PublicationWatchOptions;
  #terms: PublicationTerms | undefined;
  #seen: Sighting | undefined;
  #tables: readonly ContractTable[] | undefined;
  #looking = false;

  constructor(options: PublicationWatchOptions) {
    this.#options = options;
    this.#terms = options.terms;
    this.#seen = options.seen;
    this.#tables = options.tables?.filter(options.captures);
  }

  /**
   * Tells when it looked. That the server did not answer is passed over: the next look tells.
   * @throws PublicationReplacedError, PublicationNarrowedError, what the records throw
   */
  async look(): Promise<Sighting | undefined> {
    if (this.#looking) return undefined;
    this.#looking = true;
    try {
      return await this.#look();
    } finally {
      this.#looking = false;
    }
  }

  async #look(): Promise<Sighting | undefined> {
    const { name, oid, query, version = 0, captures } = this.#options;
    let found: Awaited<ReturnType<typeof readTerms>>;
    try {
      found = await readTerms(query, name, version);
    } catch {
      return undefined;
    }
    checkPublication(name, oid, found?.terms.oid);
    if (!found) return undefined;
    const { terms, seen } = found;
    const [before, since] = [this.#terms ?? terms, this.#seen ?? seen];
    this.#tables ??= terms.tables.filter(captures).map((t) => ({ ...t, kind: "r", generated: false }));
    const differences = compareTerms(before, terms, this.#tables);
    let standing: readonly TermsDifference[];
    try {
      standing = await this.#standing(differences);
    } catch {
      return undefined;
    }
    await this.#options.note?.(lossesOf(name, standing, since, seen));
    tellWidened(this.#options.log, name, standing);
    // Not stored where changes are dropped now: the next start compares with what was right.
    const narrowed = standing.filter(({ kind }) => kind === "narrowed");
    if (narrowed.length > 0) throw narrowedError(name, narrowed, since, terms);
    if (JSON.stringify(terms) !== JSON.stringify(this.#terms)) await this.#options.store?.(terms, seen);
    else this.#options.saw?.(seen);
    [this.#terms, this.#seen] = [terms, seen];
    return seen;
  }

  /** Without the tables that are gone, or have moved to another slot: they are told, and watched no more. */
  async #standing(differences: readonly TermsDifference[]): Promise<readonly TermsDifference[]> {
    const left = differences.filter(({ kind, what }) => kind === "narrowed" && what === ALL_CHANGES);
    if (left.length === 0) return differences;
    const { query, others = [], log, name } = this.#options;
    const places = await placesOf(
      query,
      left.map(({ table }) => table.oid),
      others,
    );
    const gone = left.filter(({ table }) => places.get(table.oid) !== "here").map(({ table }) => table);
    for (const table of gone) if (places.get(table.oid) === undefined) log.warn(...dropped(name, table));
    this.#tables = this.#tables?.filter((table) => !gone.includes(table));
    return differences.filter(({ table }) => !gone.includes(table));
  }
}

/** Finds tables that a publication does not hold: in the database, or in another slot's publication; not in the map: nowhere. */
async function placesOf(
  query: TextQuery,
  oids: readonly number[],
  others: readonly string[],
): Promise<ReadonlyMap<number, "here" | "moved">> {
  const { rows } = await query(
    `SELECT c.oid::int8::float8 AS oid,
            EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                     WHERE r.prrelid = c.oid AND p.pubname = ANY (ARRAY[${others.map((name) => pg.escapeLiteral(name)).join(", ")}]::text[])) AS moved
       FROM pg_class c WHERE c.oid IN (${oids.join(", ")})`,
  );
  const found = z.array(z.object({ oid: z.number(), moved: z.boolean() })).parse(rows);
  return new Map(found.map(({ oid, moved }) => [oid, moved ? "moved" : "here"]));
}

function dropped(name: string, table: TableName): Parameters<Log["warn"]> {
  return [
    `${formatTable(table)} left the publication "${name}": its changes do not arrive any more`,
    {
      code: "PUBLICATION",
      remedy: `It was dropped. If for good, nothing. If it was made anew: ALTER PUBLICATION ${quoteIdentifier(name)} ADD TABLE ${quoteTable(table)}; (a restart does that for a publication of ours). What was committed in between is not in the stream.`,
    },
  ];
}

function narrowedError(
  name: string,
  differences: readonly TermsDifference[],
  since: Sighting,
  terms: PublicationTerms,
): PublicationNarrowedError {
  const whole = terms.insert && terms.update && terms.delete && terms.truncate;
  const shown = differences.slice(0, 5).map(({ table, what }) => `${formatTable(table)} (${what})`);
  const more = differences.length > shown.length ? ` and ${differences.length - shown.length} more` : "";
  const quoted = quoteIdentifier(name);
  return new PublicationNarrowedError({
    message: `the publication "${name}" was changed, and leaves out changes of ${shown.join(", ")}${more} since ${new Date(since.atMs).toISOString()} or later`,
    remedy: `${
      whole
        ? `The task starts anew: a publication of ours is put right then; for another one it names the ALTER PUBLICATION ${quoted}.`
        : `ALTER PUBLICATION ${quoted} SET (publish = 'insert, update, delete, truncate');`
    } What was committed meanwhile is not in the stream: tributary capture status names the tables, and the commands that heal them.`,
  });
}
