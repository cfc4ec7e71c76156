import * as z from "zod";
import { parseLsn } from "../../../change/lsn.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { CatalogQuery } from "../catalog/type-catalog.ts";
import type { KeyColumn } from "./known-tables.ts";

/** A table as the catalog has it now. */
export interface CatalogTable extends TableName {
  readonly oid: number;
  readonly identity: string;
  readonly key: readonly KeyColumn[];
  /** Names of its columns, those left out whose values do not travel: generated ones before 18. */
  readonly columns: readonly string[];
}

/** The result of a look at the catalog. */
export interface CatalogLook {
  /** End of the log then: what is committed behind it is made under what was seen, or something later. */
  readonly lsn: bigint;
  readonly byOid: ReadonlyMap<number, CatalogTable>;
  /** As people write the name. */
  readonly byName: ReadonlyMap<string, CatalogTable>;
}

/**
 * Tables by OID and by name, with the columns that tell their rows apart: of the index that the replica identity is, or of the
 * primary key with identity full. A deferrable primary key is no replica identity.
 */
const LOOK = `
  SELECT pg_current_wal_insert_lsn()::text AS lsn, f.*
    FROM (SELECT) one LEFT JOIN LATERAL (
      SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS "table",
             c.relreplident::text AS identity,
             (SELECT coalesce(json_agg(json_build_object('number', a.attnum, 'name', a.attname, 'type', a.atttypid::int8)
                       ORDER BY a.attnum), '[]')
                FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
               WHERE i.indrelid = c.oid AND k.place <= i.indnkeyatts
                 AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                         WHEN 'f' THEN i.indisprimary
                                         WHEN 'i' THEN i.indisreplident ELSE false END) AS key,
             ARRAY(SELECT a.attname::text FROM pg_attribute a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                      AND (a.attgenerated = '' OR current_setting('server_version_num')::int >= 180000)
                    ORDER BY a.attnum) AS columns
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind IN ('r', 'p')
         AND (c.oid = ANY ($1::text[]::oid[])
              OR EXISTS (SELECT FROM unnest($2::text[], $3::text[]) w(s, t) WHERE w.s = n.nspname AND w.t = c.relname))
    ) f ON true`;

const row = z.object({
  lsn: z.string(),
  oid: z.number().nullable(),
  schema: z.string().nullable(),
  table: z.string().nullable(),
  identity: z.string().nullable(),
  key: z.array(z.object({ number: z.int(), name: z.string(), type: z.number() })).nullable(),
  columns: z.array(z.string()).nullable(),
});

/** Looks tables up, by OID and by name, and the end of the log. @throws what the query throws. */
export async function lookAtTables(
  query: CatalogQuery,
  oids: readonly number[],
  names: readonly TableName[],
): Promise<CatalogLook> {
  const { rows } = await query(LOOK, [
    oids.map(String),
    names.map(({ schema }) => schema),
    names.map(({ table }) => table),
  ]);
  const found = z.array(row).parse(rows);
  const tables = found.flatMap(({ oid, schema, table, identity, key, columns }): CatalogTable[] =>
    oid === null || schema === null || table === null || identity === null
      ? []
      : [
          {
            ...{ oid, schema, table, identity, columns: columns ?? [] },
            key: (key ?? []).map(({ number, name, type }): KeyColumn => {
              const isInPlace = identity === "f" && columns?.[number - 1] === name;
              return { number, type, names: [name], ...(isInPlace ? { inPlace: true } : {}) };
            }),
          },
        ],
  );
  return {
    lsn: parseLsn(found[0]?.lsn ?? "0/0"),
    byOid: new Map(tables.map((table) => [table.oid, table])),
    byName: new Map(tables.map((table) => [formatTable(table), table])),
  };
}
