import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import type { ChangeStream, SourceMessage } from "../../change/change-stream.ts";
import { formatPosition, isPosition, parsePosition } from "../../change/position.ts";
import { formatTable, type TableName } from "../../change/table-pattern.ts";
import { routeTables } from "../../definition/route.ts";
import { Asides } from "./aside/asides.ts";
import { UndecodableChanges } from "./aside/undecodable-changes.ts";
import { Backfills } from "./backfill/backfills.ts";
import { pgTypeCatalog } from "./catalog/type-catalog.ts";
import { isCaptured, type PostgresChangeStreamOptions } from "./change-stream-options.ts";
import { ChangeDecoder } from "./decode/change-decoder.ts";
import { HeldTopics, type HoldSettings } from "./hold/held-topics.ts";
import { ChangedIdentities } from "./identity/changed-identities.ts";
import { isOfIdentity } from "./identity/identity-errors.ts";
import { TableIdentities } from "./identity/table-identities.ts";
import { SideConnection } from "./link/side-connection.ts";
import { LogReader, type OpenedParts } from "./log-reader.ts";
import { Confirmation } from "./slot/confirmation.ts";
import { SentSince } from "./slot/sent-since.ts";
import { SlotLink } from "./slot/slot-link.ts";
import type { LogPlace } from "./slot/slot-record.ts";
import { MovedTables } from "./slots/moved-tables.ts";
import { TableRenamedError } from "./slots/slots-errors.ts";
import { SourceWatch } from "./source-watch.ts";
import { StreamEnd } from "./stream-end.ts";

const CLOSE_DEADLINE_MS = 10_000;

/**
 * The change stream of one slot: its parts, wired. A change comes over the link (`SlotLink`) to the loop (`LogReader`), is decoded
 * (`ChangeDecoder`), put aside or held where it cannot become an event (`UndecodableChanges`), and goes downstream. Its
 * acknowledgement comes back here, past holds and backfills, to `Confirmation`, which lets the slot move.
 */
export class PostgresChangeStream implements ChangeStream {
  readonly changes: AsyncIterable<readonly SourceMessage[]>;
  readonly tables: readonly (TableName & { readonly oid: number })[];
  readonly #options: PostgresChangeStreamOptions;
  readonly #link: SlotLink;
  readonly #decoder: ChangeDecoder;
  /** Decodes what was held once more. */
  #heldDecoder: ChangeDecoder | undefined;
  readonly #confirmation: Confirmation;
  readonly #side: SideConnection;
  readonly #watch: SourceWatch;
  readonly #identities: TableIdentities;
  readonly #sentSince = new SentSince();
  readonly #reader: LogReader;
  readonly #parts: OpenedParts = {
    asides: undefined,
    holds: undefined,
    backfills: undefined,
    changed: undefined,
  };
  #undecodable: UndecodableChanges | undefined;
  readonly #end: StreamEnd;
  /** Up to here the stream has acknowledged; what is held may not be stored that far. */
  #acknowledged = 0n;
  #closed: Promise<void> | undefined;

  constructor(options: PostgresChangeStreamOptions, side: pg.Client) {
    this.#options = options;
    const { connection, pipeline, state, log } = options;
    this.tables = options.tables;
    this.#end = new StreamEnd(options.signal, () => this.#link.interrupt());
    const { ending } = this.#end;
    const onFailure = (error: unknown) => this.#end.fail(error);
    const onServerEnding = (error: Error) => this.#link?.destroy(error);
    this.#side = new SideConnection({ connection, signal: ending, onServerEnding }, side);
    this.#confirmation = new Confirmation({
      record: options.record,
      state,
      sentSince: (lsn) => this.#sentSince.at(lsn),
      onConfirmed: () => {
        this.#parts.asides?.confirmed(this.#confirmation.state.confirmedLsn);
        this.#link.sendFeedback(false);
      },
      onFailure,
    });
    this.#identities = new TableIdentities({
      known: state.tables,
      epoch: state.epoch,
      route: routeTables(pipeline),
      captures: (table) => isCaptured(options, table) && formatTable(table) !== pipeline.source.outbox?.table,
      query: (sql, values) => this.#side.query(sql, values),
      keeps: options.keeps,
      store: (tables) => this.#confirmation.onTables(tables),
      log,
      onChange: (oids) => {
        this.#decoder.replan(oids);
        this.#heldDecoder?.replan(oids);
      },
      onDue: () => this.#link.interrupt(),
    });
    this.#decoder = this.#newDecoder();
    this.#watch = new SourceWatch({
      stream: options,
      side: this.#side,
      link: () => this.#link,
      confirmation: this.#confirmation,
      identities: this.#identities,
      backfills: () => this.#parts.backfills,
      signal: ending,
      onFailure,
    });
    this.#link = new SlotLink({
      ...options,
      confirmation: this.#confirmation,
      sentSince: this.#sentSince,
      side: this.#side,
      messagePlaces: () => this.#messagePlaces,
      onReconnect: () => {
        this.#decoder.reconnected();
        this.#parts.backfills?.reconnected();
      },
      onSlot: (sighting) => this.#watch.onSlot(sighting),
      onTick: () => this.#report(),
    });
    const { slot, publication } = state;
    const query = (sql: string) => this.#side.query(sql);
    this.#reader = new LogReader({
      link: this.#link,
      decoder: this.#decoder,
      identities: this.#identities,
      moved: new MovedTables({ slot, publication, tables: options.tables, query, log }),
      sentSince: this.#sentSince,
      end: this.#end,
      parts: this.#parts,
    });
    this.changes = this.#reader.read();
  }

  #newDecoder(): ChangeDecoder {
    const { state, contract, isForeign } = this.#options;
    const { epoch, confirmedLsn } = state;
    return new ChangeDecoder({
      ...this.#decoding(),
      // Everything whose commit record begins before R was acknowledged by Kinesis: it is not given again.
      ...(confirmedLsn > 0n
        ? { resumeAfter: formatPosition({ epoch, commitLsn: confirmedLsn - 1n, ordinal: 9_999_999_999 }) }
        : {}),
      onBegin: (commit) => this.#reader.begin(commit),
      onTruncate: (oid) => {
        if (contract.some((table) => table.oid === oid && table.kind === "p"))
          this.#confirmation.sawTruncate({ root: oid, xid: this.#reader.xid, lsn: this.#reader.commitLsn });
      },
      refuses: (topic) =>
        isForeign?.(topic, this.#reader.commitLsn) ? new TableRenamedError(state.slot, topic) : undefined,
      takeAside: (change, error, out) => this.#undecodable?.take(change, error, out) ?? false,
      putAside: (commitLsn) => this.#parts.asides?.places(commitLsn),
      onIncomplete: (create) => this.#parts.backfills?.ask(create),
      onMessage: (message) => this.#reader.message(message),
    });
  }

  /** Options that all decoders share: they make the same events. */
  #decoding() {
    const { pipeline, state, encoding } = this.#options;
    return {
      pipeline,
      database: state.database,
      epoch: state.epoch,
      route: routeTables(pipeline),
      catalog: pgTypeCatalog((sql, values) => this.#side.query(sql, values), { signal: this.#end.cut }),
      encoding,
      identities: this.#identities,
    };
  }

  /** Opens the first link, over a replication session that is there already. @throws what the record of backfills or holds throws. */
  async start(replication: pg.Client): Promise<void> {
    const { asides, backfill, holds, connection, pipeline, state, tables, serverVersion, encoding, log } =
      this.#options;
    await this.#identities.begin(tables);
    if (holds) this.#parts.holds = await this.#openHolds(holds);
    for (const { reason, from } of this.#parts.holds?.holds ?? [])
      if (isOfIdentity(reason.code)) this.#identities.isHeldFrom(reason.table, from);
    if (asides) {
      this.#parts.asides = await Asides.open({
        ...asides,
        ...{ pipeline: pipeline.name, database: state.database, epoch: state.epoch, log },
        all: pipeline.source.undecodable === "dead-letter",
        backfills: backfill?.record,
        tables: tables.map(formatTable),
        isHeld: (topic, position) => this.#parts.holds?.isHeld(topic, position) === true,
      });
    }
    this.#undecodable = new UndecodableChanges(this.#parts.asides, this.#parts.holds, this.#end.cut);
    if (backfill) {
      this.#parts.backfills = await Backfills.open({
        ...backfill,
        ...{ connection, pipeline, state, tables, encoding, log },
        route: routeTables(pipeline),
        version: serverVersion,
        plan: (relation) => this.#decoder.plan(relation),
        listen: (table, listener) => this.#decoder.listen(table, listener),
        restart: (error) => this.#end.fail(error),
        onAsked: () => this.acknowledge(this.#acknowledged),
      });
    }
    this.#parts.changed = new ChangedIdentities({
      ...this.#options,
      identities: this.#identities,
      holds: this.#parts.holds,
      backfills: this.#parts.backfills,
    });
    await this.#parts.changed.goOn();
    await this.#link.open(this.#end.until, replication);
  }

  async #openHolds(settings: HoldSettings): Promise<HeldTopics> {
    const { pipeline, state, log } = this.#options;
    const decoder = new ChangeDecoder({
      ...this.#decoding(),
      onIncomplete: (create) => this.#parts.backfills?.ask(create),
    });
    this.#heldDecoder = decoder;
    return await HeldTopics.open(
      {
        ...settings,
        pipeline: pipeline.name,
        epoch: state.epoch,
        log,
        decode: (change, out) => decoder.decodeHeld(change, out),
        asked: async () => await this.#parts.backfills?.asked(),
        accept: async (hold) => await this.#parts.changed?.accept(hold),
        barrier: (hold) => this.#parts.changed?.barrier(hold),
        putAside: async (change, error, out) =>
          (await this.#undecodable?.takeHeld(change, error, out)) === true,
        onStored: () => this.acknowledge(this.#acknowledged),
        onDue: () => this.#link.interrupt(),
        onFailure: (error) => this.#end.fail(error),
      },
      state.confirmedLsn,
    );
  }

  acknowledge(lsn: bigint): void {
    if (lsn > this.#acknowledged) this.#acknowledged = lsn;
    const stored = this.#parts.holds?.durable(this.#acknowledged) ?? this.#acknowledged;
    const durable = this.#parts.backfills?.durable(stored) ?? stored;
    this.#confirmation.acknowledge(durable);
    this.#parts.backfills?.acknowledge(durable);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#end.close();
    this.#link.interrupt();
    const giveUp = new AbortController();
    await Promise.race([
      Promise.all([this.#flush(), this.#parts.backfills?.close()]).then(() => this.#link.end()),
      delay(CLOSE_DEADLINE_MS, undefined, { signal: giveUp.signal }).catch(() => {}),
    ]);
    giveUp.abort();
    this.#confirmation.stop();
    await this.#link.close();
    await this.#side.close();
    this.#report();
  }

  async #flush(): Promise<void> {
    await this.#parts.asides?.close();
    await this.#parts.holds?.close();
    // What is not in the record is not confirmed, and is asked for again.
    await this.#parts.backfills?.asked().catch(() => {});
    await this.#confirmation.flush();
  }

  /** Places of the last messages of ours. */
  get #messagePlaces(): LogPlace[] {
    const message = this.#decoder.lastMessage;
    const { delivered } = this.#reader;
    return [
      ...(delivered ? [delivered] : []),
      ...(isPosition(message) ? [{ lsn: parsePosition(message).commitLsn }] : []),
    ];
  }

  #report(): void {
    this.#options.onStatus({
      connected: this.#link.isOpen,
      receivedLsn: this.#link.received,
      serverLsn: this.#link.server,
      confirmedLsn: this.#confirmation.state.confirmedLsn,
      reconnects: this.#link.reconnects,
      backfills: this.#parts.backfills?.reports ?? [],
      rowsAsked: this.#parts.backfills?.rowsAsked ?? 0,
      holds: this.#parts.holds?.reports ?? [],
      unhealed: this.#options.unhealed.reports,
      putAside: this.#parts.asides?.count ?? 0,
      ...this.#watch.status,
    });
  }
}
