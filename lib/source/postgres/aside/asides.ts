import { setTimeout as sleep } from "node:timers/promises";
import { type Backoff, backoffMs } from "../../../backoff.ts";
import type { SourceChange } from "../../../change/change-stream.ts";
import { formatLsn } from "../../../change/lsn.ts";
import { commitPrefix, type PositionText, parsePosition } from "../../../change/position.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import type { Log } from "../../../log.ts";
import { type BackfillRecord, hasEnded } from "../backfill/backfill-record.ts";
import { columnOf, isOfItsContent } from "../decode/decode-errors.ts";
import { firstPosition, type HeldMessage } from "../hold/held-change.ts";
import { asideEvent } from "./aside-event.ts";
import {
  type Aside,
  type AsideLetter,
  type AsideQueue,
  type AsideRecord,
  asidePlace,
} from "./aside-record.ts";

/** Settings of putting changes aside. */
export interface AsideSettings {
  readonly record: AsideRecord;
  readonly queue: AsideQueue;
  /** Most that are on record at once; above it a topic is held at its next one. Default 10,000. */
  readonly limit?: number;
}

/** Dependencies of `Asides`. */
export interface AsidesOptions extends AsideSettings {
  readonly pipeline: string;
  readonly database: string;
  readonly epoch: number;
  /** True if every change that cannot become an event is put aside, false if only those that operators name. */
  readonly all: boolean;
  /** Asked to read tables again; undefined: nothing is. */
  readonly backfills: Pick<BackfillRecord, "list" | "request"> | undefined;
  /** Tables that are captured. */
  readonly tables: readonly string[];
  /** Returns true if a topic is held and a change of it may still come out of its hold. */
  readonly isHeld: (topic: string, position: PositionText) => boolean;
  readonly log: Log;
}

const LIMIT = 10_000;
/** So many letters are on their way at once. */
const AT_ONCE = 16;
const RETRY: Backoff = { baseMs: 200, capMs: 10_000 };
/** Interval at which tables that are to be read again are seen to, and what the slot has passed is forgotten. */
const LOOK_MS = 2_000;

interface Pending {
  readonly aside: Aside;
  readonly change: HeldMessage;
  readonly error: Error;
}

/**
 * Changes that cannot become events and are put aside (rule 41): each is recorded and sent whole as a dead letter before its control
 * event shows in the stream, keeps its ordinals, and has its table read again with a sweep.
 */
export class Asides {
  /** Since the task's start. */
  count = 0;
  readonly #options: AsidesOptions;
  /** By position and topic. */
  readonly #known = new Map<string, Aside>();
  /** Places of changes that were put aside, by what the positions of their transaction begin with. */
  readonly #places = new Map<string, Set<string>>();
  #wanted: ReadonlySet<PositionText> = new Set();
  #pending: Pending[] = [];
  #confirmed = 0n;
  readonly #ending = new AbortController();
  #looking: Promise<void> | undefined;

  private constructor(options: AsidesOptions) {
    this.#options = options;
  }

  /** @throws what the record throws. */
  static async open(options: AsidesOptions): Promise<Asides> {
    const asides = new Asides(options);
    for (const aside of await options.record.list()) asides.#know(aside);
    await asides.look();
    asides.#looking = asides.#lookAround();
    return asides;
  }

  /** Returns the changes of a transaction that were put aside: the `asidePlace` of each. */
  places(commitLsn: bigint): ReadonlySet<string> | undefined {
    if (this.#places.size === 0) return undefined;
    return this.#places.get(commitPrefix(this.#options.epoch, commitLsn));
  }

  /** Returns true if a change was put aside before: it is again. */
  knows(change: HeldMessage): boolean {
    return this.#known.has(keyOf(change.topic.name, change.position));
  }

  /** Returns true if a change is to be put aside that cannot become an event for that reason. */
  takes(change: HeldMessage, error: Error): boolean {
    if (this.knows(change)) return true;
    if (!isOfItsContent(error)) return false;
    return this.#wish(change) !== undefined || (this.#options.all && this.#hasRoom);
  }

  /** Records are in memory too, and stay until the slot has passed them and their tables are read again. */
  get #hasRoom(): boolean {
    return this.#known.size + this.#pending.length < (this.#options.limit ?? LIMIT);
  }

  /** Reads what operators want. */
  async look(): Promise<void> {
    this.#wanted = new Set(await this.#options.record.wanted());
  }

  /** Puts a change aside; gives what stands in its place. `settle` must follow before that goes downstream. */
  put(change: HeldMessage, error: Error): SourceChange {
    const { topic, table, position } = change;
    const code = error instanceof TributaryError ? error.code : "";
    const aside = this.#known.get(keyOf(topic.name, position)) ?? {
      topic: topic.name,
      ...{ table, position, code, message: error.message },
      ...{ since: Date.now(), sent: false, reread: false },
    };
    this.#pending.push({ aside, change, error });
    return asideEvent(this.#options, change, aside.code);
  }

  /** Something was put aside and is not recorded. */
  get isPending(): boolean {
    return this.#pending.length > 0;
  }

  /**
   * Records what was put aside and sends its letters. What may pass is tried again until `signal` aborts.
   * @throws what the record and the queue throw, and the signal's reason.
   */
  async settle(signal: AbortSignal): Promise<void> {
    const pending = this.#pending;
    this.#pending = [];
    let next = 0;
    const work = async () => {
      for (let item = pending[next++]; item; item = pending[next++]) await this.#settle(item, signal);
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, pending.length) }, work));
  }

  /** The slot has come so far. */
  confirmed(lsn: bigint): void {
    this.#confirmed = lsn;
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await this.#looking;
  }

  #wish(change: HeldMessage): PositionText | undefined {
    return [change.position, firstPosition(change)].find((position) => this.#wanted.has(position));
  }

  #know(aside: Aside): void {
    this.#known.set(keyOf(aside.topic, aside.position), aside);
    const { epoch, commitLsn, ordinal } = parsePosition(aside.position);
    const prefix = commitPrefix(epoch, commitLsn);
    const place = asidePlace(aside.topic, ordinal);
    const places = this.#places.get(prefix);
    if (places) places.add(place);
    else this.#places.set(prefix, new Set([place]));
  }

  #forget(aside: Aside): void {
    this.#known.delete(keyOf(aside.topic, aside.position));
    const { epoch, commitLsn, ordinal } = parsePosition(aside.position);
    const prefix = commitPrefix(epoch, commitLsn);
    const places = this.#places.get(prefix);
    places?.delete(asidePlace(aside.topic, ordinal));
    if (places?.size === 0) this.#places.delete(prefix);
  }

  async #settle({ aside, change, error }: Pending, signal: AbortSignal): Promise<void> {
    const { record, queue, log, pipeline } = this.#options;
    const persist = (act: () => Promise<void>) => persistently(act, signal, log);
    if (!aside.sent) {
      if (!this.knows(change)) await persist(() => record.write(aside));
      const letter = letterOf(pipeline, aside, change, error);
      await persist(() => queue.send(letter, change.payload, signal));
      await persist(() => record.write({ ...aside, sent: true }));
      this.#know({ ...aside, sent: true });
      this.count++;
      const { code, message, table, position } = aside;
      log.error(`put aside a change of ${table} at ${position}: ${message}`, {
        code,
        remedy: `Its table is read again: correct the row, or that stops at it too (tributary backfill status). The change, whole, is in the dead-letter queue of capture.`,
      });
    }
    const wish = this.#wish(change);
    if (wish === undefined) return;
    await persist(() => record.met(wish));
    this.#wanted = new Set([...this.#wanted].filter((position) => position !== wish));
  }

  async #lookAround(): Promise<void> {
    const { signal } = this.#ending;
    const { log } = this.#options;
    while (!signal.aborted) {
      await sleep(LOOK_MS, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted || this.#known.size === 0) continue;
      try {
        await this.#orderReads();
        await this.#forgetPassed();
      } catch (error) {
        const { code, name } = error as TributaryError;
        log.warn("what follows from changes that were put aside could not be done yet", {
          code,
          error: name,
        });
      }
    }
  }

  /** A row whose change is missing stays wrong in sinks where the next one says that columns are unchanged: its table is read anew. */
  async #orderReads(): Promise<void> {
    const { backfills, tables, record, log } = this.#options;
    const waiting = [...this.#known.values()].filter(({ sent, reread }) => sent && !reread);
    if (waiting.length === 0) return;
    const latest = new Map((await backfills?.list())?.map((backfill) => [backfill.table, backfill]));
    for (const table of new Set(waiting.map((aside) => aside.table))) {
      const asides = waiting.filter((aside) => aside.table === table);
      const last = asides
        .map(({ position }) => position)
        .sort()
        .at(-1) as PositionText;
      if (!backfills || !tables.includes(table)) {
        log.warn(
          `${table} is not read again, though a change of it was put aside: it cannot be backfilled by its name`,
          {
            remedy:
              "Backfill the captured table that it belongs to, with a sweep: tributary backfill start --table …",
          },
        );
      } else {
        const now = latest.get(table);
        const { where, consumer, sweep } = now?.request ?? {};
        const isWhole = where === undefined && consumer === undefined && sweep === true;
        // One that says nothing of its start may have begun all the same: its first write comes behind its first rows.
        const startsBehind = (now?.progress?.startPosition ?? "") > last;
        const isUnderWay = now !== undefined && !hasEnded(now);
        // One that began before may have read the row already: the next one is asked for at its end.
        if (isUnderWay && !(isWhole && startsBehind)) continue;
        const isDone = now?.status === "done" && isWhole && startsBehind;
        if (!isUnderWay && !isDone) {
          await backfills.request(table, { sweep: true, requestedAt: Date.now() });
          log.info(`${table} is read again, with a sweep: a change of it was put aside`);
        }
      }
      for (const aside of asides) {
        await record.write({ ...aside, reread: true });
        this.#know({ ...aside, reread: true });
      }
    }
  }

  async #forgetPassed(): Promise<void> {
    const { record, epoch, isHeld } = this.#options;
    for (const aside of [...this.#known.values()]) {
      const place = parsePosition(aside.position);
      // Of an epoch before nothing comes again, and a new one reads all tables.
      const isOver = place.epoch < epoch || (place.commitLsn < this.#confirmed && aside.sent && aside.reread);
      if (!isOver || isHeld(aside.topic, aside.position)) continue;
      await record.remove(aside);
      this.#forget(aside);
    }
  }
}

function keyOf(topic: string, position: PositionText): string {
  return `${position} ${topic}`;
}

function letterOf(pipeline: string, aside: Aside, change: HeldMessage, error: Error): AsideLetter {
  const { begin, lsn, relation } = change;
  const { topic, table, position, code, message, since } = aside;
  const column = columnOf(error);
  return {
    ...{ pipeline, topic, table },
    ...(column === undefined ? {} : { column }),
    ...{ position, lsn: formatLsn(lsn), xid: begin.xid, commitTime: begin.commitTime.toString() },
    putAsideAt: new Date(since).toISOString(),
    error: { code, message },
    relation,
  };
}

async function persistently(act: () => Promise<void>, signal: AbortSignal, log: Log): Promise<void> {
  for (let failures = 1; ; failures++) {
    signal.throwIfAborted();
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof TributaryError) || error.retry !== "retry") throw error;
      const { code, remedy } = error;
      log.warn(`a change cannot be put aside yet, and the stream waits: ${error.message}`, { code, remedy });
      await sleep(backoffMs(failures, RETRY), undefined, { signal });
    }
  }
}
