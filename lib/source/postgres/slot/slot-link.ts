import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { formatLsn } from "../../../change/lsn.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { standbyStatusUpdate } from "../link/feedback.ts";
import { LinkWatch } from "../link/link-watch.ts";
import { reconnectDelayMs } from "../link/liveness.ts";
import { explainStreamError } from "../link/replication-errors.ts";
import { ReplicationLink } from "../link/replication-link.ts";
import type { SideConnection } from "../link/side-connection.ts";
import { ReplicationLinkError } from "../postgres-errors.ts";
import type { Confirmation } from "./confirmation.ts";
import { HistoryPass } from "./history-pass.ts";
import { placeOfCommit } from "./history-proof.ts";
import { ReplayCheck } from "./replay-check.ts";
import type { SentSince } from "./sent-since.ts";
import { serverRun } from "./slot.ts";
import type { CommitFingerprint, LogPlace } from "./slot-record.ts";
import { openSlotSession, type SlotSession, type SlotSessionOptions } from "./slot-session.ts";
import type { SlotSighting } from "./slot-watch.ts";

/** Dependencies of `SlotLink`. */
export interface SlotLinkOptions extends SlotSessionOptions {
  readonly confirmation: Confirmation;
  readonly sentSince: SentSince;
  readonly side: SideConnection;
  /** Places of the last messages of ours that came. */
  readonly messagePlaces: () => readonly LogPlace[];
  /** Called before a link is opened: what was half read comes again. */
  readonly onReconnect: () => void;
  /** Called every half `wal_sender_timeout` with the slot as the server shows it. */
  readonly onSlot: (sighting: SlotSighting) => void;
  /** Called when a link was opened or lost, and a few times within `wal_sender_timeout`. */
  readonly onTick: () => void;
}

/**
 * The way to the slot, over as many links as it takes: opens a link, has the server show that its history is ours, sends feedback
 * on it, and waits before the next one when it is lost.
 */
export class SlotLink {
  readonly #options: SlotLinkOptions;
  readonly #watch: LinkWatch;
  #link: ReplicationLink | undefined;
  #replay = new ReplayCheck([], 0n);
  /** While the server is made to show that it has what the stream has: nothing is given meanwhile (rule 39). */
  #pass: HistoryPass | undefined;
  /** The run of the server that the pass looks at. */
  #proving = "";
  /** The run for which a pass was over, while no other link has been opened since. */
  #passed: string | undefined;
  #began = false;
  /** The slot's place when the link was opened: what feedback says until history is known to be ours. */
  #slotLsn = 0n;
  #received: bigint;
  #server = 0n;
  #reconnects = 0;
  /** Failed attempts since something last came. */
  #attempts = 0;

  constructor(options: SlotLinkOptions) {
    this.#options = options;
    const { confirmation, side, walSenderTimeoutMs, onTick } = options;
    this.#received = confirmation.state.confirmedLsn;
    this.#watch = new LinkWatch({
      slot: confirmation.state.slot,
      side,
      walSenderTimeoutMs,
      sendFeedback: (replyRequested) => this.sendFeedback(replyRequested),
      onDead: (link, reason) =>
        link.destroy(
          new ReplicationLinkError({
            message: `the replication link is dead: ${reason}`,
            remedy: "Nothing to do: it is opened anew. When it repeats, look at the network between.",
          }),
        ),
      onSlot: (sighting) => {
        this.noteServer(sighting.serverLsn);
        options.onSlot(sighting);
      },
      onTick,
    });
  }

  get isOpen(): boolean {
    return this.#link !== undefined;
  }

  /** Number of times that a link was opened again. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** True if the server has nothing for us. */
  get isWaiting(): boolean {
    return this.#watch.isWaiting;
  }

  /** Up to here the log was read and given. */
  get received(): bigint {
    return this.#received;
  }

  /** End of the server's WAL, as far as it is known. */
  get server(): bigint {
    return later(this.#server, this.#received);
  }

  /** The log was read and given up to `lsn`. Returns whether that is new. */
  receive(lsn: bigint): boolean {
    if (lsn <= this.#received) return false;
    this.#received = lsn;
    return true;
  }

  /** Something came: the next failure is the first one again. */
  heard(): void {
    this.#attempts = 0;
  }

  /** The server's WAL ends at `lsn` or later. */
  noteServer(lsn: bigint): void {
    this.#server = later(this.#server, lsn);
  }

  /** A transaction begins. @throws HistoryForkedError */
  begin(commit: CommitFingerprint): void {
    if (this.#replay.begin(commit)) this.#options.confirmation.streamed(commit);
  }

  /** The server has sent everything up to `lsn`. @throws HistoryForkedError */
  passed(lsn: bigint): void {
    this.#replay.passed(lsn);
  }

  /** Opens the first link, over a replication session that is there already. @throws what `openSlotSession` throws. */
  async open(until: AbortSignal, first?: pg.Client): Promise<ReplicationLink> {
    const state = () => this.#options.confirmation.state;
    return await openSlotSession(this.#options, state, (session) => this.#start(session), until, first);
  }

  /**
   * The link to read from, opened where there is none. Undefined: the server has shown on it what the stream has, and the next
   * link is the one to read. @throws HistoryForkedError, and what ends a link.
   */
  async ready(until: AbortSignal): Promise<ReplicationLink | undefined> {
    const link = this.#link ?? (await this.open(until));
    if (!this.#pass) return link;
    await this.#prove(this.#pass, link, until);
    return undefined;
  }

  /** Waits until the link has something to read, or is interrupted. @throws what ends a link. */
  async arrival(link: ReplicationLink): Promise<void> {
    this.#watch.waiting(true);
    try {
      await link.arrival();
    } catch (error) {
      throw explainStreamError(error, this.#options.confirmation.state.slot, "reading");
    } finally {
      this.#watch.waiting(false);
    }
  }

  /** Ends the wait for the server. */
  interrupt(): void {
    this.#link?.interrupt();
  }

  /** The server goes away. */
  destroy(error: Error): void {
    this.#link?.destroy(error);
  }

  sendFeedback(replyRequested: boolean): void {
    this.#link?.send(this.#feedback(replyRequested));
    this.#watch.saidSomething();
  }

  /** Waits before another link is opened. @throws what another attempt cannot heal. */
  async recover(failure: unknown, until: AbortSignal): Promise<void> {
    const link = this.#link;
    this.#link = undefined;
    this.#watch.stop();
    link?.destroy(failure as Error);
    if (!(failure instanceof TributaryError) || failure.retry !== "retry") throw failure;
    if (link) this.#reconnects++;
    const waitMs = reconnectDelayMs(this.#attempts++, Math.random());
    this.#options.log.warn(failure.message, {
      code: failure.code,
      retryInMs: waitMs,
      waitsFor: "database",
    });
    this.#options.onTick();
    await delay(waitMs, undefined, { signal: until }).catch(() => {});
  }

  /** Records how far was given: where that was confirmed, or can be shown again, nobody has to look at the stream. */
  async end(): Promise<void> {
    if (!this.#began) return;
    const { confirmation, messagePlaces } = this.#options;
    const commit = confirmation.knownCommits.at(-1);
    const places = [...(commit ? [placeOfCommit(commit)] : []), ...messagePlaces()];
    // Where it cannot be noted, the next task looks.
    await confirmation.ended(places).catch(() => {});
  }

  async close(): Promise<void> {
    this.#watch.stop();
    const link = this.#link;
    if (!link) return;
    this.sendFeedback(false);
    this.#link = undefined;
    await link.finish();
  }

  /** Streams the slot from where it stands: what was half read comes again. */
  async #start(session: SlotSession): Promise<ReplicationLink> {
    const { client, system, slot } = session;
    const { confirmation, connection, sentSince, log, onReconnect, onTick } = this.#options;
    const { state } = confirmation;
    this.#pass = await this.#nextPass(session);
    if (system.timeline !== state.timeline) await confirmation.onTimeline(system.timeline);
    connection.hosts?.noteTimeline(system.timeline);
    this.#slotLsn = slot.confirmedLsn;
    this.noteServer(system.walEnd);
    this.#replay = new ReplayCheck(confirmation.knownCommits, slot.confirmedLsn);
    sentSince.note(this.#received);
    if (!this.#began) await confirmation.began();
    this.#began = true;
    onReconnect();
    const link = await ReplicationLink.start(client, {
      slot: state.slot,
      publication: state.publication,
      firstMessage: this.#feedback(false),
    });
    this.#link = link;
    this.#watch.watch(link);
    // A pass says itself what it reads.
    if (!this.#pass) log.info(`streaming from slot "${state.slot}" at ${formatLsn(slot.confirmedLsn)}`);
    onTick();
    return link;
  }

  /**
   * Chooses the pass of the next link. What the stream has beyond what was given is shown anew on each link, and then read on the next one, where that comes to the
   * same run of the server. Of this task's own, commits are looked for while they are replayed; what stands at a message behind the
   * last of them is not.
   */
  async #nextPass({ client, system, history }: SlotSession): Promise<HistoryPass | undefined> {
    const { confirmation, messagePlaces, log } = this.#options;
    const passed = this.#passed;
    this.#passed = undefined;
    const { timeline, sent, confirmedLsn } = confirmation.state;
    const known = confirmation.knownCommits.at(-1)?.commitLsn ?? 0n;
    const places = [
      ...(sent?.places.filter(({ lsn }) => lsn >= this.#received) ?? []),
      ...messagePlaces().filter(({ lsn }) => lsn >= confirmedLsn && lsn > known),
    ];
    if (places.length === 0) return undefined;
    this.#proving = await serverRun(client);
    if (passed === this.#proving) return undefined;
    return new HistoryPass(places, { timeline, system, history }, (line) => log.info(line));
  }

  /** Looks at what comes on this link and gives nothing of it: the next link brings it again. */
  async #prove(pass: HistoryPass, link: ReplicationLink, until: AbortSignal): Promise<void> {
    const { confirmation, log } = this.#options;
    pass.begin();
    while (!pass.done) {
      if (until.aborted) return;
      if (link.read()) {
        this.heard();
        const { buffer, start, end } = link.frames;
        if (pass.take(buffer, start, end)) this.sendFeedback(false);
      } else await this.arrival(link);
    }
    await confirmation.proven();
    log.info(`the server has all that the stream was written from: ${pass.cost}`);
    this.#pass = undefined;
    this.#passed = this.#proving;
    this.#link = undefined;
    this.#watch.stop();
    await link.finish();
  }

  #feedback(replyRequested: boolean): Buffer {
    const { confirmedLsn } = this.#options.confirmation.state;
    return standbyStatusUpdate({
      written: this.#received,
      confirmed: this.#replay.done && !this.#pass ? confirmedLsn : this.#slotLsn,
      nowMs: Date.now(),
      replyRequested,
    });
  }
}

function later(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
