import type pg from "pg";
import type { TableName } from "../../../change/table-pattern.ts";

/** A name in the catalog that could be captured. */
export interface RelationEntry extends TableName {
  readonly oid: number;
  /** `r` table, `p` partitioned, `f` foreign, `v` view, `m` materialized view. */
  readonly kind: string;
  /** `p` permanent, `u` unlogged, `t` temporary. */
  readonly persistence: string;
  /** Oids of the partitioned tables above, nearest first. */
  readonly ancestors: readonly number[];
  /** In a database without an encoding (SQL_ASCII): the bytes of schema and name, in hexadecimal digits. */
  readonly nameBytes: { readonly schema: string; readonly table: string } | null;
}

/** A column that exists now. */
export interface ColumnFacts {
  readonly number: number;
  readonly name: string;
  readonly notNull: boolean;
  /** Empty, `s` stored, `v` virtual (18). */
  readonly generated: string;
  readonly readable: boolean;
  /** In a database without an encoding: the bytes of the name, in hexadecimal digits. */
  readonly nameBytes: string | null;
}

/** A table with what capture depends on. */
export interface TableFacts extends RelationEntry {
  readonly owned: boolean;
  /** `d` default, `n` nothing, `f` full, `i` index. */
  readonly replicaIdentity: string;
  readonly columns: readonly ColumnFacts[];
  readonly primaryKey: readonly string[];
  /** A deferrable primary key is no replica identity. */
  readonly primaryKeyDeferrable: boolean;
  /** Columns of the index that REPLICA IDENTITY USING INDEX names; empty without. */
  readonly identityIndex: readonly string[];
  /** Columns of which a large value is stored apart from its row (TOAST). */
  readonly largeColumns: readonly string[];
  readonly rowSecurity: boolean;
  readonly schemaUsable: boolean;
  /** The role may read all columns through the table. */
  readonly readable: boolean;
}

/**
 * Of the attribute `a`: NULL is proven absent. From 18 on a column may be NOT NULL for new rows alone (`NOT VALID`): rows of before may
 * hold NULL all the same.
 */
export const NOT_NULL = `(a.attnotnull AND NOT EXISTS (
  SELECT FROM pg_constraint nn
   WHERE nn.conrelid = a.attrelid AND nn.contype = 'n' AND NOT nn.convalidated AND a.attnum = ANY (nn.conkey)))`;

/** Every table-like relation outside of the system's own schemas. */
export async function readRelations(client: pg.Client): Promise<readonly RelationEntry[]> {
  const { rows } = await client.query<RelationEntry & pg.QueryResultRow>(`
    SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS "table",
           c.relkind::text AS kind, c.relpersistence::text AS persistence,
           CASE WHEN c.relispartition
                THEN ARRAY(SELECT a.relid::oid::int8::float8 FROM pg_partition_ancestors(c.oid) WITH ORDINALITY a(relid, place)
                            WHERE a.relid <> c.oid ORDER BY a.place)
                ELSE '{}' END AS ancestors,
           CASE WHEN current_setting('server_encoding') = 'SQL_ASCII' THEN json_build_object(
                'schema', encode(convert_to(n.nspname::text, 'SQL_ASCII'), 'hex'),
                'table', encode(convert_to(c.relname::text, 'SQL_ASCII'), 'hex')) END AS "nameBytes"
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     ORDER BY n.nspname, c.relname`);
  return rows;
}

/** The facts of these tables, in the order of their names. */
export async function readTables(
  client: pg.Client,
  relations: readonly RelationEntry[],
): Promise<readonly TableFacts[]> {
  const { rows } = await client.query<Omit<TableFacts, keyof RelationEntry> & { oid: number }>(
    `
    SELECT c.oid::int8::float8 AS oid,
           pg_has_role(c.relowner, 'USAGE') AS owned,
           c.relreplident::text AS "replicaIdentity",
           c.relrowsecurity AS "rowSecurity",
           has_schema_privilege(c.relnamespace, 'USAGE') AS "schemaUsable",
           has_table_privilege(c.oid, 'SELECT') AS readable,
           (SELECT coalesce(json_agg(json_build_object('number', a.attnum, 'name', a.attname, 'notNull', ${NOT_NULL},
                      'generated', a.attgenerated, 'nameBytes', CASE WHEN current_setting('server_encoding') = 'SQL_ASCII'
                        THEN encode(convert_to(a.attname::text, 'SQL_ASCII'), 'hex') END, 'readable', has_column_privilege(c.oid, a.attnum, 'SELECT'))
                      ORDER BY a.attnum), '[]')
              FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
           ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                   JOIN pg_attribute a ON a.attnum = k.attnum
                  WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts
                  ORDER BY k.place) AS "primaryKey",
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate) AS "primaryKeyDeferrable",
           ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                   JOIN pg_attribute a ON a.attnum = k.attnum
                  WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND i.indisreplident AND k.place <= i.indnkeyatts
                  ORDER BY k.place) AS "identityIndex",
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND c.reltoastrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
                    AND a.attstorage <> 'p' ORDER BY a.attnum) AS "largeColumns"
      FROM pg_class c WHERE c.oid = ANY ($1::oid[])`,
    [relations.map((relation) => relation.oid)],
  );
  const byOid = new Map(rows.map((row) => [row.oid, row]));
  return relations.flatMap((relation) => {
    const facts = byOid.get(relation.oid);
    return facts ? [{ ...facts, ...relation }] : [];
  });
}

/** Columns that identify a row in the log; undefined where nothing does (`REPLICA IDENTITY NOTHING`, no key). */
export function identityColumns(table: TableFacts): readonly string[] | undefined {
  switch (table.replicaIdentity) {
    case "f":
      return table.columns.map((column) => column.name);
    case "i":
      return table.identityIndex.length > 0 ? table.identityIndex : undefined;
    case "d":
      return table.primaryKey.length > 0 && !table.primaryKeyDeferrable ? table.primaryKey : undefined;
    default:
      return undefined;
  }
}

/**
 * Columns that identify a row of a partition that is made later: it gets its table's primary key, and nothing of its replica
 * identity. https://www.postgresql.org/docs/current/sql-altertable.html (REPLICA IDENTITY)
 */
export function laterIdentity(root: TableFacts): readonly string[] | undefined {
  return root.primaryKey.length > 0 && !root.primaryKeyDeferrable ? root.primaryKey : undefined;
}
