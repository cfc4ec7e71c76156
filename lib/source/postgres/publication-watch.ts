import pg from "pg";
import * as z from "zod";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../new-epoch.ts";
import type { Log } from "../../observe/log.ts";
import { PublicationReplacedError } from "./errors.ts";
import { quoteIdentifier, quoteTable } from "./preflight/captured-tables.ts";

type Query = (sql: string) => Promise<{ readonly rows: readonly unknown[] }>;

const oidRow = z.object({ oid: z.number() });
const tableRow = z.object({ oid: z.number(), schema: z.string(), table: z.string() });

/** The publication's OID; undefined where there is none of that name. */
export async function readPublicationOid(query: Query, name: string): Promise<number | undefined> {
  const { rows } = await query(
    `SELECT oid::int8::float8 AS oid FROM pg_publication WHERE pubname = ${pg.escapeLiteral(name)}`,
  );
  return rows[0] === undefined ? undefined : oidRow.parse(rows[0]).oid;
}

/**
 * Whether a publication still is the one that the slot was begun with. From 18 on the server passes over changes in
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

/** What `PublicationWatch` is made of. */
export interface PublicationWatchOptions {
  readonly name: string;
  /** As stored at first start. */
  readonly oid: number | undefined;
  readonly captures: (table: TableName) => boolean;
  readonly query: Query;
  readonly log: Log;
}

/** Looks at the publication while its changes are streamed: the log does not say when it stops to be whole. */
export class PublicationWatch {
  readonly #options: PublicationWatchOptions;
  /** Tables that the publication names, as last seen. */
  #tables: ReadonlyMap<number, TableName> = new Map();
  #looking = false;

  constructor(options: PublicationWatchOptions) {
    this.#options = options;
  }

  /** @throws PublicationReplacedError; that the server did not answer is passed over: the next look tells. */
  async look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const { name, oid, query } = this.#options;
    let now: number | undefined;
    let tables: ReadonlyMap<number, TableName>;
    try {
      now = await readPublicationOid(query, name);
      tables = now === undefined ? new Map() : await readTables(query, now);
    } catch {
      return;
    } finally {
      this.#looking = false;
    }
    checkPublication(name, oid, now);
    this.#compare(tables);
  }

  #compare(tables: ReadonlyMap<number, TableName>): void {
    const { name, captures, log } = this.#options;
    for (const [oid, table] of this.#tables) {
      if (tables.has(oid) || !captures(table)) continue;
      log.warn(`${formatTable(table)} left the publication "${name}": its changes do not arrive any more`, {
        code: "PUBLICATION",
        remedy: `If it was dropped for good, nothing. If it was made anew or taken out: ALTER PUBLICATION ${quoteIdentifier(name)} ADD TABLE ${quoteTable(table)}; (a restart does that for a publication of ours). What was committed in between is not in the stream.`,
      });
    }
    this.#tables = tables;
  }
}

async function readTables(query: Query, publication: number): Promise<ReadonlyMap<number, TableName>> {
  const { rows } = await query(
    `SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS "table"
       FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE r.prpubid = ${publication}`,
  );
  return new Map(
    z
      .array(tableRow)
      .parse(rows)
      .map(({ oid, ...table }) => [oid, table]),
  );
}
