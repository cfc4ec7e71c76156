import pg from "pg";
import { formatLsn, parseLsn } from "../../../change/lsn.ts";
import { quoteIdentifier } from "../../../change/sql-identifier.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import type { Log } from "../../../log.ts";
import { applyPublication, PublicationRefused } from "../catalog/publication-change.ts";
import { readTerms } from "../contract/terms.ts";
import type { LogPipeline } from "../definition.ts";
import { connect, disconnect } from "../link/connection.ts";
import type { PostgresConnectionOptions } from "../link/connection-options.ts";
import { slotInUse } from "../link/replication-errors.ts";
import { PreflightError, SlotForeignError } from "../postgres-errors.ts";
import type { PreflightReport } from "../preflight/preflight.ts";
import type { Siblings } from "../slots/assignment.ts";
import { checkSlotKind, readSlot, type SlotFacts, type SystemFacts } from "./slot.ts";
import type { SlotRecord, SlotState } from "./slot-record.ts";

/** After this long the log says what the creation of a slot waits for. */
const TELL_AFTER_MS = 5000;

/** Dependencies of `firstStart`. */
export interface FirstStartOptions {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: Pick<LogPipeline, "name" | "source">;
  /** Undefined: nothing is kept, and a slot that is there is read from where it stands. */
  readonly record: SlotRecord | undefined;
  /** Set if the pipeline has several slots. */
  readonly siblings?: Siblings | undefined;
  readonly report: PreflightReport;
  readonly system: SystemFacts;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/**
 * Makes what a first start needs and writes the first record: first the publication, then the slot (decoding looks
 * publications up as of the log's time: one made after the slot breaks it). What this attempt made goes away
 * again when the attempt fails; nothing else is ever dropped.
 *
 * @throws SlotInUseError, SlotForeignError for a slot that others used, PreflightError, the server's errors, those of the record.
 */
export async function firstStart(client: pg.Client, options: FirstStartOptions): Promise<SlotState> {
  const { pipeline, record, report, system, log } = options;
  const { slot: name, publication } = pipeline.source;
  const found = await readSlot((sql) => client.query(sql), name);
  const undo: string[] = [];
  try {
    let startLsn: bigint;
    let contract: Awaited<ReturnType<typeof readTerms>>;
    // Before the slot is made: what is committed from the slot's beginning on falls under what was read.
    const readContract = () => readTerms((sql) => client.query(sql), publication, report.server.version);
    if (found) {
      checkFoundSlot(found, pipeline.source, report, record !== undefined);
      await changePublication(client, options);
      contract = await readContract();
      startLsn = found.confirmedLsn;
      log.info(`reading from the replication slot "${name}" that is there`);
    } else {
      await changePublication(client, options);
      if (report.publication.kind === "create") undo.push(`DROP PUBLICATION ${quoteIdentifier(publication)}`);
      contract = await readContract();
      startLsn = await createSlot(client, options);
      undo.push(`SELECT pg_drop_replication_slot(${pg.escapeLiteral(name)})`);
      log.info(`made the replication slot "${name}"`);
    }
    const begun = options.siblings?.epoch === undefined ? await record?.newEpoch() : undefined;
    const state: SlotState = {
      epoch: options.siblings?.epoch ?? begun?.epoch ?? 1,
      slot: name,
      publication,
      publicationOid: contract?.terms.oid,
      terms: contract?.terms,
      termsSeen: contract?.seen,
      database: report.server.database,
      systemId: system.systemId,
      timeline: system.timeline,
      confirmedLsn: startLsn,
      recentCommits: [],
    };
    await record?.write(state);
    if (begun) {
      const ended = begun.endedAt === undefined ? "an unknown place" : formatLsn(begun.endedAt);
      log.warn(`epoch ${begun.epoch} begins at ${formatLsn(startLsn)}; the one before ended at ${ended}`, {
        remedy: "What was committed in between is not in the stream: consumers lack it until a re-sync.",
      });
    }
    return state;
  } catch (error) {
    // A write may have reached the record although it failed: then the slot stays with it.
    const written = await record?.read().catch(() => "unknown");
    if (written === undefined) for (const sql of undo.reverse()) await client.query(sql).catch(() => {});
    throw error;
  }
}

/**
 * Checks that a first start may read from a slot that is there. `keeps`: the pipeline keeps a record, and reads from none that others used.
 * @throws SlotInUseError, SlotForeignError, SlotLostError
 */
export function checkFoundSlot(
  found: SlotFacts,
  { slot: name, publication }: Pick<LogPipeline["source"], "slot" | "publication">,
  report: Pick<PreflightReport, "server" | "publication">,
  keeps: boolean,
): void {
  checkSlotKind(found, report.server.database);
  if (found.activePid !== undefined) throw slotInUse(name, found.activePid, found.holder);
  if (keeps && !found.unused) throw usedByOthers(name);
  if (report.publication.kind === "create") throw slotWithoutPublication(name, publication);
}

/** Makes or changes the publication as preflight planned; `onAlter` is told the transaction before it commits. @throws PreflightError, or the server's error. */
export async function changePublication(
  client: pg.Client,
  {
    pipeline,
    record,
    report,
    log,
    siblings,
  }: Pick<FirstStartOptions, "pipeline" | "record" | "report" | "log" | "siblings">,
  onAlter: (xid: string) => Promise<void> = async () => {},
): Promise<void> {
  const { publication: name } = pipeline.source;
  const step = report.publication;
  let changed: boolean;
  try {
    const tables = [...report.tables, ...report.leaves];
    changed = await applyPublication(client, name, step, tables, report.server.version, {
      others: siblings?.publications ?? [],
      permit: async (xid) => {
        await onAlter(xid);
        await record?.confirm();
      },
    });
  } catch (error) {
    if (error instanceof PublicationRefused) throw new PreflightError(error.problems);
    throw error;
  }
  if (!changed) return;
  if (step.kind === "create") log.info(`made the publication "${name}"`);
  if (step.kind === "alter") log.info(`changed the publication "${name}": ${step.reason}`);
}

/** On a session of its own: the server waits for the end of every transaction that runs, however long that takes. */
async function createSlot(side: pg.Client, options: FirstStartOptions): Promise<bigint> {
  const { connection, pipeline, signal, log } = options;
  const client = await connect(connection, { signal });
  const pid = (client as pg.Client & { processID: number }).processID;
  const tell = setTimeout(() => {
    log.info(
      "the new replication slot waits for transactions that are open now: SELECT pid, xact_start, application_name FROM pg_stat_activity WHERE backend_xid IS NOT NULL",
      { waitsFor: "open transactions" },
    );
  }, TELL_AFTER_MS);
  // The waiting backend would not notice that we are gone.
  const abort = () => void side.query("SELECT pg_terminate_backend($1)", [pid]).catch(() => {});
  signal.addEventListener("abort", abort, { once: true });
  try {
    signal.throwIfAborted();
    const { rows } = await client.query<{ lsn: string }>(
      "SELECT lsn::text AS lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')",
      [pipeline.source.slot],
    );
    return parseLsn((rows[0] as { lsn: string }).lsn);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(tell);
    signal.removeEventListener("abort", abort);
    await disconnect(client);
  }
}

function usedByOthers(slot: string): SlotForeignError {
  return new SlotForeignError({
    message: `the replication slot "${slot}" exists and was read from, but the pipeline has no record of it`,
    remedy: `Either it belongs to something else: choose another name with source.slot. Or the pipeline's state was lost or a new epoch was begun without it: then begin one that drops it: ${NEW_EPOCH_DROP_SLOT}`,
  });
}

function slotWithoutPublication(slot: string, publication: string): SlotForeignError {
  return new SlotForeignError({
    message: `the replication slot "${slot}" exists and the publication "${publication}" does not: a publication must be there before the slot`,
    remedy: `SELECT pg_drop_replication_slot('${slot}'); and start again: both are made in the right order. Or choose another name with source.slot.`,
  });
}
