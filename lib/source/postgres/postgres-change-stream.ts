import { setTimeout as delay, setImmediate } from "node:timers/promises";
import type pg from "pg";
import { type ChangeStream, FINISH_TRANSACTION_MS, type SourceMessage } from "../../change/change-stream.ts";
import { PROBE } from "../../change/control-event.ts";
import { formatLsn } from "../../change/lsn.ts";
import { formatPosition, isPosition, parsePosition } from "../../change/position.ts";
import { formatTable, parseTable, type TableName } from "../../change/table-pattern.ts";
import { TributaryError } from "../../change/tributary-error.ts";
import { captures, type LogPipeline } from "../../definition/pipeline.ts";
import { routeTables } from "../../definition/route.ts";
import type { Log } from "../../log.ts";
import { type AsideSettings, Asides } from "./aside/asides.ts";
import { PutAsideBefore } from "./aside/put-aside-before.ts";
import { type BackfillReport, type BackfillSettings, Backfills } from "./backfill/backfills.ts";
import { controlEvent } from "./backfill/control-event.ts";
import { pgTypeCatalog } from "./catalog/type-catalog.ts";
import type { ContractTable } from "./contract/difference.ts";
import { PartitionWatch } from "./contract/partition-watch.ts";
import { PublicationWatch } from "./contract/publication-watch.ts";
import type { UnhealedTable } from "./contract/unhealed-record.ts";
import type { UnhealedTables } from "./contract/unhealed-tables.ts";
import { ChangeDecoder, type TextEncoding } from "./decode/change-decoder.ts";
import {
  CatalogLookupError,
  isOfItsContent,
  KeyColumnError,
  offerToPutAside,
} from "./decode/decode-errors.ts";
import type { OwnMessage } from "./decode/logical-messages.ts";
import { placeOfMessage } from "./decode/pgoutput/messages.ts";
import type { HeldMessage } from "./hold/held-change.ts";
import { HeldTopics, type HoldReport, type HoldSettings } from "./hold/held-topics.ts";
import { barrierOf, firstHeld, type Hold } from "./hold/hold-record.ts";
import { isOfIdentity, TableAcceptedError, TableReplacedError } from "./identity/identity-errors.ts";
import { compareKeys, formatKey } from "./identity/known-tables.ts";
import { type Difference, isAlike, TableIdentities } from "./identity/table-identities.ts";
import type { PostgresConnectionOptions } from "./link/connection-options.ts";
import { isXLogData, LSN, parseKeepalive, XLOG_DATA_HEADER } from "./link/copy-data.ts";
import { standbyStatusUpdate } from "./link/feedback.ts";
import { LinkWatch } from "./link/link-watch.ts";
import { reconnectDelayMs } from "./link/liveness.ts";
import { explainStreamError } from "./link/replication-errors.ts";
import { ReplicationLink } from "./link/replication-link.ts";
import { SideConnection } from "./link/side-connection.ts";
import { ReplicationLinkError } from "./postgres-errors.ts";
import { Confirmation } from "./slot/confirmation.ts";
import { HEARTBEAT, Heartbeat, heartbeatSql } from "./slot/heartbeat.ts";
import { HistoryPass } from "./slot/history-pass.ts";
import { placeOfCommit } from "./slot/history-proof.ts";
import { type LeftoverSlot, LeftoverSlots } from "./slot/leftover-slots.ts";
import { ReplayCheck } from "./slot/replay-check.ts";
import { SentSince } from "./slot/sent-since.ts";
import { serverRun } from "./slot/slot.ts";
import type { LogPlace, SlotRecord, SlotState } from "./slot/slot-record.ts";
import { openSlotSession, type SlotSession } from "./slot/slot-session.ts";
import { type SlotHealth, SlotWatch } from "./slot/slot-watch.ts";
import { MOVE, readMove, tablesGone } from "./slots/move.ts";
import { TableRenamedError, TablesMovedError } from "./slots/slots-errors.ts";

/** What is known of the source, for metrics. */
export interface SourceStatus extends SlotHealth {
  readonly connected: boolean;
  /** Up to here everything was given downstream. */
  readonly receivedLsn: bigint;
  /** End of the server's WAL when we last heard of it. */
  readonly serverLsn: bigint;
  /** Up to here the record and the server know that all is acknowledged. */
  readonly confirmedLsn: bigint;
  /** How often the link was opened again. */
  readonly reconnects: number;
  /** The latest backfill of each table. */
  readonly backfills: readonly BackfillReport[];
  /** Rows whose create came without a large value, and that are to be read again; a table with very many of them counts once. */
  readonly rowsAsked: number;
  /** Slots of our name on servers that are not read from; undefined where there is one server only. */
  readonly leftoverSlots?: readonly LeftoverSlot[] | undefined;
  /** Topics whose changes wait for a release. */
  readonly holds: readonly HoldReport[];
  /** Tables of which changes may be missing in the stream. */
  readonly unhealed?: readonly UnhealedTable[];
  /** Changes that were put aside since the task's start. */
  readonly putAside: number;
}

/** What `PostgresChangeStream` is made of. */
export interface PostgresChangeStreamOptions {
  readonly connection: PostgresConnectionOptions;
  readonly pipeline: LogPipeline;
  readonly record: SlotRecord;
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly onStatus: (status: SourceStatus) => void;
  readonly walSenderTimeoutMs: number;
  readonly takeoverMs: number;
  readonly state: SlotState;
  readonly tables: readonly TableName[];
  /** What is watched of the publication: the tables that must stay in it. */
  readonly contract: readonly ContractTable[];
  /** Publications of the pipeline's other slots. */
  readonly others: readonly string[];
  readonly unhealed: UnhealedTables;
  /** Which of the pipeline's tables are this slot's, where it has several; undefined: all. */
  readonly isOwn?: ((table: TableName) => boolean) | undefined;
  /** Whether a topic may be another slot's. */
  readonly isForeign?: ((topic: string, commitLsn: bigint) => boolean) | undefined;
  readonly encoding: TextEncoding;
  /** `server_version_num`. */
  readonly serverVersion: number;
  /** Undefined: existing rows are not read. */
  readonly backfill: BackfillSettings | undefined;
  /** Undefined: a change that cannot become an event ends the stream. */
  readonly holds: HoldSettings | undefined;
  /** OIDs of the tables that the publication was made to hold at this start. */
  readonly published: ReadonlySet<number>;
  /** Whether the record outlives the task. */
  readonly keeps: boolean;
  /** Undefined: no change is put aside. */
  readonly asides: AsideSettings | undefined;
}

/** Bytes of the log that one batch is decoded from, at most (one change may be larger). */
const BATCH_BYTES = 256 * 1024;
const CLOSE_DEADLINE_MS = 10_000;

/** The change stream of one slot, over as many links as it takes. */
export class PostgresChangeStream implements ChangeStream {
  readonly changes: AsyncIterable<readonly SourceMessage[]>;
  readonly tables: readonly TableName[];
  readonly #options: PostgresChangeStreamOptions;
  readonly #decoder: ChangeDecoder;
  readonly #confirmation: Confirmation;
  readonly #side: SideConnection;
  readonly #watch: LinkWatch;
  /** Aborted by `close`, by the signal, and by a failure that ends the stream. */
  readonly #ending = new AbortController();
  #link: ReplicationLink | undefined;
  #replay = new ReplayCheck([], 0n);
  /** While the server is made to show that it has what the stream has: nothing is given meanwhile (rule 39). */
  #pass: HistoryPass | undefined;
  /** Which run of the server the pass looks at. */
  #proving = "";
  /** The run for which a pass was over, while no other link has been opened since. */
  #passed: string | undefined;
  #began = false;
  /** Place of the last message of ours at which something was given. */
  #delivered: LogPlace | undefined;
  readonly #sentSince = new SentSince();
  /** Where the slot stood when the link was opened: what feedback says until history is known to be ours. */
  #slotLsn = 0n;
  /** Of the transaction that is read. */
  #commitLsn = 0n;
  #xid = 0;
  #receivedLsn: bigint;
  #serverLsn = 0n;
  readonly #slotWatch: SlotWatch;
  readonly #leftovers: LeftoverSlots;
  readonly #heartbeat: Heartbeat;
  /** A heartbeat of ours came outside of transactions. */
  #heartbeatLsn: bigint | undefined;
  #looking = false;
  #reconnects = 0;
  /** Failed attempts since something last came. */
  #attempts = 0;
  #fatal: unknown;
  #closed: Promise<void> | undefined;
  #backfills: Backfills | undefined;
  /** Tables that a message says have left, and nobody has looked yet. */
  #saidToMove: readonly string[] = [];
  #holds: HeldTopics | undefined;
  readonly #identities: TableIdentities;
  /** Decodes what was held once more. */
  #heldDecoder: ChangeDecoder | undefined;
  #asides: Asides | undefined;
  /** Up to here the stream has acknowledged; what is held may not be stored that far. */
  #acknowledged = 0n;
  /** Runs from the signal on. */
  #patience: NodeJS.Timeout | undefined;
  readonly #impatience = new AbortController();
  /** Aborts when nothing more is given, whatever is half done. */
  readonly #cut = AbortSignal.any([this.#ending.signal, this.#impatience.signal]);

  constructor(options: PostgresChangeStreamOptions, side: pg.Client) {
    this.#options = options;
    const { pipeline, state, signal } = options;
    this.tables = options.tables;
    this.#receivedLsn = state.confirmedLsn;
    const until = AbortSignal.any([signal, this.#ending.signal]);
    until.addEventListener("abort", () => this.#stop(), { once: true });
    this.#side = new SideConnection(
      {
        connection: options.connection,
        signal: this.#ending.signal,
        onServerEnding: (error) => this.#link?.destroy(error),
      },
      side,
    );
    this.#confirmation = new Confirmation({
      record: options.record,
      state,
      sentSince: (lsn) => this.#sentSince.at(lsn),
      onConfirmed: () => {
        this.#asides?.confirmed(this.#confirmation.state.confirmedLsn);
        this.#sendFeedback(false);
      },
      onFailure: (error) => this.#fail(error),
    });
    this.#identities = new TableIdentities({
      known: state.tables,
      epoch: state.epoch,
      route: routeTables(pipeline),
      captures: (table) =>
        captures(pipeline.source, table) &&
        (options.isOwn?.(table) ?? true) &&
        formatTable(table) !== pipeline.source.outbox?.table,
      query: (sql, values) => this.#side.query(sql, values),
      keeps: options.keeps,
      store: (tables) => this.#confirmation.onTables(tables),
      log: options.log,
      onChange: (oids) => {
        this.#decoder.replan(oids);
        this.#heldDecoder?.replan(oids);
      },
      onDue: () => this.#link?.interrupt(),
    });
    this.#decoder = new ChangeDecoder({
      ...this.#decoding(),
      // Everything whose commit record begins before R was acknowledged by Kinesis: it is not given again.
      ...(state.confirmedLsn > 0n
        ? {
            resumeAfter: formatPosition({
              epoch: state.epoch,
              commitLsn: state.confirmedLsn - 1n,
              ordinal: 9_999_999_999,
            }),
          }
        : {}),
      onBegin: (commit) => {
        this.#commitLsn = commit.commitLsn;
        this.#xid = commit.xid;
        if (this.#replay.begin(commit)) this.#confirmation.streamed(commit);
        this.#backfills?.began(commit.xid);
      },
      onTruncate: (oid) => {
        if (options.contract.some((table) => table.oid === oid && table.kind === "p"))
          this.#confirmation.sawTruncate({ root: oid, xid: this.#xid, lsn: this.#commitLsn });
      },
      refuses: (topic) =>
        options.isForeign?.(topic, this.#commitLsn) ? new TableRenamedError(state.slot, topic) : undefined,
      takeAside: (change, error, out) => this.#takeAside(change, error, out),
      putAside: (commitLsn) => this.#asides?.places(commitLsn),
      onIncomplete: (create) => this.#backfills?.ask(create),
      onMessage: (message) => {
        const { prefix, transactional, lsn } = message;
        if (prefix === MOVE) this.#moved(message);
        if (prefix === HEARTBEAT && !transactional) this.#heartbeatLsn = lsn;
        return this.#backfills?.message(message) ?? false;
      },
    });
    this.#slotWatch = new SlotWatch(options.log);
    this.#leftovers = new LeftoverSlots(options.connection, state.slot, options.log, this.#ending.signal);
    const publicationWatch = new PublicationWatch({
      name: state.publication,
      oid: state.publicationOid,
      terms: state.terms,
      seen: state.termsSeen,
      tables: options.contract,
      others: options.others,
      version: options.serverVersion,
      captures: (table) => captures(pipeline.source, table) && (options.isOwn?.(table) ?? true),
      query: (sql) => this.#side.query(sql),
      log: options.log,
      note: (losses) => options.unhealed.note(losses),
      store: (terms, termsSeen) => this.#confirmation.onContract({ terms, termsSeen }),
      saw: (seen) => this.#confirmation.sawTerms(seen),
    });
    const partitionWatch = new PartitionWatch({
      tables: options.contract,
      leaves: state.leaves,
      seen: state.termsSeen,
      removed: pipeline.source.partitions.removed,
      readsAttached: options.backfill !== undefined && pipeline.source.snapshot !== "never",
      query: (sql) => this.#side.query(sql),
      log: options.log,
      received: () => this.#receivedLsn,
      truncates: () => this.#confirmation.state.truncates ?? [],
      note: (losses) => options.unhealed.note(losses),
      store: (leaves, termsSeen) => this.#confirmation.onContract({ leaves, termsSeen }),
    });
    this.#heartbeat = new Heartbeat(() => this.#side.query(heartbeatSql(options.serverVersion)), options.log);
    this.#watch = new LinkWatch({
      slot: state.slot,
      side: this.#side,
      walSenderTimeoutMs: options.walSenderTimeoutMs,
      sendFeedback: (replyRequested) => this.#sendFeedback(replyRequested),
      onDead: (link, reason) =>
        link.destroy(
          new ReplicationLinkError({
            message: `the replication link is dead: ${reason}`,
            remedy: "Nothing to do: it is opened anew. When it repeats, look at the network between.",
          }),
        ),
      onSlot: (sighting) => {
        this.#serverLsn = later(this.#serverLsn, sighting.serverLsn);
        this.#slotWatch.take(sighting);
        this.#backfills?.slot(sighting.slot, sighting.serverLsn);
        void this.#leftovers.look(sighting.atMs);
        this.#look(publicationWatch, partitionWatch).catch((error) => this.#fail(error));
        void this.#lookAtTables();
        void this.#heartbeat.look({
          atMs: sighting.atMs,
          serverLsn: sighting.serverLsn,
          receivedLsn: this.#receivedLsn,
          waiting: this.#watch.isWaiting && this.#confirmation.acknowledged >= this.#receivedLsn,
        });
      },
      onTick: () => this.#tell(),
    });
    this.changes = this.#read(until);
  }

  /** Looks whether publication and partitions are what they were, ends what a backfill has healed, and asks for those that are to come by themselves. */
  async #look(publication: PublicationWatch, partitions: PartitionWatch): Promise<void> {
    if (this.#looking || this.#fatal !== undefined) return;
    this.#looking = true;
    try {
      const seen = await publication.look();
      if (seen) await partitions.look(seen);
      const backfills = this.#backfills;
      const wanted = await this.#options.unhealed.look(backfills?.reports ?? []);
      for (const table of wanted) await backfills?.want(table);
    } finally {
      this.#looking = false;
    }
  }

  /** What events look like, whoever decodes them. */
  #decoding() {
    const { pipeline, state, encoding } = this.#options;
    return {
      pipeline,
      database: state.database,
      epoch: state.epoch,
      route: routeTables(pipeline),
      catalog: pgTypeCatalog((sql, values) => this.#side.query(sql, values), { signal: this.#cut }),
      encoding,
      identities: this.#identities,
    };
  }

  /** That the catalog did not answer is passed over: the next look tells. */
  async #lookAtTables(): Promise<void> {
    try {
      await this.#identities.lookAtAll();
    } catch (error) {
      if (!(error instanceof CatalogLookupError)) this.#fail(error);
    }
  }

  async #openHolds(settings: HoldSettings): Promise<HeldTopics> {
    const { pipeline, state, log } = this.#options;
    const decoder = new ChangeDecoder({
      ...this.#decoding(),
      onIncomplete: (create) => this.#backfills?.ask(create),
    });
    this.#heldDecoder = decoder;
    return await HeldTopics.open(
      {
        ...settings,
        pipeline: pipeline.name,
        epoch: state.epoch,
        log,
        decode: (change, out) => decoder.decodeHeld(change, out),
        asked: async () => await this.#backfills?.asked(),
        accept: (hold) => this.#accept(hold),
        barrier: (hold) => this.#barrier(hold),
        putAside: (change, error, out) => this.#putHeldAside(change, error, out),
        onStored: () => this.acknowledge(this.#acknowledged),
        onDue: () => this.#link?.interrupt(),
        onFailure: (error) => this.#fail(error),
      },
      state.confirmedLsn,
    );
  }

  /** Opens the first link, over a replication session that is there already. @throws what the record of backfills or holds throws. */
  async start(replication: pg.Client): Promise<void> {
    const { asides, backfill, holds, connection, pipeline, state, tables, serverVersion, log } =
      this.#options;
    await this.#identities.begin(tables);
    if (holds) this.#holds = await this.#openHolds(holds);
    for (const { reason, from } of this.#holds?.holds ?? [])
      if (isOfIdentity(reason.code)) this.#identities.isHeldFrom(reason.table, from);
    if (asides) {
      this.#asides = await Asides.open({
        ...asides,
        ...{ pipeline: pipeline.name, database: state.database, epoch: state.epoch, log },
        all: pipeline.source.undecodable === "dead-letter",
        backfills: backfill?.record,
        tables: tables.map(formatTable),
        isHeld: (topic, position) => this.#holds?.isHeld(topic, position) === true,
      });
    }
    if (backfill) {
      this.#backfills = await Backfills.open({
        ...backfill,
        connection,
        pipeline,
        state,
        tables,
        route: routeTables(pipeline),
        version: serverVersion,
        encoding: this.#options.encoding,
        log,
        plan: (relation) => this.#decoder.plan(relation),
        listen: (table, listener) => this.#decoder.listen(table, listener),
        restart: (error) => this.#fail(error),
        onAsked: () => this.acknowledge(this.#acknowledged),
      });
    }
    for (const difference of [...this.#identities.differences.values()]) await this.#goOn(difference);
    await this.#open(AbortSignal.any([this.#options.signal, this.#ending.signal]), replication);
  }

  /** At a start: goes on by itself with a table that has taken a captured one's name, where nothing stands against it. */
  async #goOn(difference: Difference): Promise<void> {
    const { pipeline, log, keeps } = this.#options;
    const { table, error, now, from } = difference;
    const replaced = error instanceof TableReplacedError;
    if (!keeps) return await this.#identities.accept(table, now, from);
    const alike = isAlike(difference, this.#identities.known);
    const reads =
      this.#backfills !== undefined && ["when-needed", "always"].includes(pipeline.source.snapshot);
    if (!replaced || (now && !alike)) {
      // Without a claim store nothing can be held: the first change ends the stream.
      return;
    }
    if (now && reads) {
      const hold = this.#holds?.holds.find(({ reason }) => reason.table === table);
      if (hold && isOfIdentity(hold.reason.code)) {
        this.#holds?.releaseNow(hold.topic);
        return;
      }
      await this.#backfills?.readAnew(table);
      await this.#identities.accept(table, now, from);
      log.warn(`${table} is read anew, with a sweep: another table has the name`);
    } else if (!this.#holds) {
      await this.#identities.accept(table, now, from);
      log.warn(`what was in ${table} before the name was its own is not in the stream`, {
        code: error.code,
        remedy: `tributary backfill start --table ${table}`,
      });
    }
  }

  /** What a release accepts: the table that has the name now, with the key that it has now. */
  async #accept(hold: Hold): Promise<void> {
    const { reason } = hold;
    if (!isOfIdentity(reason.code)) return;
    const { table } = reason;
    const { now, behind } = await this.#identities.present(table);
    const known = this.#identities.known[table]?.at(-1);
    if (now && now.oid !== known?.oid && !this.#options.published.has(now.oid))
      throw new TableAcceptedError(table);
    const lost = now?.key
      .map(({ names }) => names.at(-1) as string)
      .find((name) => !now.columns.includes(name));
    if (lost !== undefined) throw new KeyColumnError({ table, column: lost, problem: "not in the table" });
    const from = firstHeld(hold);
    // A key that is what it was may have been another one for some of what is held: once, what these changes do not tell is read.
    const isNew =
      now &&
      (now.oid !== known?.oid ||
        compareKeys(known.key, now.key) !== "same" ||
        (reason.code === "KEY_CHANGED" && !(known.sweptTo !== undefined && hold.last < known.sweptTo)));
    if (isNew) await this.#backfills?.readAnew(table);
    await this.#identities.accept(table, now, from, isNew ? behind : undefined);
    this.#options.log.warn(
      now
        ? `${table} goes on with OID ${now.oid} and the key ${formatKey(now.key)}${isNew ? ": it is read anew, with a sweep" : ""}`
        : `${table} is not captured any more: no table has the name`,
    );
  }

  /** Stands in each partition before what a release gives: who has passed it holds nothing of the time before. */
  #barrier(hold: Hold): SourceMessage | undefined {
    const { table, code } = hold.reason;
    if (!isOfIdentity(code)) return undefined;
    const { pipeline, state } = this.#options;
    const name = parseTable(table);
    const { epoch, commitLsn, ordinal } = parsePosition(barrierOf(hold));
    return controlEvent(
      PROBE,
      { slot: state.slot, table, id: `hold ${hold.topic}` },
      {
        ...{ pipeline: pipeline.name, database: state.database, epoch },
        ...{ lsn: commitLsn, ordinal, table: name },
        ...{ topic: routeTables(pipeline)(name).topic, nowMs: Date.now() },
      },
    );
  }

  /** Holds the topics of tables that are other ones from here on. Returns what ends the stream instead. */
  async #holdDifferent(): Promise<unknown> {
    for (const { table, error, from, now } of this.#identities.takeDue(this.#receivedLsn)) {
      const { code, message, remedy } = error;
      const topic = routeTables(this.#options.pipeline)(parseTable(table)).topic.name;
      // In a pipeline of several slots, another one may write the topic of the name that it has now.
      const renamed =
        error instanceof TableReplacedError && error.called ? this.#foreignTopic(error.called) : undefined;
      if (renamed !== undefined) return new TableRenamedError(this.#options.state.slot, renamed);
      try {
        if (!this.#options.keeps) await this.#identities.accept(table, now, from);
        else if (this.#holds)
          await this.#holds.hold(topic, { code, message, remedy, table, position: from }, from);
        else if (error instanceof TableReplacedError) return error;
      } catch (failure) {
        return failure;
      }
    }
    return undefined;
  }

  /** The topic of a captured name, where another slot may write it. */
  #foreignTopic(table: string): string | undefined {
    const { pipeline, isForeign } = this.#options;
    const name = parseTable(table);
    if (!captures(pipeline.source, name)) return undefined;
    const topic = routeTables(pipeline)(name).topic.name;
    return isForeign?.(topic, this.#receivedLsn) ? topic : undefined;
  }

  acknowledge(lsn: bigint): void {
    this.#acknowledged = later(this.#acknowledged, lsn);
    const stored = this.#holds?.durable(this.#acknowledged) ?? this.#acknowledged;
    const durable = this.#backfills?.durable(stored) ?? stored;
    this.#confirmation.acknowledge(durable);
    this.#backfills?.acknowledge(durable);
  }

  /** What becomes of a change that cannot become an event: it is put aside, or its topic is held, or (false) the stream ends at it. */
  #takeAside(change: HeldMessage, error: Error, out: SourceMessage[]): boolean {
    if (this.#asides?.takes(change, error)) {
      out.push(this.#asides.put(change, error));
      return true;
    }
    if (!(error instanceof TributaryError)) return false;
    this.#holds?.put(change, error, out.length);
    if (!this.#holds && this.#asides && isOfItsContent(error)) offerToPutAside(error, change.position);
    return this.#holds !== undefined;
  }

  /** The same at the release of its topic. */
  async #putHeldAside(change: HeldMessage, error: Error | undefined, out: SourceMessage[]): Promise<boolean> {
    const asides = this.#asides;
    if (!asides) return false;
    if (error) await asides.look();
    if (!(error ? asides.takes(change, error) : asides.knows(change))) return false;
    out.push(asides.put(change, error ?? new PutAsideBefore()));
    await asides.settle(this.#cut);
    return true;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#ending.abort();
    clearTimeout(this.#patience);
    this.#link?.interrupt();
    const giveUp = new AbortController();
    await Promise.race([
      Promise.all([this.#flush(), this.#backfills?.close()]).then(() => this.#end()),
      delay(CLOSE_DEADLINE_MS, undefined, { signal: giveUp.signal }).catch(() => {}),
    ]);
    giveUp.abort();
    this.#confirmation.stop();
    this.#watch.stop();
    const link = this.#link;
    if (link) {
      this.#sendFeedback(false);
      this.#link = undefined;
      await link.finish();
    }
    await this.#side.close();
    this.#tell();
  }

  /** Notes how far was given: where that was confirmed, or can be shown again, nobody has to look at the stream. */
  async #end(): Promise<void> {
    if (!this.#began) return;
    const commit = this.#confirmation.knownCommits.at(-1);
    const places = [...(commit ? [placeOfCommit(commit)] : []), ...this.#messagePlaces];
    // Where it cannot be noted, the next task looks.
    await this.#confirmation.ended(places).catch(() => {});
  }

  /** Where the last messages stand. */
  get #messagePlaces(): LogPlace[] {
    const message = this.#decoder.lastMessage;
    return [
      ...(this.#delivered ? [this.#delivered] : []),
      ...(isPosition(message) ? [{ lsn: parsePosition(message).commitLsn }] : []),
    ];
  }

  async #flush(): Promise<void> {
    await this.#asides?.close();
    await this.#holds?.close();
    // What is not in the record is not confirmed, and is asked for again.
    await this.#backfills?.asked().catch(() => {});
    await this.#confirmation.flush();
  }

  #stop(): void {
    this.#patience = setTimeout(() => {
      this.#impatience.abort();
      this.#link?.interrupt();
    }, FINISH_TRANSACTION_MS);
    this.#link?.interrupt();
  }

  /** Once it was asked to stop: a transaction that was begun comes to its end, if it can in time. */
  get #over(): boolean {
    return this.#cut.aborted || !this.#decoder.inTransaction;
  }

  async *#read(until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    for (;;) {
      if (this.#fatal !== undefined) throw this.#fatal;
      if (until.aborted && (this.#over || !this.#link)) return;
      const batch: SourceMessage[] = [];
      const givenBefore = this.#decoder.inTransaction ? this.#commitLsn + 1n : this.#receivedLsn;
      let failure: unknown;
      try {
        const link = this.#link ?? (await this.#open(until));
        if (this.#pass) {
          await this.#prove(this.#pass, link, until);
          continue;
        }
        await this.#fill(link, batch, until);
        await this.#checkMoves();
      } catch (error) {
        failure = error;
      }
      // Nothing that stands behind a change goes downstream before that one is where it can be found, and nothing that tells of it is held.
      if (this.#asides?.isPending && !(await this.#settle(this.#asides))) break;
      // The decoder will not give these again: they go downstream, or are held, before the failure counts.
      const given = this.#sift(batch);
      this.#sentSince.note(givenBefore);
      if (given.length > 0) yield given;
      if (this.#backfills?.hasDue && failure === undefined) yield* this.#deliver(this.#backfills, until);
      if (this.#differs && failure === undefined && !until.aborted) failure = await this.#holdDifferent();
      if (this.#holds) {
        const barriers = this.#decoder.inTransaction ? [] : this.#holds.takeBarriers(this.#receivedLsn);
        if (barriers.length > 0) yield barriers;
        await this.#holds.room(this.#cut);
        if (this.#releases && failure === undefined && !until.aborted)
          failure = yield* this.#release(this.#holds, until);
      }
      if (failure === undefined) continue;
      if (until.aborted) break;
      await this.#recover(failure, until);
    }
    if (this.#fatal !== undefined) throw this.#fatal;
  }

  /** Returns false where the task ends first: what was put aside comes again. @throws what ends the stream. */
  async #settle(asides: Asides): Promise<boolean> {
    try {
      await asides.settle(this.#cut);
      return true;
    } catch (error) {
      if (this.#cut.aborted) return false;
      this.#fail(error);
      throw error;
    }
  }

  /** What goes to the place of a message of ours, in slices; then the place may be acknowledged. */
  async *#deliver(backfills: Backfills, until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    const delivery = backfills.takeDue();
    if (!delivery || until.aborted) return;
    this.#delivered = { lsn: placeOfMessage(delivery.lsn), message: true };
    try {
      for (const slice of delivery.slices) {
        if (this.#cut.aborted) return;
        yield this.#sift(slice);
        // Sockets are read meanwhile: the next chunk's, the link's.
        await setImmediate();
      }
      if (this.#cut.aborted) return;
      delivery.given();
    } catch (error) {
      delivery.failed(error);
    }
    this.#receivedLsn = later(this.#receivedLsn, delivery.lsn);
    yield [{ kind: "commit", endLsn: delivery.lsn, commitTimeMs: Date.now() }];
  }

  #sift(batch: readonly SourceMessage[]): readonly SourceMessage[] {
    return this.#holds === undefined || this.#holds.isIdle ? batch : this.#holds.sift(batch);
  }

  /** Whether a topic is to be held now whose table is another one. */
  get #differs(): boolean {
    return this.#identities.isDue(this.#receivedLsn) && !this.#decoder.inTransaction;
  }

  /** Whether a held topic is to be released now. */
  get #releases(): boolean {
    return this.#holds?.isDue(this.#receivedLsn) === true && !this.#decoder.inTransaction;
  }

  /** Returns what went wrong, for the reader to wait and try again. */
  async *#release(holds: HeldTopics, until: AbortSignal): AsyncGenerator<readonly SourceMessage[], unknown> {
    try {
      yield* holds.release(this.#receivedLsn, until);
    } catch (error) {
      return error;
    }
    return undefined;
  }

  async #fill(link: ReplicationLink, batch: SourceMessage[], until: AbortSignal): Promise<void> {
    let bytes = 0;
    // What is read in one go is bounded: who asks to stop waits that long at most.
    let stopping = until.aborted;
    while (!(stopping && this.#over) && bytes < BATCH_BYTES && !this.#backfills?.hasDue) {
      if (!link.read()) {
        if (batch.length > 0 || this.#releases || this.#differs) return;
        await this.#arrival(link);
        if (this.#releases || this.#differs) return;
        stopping = until.aborted;
        continue;
      }
      this.#attempts = 0;
      const { buffer, start, end } = link.frames;
      bytes += end - start;
      if (isXLogData(buffer, start, end)) {
        const high = buffer.readUInt32BE(start + LSN);
        const low = buffer.readUInt32BE(start + LSN + 4);
        const wait = this.#decoder.decodeAt(buffer, start + XLOG_DATA_HEADER, end, high, low, batch);
        if (wait) {
          await wait;
          stopping = until.aborted;
        }
        const last = batch.at(-1);
        if (last?.kind === "commit") this.#receivedLsn = later(this.#receivedLsn, last.endLsn);
        if (this.#heartbeatLsn !== undefined) {
          this.#idleUntil(this.#heartbeatLsn, batch);
          this.#heartbeatLsn = undefined;
        }
      } else {
        const message = parseKeepalive(buffer.subarray(start, end));
        this.#serverLsn = later(this.#serverLsn, message.walEnd);
        this.#idleUntil(message.walEnd, batch);
        if (message.replyRequested) this.#sendFeedback(false);
      }
    }
  }

  /**
   * Reads a link until the server has shown what the stream has; what comes is looked at and not given: the next link brings it
   * again. @throws HistoryForkedError, and what ends a link.
   */
  async #prove(pass: HistoryPass, link: ReplicationLink, until: AbortSignal): Promise<void> {
    pass.begin();
    while (!pass.done) {
      if (until.aborted) return;
      if (link.read()) {
        this.#attempts = 0;
        const { buffer, start, end } = link.frames;
        if (pass.take(buffer, start, end)) this.#sendFeedback(false);
      } else await this.#arrival(link);
    }
    await this.#confirmation.proven();
    this.#options.log.info(`the server has all that the stream was written from: ${pass.cost}`);
    this.#pass = undefined;
    this.#passed = this.#proving;
    this.#link = undefined;
    this.#watch.stop();
    await link.finish();
  }

  async #arrival(link: ReplicationLink): Promise<void> {
    this.#watch.waiting(true);
    try {
      await link.arrival();
    } catch (error) {
      throw explainStreamError(error, this.#options.state.slot, "reading");
    } finally {
      this.#watch.waiting(false);
    }
  }

  /** Rule 20: a keepalive, or a heartbeat, counts at its place only, between transactions. */
  #idleUntil(lsn: bigint, batch: SourceMessage[]): void {
    if (this.#decoder.inTransaction) return;
    this.#replay.passed(lsn);
    if (lsn <= this.#receivedLsn) return;
    this.#receivedLsn = lsn;
    batch.push({ kind: "idle", lsn });
  }

  /** Opens a link; its history was checked when this resolves. */
  async #open(until: AbortSignal, first?: pg.Client): Promise<ReplicationLink> {
    const state = () => this.#confirmation.state;
    return await openSlotSession(this.#options, state, (session) => this.#start(session), until, first);
  }

  /** What was half read comes again: the slot is streamed from where it stands. */
  async #start(session: SlotSession): Promise<ReplicationLink> {
    const { client, system, slot } = session;
    const { state } = this.#confirmation;
    this.#pass = await this.#nextPass(session);
    if (system.timeline !== state.timeline) await this.#confirmation.onTimeline(system.timeline);
    this.#options.connection.hosts?.noteTimeline(system.timeline);
    this.#slotLsn = slot.confirmedLsn;
    this.#serverLsn = later(this.#serverLsn, system.walEnd);
    this.#replay = new ReplayCheck(this.#confirmation.knownCommits, slot.confirmedLsn);
    this.#sentSince.note(this.#receivedLsn);
    if (!this.#began) await this.#confirmation.began();
    this.#began = true;
    this.#decoder.reconnected();
    this.#backfills?.reconnected();
    const link = await ReplicationLink.start(client, {
      slot: state.slot,
      publication: state.publication,
      firstMessage: this.#feedback(false),
    });
    this.#link = link;
    this.#watch.watch(link);
    // A pass says itself what it reads.
    if (!this.#pass)
      this.#options.log.info(`streaming from slot "${state.slot}" at ${formatLsn(slot.confirmedLsn)}`);
    this.#tell();
    return link;
  }

  /**
   * What the stream has beyond what was given is shown anew on each link, and then read on the next one, where that comes to the
   * same run of the server. Of this task's own, commits are looked for while they are replayed; what stands at a message behind the
   * last of them is not.
   */
  async #nextPass({ client, system, history }: SlotSession): Promise<HistoryPass | undefined> {
    const passed = this.#passed;
    this.#passed = undefined;
    const { timeline, sent, confirmedLsn } = this.#confirmation.state;
    const known = this.#confirmation.knownCommits.at(-1)?.commitLsn ?? 0n;
    const places = [
      ...(sent?.places.filter(({ lsn }) => lsn >= this.#receivedLsn) ?? []),
      ...this.#messagePlaces.filter(({ lsn }) => lsn >= confirmedLsn && lsn > known),
    ];
    if (places.length === 0) return undefined;
    this.#proving = await serverRun(client);
    if (passed === this.#proving) return undefined;
    return new HistoryPass(places, { timeline, system, history }, (line) => this.#options.log.info(line));
  }

  /** Throws what another attempt cannot heal; otherwise waits and lets the next round open a new link. */
  async #recover(failure: unknown, until: AbortSignal): Promise<void> {
    const link = this.#link;
    this.#link = undefined;
    this.#watch.stop();
    link?.destroy(failure as Error);
    if (!(failure instanceof TributaryError) || failure.retry !== "retry") {
      this.#fatal = failure;
      this.#ending.abort();
      throw failure;
    }
    if (link) this.#reconnects++;
    const waitMs = reconnectDelayMs(this.#attempts++, Math.random());
    this.#options.log.warn(failure.message, { code: failure.code, retryInMs: waitMs });
    this.#tell();
    await delay(waitMs, undefined, { signal: until }).catch(() => {});
  }

  /** Somebody says that tables of ours leave at this place of the log: looked at before anything behind it is given. */
  #moved({ content }: OwnMessage): void {
    const move = readMove(content);
    if (move?.from !== this.#options.state.slot) return;
    const said = this.tables.map(formatTable).filter((table) => move.tables.includes(table));
    if (said.length > 0) this.#saidToMove = [...this.#saidToMove, ...said];
  }

  /** What follows of tables that have left is another slot's, rows that a backfill reads included. @throws TablesMovedError */
  async #checkMoves(): Promise<void> {
    if (this.#saidToMove.length === 0) return;
    const said = this.#saidToMove;
    const { slot, publication } = this.#options.state;
    const gone = await tablesGone((sql) => this.#side.query(sql), publication, said);
    this.#saidToMove = [];
    if (gone.length > 0) throw new TablesMovedError(slot, gone);
    this.#options.log.warn(
      `a message in the log says that ${said.join(", ")} moved to another slot, but the publication "${publication}" still has them: ignored`,
      {
        remedy: "It is not ours: find the role that calls pg_logical_emit_message with the prefix tributary.",
      },
    );
  }

  #fail(error: unknown): void {
    this.#fatal ??= error;
    this.#ending.abort();
  }

  #feedback(replyRequested: boolean): Buffer {
    const { confirmedLsn } = this.#confirmation.state;
    return standbyStatusUpdate({
      written: this.#receivedLsn,
      confirmed: this.#replay.done && !this.#pass ? confirmedLsn : this.#slotLsn,
      nowMs: Date.now(),
      replyRequested,
    });
  }

  #sendFeedback(replyRequested: boolean): void {
    this.#link?.send(this.#feedback(replyRequested));
    this.#watch.saidSomething();
  }

  #tell(): void {
    this.#options.onStatus({
      connected: this.#link !== undefined,
      receivedLsn: this.#receivedLsn,
      serverLsn: later(this.#serverLsn, this.#receivedLsn),
      confirmedLsn: this.#confirmation.state.confirmedLsn,
      reconnects: this.#reconnects,
      backfills: this.#backfills?.reports ?? [],
      rowsAsked: this.#backfills?.rowsAsked ?? 0,
      holds: this.#holds?.reports ?? [],
      unhealed: this.#options.unhealed.reports,
      putAside: this.#asides?.count ?? 0,
      leftoverSlots: this.#options.connection.hosts && this.#leftovers.found,
      ...this.#slotWatch.health,
    });
  }
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
