/** Progress of a mapping in one shard. */
export type ShardCheckpoint =
  /** Everything up to and including this sequence number is done. */
  | { readonly kind: "sequence"; readonly sequenceNumber: string }
  /** The shard is closed and everything in it is done: its children may start. */
  | { readonly kind: "finished" };

/** Keeps the checkpoints of one mapping (one stream and one function) beyond its runner. */
export interface CheckpointStore {
  load(): Promise<ReadonlyMap<string, ShardCheckpoint>>;
  save(shardId: string, checkpoint: ShardCheckpoint): Promise<void>;
}

/** Checkpoints that live as long as the process, like the emulated stream itself. */
export class MemoryCheckpoints implements CheckpointStore {
  readonly #checkpoints = new Map<string, ShardCheckpoint>();

  async load(): Promise<ReadonlyMap<string, ShardCheckpoint>> {
    return new Map(this.#checkpoints);
  }

  async save(shardId: string, checkpoint: ShardCheckpoint): Promise<void> {
    this.#checkpoints.set(shardId, checkpoint);
  }
}

/** Neighbouring records that are all done, or one that is not. */
interface Run {
  last: string;
  done: boolean;
  before: Run | undefined;
  after: Run | undefined;
}

/**
 * The completed prefix of a shard while its lanes finish records out of order. Neighbouring done records are kept as one, so
 * that memory grows with what is under way, not with what overtook it.
 */
export class CompletedPrefix {
  #first: Run | undefined;
  #last: Run | undefined;
  readonly #open = new Map<string, Run>();

  /** Adds records in shard order; `done` for those a filter dropped. */
  add(sequenceNumber: string, done: boolean): void {
    if (done && this.#last?.done) {
      this.#last.last = sequenceNumber;
      return;
    }
    const run: Run = { last: sequenceNumber, done, before: this.#last, after: undefined };
    if (this.#last) this.#last.after = run;
    else this.#first = run;
    this.#last = run;
    if (!done) this.#open.set(sequenceNumber, run);
  }

  /** Marks a record done. */
  complete(sequenceNumber: string): void {
    const run = this.#open.get(sequenceNumber);
    if (!run) return;
    this.#open.delete(sequenceNumber);
    run.done = true;
    if (run.after?.done) this.#swallow(run, run.after);
    if (run.before?.done) this.#swallow(run.before, run);
  }

  /** Takes the completed prefix off: its last sequence number, or undefined when the first record is not done. */
  take(): string | undefined {
    const first = this.#first;
    if (!first?.done) return undefined;
    this.#first = first.after;
    if (this.#first) this.#first.before = undefined;
    else this.#last = undefined;
    return first.last;
  }

  /** Runs held: at most twice the records under way, and one. */
  get size(): number {
    let size = 0;
    for (let run = this.#first; run; run = run.after) size++;
    return size;
  }

  /** True if everything added is done and taken. */
  get empty(): boolean {
    return this.#first === undefined;
  }

  #swallow(run: Run, next: Run): void {
    run.last = next.last;
    run.after = next.after;
    if (next.after) next.after.before = run;
    else this.#last = run;
  }
}
