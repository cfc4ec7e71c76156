import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import { identityColumns, laterIdentity, type TableFacts } from "../preflight/table-facts.ts";
import { TablesMovedError } from "../slots/slots-errors.ts";
import { type PublicationFacts, readPublication } from "./publication.ts";
import type { PublicationStep } from "./publication-plan.ts";

/**
 * Checks that what is published leaves the application's own UPDATE and DELETE alone: row filters may look at identity
 * columns only, and (from 18) generated columns of the identity must be published.
 */
export function checkPublishedIdentity(
  publication: PublicationFacts,
  tables: readonly TableFacts[],
  version: number,
): readonly PreflightProblem[] {
  const problems: PreflightProblem[] = [];
  const published = new Map(publication.tables.map((entry) => [formatTable(entry), entry]));
  const byOid = new Map(tables.map((table) => [table.oid, table]));
  for (const table of tables) {
    // The table itself, or the partitioned table above it.
    const family = [table, ...table.ancestors.flatMap((oid) => byOid.get(oid) ?? [])];
    const root = family.map((member) => published.get(formatTable(member))).find((entry) => entry);
    const identity = identityColumns(table) ?? [];
    const outside = (root?.filterColumns ?? []).filter((column) => !identity.includes(column));
    if (outside.length > 0) {
      problems.push({
        code: "ROW_FILTER",
        message: `the row filter of ${formatTable(table)} looks at ${outside.join(", ")}, which is not in its replica identity: the application's own UPDATE and DELETE would fail`,
        remedy: `ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL; or filter by columns of the replica identity only.`,
      });
    }
    // Partitions that are made later have another identity than their table says.
    const later = table.kind === "p" && table.replicaIdentity !== "d" ? laterIdentity(table) : undefined;
    const outsideLater = (root?.filterColumns ?? []).filter((column) => later && !later.includes(column));
    if (outside.length === 0 && outsideLater.length > 0) {
      problems.push({
        code: "ROW_FILTER",
        message: `the row filter of ${formatTable(table)} looks at ${outsideLater.join(", ")}, which is not in its primary key, the replica identity of partitions that are made later: the application's own UPDATE and DELETE on those would fail`,
        remedy: "Filter by columns of the primary key only.",
      });
    }
    const generated = table.columns.filter(
      (column) => column.generated === "s" && [...identity, ...(later ?? [])].includes(column.name),
    );
    if (root && version >= 180_000 && publication.generated !== "s" && generated.length > 0) {
      problems.push({
        code: "REPLICA_IDENTITY",
        message: `the publication "${publication.name}" leaves out ${generated.map((c) => c.name).join(", ")} of ${formatTable(table)}, generated and part of its replica identity: the application's own UPDATE and DELETE would fail`,
        remedy: `ALTER PUBLICATION ${quoteIdentifier(publication.name)} SET (publish_generated_columns = stored);`,
      });
    }
  }
  return problems;
}

/** Thrown away on purpose: the transaction of `applyPublication` is rolled back. */
export class PublicationRefused extends Error {
  readonly problems: readonly PreflightProblem[];
  constructor(problems: readonly PreflightProblem[]) {
    super("the publication was not made or changed");
    this.problems = problems;
  }
}

/** Runs one statement; what the server calls wrong with it (a row filter above all) is the definition's. @throws PublicationRefused */
async function execute(client: pg.ClientBase, text: string): Promise<void> {
  try {
    // The extended protocol takes one statement alone, whatever a filter holds. https://www.postgresql.org/docs/current/protocol-flow.html
    const statement: pg.QueryConfig & { readonly queryMode: "extended" } = { text, queryMode: "extended" };
    await client.query(statement);
  } catch (error) {
    // Classes 0A (not supported), 22 (data), 42 (syntax, names, rights). https://www.postgresql.org/docs/current/errcodes-appendix.html
    if (!(error instanceof pg.DatabaseError) || !/^(0A|22|42)/.test(error.code ?? "")) throw error;
    const detail = error.detail ? ` (${error.detail})` : "";
    throw new PublicationRefused([
      {
        code: "PUBLICATION",
        message: `the server refuses the publication: ${error.message}${detail}`,
        remedy: `Correct source.where, or see what is wrong with: ${text.length > 500 ? `${text.slice(0, 500)}…` : text};`,
      },
    ]);
  }
}

/** Less than a lease lasts. */
const PERMITTED_MS = 5_000;

/**
 * Makes or changes the publication in one transaction; nothing stays when it would hurt the application's writes.
 * Tells whether anything changed. `others`: publications of the pipeline's other slots; `permit` is asked right before the
 * commit, and told the transaction: a task that slept after it looked at the tables must not undo what its successor did.
 *
 * @throws PublicationRefused, TablesMovedError, what `permit` throws, or the server's error.
 */
export async function applyPublication(
  client: pg.ClientBase,
  name: string,
  step: PublicationStep,
  tables: readonly TableFacts[],
  version: number,
  { others, permit }: { readonly others: readonly string[]; readonly permit: (xid: string) => Promise<void> },
): Promise<boolean> {
  if (step.kind === "use") return false;
  await client.query("BEGIN");
  try {
    // One that sleeps between the permit and the commit loses its transaction before its lease.
    await client.query(`SET LOCAL idle_in_transaction_session_timeout = ${PERMITTED_MS}`);
    const before = await readPublication(client, name, version);
    for (const sql of step.sql) await execute(client, sql);
    const made = await readPublication(client, name, version);
    const problems = made ? checkPublishedIdentity(made, tables, version) : [];
    if (problems.length > 0) throw new PublicationRefused(problems);
    await refuseShared(client, name, others);
    const changed = !isDeepStrictEqual(before, made);
    if (changed) await permit(await ownTransaction(client));
    await client.query(changed ? "COMMIT" : "ROLLBACK");
    return changed;
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  }
}

/** The number of the open transaction, as `xmin` shows it. */
async function ownTransaction(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ xid: string }>("SELECT pg_current_xact_id()::xid::text AS xid");
  return (rows[0] as { xid: string }).xid;
}

/**
 * A table has one slot: one that another slot has taken meanwhile is not published by two. Adding a table to a publication
 * locks it against being added to another one until the transaction ends, so that one of two sees the other.
 * @throws TablesMovedError
 */
export async function refuseShared(
  client: pg.ClientBase,
  name: string,
  others: readonly string[],
): Promise<void> {
  if (others.length === 0) return;
  const { rows } = await client.query<TableName>(
    `SELECT DISTINCT n.nspname::text AS schema, c.relname::text AS "table"
       FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
       JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE p.pubname = $1 AND EXISTS (
            SELECT FROM pg_publication o JOIN pg_publication_rel s ON s.prpubid = o.oid
             WHERE o.pubname = ANY ($2)
               -- Another pipeline's may be named so: ours say whose they are.
               AND obj_description(o.oid, 'pg_publication') IS NOT DISTINCT FROM obj_description(p.oid, 'pg_publication')
               AND (s.prrelid = r.prrelid
                    OR s.prrelid IN (SELECT relid FROM pg_partition_ancestors(r.prrelid))
                    OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors(s.prrelid))))`,
    [name, others],
  );
  if (rows.length > 0) throw new TablesMovedError(name, rows.map(formatTable));
}
