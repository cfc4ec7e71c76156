import * as z from "zod";
import { parseLsn } from "../../../change/lsn.ts";
import { readOldestTransaction } from "../catalog/oldest-transaction.ts";
import { readSlot } from "../slot/slot.ts";
import type { SlotSighting } from "../slot/slot-watch.ts";
import { isDead, type LinkPatience, linkPatience, nextStep, type ServerSighting } from "./liveness.ts";
import type { ReplicationLink } from "./replication-link.ts";
import type { SideConnection } from "./side-connection.ts";

/** Dependencies of `LinkWatch`. */
export interface LinkWatchOptions {
  readonly slot: string;
  readonly side: SideConnection;
  readonly walSenderTimeoutMs: number;
  readonly sendFeedback: (replyRequested: boolean) => void;
  readonly onDead: (link: ReplicationLink, reason: string) => void;
  /** Every half `wal_sender_timeout`: the slot as the server tells it. */
  readonly onSlot: (sighting: SlotSighting) => void;
  /** A few times within `wal_sender_timeout`. */
  readonly onTick: () => void;
}

const sighting = z.object({
  pid: z.int().nullable(),
  replied: z.number().nullable(),
  waits: z.string().nullable(),
});

/**
 * Keeps a link alive by timer, whether it is read or not (rule 21), and tells when it is dead. What it decides
 * is in `liveness.ts`.
 */
export class LinkWatch {
  readonly #options: LinkWatchOptions;
  readonly #patience: LinkPatience;
  #timer: NodeJS.Timeout | undefined;
  #link: ReplicationLink | undefined;
  #lastFeedback = 0;
  #lastArrival = 0;
  #bytesRead = 0;
  #waitingSince: number | undefined;
  /** Of the first question of this silence: when, by our clock and by the wall's. */
  #asked: { readonly at: number; readonly wall: number } | undefined;
  #lastAsked: number | undefined;
  #lastLook: number | undefined;
  #looking = false;
  #seen: ServerSighting | undefined;
  #lastSlotPoll = Number.NEGATIVE_INFINITY;

  constructor(options: LinkWatchOptions) {
    this.#options = options;
    this.#patience = linkPatience(options.walSenderTimeoutMs);
  }

  /** Watches this link from now on. */
  watch(link: ReplicationLink): void {
    this.stop();
    this.#link = link;
    this.#bytesRead = link.bytesRead;
    this.#lastFeedback = performance.now();
    this.#newlyHeard(performance.now());
    this.#timer = setInterval(() => this.#tick(), this.#patience.feedbackMs / 4);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#link = undefined;
  }

  /** Notes that we wait for the server, or no longer do: only while we wait does silence mean something. */
  waiting(waiting: boolean): void {
    this.#waitingSince = waiting ? performance.now() : undefined;
  }

  get isWaiting(): boolean {
    return this.#waitingSince !== undefined;
  }

  /** Feedback went out. */
  saidSomething(): void {
    this.#lastFeedback = performance.now();
  }

  #newlyHeard(now: number): void {
    this.#lastArrival = now;
    this.#asked = undefined;
    this.#lastAsked = undefined;
    this.#lastLook = undefined;
    this.#seen = undefined;
  }

  #tick(): void {
    const link = this.#link;
    if (!link) return;
    const now = performance.now();
    if (link.bytesRead !== this.#bytesRead) {
      this.#bytesRead = link.bytesRead;
      this.#newlyHeard(now);
    }
    const silentSince =
      this.#waitingSince === undefined ? undefined : Math.max(this.#lastArrival, this.#waitingSince);
    const step = nextStep(
      {
        lastFeedback: this.#lastFeedback,
        silentSince,
        lastAsked: this.#lastAsked,
        lastLook: this.#lastLook,
      },
      this.#patience,
      now,
    );
    if (step === "look" && !this.#looking) void this.#look(link, now - (silentSince ?? now));
    if (step === "ask" || step === "look") {
      this.#lastAsked = now;
      this.#asked ??= { at: now, wall: Date.now() };
      this.#options.sendFeedback(true);
    } else if (step === "feedback") {
      this.#options.sendFeedback(false);
    }
    if (now - this.#lastSlotPoll >= this.#patience.askMs) {
      this.#lastSlotPoll = now;
      void this.#pollSlot();
    }
    this.#options.onTick();
  }

  async #look(link: ReplicationLink, silentMs: number): Promise<void> {
    this.#looking = true;
    this.#lastLook = performance.now();
    const bytes = link.bytesRead;
    let now: ServerSighting;
    try {
      now = await this.#sight(link);
    } catch {
      now = "unreachable";
      this.#options.side.reset();
    } finally {
      this.#looking = false;
    }
    const before = this.#seen;
    this.#seen = now;
    if (this.#link !== link || link.bytesRead !== bytes) return;
    if (isDead(now, before, silentMs, this.#patience)) {
      this.#options.onDead(
        link,
        `nothing came for ${Math.round(silentMs / 1000)} s, and its walsender is ${now}`,
      );
    }
  }

  async #sight(link: ReplicationLink): Promise<ServerSighting> {
    const { rows } = await withDeadline(
      this.#options.side.query(
        `SELECT s.active_pid AS pid, (extract(epoch FROM r.reply_time) * 1000)::float8 AS replied,
                (SELECT a.wait_event FROM pg_stat_activity a WHERE a.pid = s.active_pid) AS waits
           FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
          WHERE s.slot_name = $1`,
        [this.#options.slot],
      ),
      this.#patience.askMs,
    );
    const row = rows[0] === undefined ? undefined : sighting.parse(rows[0]);
    if (row?.pid !== link.pid) return "gone";
    // Only pg_read_all_stats may see reply_time. What a role always sees of itself: a walsender that waits for the
    // network or for WAL has read what we sent.
    const answered =
      row.replied === null
        ? row.waits?.startsWith("WalSender") === true
        : this.#asked !== undefined && row.replied >= this.#asked.wall;
    return answered ? "answered" : "busy";
  }

  async #pollSlot(): Promise<void> {
    const { side, slot, onSlot } = this.#options;
    try {
      const query = (sql: string) => side.query(sql);
      const facts = await readSlot(query, slot);
      const oldestTransaction = await readOldestTransaction(query);
      const { rows } = await side.query("SELECT pg_current_wal_flush_lsn()::text AS lsn");
      const serverLsn = parseLsn((rows[0] as { lsn: string }).lsn);
      if (facts) onSlot({ atMs: performance.now(), slot: facts, serverLsn, oldestTransaction });
    } catch {
      // The next poll tells; a dead server shows on the link.
    }
  }
}

async function withDeadline<T>(promise: Promise<T>, deadlineMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in time")), deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
