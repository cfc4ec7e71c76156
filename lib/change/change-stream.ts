import type { PositionText } from "./position.ts";
import type { Topic } from "./topic.ts";

/**
 * The time, in milliseconds, that source and writer may take to finish the transaction they have begun, once they are
 * asked to stop: what is half written comes again at the next start.
 */
export const FINISH_TRANSACTION_MS = 2_000;

/**
 * A place in a source, as far as it was read. Only the source knows what it says (an LSN, for PostgreSQL); all others compare two
 * of one source, keep the furthest, and hand it back. One source gives bigints or texts, not both; they grow by `>`.
 */
export type SourcePlace = bigint | string;

/**
 * The contract between a source and the stream: changes flow down, acknowledgements flow back on their own
 * way. A source promises: positions grow strictly (a truncate of several topics shares nothing), every
 * transaction's changes come together between two `commit` messages, and after a reconnect the stream goes on
 * right behind the last change it gave, so that downstream never sees a reconnect.
 */
export interface ChangeStream<Place extends SourcePlace = bigint> {
  /** The messages read, in order, in batches as large as the reads were. Pulling slowly is back-pressure. */
  readonly changes: AsyncIterable<readonly SourceMessage<Place>[]>;
  /**
   * Everything up to and including the message that carried `place` is durable downstream. Returns at once; the
   * source confirms it to the server in its own time. Never goes backwards.
   */
  acknowledge(place: Place): void;
  /** Confirms what was acknowledged, then closes the connection. Idempotent. */
  close(): Promise<void>;
}

/** A message of a source. */
export type SourceMessage<Place extends SourcePlace = bigint> =
  | SourceChange
  | SourceCommit<Place>
  | SourceIdle<Place>
  | SourceReceipt;

/** The `table` of control events, which are no changes. */
export const CONTROL_EVENTS = "$control-events";

/** One routed change event, complete but for its place in its partition. */
export interface SourceChange {
  readonly kind: "change";
  readonly topic: Topic;
  /** `EVERY_PARTITION` for a truncate. */
  readonly partition: number;
  readonly position: PositionText;
  /**
   * The event as JSON text, left open inside `source`, its last member: the writer closes it with
   * `,"after":<position or null>}}` (and, unpacked, with topic, partition and writer before the braces).
   */
  readonly json: string;
  /** Table in which it was made, for metrics: `public.orders`. */
  readonly table: string;
}

/** The transaction of the changes before it is whole. */
export interface SourceCommit<Place extends SourcePlace = bigint> {
  readonly kind: "commit";
  /** Place to acknowledge once everything before is durable: the end of the commit record. */
  readonly endPlace: Place;
  /** Commit time at the server, milliseconds since 1970 UTC. */
  readonly commitTimeMs: number;
}

/** Between transactions: the source wants to know when everything before is durable. */
export interface SourceReceipt {
  readonly kind: "receipt";
  /** Called once, when it is. */
  readonly stored: () => void;
}

/** Nothing happened up to here (a keepalive outside a transaction): may be acknowledged in its place. */
export interface SourceIdle<Place extends SourcePlace = bigint> {
  readonly kind: "idle";
  readonly place: Place;
}
