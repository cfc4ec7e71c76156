import { REACH_AWS } from "../aws/failure.ts";
import {
  type ChangeStream,
  FINISH_TRANSACTION_MS,
  type SourceMessage,
  type SourcePlace,
} from "../change/change-stream.ts";
import { EncodedChange } from "../change/encoded-change.ts";
import { failpoint } from "../failpoint.ts";
import type { Oversize } from "./claim-check.ts";
import { RUN_LIMITS, type StreamLimits } from "./limits.ts";
import type { StreamMetrics } from "./metrics.ts";
import { OrderedWriter } from "./ordered-writer.ts";
import type { Packing } from "./packing.ts";
import type { PutRequest, RecordWriter } from "./record-writer.ts";
import { type ShardBeatOptions, ShardBeats } from "./shard-beats.ts";
import { OversizeChangeError } from "./stream-errors.ts";
import type { StreamLog } from "./stream-log.ts";

/** Dependencies of `writeStream`. */
export interface StreamWriterOptions<Place extends SourcePlace = bigint> {
  /** Generation of this writer (the capture lease), carried by every record (rule 8). */
  readonly writer: number;
  readonly packing: Packing;
  /** Default: the stream's own, and `RUN_LIMITS`. */
  readonly limits?: Partial<StreamLimits>;
  /** Gives what is written in the place of a change above the record limit. Default: the error stops the writer. */
  readonly oversize?: Oversize | undefined;
  /** Ends the run at once with its reason as the error, storing nothing more: another writer has taken over. */
  readonly superseded?: AbortSignal | undefined;
  /**
   * For how long no other writer can have taken over, in milliseconds; 0: one may have. Nothing is sent then, and no request is
   * waited for beyond it. Default: for ever.
   */
  readonly leaseLeftMs?: (() => number) | undefined;
  /** Writes a beat into each shard, before the first change and then every hour. Default: none. */
  readonly beats?: ShardBeatOptions | undefined;
  /** Called about every second, and once at the end. */
  readonly onMetrics?: (metrics: StreamMetrics<Place>) => void;
  readonly log: StreamLog;
}

/**
 * Writes what a source gives to a stream, in order per partition, and acknowledges to the source what
 * the stream has acknowledged. What may pass (throttling, failures of the service or the network, credentials that run
 * out) is retried for ever, with backoff; nothing is dropped.
 *
 * Resolves when all that was read is stored: after the source ended, or after `signal`, which also tells the source to
 * end: a transaction that it has begun is taken to its end. Then at the latest after `limits.drainMs`; what is left
 * comes again at the next start. Does not close the source: its `close`
 * confirms the last acknowledgements.
 *
 * @throws OversizeChangeError, PartitionKeyTooLongError, what `stream.put` throws, and what the source throws (once what it
 * gave before is stored).
 */
export async function writeStream<Place extends SourcePlace>(
  source: ChangeStream<Place>,
  stream: RecordWriter,
  options: StreamWriterOptions<Place>,
  signal: AbortSignal,
): Promise<void> {
  await new Run(source, stream, options).finished(signal);
}

const METRICS_MS = 1_000;
const FAILURE_LOG_MS = 10_000;
/** A stream that has done nothing for so long since the start is said to be waited for. */
const UNANSWERED_MS = 10_000;
/** Interval at which a writer that may not send looks whether it may again. */
const LEASE_POLL_MS = 100;

/** One run of the machine against the source and the stream. */
class Run<Place extends SourcePlace> {
  readonly #source: ChangeStream<Place>;
  readonly #stream: RecordWriter;
  readonly #options: StreamWriterOptions<Place>;
  readonly #limits: StreamLimits;
  readonly #machine: OrderedWriter<Place>;
  readonly #end = Promise.withResolvers<void>();
  readonly #requests = new Set<AbortController>();
  /** Ends what waits for the place of a change that is too large. */
  readonly #oversize = new AbortController();
  #acknowledged: Place | undefined;
  #oversizeChanges = 0;
  /** Told to stop: no further transaction is begun. */
  #stopping = false;
  /** Changes were taken whose commit has not come. */
  #inTransaction = false;
  /** Set once nothing more is pulled: `error` is what to throw when all is stored. */
  #draining: { readonly error: unknown } | undefined;
  #ended = false;
  #hasRoom: (() => void) | undefined;
  readonly #beats: ShardBeats | undefined;
  /** Ends what asks for the stream's shards. */
  readonly #listing = new AbortController();
  /** Called once nothing is buffered. */
  #isEmpty: (() => void) | undefined;
  #beatTimer: NodeJS.Timeout | undefined;
  #wakeTimer: NodeJS.Timeout | undefined;
  #drainTimer: NodeJS.Timeout | undefined;
  #patience: NodeJS.Timeout | undefined;
  #failureLoggedAt = Number.NEGATIVE_INFINITY;
  /** When the stream was asked first; undefined once it has listed its shards and taken their beats. */
  #askedAt: number | undefined;

  constructor(source: ChangeStream<Place>, stream: RecordWriter, options: StreamWriterOptions<Place>) {
    this.#source = source;
    this.#stream = stream;
    this.#options = options;
    this.#limits = { ...RUN_LIMITS, ...stream.limits, ...options.limits };
    const { writer, packing } = options;
    this.#machine = new OrderedWriter({ writer, packing, limits: this.#limits, random: Math.random });
    const { beats, log } = options;
    const about = { writer, packed: packing !== "none" };
    this.#beats = beats && new ShardBeats(stream, { ...beats, ...about }, log);
  }

  async finished(signal: AbortSignal): Promise<void> {
    const metricsTimer = setInterval(() => {
      this.#logSilence(performance.now());
      this.#reportMetrics();
    }, METRICS_MS);
    const stop = () => this.#stop();
    const { superseded } = this.#options;
    const abandon = () => this.#finish(superseded?.reason);
    superseded?.addEventListener("abort", abandon, { once: true });
    signal.addEventListener("abort", stop, { once: true });
    if (superseded?.aborted) abandon();
    else if (signal.aborted) stop();
    else {
      this.#changes().then(
        () => this.#drain(undefined),
        (error) => {
          this.#endInTime();
          this.#drain(error ?? new Error("the source failed"));
        },
      );
    }
    try {
      await this.#end.promise;
    } finally {
      this.#ended = true;
      signal.removeEventListener("abort", stop);
      superseded?.removeEventListener("abort", abandon);
      clearInterval(metricsTimer);
      clearTimeout(this.#wakeTimer);
      clearTimeout(this.#drainTimer);
      clearTimeout(this.#patience);
      clearTimeout(this.#beatTimer);
      this.#listing.abort();
      this.#hasRoom?.();
      this.#isEmpty?.();
      for (const request of this.#requests) request.abort();
      this.#reportMetrics();
    }
  }

  /** The first beats stand before all changes: what a consumer is to know of the time before them comes first. */
  async #changes(): Promise<void> {
    if (this.#beats) this.#askedAt = performance.now();
    await this.#beat();
    while (this.#machine.bufferedBytes > 0 && !this.#stopped) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#isEmpty = resolve;
      await promise;
    }
    this.#isEmpty = undefined;
    await this.#pull();
  }

  /** Writes a beat into each shard, and sees to the next ones. */
  async #beat(): Promise<void> {
    if (!this.#beats) return;
    const patience = AbortSignal.timeout(this.#limits.requestTimeoutMs);
    const until = AbortSignal.any([this.#listing.signal, patience]);
    const { records, nextMs, isAnswered } = await this.#beats.round(until);
    if (this.#stopped) return;
    if (isAnswered && records.length === 0) this.#askedAt = undefined;
    for (const record of records) this.#machine.offerBeat(record);
    this.#beatTimer = setTimeout(() => void this.#beat(), nextMs);
    this.#pump();
  }

  async #pull(): Promise<void> {
    const iterator = this.#source.changes[Symbol.asyncIterator]();
    for (;;) {
      while (this.#machine.bufferedBytes > this.#limits.bufferBytes && !this.#stopped) await this.#room();
      if (this.#stopped) return;
      const next = await iterator.next();
      // What came after the stop is not taken: it is not acknowledged, so it comes again.
      if (next.done || this.#stopped) return;
      await this.#offer(next.value);
      this.#pump();
      if (this.#stopping && !this.#inTransaction) return;
    }
  }

  get #stopped(): boolean {
    return this.#ended || this.#draining !== undefined;
  }

  async #offer(messages: readonly SourceMessage<Place>[]): Promise<void> {
    const last = messages.at(-1);
    if (!last) return;
    this.#inTransaction = true;
    const now = performance.now();
    for (const message of messages) {
      try {
        this.#machine.offer(message, now);
        if (message.kind === "change") {
          if (message instanceof EncodedChange) message.release();
          failpoint("inside-transaction");
        }
      } catch (error) {
        const { oversize } = this.#options;
        if (!(error instanceof OversizeChangeError) || message.kind !== "change" || !oversize) throw error;
        this.#pump();
        const instead = await oversize(message, error, this.#oversize.signal);
        if (this.#stopped) return;
        this.#machine.offer(instead, now);
        this.#oversizeChanges++;
      }
    }
    this.#inTransaction = last.kind === "change";
  }

  /** Sends what may go, acknowledges what is stored, and sees to being called again in time. */
  #pump(): void {
    if (this.#ended) return;
    try {
      this.#advance(performance.now());
    } catch (error) {
      this.#finish(error);
    }
  }

  #advance(now: number): void {
    const mayWrite = this.#mayWrite(now);
    while (mayWrite) {
      const request = this.#machine.take(now);
      if (request === undefined) break;
      void this.#send(request);
    }
    const acknowledged = this.#machine.acknowledged?.place;
    if (acknowledged !== undefined && acknowledged !== this.#acknowledged) {
      this.#acknowledged = acknowledged;
      this.#source.acknowledge(acknowledged);
    }
    const { bufferedBytes, wakeAt } = this.#machine;
    if (bufferedBytes <= this.#limits.bufferBytes / 2) this.#hasRoom?.();
    if (bufferedBytes === 0) this.#isEmpty?.();
    if (bufferedBytes === 0 && this.#draining) this.#finish(this.#draining.error);
    clearTimeout(this.#wakeTimer);
    if (this.#ended) return;
    if (!mayWrite) this.#wakeTimer = setTimeout(() => this.#pump(), LEASE_POLL_MS);
    else if (wakeAt !== undefined)
      this.#wakeTimer = setTimeout(() => this.#pump(), Math.max(1, wakeAt - now));
  }

  async #send(request: PutRequest): Promise<void> {
    const abort = new AbortController();
    const end = performance.now() + this.#limits.requestTimeoutMs;
    let timer: NodeJS.Timeout | undefined;
    // The lease is renewed meanwhile, as a rule.
    const wait = () => {
      const leftMs = Math.min(end - performance.now(), this.#leaseLeftMs);
      if (leftMs <= 0) abort.abort();
      else timer = setTimeout(wait, leftMs);
    };
    wait();
    this.#requests.add(abort);
    try {
      const outcome = await this.#stream.put(request, abort.signal, () => this.#leaseLeftMs > 0);
      const now = performance.now();
      if (outcome.kind === "answered" && outcome.results.includes("stored")) this.#askedAt = undefined;
      if (outcome.kind === "answered") this.#machine.settle(request, outcome.results, now);
      else this.#machine.fail(request, now, outcome.result);
      if (outcome.code !== undefined) this.#logFailure(outcome.code, now);
    } catch (error) {
      this.#finish(error);
    } finally {
      clearTimeout(timer);
      this.#requests.delete(abort);
    }
    this.#pump();
  }

  get #leaseLeftMs(): number {
    return this.#options.leaseLeftMs?.() ?? Number.POSITIVE_INFINITY;
  }

  #mayWrite(now: number): boolean {
    if (this.#leaseLeftMs > 0) return true;
    if (now - this.#failureLoggedAt >= FAILURE_LOG_MS) {
      this.#failureLoggedAt = now;
      const { bufferedBytes } = this.#machine;
      this.#options.log.warn(
        "The capture lease could not be renewed in time: nothing is written until it is",
        {
          bufferedBytes,
          waitsFor: "lease",
        },
      );
    }
    return false;
  }

  /** Waits until half of the buffer is free, or the run stops. */
  async #room(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#hasRoom = resolve;
    await promise;
    this.#hasRoom = undefined;
  }

  #stop(): void {
    this.#stopping = true;
    this.#endInTime();
    if (!this.#inTransaction) this.#drain(undefined);
    else this.#patience = setTimeout(() => this.#drain(undefined), FINISH_TRANSACTION_MS);
  }

  /** Pulls no more; finishes when all is stored. */
  #drain(error: unknown): void {
    if (this.#ended) return;
    this.#draining ??= { error };
    this.#hasRoom?.();
    this.#isEmpty?.();
    this.#pump();
  }

  /** Finishes at the deadline, whatever is not stored by then. */
  #endInTime(): void {
    if (this.#ended) return;
    this.#drainTimer ??= setTimeout(() => {
      const { bufferedBytes } = this.#machine;
      this.#options.log.warn("Stopped before everything read was stored: it comes again", { bufferedBytes });
      this.#finish(this.#draining?.error);
    }, this.#limits.drainMs);
  }

  #finish(error: unknown): void {
    this.#ended = true;
    this.#oversize.abort();
    if (error === undefined) this.#end.resolve();
    else this.#end.reject(error);
  }

  #reportMetrics(): void {
    const oversize = this.#oversizeChanges;
    const now = performance.now();
    const unansweredMs = this.#unansweredMs(now);
    this.#options.onMetrics?.({ ...this.#machine.metrics(now), unansweredMs, oversize });
  }

  #unansweredMs(now: number): number {
    return this.#askedAt === undefined ? 0 : now - this.#askedAt;
  }

  /** Before the first record no refusal may come for as long as a request is waited for, or, with nothing to write, at all. */
  #logSilence(now: number): void {
    const unansweredMs = Math.round(this.#unansweredMs(now));
    if (unansweredMs < UNANSWERED_MS || now - this.#failureLoggedAt < FAILURE_LOG_MS) return;
    this.#failureLoggedAt = now;
    this.#options.log.warn("The stream has not answered since this task began to write; retrying", {
      waitsFor: "stream",
      unansweredMs,
      remedy: REACH_AWS,
    });
  }

  #logFailure(code: string, now: number): void {
    if (now - this.#failureLoggedAt < FAILURE_LOG_MS) return;
    this.#failureLoggedAt = now;
    const { retries, throttles, bufferedBytes, oldestUnacknowledgedMs } = this.#machine.metrics(now);
    this.#options.log.warn("The stream did not take all records; retrying", {
      code,
      waitsFor: "stream",
      retries,
      throttles,
      bufferedBytes,
      oldestUnacknowledgedMs,
    });
  }
}
