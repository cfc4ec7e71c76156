import pg from "pg";
import * as z from "zod";
import { formatLsn, parseLsn } from "../../../change/lsn.ts";
import { NEW_EPOCH, NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import type { TextQuery } from "../link/connection-options.ts";
import { explainStreamError, slotInUse } from "../link/replication-errors.ts";
import {
  OtherSystemError,
  ServerBehindError,
  SlotAheadError,
  SlotForeignError,
  SlotLostError,
  SlotMissingError,
  TimelineForkedError,
} from "../postgres-errors.ts";
import type { SlotState } from "./slot-record.ts";

const SEE_EPOCH = '(see docs, PostgreSQL, "A new epoch")';
const lsn = z.string().transform(parseLsn);

const slotRow = z.object({
  slot_name: z.string(),
  plugin: z.string().nullable(),
  slot_type: z.string(),
  database: z.string().nullable(),
  temporary: z.boolean(),
  active_pid: z.int().nullable(),
  confirmed_flush_lsn: lsn.nullable(),
  restart_lsn: lsn.nullable(),
  wal_status: z.string().nullable(),
  safe_wal_size: z.number().nullable(),
  keep_bytes: z.number().nullable().default(null),
  two_phase: z.boolean().default(false),
  /** 17 and newer. */
  invalidation_reason: z.string().nullable().default(null),
  holder: z.string().nullable(),
  decoded: z.number().nullable(),
});

/** A replication slot as the server tells it. */
export interface SlotFacts {
  readonly name: string;
  readonly plugin: string | null;
  readonly logical: boolean;
  readonly database: string | null;
  readonly temporary: boolean;
  readonly twoPhase: boolean;
  /** Process that reads from it, and its application name. */
  readonly activePid: number | undefined;
  readonly holder: string | undefined;
  /** S of rule 19. */
  readonly confirmedLsn: bigint;
  /** From here on the server keeps WAL for it. */
  readonly restartLsn: bigint;
  /** `reserved`, `extended`, `unreserved`, `lost`. */
  readonly walStatus: string | undefined;
  /** Bytes of WAL until the slot is in danger; undefined without a bound. */
  readonly safeWalSize: number | undefined;
  /** `max_slot_wal_keep_size` in bytes; -1: without a bound. */
  readonly maxWalKeepBytes?: number | undefined;
  readonly invalidationReason: string | undefined;
  /** Nothing was ever decoded from it, as far as statistics tell. */
  readonly unused: boolean;
}

/** https://www.postgresql.org/docs/current/view-pg-replication-slots.html */
export async function readSlot(query: TextQuery, name: string): Promise<SlotFacts | undefined> {
  const { rows } = await query(`
    SELECT to_jsonb(s) || jsonb_build_object(
             'holder', (SELECT application_name FROM pg_stat_activity a WHERE a.pid = s.active_pid),
             'keep_bytes', pg_size_bytes(current_setting('max_slot_wal_keep_size', true)),
             'decoded', (SELECT total_txns FROM pg_stat_replication_slots t WHERE t.slot_name = s.slot_name)) AS slot
      FROM pg_replication_slots s WHERE s.slot_name = ${pg.escapeLiteral(name)}`);
  if (rows.length === 0) return undefined;
  const row = slotRow.parse((rows[0] as { slot: unknown }).slot);
  return {
    name: row.slot_name,
    plugin: row.plugin,
    logical: row.slot_type === "logical",
    database: row.database,
    temporary: row.temporary,
    twoPhase: row.two_phase,
    activePid: row.active_pid ?? undefined,
    holder: row.holder ?? undefined,
    confirmedLsn: row.confirmed_flush_lsn ?? 0n,
    // A slot whose WAL is gone has none.
    restartLsn: row.restart_lsn ?? row.confirmed_flush_lsn ?? 0n,
    walStatus: row.wal_status ?? undefined,
    safeWalSize: row.safe_wal_size ?? undefined,
    maxWalKeepBytes: row.keep_bytes ?? undefined,
    invalidationReason: row.invalidation_reason ?? undefined,
    unused: row.decoded === 0 || row.decoded === null,
  };
}

/** Returns true if a slot can be one of ours in this database; a lost one is ours all the same. Whoever drops a slot asks first. */
export function isOurs({ plugin, database: of }: SlotFacts, database: string): boolean {
  return plugin === "pgoutput" && of === database;
}

/** @throws SlotForeignError for a slot that is not ours: a physical one, another plugin's, another database's. */
export function checkOurs(slot: SlotFacts, database: string): void {
  if (isOurs(slot, database)) return;
  const what = slot.logical
    ? `its plugin is ${slot.plugin}, its database "${slot.database}"`
    : "it is a physical slot";
  throw new SlotForeignError({
    message: `the replication slot "${slot.name}" is not the pipeline's: ${what}; nothing was dropped`,
    remedy: "Check the database that you connect to, and source.slot of the definition.",
  });
}

/** Drops a slot that nobody reads from. @throws SlotInUseError while somebody does. */
export async function dropSlot(client: pg.Client, { name, activePid, holder }: SlotFacts): Promise<void> {
  if (activePid !== undefined) throw slotInUse(name, activePid, holder);
  try {
    await client.query("SELECT pg_drop_replication_slot($1)", [name]);
  } catch (error) {
    // Someone came in between.
    if (error instanceof pg.DatabaseError && error.code === "55006")
      throw explainStreamError(error, name, "reading");
    throw error;
  }
}

/** The answer of IDENTIFY_SYSTEM. */
export interface SystemFacts {
  readonly systemId: string;
  readonly timeline: number;
  /** W of rule 19: end of the flushed WAL. */
  readonly walEnd: bigint;
}

const systemRow = z.object({ systemid: z.string(), timeline: z.coerce.number(), xlogpos: lsn });

/** Asks a replication session which cluster it belongs to. https://www.postgresql.org/docs/current/protocol-replication.html */
export async function identifySystem(replication: pg.Client): Promise<SystemFacts> {
  const { rows } = await replication.query("IDENTIFY_SYSTEM");
  const row = systemRow.parse(rows[0]);
  return { systemId: row.systemid, timeline: row.timeline, walEnd: row.xlogpos };
}

/** Tells one run of a server from another, and from every other server: while it lasts nothing is lost that it has sent. */
export async function serverRun(client: pg.Client): Promise<string> {
  const { rows } = await client.query("SELECT pg_postmaster_start_time()::text AS run");
  return (rows[0] as { run: string }).run;
}

/** Reads the ends of a timeline's ancestors: timeline number to switch point. */
export async function timelineHistory(
  replication: pg.Client,
  timeline: number,
): Promise<ReadonlyMap<number, bigint>> {
  if (timeline <= 1) return new Map();
  const { rows } = await replication.query(`TIMELINE_HISTORY ${timeline}`);
  const content = (rows[0] as { content: string | Buffer } | undefined)?.content ?? "";
  const text = typeof content === "string" ? decodeBytea(content) : content.toString("utf8");
  const history = new Map<number, bigint>();
  for (const line of text.split("\n")) {
    const match = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line);
    if (match) history.set(Number(match[1]), parseLsn(match[2] as string));
  }
  return history;
}

function decodeBytea(text: string): string {
  return text.startsWith("\\x") ? Buffer.from(text.slice(2), "hex").toString("utf8") : text;
}

/**
 * Checks that a slot is one that we may read from at all.
 * @throws SlotForeignError, SlotLostError
 */
export function checkSlotKind(slot: SlotFacts, database: string): void {
  const wrong = !slot.logical
    ? "it is a physical slot"
    : slot.plugin !== "pgoutput"
      ? `its output plugin is ${slot.plugin}, not pgoutput`
      : slot.database !== database
        ? `it belongs to the database "${slot.database}", not "${database}"`
        : slot.temporary
          ? "it is temporary"
          : slot.twoPhase
            ? "it was made with two_phase, which sends prepared transactions before their commit"
            : undefined;
  if (wrong) {
    throw new SlotForeignError({
      message: `the replication slot "${slot.name}" is not one of ours: ${wrong}`,
      remedy: `Choose another name with source.slot: before the first start that is all; later a new epoch must begin with it: ${NEW_EPOCH}`,
    });
  }
  if (slot.walStatus === "lost" || slot.invalidationReason !== undefined) {
    throw new SlotLostError({
      message: `the server has given up the replication slot "${slot.name}" (${slot.invalidationReason ?? "wal_status lost"}): changes after ${formatLsn(slot.confirmedLsn)} are gone from its log`,
      remedy: `Changes are missing from here on. Raise max_slot_wal_keep_size (or idle_replication_slot_timeout), then begin a new epoch: ${NEW_EPOCH_DROP_SLOT} (see docs, PostgreSQL, "A new epoch")`,
    });
  }
}

/** Returns the error of a slot that is on record, and that the server has not. */
export function slotMissing({
  slot,
  confirmedLsn,
}: Pick<SlotState, "slot" | "confirmedLsn">): SlotMissingError {
  return new SlotMissingError({
    message: `the replication slot "${slot}" does not exist any more; we had confirmed up to ${formatLsn(confirmedLsn)}`,
    remedy: `It was dropped, or a failover went to a server that had no copy of it. Changes may be missing from there on, and a new epoch must begin: ${NEW_EPOCH} ${SEE_EPOCH}`,
  });
}

/**
 * Rule 19: whether the server's history still is the one that the record was written in.
 * `history` holds the switch points of the current timeline's ancestors.
 *
 * @throws OtherSystemError, TimelineForkedError, ServerBehindError, SlotMissingError, SlotInUseError, SlotAheadError, and those
 * of `checkSlotKind`.
 */
export function checkHistory(
  state: SlotState,
  slot: SlotFacts | undefined,
  system: SystemFacts,
  history: ReadonlyMap<number, bigint>,
): asserts slot is SlotFacts {
  const confirmed = formatLsn(state.confirmedLsn);
  const again = `${slot ? NEW_EPOCH_DROP_SLOT : NEW_EPOCH} ${SEE_EPOCH}`;
  if (system.systemId !== state.systemId) {
    throw new OtherSystemError({
      message: `the server is another cluster (system id ${system.systemId}) than the pipeline was started with (${state.systemId})`,
      remedy: `Connect to the old server. After a migration or a restore into a new cluster its positions mean nothing here, and a new epoch must begin: ${again}`,
    });
  }
  if (system.timeline !== state.timeline) {
    const left = history.get(state.timeline);
    if (left === undefined || left < state.confirmedLsn) {
      throw new TimelineForkedError({
        message: `the server is on timeline ${system.timeline}, which ${left === undefined ? `does not come from timeline ${state.timeline}` : `left timeline ${state.timeline} at ${formatLsn(left)}`}; we had confirmed up to ${confirmed} there`,
        remedy: `The server was promoted without everything that consumers have already seen; a new epoch must begin: ${again}`,
      });
    }
  }
  if (system.walEnd < state.confirmedLsn) {
    throw new ServerBehindError({
      message: `the server's log ends at ${formatLsn(system.walEnd)}, and we had confirmed up to ${confirmed}: it was restored from an older copy`,
      remedy: `Consumers hold changes that the database has lost; a new epoch must begin: ${again}`,
    });
  }
  if (!slot) throw slotMissing(state);
  checkSlotKind(slot, state.database);
  // Its reader moves it: where it stands says nothing, and the way on from SLOT_AHEAD would destroy a healthy pipeline (rule 43).
  if (slot.activePid !== undefined) throw slotInUse(slot.name, slot.activePid, slot.holder);
  if (slot.confirmedLsn > state.confirmedLsn) {
    throw new SlotAheadError({
      message: `the replication slot "${state.slot}" stands at ${formatLsn(slot.confirmedLsn)}, beyond the ${confirmed} that we confirmed: someone else read or advanced it, or it was made anew`,
      remedy: `Find who uses the slot (its name must be ours alone). The changes in between never reached us, and a new epoch must begin: ${again}`,
    });
  }
}
