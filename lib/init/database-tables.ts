import type pg from "pg";
import { quoteTable } from "../change/sql-identifier.ts";
import type { TableName } from "../change/table-pattern.ts";

/** A column of a table, with its type as PostgreSQL writes it. */
export interface Column {
  readonly name: string;
  readonly type: string;
  /** Name of the type in the catalog, of a domain that of what it is made of; empty: the user's own type. */
  readonly base: string;
  readonly kind: "array" | "value";
  readonly nullable: boolean;
}

/** A table of a database, as `init` offers it. */
export interface Table extends TableName {
  readonly columns: readonly Column[];
  /** The primary key, or the index that is its replica identity. */
  readonly key: readonly string[];
  /** On disk, with indexes and large values. */
  readonly bytes: number;
  /** The planner's estimate of rows; undefined before the first ANALYZE. */
  readonly rows: number | undefined;
  /** Why it cannot be captured as it is, and what to do; undefined: it can. */
  readonly obstacle: string | undefined;
}

interface Found extends TableName {
  readonly persistence: string;
  readonly identity: string;
  readonly readable: boolean;
  readonly columns: readonly Column[];
  readonly key: readonly string[];
  readonly bytes: string;
  readonly rows: string;
}

/** Partitions come with their root; what belongs to an extension is its own business. */
const TABLES = `
  SELECT n.nspname AS schema, c.relname AS "table", c.relpersistence AS persistence, c.relreplident AS identity,
         has_table_privilege(c.oid, 'SELECT') AS readable,
         coalesce((SELECT sum(pg_total_relation_size(p.relid)) FROM pg_partition_tree(c.oid) p), pg_total_relation_size(c.oid))::text AS bytes,
         c.reltuples::bigint::text AS rows,
         ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place), pg_attribute a
                WHERE i.indrelid = c.oid AND i.indisvalid AND a.attrelid = c.oid AND a.attnum = k.attnum AND k.place <= i.indnkeyatts
                  AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary AND i.indimmediate END
                ORDER BY k.place) AS key,
         coalesce((SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                     'base', CASE WHEN b.typelem <> 0 AND b.typlen = -1 THEN (SELECT typname FROM pg_type WHERE oid = b.typelem)
                     WHEN b.typnamespace = 'pg_catalog'::regnamespace OR b.typname = 'hstore' THEN b.typname ELSE '' END,
                     'kind', CASE WHEN b.typelem <> 0 AND b.typlen = -1 THEN 'array' ELSE 'value' END, 'nullable', NOT a.attnotnull) ORDER BY a.attnum)
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type b ON b.oid = (
                    WITH RECURSIVE made_of (oid, base) AS (
                      SELECT t.oid, t.typbasetype UNION ALL SELECT d.oid, d.typbasetype FROM made_of JOIN pg_type d ON d.oid = made_of.base)
                    SELECT oid FROM made_of WHERE base = 0)
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              AND (a.attgenerated = '' OR a.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000)), '[]') AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
     AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
   ORDER BY n.nspname, c.relname`;

/** Lists the tables of a database: those that can be captured first, in each group by schema and name. */
export async function listTables(client: pg.ClientBase): Promise<Table[]> {
  const { rows } = await client.query<Found>(TABLES);
  const tables = rows.map((found) => ({
    schema: found.schema,
    table: found.table,
    columns: found.columns,
    key: found.key,
    bytes: Number(found.bytes),
    rows: Number(found.rows) < 0 ? undefined : Number(found.rows),
    obstacle: obstacleOf(found),
  }));
  return [...tables.filter(isFree), ...tables.filter((table) => !isFree(table))];
}

function isFree({ obstacle }: Table): boolean {
  return obstacle === undefined;
}

/** The reason why preflight would refuse a single table. */
function obstacleOf({ persistence, identity, readable, key, columns, ...table }: Found): string | undefined {
  const name = quoteTable(table);
  if (persistence === "u") return `unlogged: its changes are not in the log (ALTER TABLE ${name} SET LOGGED)`;
  if (!readable) return `the role may not read it (GRANT SELECT ON ${name} TO …)`;
  const lacking = key.filter((column) => !columns.some((other) => other.name === column));
  if (lacking.length > 0)
    return `its key has the generated column ${lacking.join(", ")}, which PostgreSQL does not send before 18`;
  if (identity === "f" || (identity !== "n" && key.length > 0)) return undefined;
  return identity === "n"
    ? `its replica identity is NOTHING (ALTER TABLE ${name} REPLICA IDENTITY DEFAULT)`
    : `no primary key (ALTER TABLE ${name} ADD PRIMARY KEY (…))`;
}
