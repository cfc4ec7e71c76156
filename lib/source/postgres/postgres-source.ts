import type pg from "pg";
import type { ChangeStream } from "../../change/change-stream.ts";
import type { TableName } from "../../change/table-pattern.ts";
import { NEW_EPOCH, NEW_EPOCH_DROP_SLOT } from "../../definition/new-epoch.ts";
import type { Log } from "../../log.ts";
import type { LogSettings } from "./change-stream-options.ts";
import { contractTable, keepContract } from "./contract/at-start.ts";
import { UnhealedTables } from "./contract/unhealed-tables.ts";
import { serverEncoding } from "./decode/values/charset.ts";
import type { TextEncoding } from "./decode/values/text.ts";
import type { LogPipeline } from "./definition.ts";
import { connect, disconnect, withConnection } from "./link/connection.ts";
import { explainSessionError } from "./link/connection-errors.ts";
import type { PostgresConnectionOptions } from "./link/connection-options.ts";
import { PostgresChangeStream } from "./postgres-change-stream.ts";
import { PreflightError, SlotSettingsChangedError } from "./postgres-errors.ts";
import { preflight as look, type PreflightReport } from "./preflight/preflight.ts";
import { changePublication, firstStart } from "./slot/first-start.ts";
import { identifySystem } from "./slot/slot.ts";
import type { SlotRecord, SlotState } from "./slot/slot-record.ts";
import { readShare } from "./slots/share.ts";
import type { SourceStatus } from "./source-status.ts";

export type { PreflightReport } from "./preflight/preflight.ts";
export type { SourceStatus } from "./source-status.ts";

/** Options of opening the log of a pipeline. */
export interface PostgresSourceOptions extends LogSettings {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  /** Undefined: nothing is kept outside the database, and an existing slot is read from where it stands. */
  readonly record: SlotRecord | undefined;
  /**
   * Reads a publication as it is, and as it will be: tables that join are given, those that left are given for the time they were in.
   * It is neither changed nor judged.
   */
  readonly follow?: boolean;
  /** Ends reading: `changes` ends. What was read can still be acknowledged until `close`. */
  readonly signal: AbortSignal;
  readonly log: Log;
  /** Called at least every few seconds with what is known of the link. */
  readonly onStatus?: (status: SourceStatus) => void;
  /** `wal_sender_timeout` of our session, milliseconds; feedback and doubts follow from it. Default 20 s. */
  readonly walSenderTimeoutMs?: number;
  /** Time that a slot is waited for which another process reads from. Default 60 s. */
  readonly takeoverMs?: number;
}

const WAL_SENDER_TIMEOUT_MS = 20_000;
const TAKEOVER_MS = 60_000;

/**
 * Looks whether the database is fit for the definition, and touches nothing.
 * @throws PreflightError with all problems, and the errors of `connect`.
 */
export async function preflight({
  connection,
  pipeline,
  slot = 1,
  signal,
}: {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  /** The number of the slot whose tables are looked at. */
  readonly slot?: number | undefined;
  readonly signal?: AbortSignal;
}): Promise<PreflightReport> {
  return await withConnection(connection, { signal }, async (client) => {
    const share = await readShare(client, pipeline, slot);
    const report = await look(client, share?.pipeline ?? pipeline, share?.isOwn);
    if (report.problems.length > 0) throw new PreflightError(report.problems);
    return report;
  }).catch(explained);
}

/**
 * Makes the slot and the publication of a pipeline where it has no record yet; gives what preflight found.
 * @throws PreflightError and the other errors of a first start.
 */
export async function makeSlot(
  options: Omit<PostgresSourceOptions, "record"> & { readonly record: SlotRecord },
): Promise<PreflightReport> {
  const { connection, pipeline, record, signal } = options;
  return await withConnection(connection, { signal }, async (client) => {
    const report = await look(client, pipeline, options.siblings?.isOwn);
    if (report.problems.length > 0) throw new PreflightError(report.problems);
    if (await record.read()) return report;
    return await withConnection(connection, { replication: true, signal }, async (replication) => {
      const system = await identifySystem(replication);
      await firstStart(client, { ...options, report, system });
      return report;
    });
  }).catch(explained);
}

function explained(error: unknown): never {
  throw explainSessionError(error);
}

/** A change stream that also knows what it captures. */
export interface PostgresSource extends ChangeStream {
  readonly tables: readonly (TableName & { readonly oid: number })[];
}

/**
 * Opens the slot of a pipeline: preflight, publication and slot (made at first start), the record held against
 * the server's history (rule 19), streaming begun.
 *
 * @throws PreflightError and every other error of `errors.ts`; each says what to do.
 */
export async function openPostgresSource(options: PostgresSourceOptions): Promise<PostgresSource> {
  const { connection, pipeline, record, signal, log } = options;
  const walSenderTimeoutMs = options.walSenderTimeoutMs ?? WAL_SENDER_TIMEOUT_MS;
  const client = await connect(connection, { signal });
  let replication: pg.Client | undefined;
  try {
    const report = await look(client, pipeline, options.siblings?.isOwn, options.follow);
    for (const { code, message, remedy } of report.warnings) log.warn(message, { code, remedy });
    if (report.problems.length > 0) throw new PreflightError(report.problems);
    replication = await connect(connection, { replication: true, walSenderTimeoutMs, signal });
    const system = await identifySystem(replication);
    const unhealedOptions = { record: options.unhealed, isOwn: options.siblings?.isOwn, log };
    let unhealed: UnhealedTables;
    let state = await record?.read();
    if (state) {
      connection.hosts?.noteTimeline(state.timeline);
      checkSettings(state, pipeline, report);
      const change = (onAlter?: (xid: string) => Promise<void>) =>
        changePublication(client, { pipeline, record, report, log, siblings: options.siblings }, onAlter);
      unhealed = await UnhealedTables.open({ ...unhealedOptions, epoch: state.epoch });
      const { tables, server } = report;
      if (system.systemId !== state.systemId) await change();
      else
        state = await keepContract(
          client,
          { state, record, tables, version: server.version, unhealed, log },
          change,
        );
    } else {
      state = await firstStart(client, { ...options, report, system });
      unhealed = await UnhealedTables.open({ ...unhealedOptions, epoch: state.epoch });
    }
    const stream = new PostgresChangeStream(
      {
        connection,
        pipeline,
        record: record ?? NO_RECORD,
        signal,
        log,
        onStatus: options.onStatus ?? (() => {}),
        walSenderTimeoutMs,
        takeoverMs: options.takeoverMs ?? TAKEOVER_MS,
        state,
        tables: report.tables,
        contract: options.follow ? [] : report.tables.map(contractTable),
        others: options.siblings?.publications ?? [],
        unhealed,
        isOwn: options.siblings?.isOwn,
        isForeign: options.siblings?.isForeign,
        serverVersion: report.server.version,
        backfill: options.backfill,
        holds: options.holds,
        published: new Set(report.tables.map(({ oid }) => oid)),
        keeps: record !== undefined,
        asides: options.asides,
        encoding: textEncoding(report.server.encoding, pipeline),
      },
      client,
    );
    try {
      await stream.start(replication);
    } catch (error) {
      await stream.close();
      throw error;
    }
    return stream;
  } catch (error) {
    if (replication) await disconnect(replication);
    await disconnect(client);
    signal.throwIfAborted();
    throw explainSessionError(error);
  }
}

function textEncoding(encoding: string, { source }: LogPipeline): TextEncoding {
  if (encoding === "SQL_ASCII") return source.sqlAsciiEncoding ?? "utf-8";
  return serverEncoding(encoding) ?? "utf-8";
}

const NO_RECORD: SlotRecord = {
  read: async () => undefined,
  newEpoch: async () => undefined,
  write: async () => {},
  confirm: async () => {},
};

/**
 * Checks that slot, publication and database are those that the slot was begun with, and that the publication is there.
 * @throws SlotSettingsChangedError, PreflightError
 */
export function checkSettings(
  state: Pick<SlotState, "slot" | "publication" | "database">,
  pipeline: LogPipeline,
  report: Pick<PreflightReport, "server" | "publication">,
): void {
  const { slot, publication } = pipeline.source;
  const changes = [
    ["source.slot", state.slot, slot],
    ["source.publication", state.publication, publication],
    ["database", state.database, report.server.database],
  ].filter(([, stored, now]) => stored !== now);
  if (changes.length > 0) {
    throw new SlotSettingsChangedError({
      message: `the pipeline was started with other names: ${changes.map(([what, stored, now]) => `${what} was "${stored}", is now "${now}"`).join("; ")}`,
      remedy: `Put the names back (a publication must not be renamed: its slot breaks). To go on with the new ones, begin a new epoch: ${NEW_EPOCH}`,
    });
  }
  if (report.publication.kind === "create") {
    throw new PreflightError([
      {
        code: "PUBLICATION",
        message: `the publication "${publication}" was dropped, and the slot "${slot}" cannot be decoded without it`,
        remedy: `Changes since then are not sent, and a new epoch must begin: ${NEW_EPOCH_DROP_SLOT}`,
      },
    ]);
  }
}
