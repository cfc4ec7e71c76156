import type {
  ChangeStream,
  SourceChange,
  SourceMessage,
  SourcePlace,
} from "../../lib/change/change-stream.ts";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import { definePipeline, type Pipeline, type PipelineInput } from "../../lib/definition/pipeline.ts";
import { openSource } from "../../lib/source/index.ts";
import type { KeyPart, KeyRecord } from "../../lib/source/known-keys.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import type { NewEpoch } from "../../lib/source/postgres/slot/slot-record.ts";
import type { ReadingRecord, ReadingState } from "../../lib/source/reading-record.ts";
import type { SourceOptions } from "../../lib/source/source-kind.ts";
import { eventually } from "../eventually.ts";
import { KeptLog, MemoryRecord } from "./source.ts";

/** A record of a source of tables in memory. */
export class MemoryReading implements ReadingRecord {
  state: ReadingState | undefined;
  readonly writes: ReadingState[] = [];
  epoch: NewEpoch | undefined;
  /** Parts of known keys, by number. */
  readonly parts = new Map<number, KeyPart>();
  readonly keys: KeyRecord = {
    read: () => this.#readParts(),
    write: async (part) => {
      if (part.keys.length === 0) this.parts.delete(part.id);
      else this.parts.set(part.id, JSON.parse(JSON.stringify(part)));
    },
  };

  constructor(state?: ReadingState) {
    this.state = state;
  }

  async *#readParts(): AsyncGenerator<readonly KeyPart[]> {
    yield [...this.parts.values()];
  }

  async read(): Promise<ReadingState | undefined> {
    return this.state;
  }

  async newEpoch(): Promise<NewEpoch | undefined> {
    return this.epoch;
  }

  async write(state: ReadingState): Promise<void> {
    // As the state table does: through JSON.
    this.state = { ...state, place: JSON.parse(JSON.stringify(state.place)) };
    this.writes.push(this.state);
  }
}

/** A definition of any kind of source. */
export function definitionOf(
  source: PipelineInput["source"],
  more: Partial<Omit<PipelineInput, "name" | "source">> = {},
): Pipeline {
  return definePipeline({ name: "shop", source, ...more });
}

/** An open source of tables, read in the background; as a task would do it, but for the stream. */
export class TablesReading {
  readonly messages: SourceMessage<SourcePlace>[] = [];
  readonly log = new KeptLog();
  readonly record: MemoryReading;
  /** Acknowledges what was read as it is read. */
  acknowledging: boolean;
  error: unknown;
  readonly #stop = new AbortController();
  #stream: ChangeStream<SourcePlace> | undefined;
  #reading: Promise<void> = Promise.resolve();

  static async open(
    url: string,
    pipeline: Pipeline,
    {
      record = new MemoryReading(),
      acknowledging = true,
      open = openSource,
    }: {
      record?: MemoryReading;
      acknowledging?: boolean;
      open?: (options: SourceOptions) => Promise<ChangeStream<SourcePlace>>;
    } = {},
  ): Promise<TablesReading> {
    const reading = new TablesReading(record, acknowledging);
    reading.#stream = await open({
      connection: connectionFromUrl(url),
      pipeline,
      record: Object.assign(new MemoryRecord(), { reading: record }),
      signal: reading.#stop.signal,
      log: reading.log,
    });
    reading.#reading = reading.#read(reading.#stream);
    return reading;
  }

  private constructor(record: MemoryReading, acknowledging: boolean) {
    this.record = record;
    this.acknowledging = acknowledging;
  }

  get changes(): SourceChange[] {
    return this.messages.filter((message) => message.kind === "change");
  }

  get events(): ChangeEventJson[] {
    return this.changes.map((change) => JSON.parse(`${change.json},"after":null}}`));
  }

  /** Waits for this many changes in all, and gives them all. */
  async until(changes: number): Promise<ChangeEventJson[]> {
    await eventually(
      () => {
        if (this.error) throw this.error;
        return this.changes.length >= changes;
      },
      { what: () => `${changes} changes, of ${this.changes.length}`, deadlineMs: 20_000 },
    );
    return this.events;
  }

  /** Waits until nothing is under way: all was acknowledged, and the record says so. */
  async settled(): Promise<void> {
    await eventually(
      () => {
        if (this.error) throw this.error;
        const place = this.record.state?.place as { batch?: unknown } | undefined;
        return place !== undefined && place.batch === undefined;
      },
      { what: "the last batch's end in the record", deadlineMs: 20_000 },
    );
  }

  /** Ends as a task does: signal, then close. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#reading;
    await this.#stream?.close();
  }

  async #read(stream: ChangeStream<SourcePlace>): Promise<void> {
    try {
      for await (const batch of stream.changes) {
        for (const message of batch) {
          this.messages.push(message);
          if (this.acknowledging && message.kind === "commit") stream.acknowledge(message.endPlace);
        }
      }
    } catch (error) {
      this.error = error;
    }
  }
}

/** What an event says but for the place where it was kept and when. */
export function told(event: ChangeEventJson): unknown {
  const { op, before, after, source } = event;
  const { schema, table, key, keyChange, schemaVersion } = source as unknown as Record<string, unknown>;
  return { op, before, after, schema, table, key, keyChange, schemaVersion };
}
