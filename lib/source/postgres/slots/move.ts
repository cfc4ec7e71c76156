import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import * as z from "zod";
import { formatLsn, parseLsn } from "../../../change/lsn.ts";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable } from "../../../change/table-pattern.ts";
import { captures } from "../../../definition/definition.ts";
import { routeTables } from "../../../definition/route.ts";
import { failpoint } from "../../../failpoint.ts";
import type { Log } from "../../../log.ts";
import { readPublication } from "../catalog/publication.ts";
import { checkPublishedIdentity, refuseShared } from "../catalog/publication-change.ts";
import { tableSql } from "../catalog/publication-plan.ts";
import type { LogPipeline } from "../definition.ts";
import type { TextQuery } from "../link/connection-options.ts";
import { PreflightError } from "../postgres-errors.ts";
import { readServerFacts } from "../preflight/server-facts.ts";
import { readTables } from "../preflight/table-facts.ts";
import { heartbeatSql } from "../slot/heartbeat.ts";
import { slotNames } from "./assignment.ts";
import type { TopicShare } from "./share.ts";
import { TableMoveDelayedError, TableMoveRefusedError } from "./slots-errors.ts";

/** Prefix of the logical message that tells a slot's reader, at its place in the log, that tables have gone. */
export const MOVE = "tributary.move";

const moveContent = z.object({ from: z.string(), tables: z.array(z.string()) });

/** Names the tables that leave a slot; undefined where it is no message of ours. */
export function readMove(content: Buffer): z.output<typeof moveContent> | undefined {
  try {
    return moveContent.parse(JSON.parse(content.toString("utf8")));
  } catch {
    return undefined;
  }
}

/**
 * Returns those of these tables that a publication really has no more. A message is no proof that a table moved: any role may write one. The
 * true one is part of the transaction that changed the publication.
 */
export async function tablesGone(
  query: TextQuery,
  publication: string,
  tables: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await query(
    `SELECT puballtables AS every,
            (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'table', c.relname)), '[]')
               FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid) AS named
       FROM pg_publication p WHERE p.pubname = ${pg.escapeLiteral(publication)}`,
  );
  if (rows.length === 0) return tables;
  const { every, named } = publicationRow.parse(rows[0]);
  const there = new Set(named.map(formatTable));
  return every ? [] : tables.filter((table) => !there.has(table));
}

const publicationRow = z.object({
  every: z.boolean(),
  named: z.array(z.object({ schema: z.string(), table: z.string() })),
});

/** Options of moving topics. */
export interface MoveOptions {
  /** The whole pipeline. */
  readonly pipeline: LogPipeline;
  /** The slot that receives. */
  readonly to: number;
  /** Publications of the pipeline's other slots. */
  readonly others: readonly string[];
  /**
   * Proves at the last moment that we hold the capture lease of the receiving slot, and that the giving one has all of
   * the tables: what it has not received itself cannot go on.
   */
  readonly permit: (from: number, tables: readonly string[]) => Promise<boolean>;
  /** Time for which nobody else can take our lease over, once `permit` has said yes. */
  readonly heldMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** Time that one attempt may hold up writers of a table. */
const LOCK_MS = 1_000;
const PAUSE_MS = 1_000;
/** A table that is never free is told after this long. */
const DEADLINE_MS = 600_000;
/** lock_not_available, deadlock_detected. https://www.postgresql.org/docs/current/errcodes-appendix.html */
const AGAIN = ["55P03", "40P01"];

/**
 * Moves a topic's tables from the publication of one slot to that of another, in one transaction that no writer of the
 * tables overlaps: what was committed before is the old slot's, what comes after is the new one's, and pgoutput looks
 * publications up as of the log's time. The receiving slot must be there. Nothing of the tables may be written by it before
 * the old one has confirmed all up to here.
 *
 * @throws TableMoveRefusedError, TableMoveDelayedError, TablesMovedError, PreflightError, the server's errors.
 */
export async function moveTopic(client: pg.Client, share: TopicShare, options: MoveOptions): Promise<void> {
  const { pipeline, to, signal, log } = options;
  const from = share.owner as number;
  const move = { ...options, share, from, names: share.tables.map(formatTable) };
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    const why = await tryMove(client, move);
    if (why === undefined) break;
    if (performance.now() >= deadline) {
      throw new TableMoveDelayedError({
        message: `${move.names.join(", ")} cannot be moved to the slot "${slotNames(pipeline.source, to).slot}": ${why}`,
        remedy:
          "The task starts again and tries on; until then the old slot has the tables. Look for long transactions that write them (pg_stat_activity), and for the old slot's capture task.",
      });
    }
    log.info(`waiting to move ${move.names.join(", ")}: ${why}`, { waitsFor: "tables to move" });
    await delay(PAUSE_MS * (0.5 + Math.random()), undefined, { signal });
  }
  log.info(`moved ${move.names.join(", ")} from slot ${from} to slot ${to}`);
}

type Move = MoveOptions & {
  readonly share: TopicShare;
  readonly from: number;
  readonly names: readonly string[];
};

/** Tells why it is not done yet; undefined: it is. */
async function tryMove(client: pg.Client, move: Move): Promise<string | undefined> {
  await client.query("BEGIN");
  try {
    await inTransaction(client, move);
    // Between the lease's proof and the commit lies less than another task would need to take it over.
    await client.query("COMMIT");
    failpoint("table-moved");
    return undefined;
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    if (error instanceof pg.DatabaseError && AGAIN.includes(error.code ?? ""))
      return `the tables are in use (${error.code})`;
    throw error;
  }
}

async function inTransaction(client: pg.Client, move: Move): Promise<void> {
  const { pipeline, share, from, to, names, others, heldMs, permit } = move;
  const [old, now] = [slotNames(pipeline.source, from), slotNames(pipeline.source, to)];
  await client.query(
    `SET LOCAL lock_timeout = ${LOCK_MS}; SET LOCAL synchronous_commit = local;
     SET LOCAL idle_in_transaction_session_timeout = ${Math.floor(heldMs)}`,
  );
  const server = await readServerFacts(client);
  const tables = await readTables(client, share.tables);
  const [given, taking] = [
    await readPublication(client, old.publication, server.version),
    await readPublication(client, now.publication, server.version),
  ];
  const foreign = tables.filter(({ owned }) => !owned && !server.superuser).map(formatTable);
  if (!given?.ours || !taking?.ours || foreign.length > 0) {
    throw new TableMoveRefusedError({
      message: `${names.join(", ")} cannot be moved from the publication "${old.publication}" to "${now.publication}": ${foreign.length > 0 ? `role "${server.user}" does not own ${foreign.join(", ")}` : "they are not both ours"}`,
      remedy:
        "Let the capture role own publications and tables (or be a member of their owner), or put source.slots back.",
    });
  }
  // No transaction that writes them runs on while they go: each commits wholly before, or writes wholly after.
  await client.query(`LOCK TABLE ${tables.map(quoteTable).join(", ")} IN SHARE ROW EXCLUSIVE MODE`);
  const leaving = await tablesOfTopic(client, pipeline, share.topic, old.publication);
  const changed =
    tables.length !== share.tables.length ||
    leaving.length !== share.published.length ||
    leaving.some((name) => !names.includes(name));
  if (changed) {
    throw new TableMoveDelayedError({
      message: `the tables of the topic "${share.topic}" changed while they were to be moved`,
      remedy: "Nothing to do: the task starts again and looks anew.",
    });
  }
  const dropped = share.published.map(quoteTable).join(", ");
  const added = tables.map((table) => tableSql(pipeline.source, table, server.version)).join(", ");
  await client.query(`ALTER PUBLICATION ${quoteIdentifier(old.publication)} DROP TABLE ${dropped}`);
  await client.query(`ALTER PUBLICATION ${quoteIdentifier(now.publication)} ADD TABLE ${added}`);
  const made = await readPublication(client, now.publication, server.version);
  const problems = made ? checkPublishedIdentity(made, tables, server.version) : [];
  if (problems.length > 0) throw new PreflightError(problems);
  await refuseShared(client, now.publication, others);
  const content = JSON.stringify({ from: old.slot, tables: names });
  await client.query("SELECT pg_logical_emit_message(true, $1, $2::text)", [MOVE, content]);
  if (await permit(from, names)) return;
  throw new TableMoveDelayedError({
    message: `${names.join(", ")} cannot be moved yet: slot ${from} has not wholly received them itself`,
    remedy: "Nothing to do: the task starts again, and a later start moves them.",
  });
}

/** The captured tables of a topic that a publication names, as people write them. */
async function tablesOfTopic(
  client: pg.Client,
  pipeline: LogPipeline,
  topic: string,
  publication: string,
): Promise<readonly string[]> {
  const { rows } = await client.query<{ schema: string; table: string }>(
    `SELECT n.nspname::text AS schema, c.relname::text AS "table"
       FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
       JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE p.pubname = $1`,
    [publication],
  );
  const route = routeTables(pipeline);
  return rows
    .filter((table) => captures(pipeline.source, table) && route(table).topic.name === topic)
    .map(formatTable);
}

/** Time that a giving slot's reader may need to come as far. */
const FOLLOW_DEADLINE_MS = 900_000;
const FOLLOW_POLL_MS = 500;
const TELL_EVERY_MS = 10_000;

/**
 * Waits until other slots have confirmed everything up to now: then all that they had of tables that moved before is in the
 * stream, durably, and is never written again.
 *
 * @throws TableMoveDelayedError
 */
export async function awaitSlots(
  client: pg.Client,
  {
    slots,
    confirmed,
    signal,
    log,
  }: {
    readonly slots: readonly number[];
    /** Returns the place that the record of a slot has confirmed. */
    readonly confirmed: (slot: number) => Promise<bigint | undefined>;
    readonly signal: AbortSignal;
    readonly log: Log;
  },
): Promise<void> {
  const { rows } = await client.query<{ lsn: string; version: number }>(
    "SELECT pg_current_wal_flush_lsn()::text AS lsn, current_setting('server_version_num')::int AS version",
  );
  const { lsn, version } = rows[0] as { lsn: string; version: number };
  const wanted = parseLsn(lsn);
  // A slot whose tables are quiet follows by keepalives, which may take their time: this comes at once. Without it they do.
  await client.query(heartbeatSql(version)).catch(() => {});
  const deadline = performance.now() + FOLLOW_DEADLINE_MS;
  let toldAt = Number.NEGATIVE_INFINITY;
  for (const slot of slots) {
    for (;;) {
      const at = await confirmed(slot);
      if (at !== undefined && at >= wanted) break;
      const now = performance.now();
      const state = `slot ${slot} has confirmed ${at === undefined ? "nothing" : formatLsn(at)}, and must come to ${formatLsn(wanted)}`;
      if (now >= deadline) {
        throw new TableMoveDelayedError({
          message: `tables have moved here, and ${state} before they are read on`,
          remedy:
            "Bring the capture task of that slot back: what it has read must be in the stream first. This task starts again and waits on; nothing is lost meanwhile.",
        });
      }
      if (now - toldAt >= TELL_EVERY_MS) {
        toldAt = now;
        log.info(`tables have moved here: ${state}`, { waitsFor: "tables to move" });
      }
      await delay(FOLLOW_POLL_MS, undefined, { signal });
    }
  }
}
