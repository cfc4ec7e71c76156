import { failpoint } from "../../../failpoint.ts";
import type { Sighting } from "../contract/terms.ts";
import type { KnownTables } from "../identity/known-tables.ts";
import { lastPlaces } from "./history-proof.ts";
import type {
  CommitFingerprint,
  LogPlace,
  SeenTruncate,
  Sent,
  SlotRecord,
  SlotState,
} from "./slot-record.ts";
import { StreamedCommits } from "./streamed-commits.ts";

/** Number of commits that the record keeps to recognize history by. */
const RECENT_COMMITS = 16;
/** Number of commits that wait for their acknowledgement at most; older ones a replay may show unseen. */
const STREAMED_COMMITS = 65_536;
/** Number of truncates of partitioned tables that are kept until their partitions were looked at. */
const KEPT_TRUNCATES = 16;
/** Time between two writes of the record when commits were acknowledged. */
const COMMIT_INTERVAL_MS = 1_000;
/** The same when only idle positions moved: an idle database costs few writes. */
const IDLE_INTERVAL_MS = 10_000;

/** Dependencies of `Confirmation`. */
export interface ConfirmationOptions {
  readonly record: SlotRecord;
  /** As it stands in the record. */
  readonly state: SlotState;
  /** Since when what stands from an LSN on can be in the stream, in milliseconds since 1970 UTC: see `Sent`. Default: unknown. */
  readonly sentSince?: (lsn: bigint) => number | undefined;
  /** The record holds this LSN now: the server may be told. */
  readonly onConfirmed: (lsn: bigint) => void;
  /** The record could not be written: the lease is lost, or its store is down beyond patience. */
  readonly onFailure: (error: unknown) => void;
}

/**
 * Turns acknowledgements into confirmations: what was acknowledged is first written to the record, and only then
 * told to the server (rule 19). Writes are coalesced, one at a time.
 */
export class Confirmation {
  readonly #options: ConfirmationOptions;
  #state: SlotState;
  #acknowledged: bigint;
  /** Commits streamed and not acknowledged, oldest first. */
  readonly #streamed = new StreamedCommits(STREAMED_COMMITS);
  #recent: CommitFingerprint[];
  #lastWrite = Number.NEGATIVE_INFINITY;
  #timer: { readonly handle: NodeJS.Timeout; readonly at: number } | undefined;
  #writing: Promise<void> | undefined;
  #failed = false;

  constructor(options: ConfirmationOptions) {
    this.#options = options;
    this.#state = options.state;
    this.#acknowledged = options.state.confirmedLsn;
    this.#recent = [...options.state.recentCommits];
  }

  /** The record's state. */
  get state(): SlotState {
    return this.#state;
  }

  /** Everything up to here is durable downstream; the record may not know yet. */
  get acknowledged(): bigint {
    return this.#acknowledged;
  }

  /** Commits that a replay must show again, oldest first. */
  get knownCommits(): readonly CommitFingerprint[] {
    return [...this.#recent, ...this.#streamed.all];
  }

  /** A commit was given downstream for the first time. */
  streamed(commit: CommitFingerprint): void {
    // What is left must have no hole in it: a replayed commit that is missing would look like another history.
    if (this.#streamed.add(commit)) this.#recent = [];
  }

  /** Everything up to `lsn` is durable downstream. */
  acknowledge(lsn: bigint): void {
    if (lsn <= this.#acknowledged) return;
    this.#acknowledged = lsn;
    const { taken, latest } = this.#streamed.take(lsn, RECENT_COMMITS);
    if (taken > 0) this.#recent = [...this.#recent, ...latest].slice(-RECENT_COMMITS);
    this.#schedule(taken > 0 ? COMMIT_INTERVAL_MS : IDLE_INTERVAL_MS);
  }

  /**
   * The server went on on another timeline, of which ours is an ancestor. Resolves when that is in the record: what is read after it
   * must not be followed by the old primary's log, should that come back (rule 44).
   */
  async onTimeline(timeline: number): Promise<void> {
    await this.#store({ timeline });
  }

  /** Records what the publication says, and which partitions there are. Resolves when that is in the record. */
  async onContract(contract: Partial<Pick<SlotState, "terms" | "termsSeen" | "leaves">>): Promise<void> {
    const seen = contract.leaves && contract.termsSeen?.lsn;
    // Those that had been committed when the partitions were looked at are of no use any more.
    const truncates = this.#state.truncates?.filter(({ lsn }) => seen === undefined || lsn >= seen);
    await this.#store({ ...contract, truncates });
  }

  /** The publication says the same as before: the next write notes when that was. */
  sawTerms(termsSeen: Sighting): void {
    this.#state = { ...this.#state, termsSeen };
  }

  /** Records the tables that the captured names stand for. Resolves when they are in the record. */
  async onTables(tables: KnownTables): Promise<void> {
    await this.#store({ tables });
  }

  /** A partitioned table was truncated as a whole: the next write notes it. */
  sawTruncate(truncate: SeenTruncate): void {
    const known = this.#state.truncates ?? [];
    if (known.some(({ root, xid }) => root === truncate.root && xid === truncate.xid)) return;
    this.#state = { ...this.#state, truncates: [...known, truncate].slice(-KEPT_TRUNCATES) };
  }

  /** One write at a time: an older one that arrived later would take the confirmed position back. */
  async #store(part: Partial<SlotState>): Promise<void> {
    this.#state = { ...this.#state, ...part };
    while (this.#writing) await this.#writing;
    const { sent, confirmedLsn } = this.#state;
    if (sent) this.#state = { ...this.#state, sent: this.#sent(confirmedLsn, sent) };
    const write = this.#options.record.write(this.#state);
    this.#writing = write
      .catch(() => {})
      .then(() => {
        this.#writing = undefined;
        this.#again();
      });
    await write;
  }

  /** The task begins to give changes to the stream. Resolves when that is in the record: nothing is given before (rule 39). */
  async began(): Promise<void> {
    const { generation: writer } = this.#options.record;
    await this.#store({ sent: { places: [], ...this.#state.sent, writer } });
  }

  /** The server has shown all places. Resolves when it is in the record that the last of them tell of all. */
  async proven(): Promise<void> {
    const { sent } = this.#state;
    if (sent) await this.#store({ sent: { ...sent, places: lastPlaces(sent.places) } });
  }

  /** The task gives nothing more, and what it gave ends at these places: whoever comes next need not look at the stream. */
  async ended(places: readonly LogPlace[]): Promise<void> {
    if (this.#failed) return;
    await this.#store({ sent: { places: [...(this.#state.sent?.places ?? []), ...places] } });
  }

  #sent(confirmedLsn: bigint, { places, writer, sinceMs }: Sent): Sent {
    const since = this.#options.sentSince?.(confirmedLsn) ?? sinceMs;
    return {
      places: places.filter(({ lsn }) => lsn >= confirmedLsn),
      ...(writer === undefined ? {} : { writer }),
      ...(writer === undefined || since === undefined ? {} : { sinceMs: since }),
    };
  }

  /** Writes what is acknowledged now, and waits for it. */
  async flush(): Promise<void> {
    this.stop();
    while (!this.#failed && (this.#writing || this.#acknowledged > this.#state.confirmedLsn)) {
      await (this.#writing ?? this.#write());
    }
  }

  /** No further write starts by itself. */
  stop(): void {
    clearTimeout(this.#timer?.handle);
    this.#timer = undefined;
  }

  #schedule(intervalMs: number): void {
    if (this.#failed || this.#writing) return;
    const now = performance.now();
    const at = Math.max(now, this.#lastWrite + intervalMs);
    if (this.#timer && this.#timer.at <= at) return;
    clearTimeout(this.#timer?.handle);
    const handle = setTimeout(() => {
      this.#timer = undefined;
      if (!this.#writing) void this.#write();
    }, at - now);
    this.#timer = { handle, at };
  }

  #write(): Promise<void> {
    this.#writing = this.#writeOnce().finally(() => {
      this.#writing = undefined;
      this.#again();
    });
    return this.#writing;
  }

  #again(): void {
    if (this.#acknowledged > this.#state.confirmedLsn) this.#schedule(COMMIT_INTERVAL_MS);
  }

  async #writeOnce(): Promise<void> {
    const next: SlotState = {
      ...this.#state,
      confirmedLsn: this.#acknowledged,
      recentCommits: this.#recent,
      ...(this.#state.sent && { sent: this.#sent(this.#acknowledged, this.#state.sent) }),
    };
    try {
      this.#lastWrite = performance.now();
      failpoint("before-slot-record");
      await this.#options.record.write(next);
      failpoint("before-feedback");
      const { confirmedLsn, recentCommits } = next;
      this.#state = { ...this.#state, confirmedLsn, recentCommits };
      this.#options.onConfirmed(next.confirmedLsn);
    } catch (error) {
      this.#failed = true;
      this.#options.onFailure(error);
    }
  }
}
