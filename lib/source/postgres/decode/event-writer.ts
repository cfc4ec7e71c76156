import { EncodedChange, POSITION_BYTES } from "../../../change/encoded-change.ts";
import { openSource } from "../../../change/event-envelope.ts";
import { partitionOf } from "../../../change/topic.ts";
import { EventBytes } from "./event-bytes.ts";
import type { Tuple } from "./pgoutput/tuple.ts";
import type { RelationPlan } from "./relation-plan.ts";
import { RowBytes } from "./row-bytes.ts";
import { RowText } from "./row-text.ts";
import type { Transaction } from "./transaction.ts";

const SLASH = Buffer.from("/");
const ORDINAL_DIGITS = 10;

/**
 * Writes events: the envelope around the rows, which `rows` writes between `begin` and `close`. One serves all changes.
 *
 * It writes the bytes that `openEvent` would print, and a test holds it to that. As text, the envelope alone would cost more (1.7 µs) than
 * the whole way of an insert through the decoder does so (1.3 µs).
 */
export class EventWriter {
  readonly event = new EventBytes();
  readonly text = new RowText();
  readonly rows = new RowBytes(this.event, this.text);
  readonly #now: () => number;
  /** LSN of the message, its upper and lower 32 bits. */
  lsnHigh = 0;
  lsnLow = 0;
  readonly #showLsn = () => this.lsnText;
  #timed = { now: Number.NaN, bytes: Buffer.alloc(0) };

  /** `now`: milliseconds since 1970 UTC. */
  constructor(now: () => number) {
    this.#now = now;
  }

  get lsn(): bigint {
    return (BigInt(this.lsnHigh) << 32n) | BigInt(this.lsnLow);
  }

  get lsnText(): string {
    return `${this.lsnHigh.toString(16).toUpperCase()}/${this.lsnLow.toString(16).toUpperCase()}`;
  }

  /** Begins an event of this message and relation. */
  begin(buffer: Buffer, plan: RelationPlan): void {
    this.event.begin();
    this.rows.begin(buffer, plan, this.#showLsn);
  }

  /** The partition of a row, by the values of its key. @throws KeyValueMissingError (rule 4) */
  partition(plan: RelationPlan, row: Tuple, old: Tuple | undefined): number {
    const { partitions } = plan.topic;
    const hash = this.rows.keyHash(row, old);
    return hash === undefined
      ? partitionOf(this.rows.text().keyText(row, old), partitions)
      : hash % partitions;
  }

  /** Closes the event whose rows are written with its time and source, its position behind. */
  close(
    plan: RelationPlan,
    transaction: Transaction,
    ordinal: number,
    partition: number,
    keyChange: string,
  ): EncodedChange {
    const { event } = this;
    const { bytes, head, tail, prefix, end } = transaction;
    event.append(this.#time());
    event.append(plan.sourceHeadBytes);
    event.copy(bytes, head, tail);
    event.hex(this.lsnHigh);
    event.copy(SLASH);
    event.hex(this.lsnLow);
    event.copy(bytes, tail, prefix);
    event.number(ordinal);
    event.append(plan.sourceTailBytes);
    if (keyChange !== "") event.text(keyChange);
    event.close(POSITION_BYTES);
    event.copy(bytes, prefix, end);
    event.number(ordinal, ORDINAL_DIGITS);
    return new EncodedChange(plan.topic, partition, plan.table, event);
  }

  /** `,"ts_ms":…,"source":{`, as of now. */
  #time(): Buffer {
    const now = this.#now();
    if (now !== this.#timed.now) this.#timed = { now, bytes: Buffer.from(openSource(now)) };
    return this.#timed.bytes;
  }
}
