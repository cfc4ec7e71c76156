import { formatLsn } from "../../../change/lsn.ts";
import { placeOfMessage } from "../decode/pgoutput/messages.ts";
import { isXLogData, parseKeepalive, XLOG_DATA_HEADER } from "../link/copy-data.ts";
import { checkPlaces, furthestOf, HistoryProof } from "./history-proof.ts";
import type { SystemFacts } from "./slot.ts";
import type { LogPlace } from "./slot-record.ts";

/** Facts of the server, and the timeline that the places stand on. */
export interface ServerHistory {
  readonly timeline: number;
  readonly system: SystemFacts;
  /** Ends of the ancestors of its timeline. */
  readonly history: ReadonlyMap<number, bigint>;
}

const BEGIN = 0x42;
const COMMIT = 0x43;
const MESSAGE = 0x4d;
/** Of the flags of a message. */
const TRANSACTIONAL = 1;
/** Offsets of the parts of a BEGIN behind its type, and of the LSN of a message. */
const BEGIN_LSN = 1;
const BEGIN_TIME = 9;
const BEGIN_XID = 17;
const MESSAGE_FLAGS = 1;
const MESSAGE_LSN = 2;
const TELL_EVERY_MS = 10_000;

/**
 * The first pass over a replay of which the stream has a part (rule 39): it decodes nothing but where commits and messages
 * stand, and gives nothing. Where it ends, the server has shown that it has what the stream was written from.
 */
export class HistoryPass {
  readonly #places: readonly LogPlace[];
  readonly #server: ServerHistory;
  readonly #proof: HistoryProof;
  readonly #log: (line: string) => void;
  readonly #since = performance.now();
  #told = performance.now();
  #bytes = 0;
  #inTransaction = false;

  constructor(places: readonly LogPlace[], server: ServerHistory, log: (line: string) => void) {
    this.#places = places;
    this.#server = server;
    this.#proof = new HistoryProof(places);
    this.#log = log;
  }

  /** @throws ServerBehindError, TimelineForkedError: nothing has to be read. */
  begin(): void {
    const { timeline, system, history } = this.#server;
    checkPlaces(this.#places, timeline, system, history);
    const upTo = formatLsn(furthestOf(this.#places));
    this.#log(
      `not all that was written is confirmed: reading the log up to ${upTo} to see that the server still has it`,
    );
  }

  /** The server has everything. */
  get done(): boolean {
    return this.#proof.done;
  }

  /** Cost of the pass so far, as a text. */
  get cost(): string {
    return `${this.#bytes} bytes in ${((performance.now() - this.#since) / 1000).toFixed(1)} s`;
  }

  /** Takes the frame in `buffer[start, end)`. Tells whether the server wants an answer. @throws HistoryForkedError, MalformedMessageError */
  take(buffer: Buffer, start: number, end: number): boolean {
    this.#bytes += end - start;
    if (isXLogData(buffer, start, end)) {
      this.#message(buffer, start + XLOG_DATA_HEADER, end);
      return false;
    }
    const { walEnd, replyRequested } = parseKeepalive(buffer.subarray(start, end));
    if (!this.#inTransaction) this.#proof.passed(walEnd);
    this.#tell(walEnd);
    return replyRequested;
  }

  #message(buffer: Buffer, at: number, end: number): void {
    const type = buffer[at];
    if (type === BEGIN && end - at >= BEGIN_XID + 4) {
      this.#inTransaction = true;
      const commitLsn = buffer.readBigUInt64BE(at + BEGIN_LSN);
      const commitTime = buffer.readBigInt64BE(at + BEGIN_TIME);
      this.#proof.begin({ commitLsn, commitTime, xid: buffer.readUInt32BE(at + BEGIN_XID) });
      this.#tell(commitLsn);
    } else if (type === COMMIT) this.#inTransaction = false;
    else if (type === MESSAGE && end - at >= MESSAGE_LSN + 8) {
      const flags = buffer[at + MESSAGE_FLAGS] as number;
      if ((flags & TRANSACTIONAL) === 0)
        this.#proof.message(placeOfMessage(buffer.readBigUInt64BE(at + MESSAGE_LSN)));
    }
  }

  #tell(lsn: bigint): void {
    const now = performance.now();
    if (now - this.#told < TELL_EVERY_MS) return;
    this.#told = now;
    this.#log(`the server has shown the log up to ${formatLsn(lsn)}: ${this.cost}`);
  }
}
