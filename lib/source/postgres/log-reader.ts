import { setImmediate } from "node:timers/promises";
import type { SourceMessage } from "../../change/change-stream.ts";
import type { Asides } from "./aside/asides.ts";
import type { Backfills } from "./backfill/backfills.ts";
import type { ChangeDecoder } from "./decode/change-decoder.ts";
import type { OwnMessage } from "./decode/logical-messages.ts";
import { placeOfMessage } from "./decode/pgoutput/messages.ts";
import type { HeldTopics } from "./hold/held-topics.ts";
import type { ChangedIdentities } from "./identity/changed-identities.ts";
import type { TableIdentities } from "./identity/table-identities.ts";
import { isXLogData, LSN, parseKeepalive, XLOG_DATA_HEADER } from "./link/copy-data.ts";
import type { ReplicationLink } from "./link/replication-link.ts";
import { HEARTBEAT } from "./slot/heartbeat.ts";
import type { SentSince } from "./slot/sent-since.ts";
import type { SlotLink } from "./slot/slot-link.ts";
import type { CommitFingerprint, LogPlace } from "./slot/slot-record.ts";
import { MOVE } from "./slots/move.ts";
import type { MovedTables } from "./slots/moved-tables.ts";
import type { StreamEnd } from "./stream-end.ts";

/** Parts that a stream opens at its start; one that the pipeline has no settings for is undefined. */
export interface OpenedParts {
  asides: Asides | undefined;
  holds: HeldTopics | undefined;
  backfills: Backfills | undefined;
  changed: ChangedIdentities | undefined;
}

/** Dependencies of `LogReader`. */
export interface LogReaderOptions {
  readonly link: SlotLink;
  readonly decoder: ChangeDecoder;
  readonly identities: TableIdentities;
  readonly moved: MovedTables;
  readonly sentSince: SentSince;
  readonly end: StreamEnd;
  readonly parts: OpenedParts;
}

/** Bytes of the log that one batch is decoded from, at most (one change may be larger). */
const BATCH_BYTES = 256 * 1024;

/**
 * The loop of a stream: reads messages from the link, has them decoded, settles what cannot become an event, and gives the rest
 * downstream; between transactions also what backfills read and what held topics release.
 */
export class LogReader {
  readonly #link: SlotLink;
  readonly #decoder: ChangeDecoder;
  readonly #identities: TableIdentities;
  readonly #moved: MovedTables;
  readonly #sentSince: SentSince;
  readonly #end: StreamEnd;
  readonly #parts: OpenedParts;
  /** Of the transaction that is read. */
  #commitLsn = 0n;
  #xid = 0;
  /** Place of the last message of ours at which something was given. */
  #delivered: LogPlace | undefined;
  /** A heartbeat of ours came outside of transactions. */
  #heartbeatLsn: bigint | undefined;

  constructor(options: LogReaderOptions) {
    this.#link = options.link;
    this.#decoder = options.decoder;
    this.#identities = options.identities;
    this.#moved = options.moved;
    this.#sentSince = options.sentSince;
    this.#end = options.end;
    this.#parts = options.parts;
  }

  /** The commit LSN of the transaction that is read. */
  get commitLsn(): bigint {
    return this.#commitLsn;
  }

  get xid(): number {
    return this.#xid;
  }

  get delivered(): LogPlace | undefined {
    return this.#delivered;
  }

  /** A transaction begins, replayed ones too. @throws HistoryForkedError */
  begin(commit: CommitFingerprint): void {
    this.#commitLsn = commit.commitLsn;
    this.#xid = commit.xid;
    this.#link.begin(commit);
    this.#parts.backfills?.began(commit.xid);
  }

  /** Takes a message of our own. Returns whether a backfill sees to the acknowledgement of its place. */
  message(message: OwnMessage): boolean {
    const { prefix, transactional, lsn, content } = message;
    if (prefix === MOVE) this.#moved.message(content);
    if (prefix === HEARTBEAT && !transactional) this.#heartbeatLsn = lsn;
    return this.#parts.backfills?.message(message) ?? false;
  }

  /** Once it was asked to stop: a transaction that was begun comes to its end, if it can in time. */
  get #over(): boolean {
    return this.#end.cut.aborted || !this.#decoder.inTransaction;
  }

  /** Gives what is read until the stream ends. @throws what ended it, unless it was asked to. */
  async *read(): AsyncGenerator<readonly SourceMessage[]> {
    const { until } = this.#end;
    for (;;) {
      this.#end.throwIfFailed();
      if (until.aborted && (this.#over || !this.#link.isOpen)) return;
      const batch: SourceMessage[] = [];
      const givenBefore = this.#decoder.inTransaction ? this.#commitLsn + 1n : this.#link.received;
      let failure: unknown;
      try {
        const link = await this.#link.ready(until);
        if (!link) continue;
        await this.#fill(link, batch, until);
        await this.#moved.check();
      } catch (error) {
        failure = error;
      }
      // Nothing that stands behind a change goes downstream before that one is where it can be found, and nothing that tells of it is held.
      if (this.#parts.asides?.isPending && !(await this.#settle(this.#parts.asides))) break;
      // The decoder will not give these again: they go downstream, or are held, before the failure counts.
      const given = this.#sift(batch);
      this.#sentSince.note(givenBefore);
      if (given.length > 0) yield given;
      if (this.#parts.backfills?.hasDue && failure === undefined)
        yield* this.#deliver(this.#parts.backfills, until);
      if (this.#differs && failure === undefined && !until.aborted)
        failure = await this.#parts.changed?.hold(this.#link.received);
      if (this.#parts.holds) {
        const barriers = this.#decoder.inTransaction
          ? []
          : this.#parts.holds.takeBarriers(this.#link.received);
        if (barriers.length > 0) yield barriers;
        await this.#parts.holds.room(this.#end.cut);
        if (this.#releases && failure === undefined && !until.aborted)
          failure = yield* this.#release(this.#parts.holds, until);
      }
      if (failure === undefined) continue;
      if (until.aborted) break;
      await this.#recover(failure, until);
    }
    this.#end.throwIfFailed();
  }

  async #recover(failure: unknown, until: AbortSignal): Promise<void> {
    try {
      await this.#link.recover(failure, until);
    } catch (error) {
      this.#end.fail(error);
      throw error;
    }
  }

  async #fill(link: ReplicationLink, batch: SourceMessage[], until: AbortSignal): Promise<void> {
    let bytes = 0;
    // What is read in one go is bounded: who asks to stop waits that long at most.
    let stopping = until.aborted;
    while (!(stopping && this.#over) && bytes < BATCH_BYTES && !this.#parts.backfills?.hasDue) {
      if (!link.read()) {
        if (batch.length > 0 || this.#releases || this.#differs) return;
        await this.#link.arrival(link);
        if (this.#releases || this.#differs) return;
        stopping = until.aborted;
        continue;
      }
      this.#link.heard();
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
        if (last?.kind === "commit") this.#link.receive(last.endPlace);
        if (this.#heartbeatLsn !== undefined) {
          this.#idleUntil(this.#heartbeatLsn, batch);
          this.#heartbeatLsn = undefined;
        }
      } else {
        const message = parseKeepalive(buffer.subarray(start, end));
        this.#link.noteServer(message.walEnd);
        this.#idleUntil(message.walEnd, batch);
        if (message.replyRequested) this.#link.sendFeedback(false);
      }
    }
  }

  /** Rule 20: a keepalive, or a heartbeat, counts at its place only, between transactions. */
  #idleUntil(lsn: bigint, batch: SourceMessage[]): void {
    if (this.#decoder.inTransaction) return;
    this.#link.passed(lsn);
    if (this.#link.receive(lsn)) batch.push({ kind: "idle", place: lsn });
  }

  /** Returns false where the task ends first: what was put aside comes again. @throws what ends the stream. */
  async #settle(asides: Asides): Promise<boolean> {
    try {
      await asides.settle(this.#end.cut);
      return true;
    } catch (error) {
      if (this.#end.cut.aborted) return false;
      this.#end.fail(error);
      throw error;
    }
  }

  #sift(batch: readonly SourceMessage[]): readonly SourceMessage[] {
    return this.#parts.holds === undefined || this.#parts.holds.isIdle
      ? batch
      : this.#parts.holds.sift(batch);
  }

  /** Gives what goes to the place of a message of ours, in slices; then the place may be acknowledged. */
  async *#deliver(backfills: Backfills, until: AbortSignal): AsyncGenerator<readonly SourceMessage[]> {
    const delivery = backfills.takeDue();
    if (!delivery || until.aborted) return;
    this.#delivered = { lsn: placeOfMessage(delivery.lsn), message: true };
    try {
      for (const slice of delivery.slices) {
        if (this.#end.cut.aborted) return;
        yield this.#sift(slice);
        // Sockets are read meanwhile: the next chunk's, the link's.
        await setImmediate();
      }
      if (this.#end.cut.aborted) return;
      delivery.given();
    } catch (error) {
      delivery.failed(error);
    }
    this.#link.receive(delivery.lsn);
    yield [{ kind: "commit", endPlace: delivery.lsn, commitTimeMs: Date.now() }];
  }

  /** True if a topic is to be held now because its table is another one. */
  get #differs(): boolean {
    return this.#identities.isDue(this.#link.received) && !this.#decoder.inTransaction;
  }

  /** True if a held topic is to be released now. */
  get #releases(): boolean {
    return this.#parts.holds?.isDue(this.#link.received) === true && !this.#decoder.inTransaction;
  }

  /** Returns what went wrong, for the reader to wait and try again. */
  async *#release(holds: HeldTopics, until: AbortSignal): AsyncGenerator<readonly SourceMessage[], unknown> {
    try {
      yield* holds.release(this.#link.received, until);
    } catch (error) {
      return error;
    }
    return undefined;
  }
}
