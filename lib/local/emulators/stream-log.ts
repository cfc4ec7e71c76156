import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Store, StoredRecord, StreamStore } from "kinesalite/db/index.js";
import * as z from "zod";
import { Journal } from "./journal.ts";

/** A segment is closed above this. */
const SEGMENT_BYTES = 16 * 1024 * 1024;

const FOR_EVER_HOURS = 1_000_000;

const streamMeta = z.looseObject({ RetentionPeriodHours: z.number() });
const recordFields = z.looseObject({ Data: z.string(), ApproximateArrivalTimestamp: z.number() });
const storedRecord = z.custom<StoredRecord>((value) => recordFields.safeParse(value).success);
/** A line: a stream as it is now (or no more), records that came, records that are gone. */
const entrySchema = z.union([
  z.object({ meta: z.string(), value: z.unknown() }),
  z.object({ stream: z.string(), put: z.array(z.tuple([z.string(), storedRecord])) }),
  z.object({ stream: z.string(), del: z.array(z.string()) }),
]);
type Entry = z.infer<typeof entrySchema>;

interface Segment {
  readonly path: string;
  /** Records in it that are still kept. */
  live: number;
}

/**
 * Keeps what an emulated Kinesis holds in a directory: what was answered is there again after `kill -9`. Written in segments,
 * and the oldest goes when no record of it is kept any more.
 */
export class StreamLog {
  readonly #directory: string;
  readonly #segments: Segment[] = [];
  readonly #metas = new Map<string, unknown>();
  /** The segment of each record, by stream and key. */
  readonly #places = new Map<string, Segment>();
  #store: Store | undefined;
  #journal: Journal | undefined;
  #bytes = 0;
  #replaying = false;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Writes down from now on what is written to the store. */
  follow(store: Store): void {
    this.#store = store;
    const { metaDb } = store;
    const [put, del] = [metaDb.put.bind(metaDb), metaDb.del.bind(metaDb)];
    metaDb.put = (key, value, done) => this.#write({ meta: key, value }, done, () => put(key, value, done));
    metaDb.del = (key, done) => this.#write({ meta: key, value: null }, done, () => del(key, done));
    const streamOf = store.getStreamDb;
    const followed = new WeakSet<StreamStore>();
    store.getStreamDb = (name) => {
      const stream = streamOf(name);
      if (!followed.has(stream)) this.#followStream(name, stream);
      followed.add(stream);
      return stream;
    };
  }

  /** Fills the store with what was written down before. */
  async replay(): Promise<void> {
    const store = this.#store as Store;
    const streams = new Map<string, Map<string, StoredRecord>>();
    for (const name of readdirSync(this.#directory)
      .filter((file) => file.endsWith(".jsonl"))
      .sort()) {
      const segment = { path: join(this.#directory, name), live: 0 };
      this.#segments.push(segment);
      const { journal, entries } = Journal.open(segment.path, entrySchema);
      journal.close();
      for (const entry of entries) {
        this.#note(entry, segment);
        if ("put" in entry) {
          const records = streams.get(entry.stream) ?? new Map<string, StoredRecord>();
          for (const [key, record] of entry.put) records.set(key, record);
          streams.set(entry.stream, records);
        } else if ("del" in entry) for (const key of entry.del) streams.get(entry.stream)?.delete(key);
      }
    }
    this.#nextSegment();
    this.#replaying = true;
    for (const [key, value] of this.#metas)
      await settled((done) => store.metaDb.put(key, lasting(value), done));
    for (const [name, records] of streams) {
      const puts = [...records].map(([key, value]) => ({ type: "put", key, value }) as const);
      if (puts.length > 0) await settled((done) => store.getStreamDb(name).batch(puts, {}, done));
    }
    this.#replaying = false;
  }

  #followStream(name: string, stream: StreamStore): void {
    const [batch, put] = [stream.batch.bind(stream), stream.put.bind(stream)];
    stream.batch = (operations, ...rest) => {
      const done = rest.at(-1) as (error?: Error) => void;
      const puts = operations.flatMap((one) =>
        one.type === "put" ? [[one.key, one.value] as [string, StoredRecord]] : [],
      );
      const dels = operations.flatMap((one) => (one.type === "del" ? [one.key] : []));
      const write = () => batch(operations, {}, done);
      if (puts.length > 0) this.#write({ stream: name, put: puts }, done, write);
      else this.#write({ stream: name, del: dels }, done, write);
    };
    stream.put = (key, value, done) =>
      this.#write({ stream: name, put: [[key, value]] }, done, () => put(key, value, done));
  }

  /** The line first: what is answered is in the file. */
  #write(entry: Entry, done: (error?: Error) => void, then: () => void): void {
    try {
      // What the store has too much of goes while it is filled: that stands nowhere yet.
      if (!this.#replaying || "del" in entry) this.#append(entry);
    } catch (error) {
      done(error as Error);
      return;
    }
    then();
  }

  #append(entry: Entry): void {
    if (this.#bytes > SEGMENT_BYTES) this.#nextSegment();
    this.#bytes += this.#journal?.append(entry) ?? 0;
    this.#note(entry, this.#segments.at(-1) as Segment);
  }

  /** Streams stand at the beginning of each segment, since the one before may go. */
  #nextSegment(): void {
    const number = Number(/(\d+)\.jsonl$/.exec(this.#segments.at(-1)?.path ?? "")?.[1] ?? 0) + 1;
    const path = join(this.#directory, `${String(number).padStart(8, "0")}.jsonl`);
    const { journal } = Journal.open(path, entrySchema);
    try {
      for (const [meta, value] of this.#metas) journal.append({ meta, value });
    } catch (error) {
      // The disk is full: the next one tries again, and the one before is still open.
      journal.close();
      throw error;
    }
    this.#journal?.close();
    this.#journal = journal;
    this.#segments.push({ path, live: 0 });
    this.#bytes = 0;
    this.#removeEmpty();
  }

  #note(entry: Entry, segment: Segment): void {
    if ("meta" in entry) {
      if (entry.value === null) this.#metas.delete(entry.meta);
      else this.#metas.set(entry.meta, entry.value);
      return;
    }
    if ("put" in entry) {
      for (const [key] of entry.put) this.#places.set(`${entry.stream}/${key}`, segment);
      segment.live += entry.put.length;
      return;
    }
    for (const key of entry.del) {
      const place = this.#places.get(`${entry.stream}/${key}`);
      if (place) place.live--;
      this.#places.delete(`${entry.stream}/${key}`);
    }
    this.#removeEmpty();
  }

  #removeEmpty(): void {
    if (!this.#journal) return;
    while (this.#segments.length > 1 && this.#segments[0]?.live === 0)
      rmSync(this.#segments.shift()?.path ?? "", { force: true });
  }
}

/**
 * A stream whose records do not go with time: while nothing ran nobody could read them, and the database does not have them any
 * more. Their bytes have a bound.
 */
function lasting(value: unknown): unknown {
  const { success, data } = streamMeta.safeParse(value);
  return success ? { ...data, RetentionPeriodHours: FOR_EVER_HOURS } : value;
}

function settled(call: (done: (error?: Error) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => call((error) => (error ? reject(error) : resolve())));
}
