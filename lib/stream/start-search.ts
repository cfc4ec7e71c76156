import { isControlEvent } from "../change/control-event.ts";
import { formatPosition, isOwnPlace, type PositionText, parsePosition } from "../change/position.ts";
import { parseRecord, positionOf } from "../change/record.ts";
import { readHeader } from "../change/record-header.ts";
import type { FoundStart, StartQuery } from "./record-stream.ts";

/** The clocks of the database and of the stream may differ by so much, in milliseconds. */
export const CLOCKS_MS = 30_000;

/** Transactions are remembered up to so many, of which nobody knows when they were committed: of rows that are read again it is one a chunk. */
const MOST_UNTIMED = 10_000;

/** The parts of a query that say what is looked for. */
export type StartBounds = Pick<StartQuery, "topicPrefix" | "keptFromMs" | "timeMs">;

interface Found {
  readonly position: PositionText;
  readonly timeMs: number;
}

/**
 * Finds the start position of a replay among the records of a stream, in whatever order they come (rule 65). Best is a change that was committed
 * before the time, and after all that has expired; where nothing was committed between, what stands just before the first change behind the time.
 */
export class StartSearch {
  readonly #bounds: StartBounds;
  /** Committed and arrived before the time; committed before it, and arrived later: the last one of each. */
  #arrived: Found | undefined;
  #late: Found | undefined;
  /** Behind the time: the first change of those whose time is known, and the transactions of others. */
  #first: PositionText | undefined;
  readonly #untimed = new Set<PositionText>();
  /** The last change that may follow some that have expired. */
  #tooOld: PositionText = "";

  constructor(bounds: StartBounds) {
    this.#bounds = bounds;
  }

  /** Looks at a record of the stream; `arrivedMs`: when it came there. Returns whether it has a change that was committed behind the time. */
  take(data: Uint8Array, arrivedMs: number): boolean {
    const header = readHeader(data);
    const { topicPrefix, timeMs } = this.#bounds;
    if (!header?.topic.startsWith(`${topicPrefix}.`)) return false;
    let isBehind = false;
    for (const { position, committedMs } of changesOf(data, header.first)) {
      if (!isOwnPlace(position)) continue;
      if (committedMs === undefined) {
        // It is given rather than left out.
        if (arrivedMs >= timeMs && this.#untimed.size < MOST_UNTIMED) this.#untimed.add(before(position));
      } else if (committedMs > this.#latestMs) {
        isBehind = true;
        this.#first = earlier(this.#first, position);
      } else if (committedMs < this.#bounds.keptFromMs) {
        if (position > this.#tooOld) this.#tooOld = position;
      } else {
        const found = { position, timeMs: committedMs };
        if (arrivedMs <= this.#latestMs) this.#arrived = later(this.#arrived, found);
        else this.#late = later(this.#late, found);
      }
    }
    return isBehind;
  }

  /** A change was found that the replay can begin behind. */
  get hasFound(): boolean {
    return (this.#arrived ?? this.#late) !== undefined;
  }

  /** The findings so far; undefined: nothing was committed since the time, as far as was looked. */
  get start(): FoundStart | undefined {
    const found = this.#arrived ?? this.#late;
    if (found) return { position: found.position, sinceMs: found.timeMs - CLOCKS_MS };
    const timed = this.#first === undefined ? undefined : before(this.#first);
    const [untimed] = [...this.#untimed].filter((position) => position > this.#tooOld).sort();
    if (untimed !== undefined && (timed === undefined || untimed < timed))
      return { position: untimed, sinceMs: this.#bounds.keptFromMs };
    return timed === undefined ? undefined : { position: timed, sinceMs: this.#latestMs };
  }

  get #latestMs(): number {
    return this.#bounds.timeMs - CLOCKS_MS;
  }
}

/** Before the whole transaction: what has expired is of earlier ones. */
function before(position: PositionText): PositionText {
  return formatPosition({ ...parsePosition(position), ordinal: 0 });
}

function earlier(known: PositionText | undefined, found: PositionText): PositionText {
  return known !== undefined && known <= found ? known : found;
}

function later(known: Found | undefined, found: Found): Found {
  return known && known.position >= found.position ? known : found;
}

/** The changes of a record; of one that cannot be read, its first one alone. */
function changesOf(
  data: Uint8Array,
  first: PositionText,
): readonly { readonly position: PositionText; readonly committedMs: number | undefined }[] {
  try {
    const record = parseRecord(data);
    if (record.kind === "claim") return [{ position: record.position, committedMs: undefined }];
    return record.events.flatMap((event) => {
      // Rows of a backfill, and what stands outside of transactions, have no time of a commit; nor has what travels by claim check.
      if (isControlEvent(event)) return [];
      const committedMs = event.op === "r" || event.source.txId === "" ? undefined : event.source.ts_ms;
      return [{ position: positionOf(event), committedMs }];
    });
  } catch {
    return [{ position: first, committedMs: undefined }];
  }
}
