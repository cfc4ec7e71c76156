import pg from "pg";
import * as z from "zod";
import { parseLsn } from "../../../change/lsn.ts";
import { publicationSays, SAYS } from "../catalog/publication.ts";
import type { TextQuery } from "../link/connection-options.ts";

/** A row of the catalog: what it belongs to, and the transaction that wrote it. */
const row = { oid: z.number(), xmin: z.string() };

const publishedTable = z.object({
  ...row,
  schema: z.string(),
  table: z.string(),
  /** Of a column list: names by attribute number. */
  columns: z.record(z.string(), z.string()).nullable(),
  /** A hash of the row filter. */
  filter: z.string().nullable(),
});

const publishedSchema = z.object({ ...row, name: z.string() });

/** The catalog's rows of a publication with the transactions that wrote them: the form in which they are stored. */
export const publicationTerms = z.object({
  ...row,
  owner: z.number(),
  /** For all tables. */
  every: z.boolean(),
  ...publicationSays.shape,
  schemas: z.array(publishedSchema),
  tables: z.array(publishedTable),
  /** The transaction of our own last ALTER: noted before it commits. */
  own: z.string().optional(),
});

/** The catalog's rows of a publication with the transactions that wrote them. */
export type PublicationTerms = z.output<typeof publicationTerms>;

/** Time, and place in the log, of a look at the publication. */
export interface Sighting {
  readonly lsn: bigint;
  /** Milliseconds since 1970 UTC. */
  readonly atMs: number;
}

const answer = z.object({ terms: publicationTerms, lsn: z.string().transform(parseLsn) });

/**
 * Reads what a publication says; undefined where there is none of that name. The log's end is read behind it: all that made
 * it say so stands before.
 */
export async function readTerms(
  query: TextQuery,
  name: string,
  version: number,
): Promise<{ readonly terms: PublicationTerms; readonly seen: Sighting } | undefined> {
  const schemas =
    version >= 150_000
      ? `(SELECT coalesce(jsonb_agg(jsonb_build_object('oid', s.pnnspid::int8, 'xmin', s.xmin::text, 'name', n.nspname) ORDER BY s.pnnspid), '[]')
            FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid)`
      : "'[]'::jsonb";
  // The text of the expression's tree, without the places where it stood in the statement; pg_get_expr would lock the table.
  const filter = `md5(regexp_replace(to_jsonb(r) ->> 'prqual', ':(location|stmt_location|stmt_len) -?[0-9]+', '', 'g'))`;
  const columns =
    version >= 150_000
      ? `(SELECT jsonb_object_agg(a.attnum, a.attname) FROM unnest(r.prattrs::int2[]) k(attnum)
            JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.attnum)`
      : "NULL";
  const { rows } = await query(`
    SELECT jsonb_build_object(
             'oid', p.oid::int8, 'xmin', p.xmin::text, 'owner', p.pubowner::int8, 'every', p.puballtables,
             ${SAYS},
             'schemas', ${schemas},
             'tables', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                 'oid', c.oid::int8, 'xmin', r.xmin::text, 'schema', n.nspname, 'table', c.relname,
                                 'columns', ${columns}, 'filter', ${filter}) ORDER BY c.oid), '[]')
                          FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
                          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid)) AS terms,
           pg_current_wal_insert_lsn()::text AS lsn
      FROM pg_publication p WHERE p.pubname = ${pg.escapeLiteral(name)}`);
  if (rows[0] === undefined) return undefined;
  const { terms, lsn } = answer.parse(rows[0]);
  return { terms, seen: { lsn, atMs: Date.now() } };
}
