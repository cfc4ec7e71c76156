import * as z from "zod";
import type { TableName } from "../../../change/table-pattern.ts";
import { CatalogLookupError } from "../decode/decode-errors.ts";

/** A type as the catalog has it, as far as its text form depends on it. */
export type TypeFacts =
  | { readonly kind: "text" }
  | { readonly kind: "hstore" }
  | { readonly kind: "domain"; readonly base: number }
  | { readonly kind: "array"; readonly element: number; readonly delimiter: string };

/** Facts of a table that the catalog has and the log does not say. */
export interface RelationFacts {
  /** Names of the primary key's columns, in key order; empty without one. */
  readonly primaryKey: readonly string[];
  /** The partitioned tables above it, nearest first. */
  readonly ancestors: readonly TableName[];
  /**
   * True if the log holds whole old rows wherever the table says so: a partitioned table with identity full may have
   * partitions that log their keys alone, and the server then fills the rest with nulls.
   */
  readonly wholeOldRows: boolean;
}

/** Looks up what pgoutput leaves out. Answers are of now, not of the log's time: what was dropped since is absent. */
export interface TypeCatalog {
  /** The facts of these types and of the types they are made of. @throws CatalogLookupError */
  resolve(oids: readonly number[]): Promise<ReadonlyMap<number, TypeFacts>>;
  /** @throws CatalogLookupError */
  relation(oid: number): Promise<RelationFacts | undefined>;
}

/** Runs one SQL statement on an ordinary connection of the captured database; `pg`'s `client.query` is one. */
export type CatalogQuery = (sql: string, values: unknown[]) => Promise<{ readonly rows: readonly unknown[] }>;

const LOOKUP_DEADLINE_MS = 30_000;

/**
 * The types, each with those it is made of. An array is what subscripts as one; hstore is what the extension of
 * that name made. https://www.postgresql.org/docs/current/catalog-pg-type.html
 */
const TYPES = `
  with recursive type (oid) as (
    select pg_catalog.unnest($1::pg_catalog.text[])::pg_catalog.oid
    union
    select part.oid
    from type join pg_catalog.pg_type t using (oid)
    cross join lateral (values (t.typbasetype), (t.typelem)) part (oid)
    where part.oid <> 0
  )
  select t.oid::pg_catalog.text, t.typbasetype::pg_catalog.text as base,
    case when t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc and t.typlen = -1
      then t.typelem::pg_catalog.text end as element,
    (select e.typdelim::pg_catalog.text from pg_catalog.pg_type e where e.oid = t.typelem) as delimiter,
    t.typtype = 'b' and exists (
      select from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid
      where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.deptype = 'e'
        and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
        and x.extname = 'hstore' and t.typname = 'hstore'
    ) as hstore
  from pg_catalog.pg_type t join type using (oid)`;

/**
 * https://www.postgresql.org/docs/current/catalog-pg-index.html,
 * https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-PARTITION
 */
const RELATION = `
  select
    array(
      select a.attname::pg_catalog.text
      from pg_catalog.pg_index i
      cross join lateral pg_catalog.unnest(i.indkey::pg_catalog.int2[]) with ordinality k (number, place)
      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
      where i.indrelid = c.oid and i.indisprimary and k.place <= i.indnkeyatts
      order by k.place
    ) as primary_key,
    coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('schema', n.nspname, 'table', p.relname) order by a.place)
      from pg_catalog.pg_partition_ancestors(c.oid) with ordinality a (relid, place)
      join pg_catalog.pg_class p on p.oid = a.relid
      join pg_catalog.pg_namespace n on n.oid = p.relnamespace
      where p.oid <> c.oid
    ), '[]') as ancestors,
    c.relkind <> 'p' or not exists (
      select from pg_catalog.pg_partition_tree(c.oid) t join pg_catalog.pg_class p on p.oid = t.relid
      where t.isleaf and p.relreplident <> 'f'
    ) as whole_old_rows
  from pg_catalog.pg_class c
  where c.oid = $1::pg_catalog.text::pg_catalog.oid`;

const typeRow = z.object({
  oid: z.string(),
  base: z.string(),
  element: z.string().nullable(),
  delimiter: z.string().nullable(),
  hstore: z.boolean(),
});

const relationRow = z.object({
  primary_key: z.array(z.string()),
  ancestors: z.array(z.object({ schema: z.string(), table: z.string() })),
  whole_old_rows: z.boolean(),
});

/** A catalog over an ordinary connection, apart from the replication connection. Each look-up ends in 30 s. */
export function pgTypeCatalog(
  query: CatalogQuery,
  options: { readonly deadlineMs?: number; readonly signal?: AbortSignal } = {},
): TypeCatalog {
  const deadlineMs = options.deadlineMs ?? LOOKUP_DEADLINE_MS;
  const rows = async <Row>(
    what: string,
    row: z.ZodType<Row>,
    sql: string,
    values: unknown[],
  ): Promise<Row[]> => {
    const deadline = AbortSignal.timeout(deadlineMs);
    const signal = options.signal ? AbortSignal.any([options.signal, deadline]) : deadline;
    try {
      const result = await Promise.race([query(sql, values), aborted(signal)]);
      return z.array(row).parse(result.rows);
    } catch (cause) {
      throw new CatalogLookupError({ what, cause });
    }
  };
  return {
    async resolve(oids) {
      const found = await rows("data types", typeRow, TYPES, [oids.map(String)]);
      return new Map(found.map((row) => [Number(row.oid), typeFacts(row)]));
    },
    async relation(oid) {
      const [found] = await rows("a table", relationRow, RELATION, [String(oid)]);
      return (
        found && {
          primaryKey: found.primary_key,
          ancestors: found.ancestors,
          wholeOldRows: found.whole_old_rows,
        }
      );
    },
  };
}

function typeFacts(row: z.output<typeof typeRow>): TypeFacts {
  if (row.base !== "0") return { kind: "domain", base: Number(row.base) };
  if (row.hstore) return { kind: "hstore" };
  if (row.element !== null) {
    return { kind: "array", element: Number(row.element), delimiter: row.delimiter ?? "," };
  }
  return { kind: "text" };
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = () => reject(signal.reason);
    if (signal.aborted) fail();
    else signal.addEventListener("abort", fail, { once: true });
  });
}
