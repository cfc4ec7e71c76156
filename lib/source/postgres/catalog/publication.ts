import type pg from "pg";
import * as z from "zod";
import type { TableName } from "../../../change/table-pattern.ts";

/** Stands at the beginning of the comment on publications that we made, and may therefore change. */
export const OUR_COMMENT = "Made by Tributary";

const publishedTable = z.object({
  schema: z.string(),
  table: z.string(),
  columns: z.array(z.string()).nullable(),
  filter: z.string().nullable(),
  filterColumns: z.array(z.string()),
});

/** The options of a publication that hold for all its tables, as `SAYS` reads them. */
export const publicationSays = z.object({
  insert: z.boolean(),
  update: z.boolean(),
  delete: z.boolean(),
  truncate: z.boolean(),
  viaRoot: z.boolean(),
  /** 18: `n` none, `s` stored. */
  generated: z.string().nullable(),
});

/** Members of a JSON object of `publicationSays`; `p`: the row of `pg_publication`. */
export const SAYS = `'insert', p.pubinsert, 'update', p.pubupdate, 'delete', p.pubdelete, 'truncate', p.pubtruncate,
             'viaRoot', p.pubviaroot, 'generated', to_jsonb(p) ->> 'pubgencols'`;

const publicationRow = z.object({
  says: publicationSays,
  owned: z.boolean(),
  comment: z.string().nullable(),
  tables: z.array(publishedTable),
});

/** A publication as it stands in the catalog. */
export type PublicationFacts = z.output<typeof publicationSays> & {
  readonly name: string;
  readonly tables: readonly z.output<typeof publishedTable>[];
  /** True if we made it, and may change it. */
  readonly ours: boolean;
  /** The pipeline that it was made for, as its comment says; undefined for one that others made. */
  readonly madeFor: string | undefined;
};

/** Reads a publication with what it effectively publishes. */
export async function readPublication(
  client: pg.ClientBase,
  name: string,
  version: number,
): Promise<PublicationFacts | undefined> {
  // Column lists and row filters came with 15.
  const lists = version >= 150_000;
  const { rows } = await client.query(
    `
    SELECT jsonb_build_object(${SAYS}) AS says,
           pg_has_role(p.pubowner, 'USAGE') AS owned, obj_description(p.oid, 'pg_publication') AS comment,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                     'schema', t.schemaname, 'table', t.tablename,
                     'columns', ${lists ? "to_jsonb(t.attnames)" : "NULL"},
                     'filter', ${lists ? "t.rowfilter" : "NULL"},
                     'filterColumns', ${lists ? FILTER_COLUMNS : "'[]'::jsonb"})), '[]')
              FROM pg_publication_tables t WHERE t.pubname = p.pubname) AS tables
      FROM pg_publication p WHERE p.pubname = $1`,
    [name],
  );
  if (rows.length === 0) return undefined;
  const { says, owned, tables, ...row } = publicationRow.parse(rows[0]);
  const comment = row.comment ?? "";
  const madeFor = new RegExp(`^${OUR_COMMENT} for the pipeline "(.*)"$`).exec(comment)?.[1];
  return { ...says, name, tables, ours: owned && comment.startsWith(OUR_COMMENT), madeFor };
}

/** Columns that a row filter looks at: the Vars of its expression tree. */
const FILTER_COLUMNS = `(
  SELECT coalesce(jsonb_agg(DISTINCT a.attname), '[]')
    FROM pg_publication_rel r
    JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
   CROSS JOIN LATERAL regexp_matches(r.prqual::text, ':varattno (\\d+)', 'g') m
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = m[1]::int
   WHERE r.prpubid = p.oid AND n.nspname = t.schemaname AND c.relname = t.tablename)`;

/** Returns true if a publication holds a table now. */
export function publishes(publication: PublicationFacts | undefined, table: TableName): boolean {
  return publication !== undefined && publishedAs(publication, table) !== undefined;
}

/** A table as a publication has it; undefined: it does not. */
export function publishedAs(publication: PublicationFacts, table: TableName) {
  return publication.tables.find((t) => t.schema === table.schema && t.table === table.table);
}
