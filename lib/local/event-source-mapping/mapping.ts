import { EventEmitter, setMaxListeners } from "node:events";
import { DescribeStreamSummaryCommand, ListShardsCommand, type Shard } from "@aws-sdk/client-kinesis";
import { backoffMs } from "../../backoff.ts";
import { type CheckpointStore, MemoryCheckpoints, type ShardCheckpoint } from "./checkpoint.ts";
import type { EventOrigin } from "./event.ts";
import type { MappingEvents, MappingStats } from "./events.ts";
import { compileFilters } from "./filter.ts";
import { childless, startableShards } from "./lineage.ts";
import { MappedStreamNotFoundError } from "./mapping-errors.ts";
import type { EventSourceMappingOptions, MappingSettings } from "./options.ts";
import { ShardConsumer } from "./shard.ts";
import { pause, withDeadline } from "./wait.ts";

/** A running event source mapping. */
export interface EventSourceMapping {
  readonly events: EventEmitter<MappingEvents>;
  stats(): MappingStats;
  /**
   * Reads no more, waits for the invocations under way and their checkpoints, at most `drainMs` (default 30 s); what has not
   * answered by then does not count and comes again. Idempotent.
   */
  stop(drainMs?: number): Promise<void>;
}

/** Returns true if the mapping has nothing to do with what the stream holds. */
export function isIdle(mapping: EventSourceMapping): boolean {
  const { read, filtered, completed, shards } = mapping.stats();
  return read === filtered + completed && shards.every((shard) => shard.millisBehindLatest === 0);
}

const CALL_DEADLINE_MS = 30_000;
const DRAIN_MS = 30_000;
/** Pause between two listings of the shards while a closed shard's children are not there yet. */
const CHILDREN_MS = 100;

/**
 * Runs an event source mapping from a Kinesis stream to a Lambda function as AWS runs it: order per shard (or per
 * partition key with several lanes), checkpoints, partial batch replies, filters, parents before children.
 * https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
 * @throws ConfigurationError naming what is wrong with a filter
 * @throws MappedStreamNotFoundError
 */
export async function runEventSourceMapping(options: EventSourceMappingOptions): Promise<EventSourceMapping> {
  const mapping = new Mapping(options, compileFilters(options.filters ?? []));
  try {
    await mapping.start();
  } catch (error) {
    await mapping.stop();
    throw error;
  }
  return mapping;
}

class Mapping implements EventSourceMapping {
  readonly events = new EventEmitter<MappingEvents>();
  readonly #options: EventSourceMappingOptions;
  readonly #settings: MappingSettings;
  readonly #matches: (data: Uint8Array) => boolean;
  readonly #checkpoints: CheckpointStore;
  readonly #stopping = new AbortController();
  readonly #abandoned = new AbortController();
  readonly #running = new Map<string, { consumer: ShardConsumer; done: Promise<void> }>();
  readonly #begun = new Set<string>();
  readonly #finished = new Set<string>();
  readonly #counters = {
    invocations: 0,
    failedInvocations: 0,
    read: 0,
    filtered: 0,
    completed: 0,
  };
  #stored: ReadonlyMap<string, ShardCheckpoint> = new Map();
  #origin: EventOrigin = { streamArn: "", roleArn: "" };
  #listing: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;
  #failure: Error | undefined;

  constructor(options: EventSourceMappingOptions, matches: (data: Uint8Array) => boolean) {
    const { batchSize = 100, maximumBatchingWindowSeconds = 0, parallelizationFactor = 1 } = options;
    this.#options = options;
    this.#settings = { batchSize, maximumBatchingWindowSeconds, parallelizationFactor };
    this.#matches = matches;
    this.#checkpoints = options.checkpoints ?? new MemoryCheckpoints();
    // Every lane of every shard waits with it.
    setMaxListeners(0, this.#stopping.signal, this.#abandoned.signal);
  }

  async start(): Promise<void> {
    const streamArn = await this.#streamArn();
    const account = streamArn.split(":")[4] ?? "";
    this.#origin = { streamArn, roleArn: `arn:aws:iam::${account}:role/${this.#options.functionHost.name}` };
    this.#stored = await this.#checkpoints.load();
    for (const [shardId, { kind }] of this.#stored) if (kind === "finished") this.#finished.add(shardId);
    this.#startShards(await this.#listShards());
  }

  stats(): MappingStats {
    const shards = [...this.#running.values()].map(({ consumer }) => consumer.stats);
    return { ...this.#counters, shards, failure: this.#failure };
  }

  stop(drainMs = DRAIN_MS): Promise<void> {
    this.#stopped ??= this.#drain(drainMs);
    return this.#stopped;
  }

  async #drain(drainMs: number): Promise<void> {
    this.#stopping.abort();
    const timer = setTimeout(() => this.#abandoned.abort(), drainMs);
    const listed = this.#listing.catch(() => {});
    const drained = listed.then(() => Promise.all([...this.#running.values()].map(({ done }) => done)));
    await Promise.race([drained, pause(drainMs + 1, this.#abandoned.signal)]);
    clearTimeout(timer);
    this.#abandoned.abort();
  }

  #startShards(shards: readonly Shard[]): void {
    for (const { ShardId = "" } of startableShards(shards, this.#begun, this.#finished)) {
      this.#begun.add(ShardId);
      const consumer = this.#consumer(ShardId);
      this.#running.set(ShardId, { consumer, done: this.#runShard(ShardId, consumer) });
      this.events.emit("shardStarted", { shardId: ShardId });
    }
  }

  async #runShard(shardId: string, consumer: ShardConsumer): Promise<void> {
    try {
      if (!(await consumer.run())) return;
      this.#finished.add(shardId);
      this.#running.delete(shardId);
      this.events.emit("shardFinished", { shardId });
      this.#listing = this.#listing.then(() => this.#startChildren());
      await this.#listing;
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Lists until every finished shard shows its children, and starts those whose parents are all finished. */
  async #startChildren(): Promise<void> {
    const { signal } = this.#stopping;
    for (let failures = 0; !signal.aborted; ) {
      try {
        const shards = await this.#listShards();
        this.#startShards(shards);
        if (childless(shards, this.#finished).length === 0) return;
        await pause(CHILDREN_MS, signal);
        failures = 0;
      } catch (error) {
        if (error instanceof MappedStreamNotFoundError) throw error;
        if (signal.aborted) return;
        this.#trouble("ListShards", error);
        await pause(backoffMs(++failures, { baseMs: 50, capMs: 5_000 }), signal);
      }
    }
  }

  #consumer(shardId: string): ShardConsumer {
    const { kinesis, streamName, functionHost } = this.#options;
    const { events } = this;
    const counters = this.#counters;
    const stored = this.#stored.get(shardId);
    return new ShardConsumer(
      {
        kinesis,
        streamName,
        shardId,
        functionHost,
        origin: this.#origin,
        settings: this.#settings,
        matches: this.#matches,
        checkpoints: this.#checkpoints,
        signal: this.#stopping.signal,
        abandoned: this.#abandoned.signal,
        openShards: () => this.#running.size,
        onTrouble: (call, error) => this.#trouble(call, error, shardId),
        onRead: (read, filtered) => {
          counters.read += read;
          counters.filtered += filtered;
        },
        onInvoked: (lane, invoked) => {
          counters.invocations++;
          if (invoked.error !== undefined) counters.failedInvocations++;
          events.emit("invoked", { shardId, lane, ...invoked });
        },
        onCompleted: (records) => {
          counters.completed += records;
        },
        onFatal: (error) => this.#fail(error),
        onCheckpoint: (sequenceNumber) => events.emit("checkpoint", { shardId, sequenceNumber }),
      },
      stored?.kind === "sequence" ? stored.sequenceNumber : undefined,
    );
  }

  #trouble(call: string, error: unknown, shardId?: string): void {
    const name = error instanceof Error ? error.name : typeof error;
    this.events.emit("troubled", { shardId, call, error: name });
  }

  #fail(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    this.#failure = error instanceof Error ? error : new Error(String(error));
    this.#stopping.abort();
    this.events.emit("failed", this.#failure);
  }

  async #streamArn(): Promise<string> {
    const { kinesis, streamName } = this.#options;
    const { signal } = this.#stopping;
    for (;;) {
      const command = new DescribeStreamSummaryCommand({ StreamName: streamName });
      const { StreamDescriptionSummary: summary } = await this.#call((abortSignal) =>
        kinesis.send(command, { abortSignal }),
      );
      if (summary?.StreamARN && summary.StreamStatus !== "CREATING") return summary.StreamARN;
      await pause(100, signal);
    }
  }

  async #listShards(): Promise<Shard[]> {
    const { kinesis, streamName } = this.#options;
    const shards: Shard[] = [];
    let token: string | undefined;
    do {
      const command = new ListShardsCommand(token ? { NextToken: token } : { StreamName: streamName });
      const page = await this.#call((abortSignal) => kinesis.send(command, { abortSignal }));
      shards.push(...(page.Shards ?? []));
      token = page.NextToken;
    } while (token);
    return shards;
  }

  async #call<T>(make: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await withDeadline(this.#stopping.signal, CALL_DEADLINE_MS, make);
    } catch (error) {
      if (error instanceof Error && error.name === "ResourceNotFoundException") {
        throw new MappedStreamNotFoundError(this.#options.streamName, error);
      }
      throw error;
    }
  }
}
