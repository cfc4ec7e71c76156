import pg from "pg";
import type { SourceChange, SourceMessage } from "../../lib/change/change-stream.ts";
import { parsePosition } from "../../lib/change/position.ts";
import {
  definePipeline,
  type LogPipeline,
  type PipelineInput,
  postgres,
} from "../../lib/definition/pipeline.ts";
import type { Log } from "../../lib/log.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import {
  openPostgresSource,
  type PostgresSource,
  type PostgresSourceOptions,
  type SourceStatus,
} from "../../lib/source/postgres/postgres-source.ts";
import type { NewEpoch, SlotRecord, SlotState } from "../../lib/source/postgres/slot/slot-record.ts";
import { eventually } from "../eventually.ts";

/** A slot record in memory, which notes each write. */
export class MemoryRecord implements SlotRecord {
  state: SlotState | undefined;
  epoch: NewEpoch | undefined;
  readonly writes: bigint[] = [];
  /** Fails the next writes when set. */
  failure: Error | undefined;

  constructor(state?: SlotState) {
    this.state = state;
  }

  async read(): Promise<SlotState | undefined> {
    return this.state;
  }

  async newEpoch(): Promise<NewEpoch | undefined> {
    return this.epoch;
  }

  async write(state: SlotState): Promise<void> {
    if (this.failure) throw this.failure;
    this.state = state;
    this.writes.push(state.confirmedLsn);
  }

  async confirm(): Promise<void> {
    if (this.failure) throw this.failure;
  }
}

/** Log lines of a source, kept. */
export class KeptLog implements Log {
  readonly lines: string[] = [];
  info = (message: string) => void this.lines.push(message);
  warn = (message: string) => void this.lines.push(message);
  error = (message: string) => void this.lines.push(message);
}

/** A definition whose slot is its own, so that the databases of one server do not share slots. */
export function definition(
  url: string,
  source: Partial<Parameters<typeof postgres>[0]> = {},
  more: Partial<Omit<PipelineInput, "name" | "source">> = {},
): LogPipeline {
  const slot = new URL(url).pathname.slice(1).replace(/\W/g, "_");
  return definePipeline({
    name: "shop",
    source: postgres({ tables: ["public.*"], acceptUnboundedWal: true, slot, ...source }),
    ...more,
  });
}

/** An open source, read in the background as long as `reading`. */
export class OpenSource {
  readonly source: PostgresSource;
  readonly log: KeptLog;
  readonly messages: SourceMessage[] = [];
  status: SourceStatus | undefined;
  /** Acknowledges what was read as it is read. */
  acknowledging: boolean;
  error: unknown;
  readonly #stop: AbortController;
  #gate: Promise<void> | undefined;
  #open = () => {};
  #reading: Promise<void> = Promise.resolve();

  static async open(
    url: string,
    options: Partial<PostgresSourceOptions> & { acknowledging?: boolean; blocked?: boolean } = {},
  ): Promise<OpenSource> {
    const stop = new AbortController();
    const log = new KeptLog();
    let opened: OpenSource | undefined;
    const source = await openPostgresSource({
      connection: connectionFromUrl(url),
      pipeline: definition(url),
      record: new MemoryRecord(),
      signal: stop.signal,
      log,
      onStatus: (status) => {
        if (opened) opened.status = status;
      },
      ...options,
    });
    opened = new OpenSource(source, log, stop, options.acknowledging ?? true);
    if (options.blocked) opened.block();
    opened.#reading = opened.#read();
    return opened;
  }

  private constructor(source: PostgresSource, log: KeptLog, stop: AbortController, acknowledging: boolean) {
    this.source = source;
    this.log = log;
    this.#stop = stop;
    this.acknowledging = acknowledging;
  }

  get changes(): SourceChange[] {
    return this.messages.filter((message) => message.kind === "change");
  }

  /** Stops pulling: back-pressure. */
  block(): void {
    this.#gate ??= new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  unblock(): void {
    this.#gate = undefined;
    this.#open();
  }

  async #read(): Promise<void> {
    try {
      await this.#gate;
      for await (const batch of this.source.changes) {
        for (const message of batch) {
          this.messages.push(message);
          if (this.acknowledging && message.kind === "commit") this.source.acknowledge(message.endPlace);
          if (this.acknowledging && message.kind === "idle") this.source.acknowledge(message.place);
          if (this.acknowledging && message.kind === "receipt") message.stored();
        }
        await this.#gate;
      }
    } catch (error) {
      this.error = error;
    }
  }

  /** Waits for this many changes in all. */
  async until(changes: number, deadlineMs = 60_000): Promise<void> {
    await eventually(
      () => {
        if (this.error) throw this.error;
        return this.changes.length >= changes;
      },
      { what: `${changes} changes`, deadlineMs },
    );
  }

  /** Waits for the error that ends the stream. */
  async failure(): Promise<unknown> {
    await this.#reading;
    return this.error;
  }

  /** Ends as a task does: signal, then close. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.unblock();
    await this.#reading;
    await this.source.close();
  }
}

/** The ids of the rows that inserts brought, in order. */
export function ids(changes: readonly SourceChange[]): number[] {
  return changes.map((change) => JSON.parse(`${change.json}}}`).after.id as number);
}

/** Throws unless positions grow strictly. */
export function inOrder(changes: readonly SourceChange[]): void {
  for (let i = 1; i < changes.length; i++) {
    const [a, b] = [changes[i - 1], changes[i]] as [SourceChange, SourceChange];
    parsePosition(b.position);
    if (a.position >= b.position) throw new Error(`${b.position} follows ${a.position}`);
  }
}

/** A session of the superuser, closed by the caller. */
export async function superuser(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  return client;
}
