import { isControlEvent } from "../change/control-event.ts";
import type { ChangeEventJson } from "../change/event.ts";
import { commitPrefix, isOwnPlace, type PositionText } from "../change/position.ts";
import { parseRecord, positionOf } from "../change/record.ts";
import { readHeader } from "../change/record-header.ts";
import type { Tail, TailEnd, TailQuery } from "./record-stream.ts";

interface Found {
  readonly last: PositionText;
  readonly data?: Uint8Array;
}

const NOTHING: Found = { last: "" };

/**
 * Finds a writer's last change among the records of a stream, in whatever order they come. Looks only at what stands around a
 * record's events, and keeps two records, whatever the stream holds.
 */
export class TailSearch {
  readonly #query: Pick<TailQuery, "writer" | "topicPrefix">;
  readonly #from: PositionText;
  readonly #to: PositionText;
  /** The last of those whose events can be read, and of all of them. */
  #lastEvents: Found = NOTHING;
  #last: Found = NOTHING;
  #records = 0;
  #bytes = 0;

  constructor(query: Pick<TailQuery, "writer" | "topicPrefix" | "epoch" | "fromLsn">) {
    this.#query = query;
    this.#from = commitPrefix(query.epoch, query.fromLsn);
    this.#to = commitPrefix(query.epoch + 1, 0n);
  }

  /** Looks at a record of the stream. */
  take(data: Uint8Array): void {
    this.#records++;
    this.#bytes += data.length;
    const header = readHeader(data);
    const { writer, topicPrefix } = this.#query;
    if (header?.writer !== writer || !header.topic.startsWith(`${topicPrefix}.`)) return;
    if (header.last < this.#from || header.last >= this.#to) return;
    // A barrier stands at no place of the log; what is in a record before one is looked at.
    const last = isOwnPlace(header.last) ? header.last : (endOf(data)?.position ?? "");
    const found = { last, data };
    if (last > this.#last.last) this.#last = found;
    if (!isClaim(data) && last > this.#lastEvents.last) this.#lastEvents = found;
  }

  /** The findings so far. */
  get tail(): Tail {
    const ends: TailEnd[] = [];
    for (const { data } of new Set([this.#lastEvents, this.#last])) {
      const end = data && endOf(data);
      if (end) ends.push(end);
    }
    return { ends, ...this.counts };
  }

  /** Counts of what was looked at so far. */
  get counts(): Pick<Tail, "records" | "bytes"> {
    return { records: this.#records, bytes: this.#bytes };
  }
}

/** A row's value may look like it: then its record is read as what it is all the same. */
function isClaim(data: Uint8Array): boolean {
  return Buffer.from(data.buffer, data.byteOffset, Math.min(data.length, 8192)).includes(',"claim":{');
}

/** Undefined: nothing in it stands at a place of the log. */
function endOf(data: Uint8Array): TailEnd | undefined {
  let events: readonly ChangeEventJson[] = [];
  try {
    const record = parseRecord(data);
    if (record.kind === "events") events = record.events;
  } catch {
    // Not JSON that we can read; where it stands is known.
  }
  const event = events.findLast((each) => isOwnPlace(positionOf(each)));
  if (!event) {
    const { last = "" } = events.length === 0 ? (readHeader(data) ?? {}) : {};
    return isOwnPlace(last) ? { position: last } : undefined;
  }
  const position = positionOf(event);
  const { txId, ts_ms: timeMs } = event.source;
  // One of ours may stand where a commit does.
  return isControlEvent(event) ? { position } : { position, txId, timeMs };
}
