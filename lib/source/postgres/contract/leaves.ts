import * as z from "zod";
import { quoteTable } from "../../../change/sql-identifier.ts";
import type { TableName } from "../../../change/table-pattern.ts";
import type { TextQuery } from "../link/connection-options.ts";

/** A partition in which rows live, as it is stored. */
export const leaf = z.object({
  oid: z.number(),
  schema: z.string(),
  table: z.string(),
  /** Of the file that holds its rows: TRUNCATE gives it another, and so does what rewrites it. */
  file: z.number(),
  space: z.number(),
  /** The transactions that attached it, and what it is part of, from the partitioned table down. */
  edges: z.array(z.string()),
});

/** The partitions of captured partitioned tables, by the table's OID: the form in which they are stored. */
export const leavesByRoot = z.record(z.string(), z.array(leaf));

/** A partition in which rows live. */
export type Leaf = z.output<typeof leaf>;
/** The partitions of captured partitioned tables, by the table's OID. */
export type LeavesByRoot = z.output<typeof leavesByRoot>;

const sighted = leaf.extend({
  root: z.number(),
  /** The transaction that last wrote the partition's row in the catalog. */
  xmin: z.string(),
  /** True if the server has no estimate of its rows, as right after a TRUNCATE. */
  unknownRows: z.boolean(),
  /** Set if it was attached after it had been made, or in the same transaction: by which one, and which command of that. */
  attached: z.object({ xmin: z.string(), command: z.number() }).nullable(),
});

/** A partition as it was seen. */
export type SightedLeaf = z.output<typeof sighted>;

/**
 * Nothing here locks a table: pg_partition_tree would, and wait for the application's ALTER TABLE. Rows can have been in a partition
 * where a row of pg_inherits above it is younger than its system columns, or of the same transaction.
 */
function tree(roots: readonly number[]): string {
  return `
    WITH RECURSIVE tree AS (
      SELECT i.inhparent AS root, i.inhrelid AS relid, ARRAY[i.xmin::text] AS edges,
             ARRAY[age(i.xmin)] AS ages, ARRAY[i.cmin::text::int8] AS commands
        FROM pg_inherits i WHERE i.inhparent IN (${roots.join(", ")}) AND NOT i.inhdetachpending
      UNION ALL
      SELECT t.root, i.inhrelid, t.edges || i.xmin::text, t.ages || age(i.xmin), t.commands || i.cmin::text::int8
        FROM tree t JOIN pg_inherits i ON i.inhparent = t.relid AND NOT i.inhdetachpending
    ), leaves AS (
      SELECT t.root::oid::int8::float8 AS root, c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS "table",
             c.relfilenode::int8::float8 AS file, c.reltablespace::int8::float8 AS space, t.edges,
             c.xmin::text AS xmin, c.reltuples < 0 AS "unknownRows",
             (SELECT jsonb_build_object('xmin', edge.xmin, 'command', edge.command)
                FROM unnest(t.edges, t.ages, t.commands) edge(xmin, age, command)
               WHERE edge.age < made.age
                  OR edge.xmin = made.xmin
               ORDER BY edge.age, edge.command DESC LIMIT 1) AS attached
        FROM tree t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
       CROSS JOIN LATERAL (
             SELECT a.xmin::text AS xmin, a.cmin::text::int8 AS command,
                    CASE WHEN age(a.xmin) < 0 THEN 2147483647 ELSE age(a.xmin) END AS age
               FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = -6) made
       WHERE c.relkind = 'r'
    )`;
}

/** Changes with whatever `readLeaves` would tell of these tables that is stored. */
export async function readLeavesHash(query: TextQuery, roots: readonly number[]): Promise<string> {
  if (roots.length === 0) return "";
  const { rows } = await query(
    `${tree(roots)} SELECT coalesce(md5(string_agg(concat_ws(' ', root, oid, schema, "table", file, space, edges), ',' ORDER BY root, oid)), '') AS hash FROM leaves`,
  );
  return z.object({ hash: z.string() }).parse(rows[0]).hash;
}

/** The partitions of these tables. */
export async function readLeaves(
  query: TextQuery,
  roots: readonly number[],
): Promise<readonly SightedLeaf[]> {
  if (roots.length === 0) return [];
  const { rows } = await query(`${tree(roots)} SELECT * FROM leaves ORDER BY root, oid`);
  return z.array(sighted).parse(rows);
}

/** Returns what is stored of partitions that were seen. */
export function storedLeaves(roots: readonly number[], found: readonly SightedLeaf[]): LeavesByRoot {
  return Object.fromEntries(
    roots.map((root) => [
      String(root),
      found
        .filter((one) => one.root === root)
        .map(({ oid, schema, table, file, space, edges }) => ({ oid, schema, table, file, space, edges })),
    ]),
  );
}

/** As many pages of a table are looked at: what was in it when it was attached stands first. */
const PAGES = 1000;

/**
 * Returns true if a partition has rows of before it was attached; also where we may not read it. One that we may not read is read through
 * its root. Waits a second at most where it is locked.
 * @throws the server's error then
 */
export async function wasFilled(query: TextQuery, leaf: SightedLeaf, root: TableName): Promise<boolean> {
  if (!leaf.attached) return false;
  const { xmin, command } = leaf.attached;
  for (const from of [
    `ONLY ${quoteTable(leaf)} WHERE`,
    `${quoteTable(root)} WHERE tableoid = ${leaf.oid}::oid AND`,
  ]) {
    try {
      // One message: what is set holds for its statements.
      const answer: unknown = await query(
        `SET LOCAL lock_timeout = '1s'; SELECT EXISTS (SELECT FROM ${from} ctid < '(${PAGES},0)'::tid AND (
           age(xmin) > age('${xmin}'::xid) OR xmin = '${xmin}'::xid AND cmin::text::int8 < ${command})) AS filled`,
      );
      const last = z
        .array(z.object({ rows: z.array(z.unknown()) }))
        .parse(answer)
        .at(-1);
      return z.object({ filled: z.boolean() }).parse(last?.rows[0]).filled;
    } catch (error) {
      // undefined_table, insufficient_privilege. https://www.postgresql.org/docs/current/errcodes-appendix.html
      const { code } = error as { code?: string };
      if (code === "42P01") return false;
      if (code !== "42501") throw error;
    }
  }
  return true;
}

/** Returns those of these tables that still exist. */
export async function stillThere(query: TextQuery, oids: readonly number[]): Promise<ReadonlySet<number>> {
  if (oids.length === 0) return new Set();
  const { rows } = await query(
    `SELECT oid::int8::float8 AS oid FROM pg_class WHERE oid IN (${oids.join(", ")})`,
  );
  return new Set(
    z
      .array(z.object({ oid: z.number() }))
      .parse(rows)
      .map(({ oid }) => oid),
  );
}
