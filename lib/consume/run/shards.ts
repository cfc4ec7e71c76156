import { SHARD_BEAT_MS, type ShardBeat } from "../../change/shard-beat.ts";
import { type PlainValues, updateIf } from "../../state/item-update.ts";
import { type StateKey, shardKey } from "../../state/state-key.ts";
import type { ConsumerTable } from "../fence/consumer-table.ts";

/*
 * Rule 35. What stands in a partition behind a writer's start follows nothing (`after: null`), so a record before it that
 * expired unread leaves no hole. But records expire by shard, in their order: a shard whose last finished record arrived
 * longer ago than the stream keeps records, less a margin, may have lost what came behind it. That is noted in the shard's item before
 * anything newer counts as finished, and stands there for every partition of the shard until that partition has been seen whole.
 */

/** One read and one write of a shard's item in this time, at most, for each instance. */
const EVERY_MS = 60_000;
/** Longer than the time between two beats: what was finished before a quiet time arrived at most so long before it. */
const BEAT_SLACK_MS = SHARD_BEAT_MS + 15 * 60_000;

/** The state of a shard at one consumer. */
interface ShardState {
  /** Arrival of the last record that was finished, in milliseconds since 1970 UTC. */
  readonly arrived: number;
  /** A beat was seen in it: without any, an idle shard would look like one that was not read. */
  readonly beats: boolean;
  /** Records that arrived between these two may have expired unread. */
  readonly lost: { readonly from: number; readonly until: number } | undefined;
}

interface Known {
  readonly state: ShardState | undefined;
  readonly readAt: number;
  writtenAt: number;
}

/** The parts of `Shards`. */
export interface ShardsOptions {
  readonly table: ConsumerTable;
  /** Retention of the stream. Undefined: not known, and nothing is detected. */
  readonly retentionMs: number | undefined;
  /** The shards that a shard came from, or none. */
  readonly parentsOf: (shardId: string, streamArn: string, signal: AbortSignal) => Promise<readonly string[]>;
}

/** Knows how far a consumer has finished each shard, and in which of them records may have expired unread. */
export class Shards {
  readonly #options: ShardsOptions;
  readonly #marginMs: number;
  readonly #known = new Map<string, Known>();
  readonly #failures = new Map<string, unknown>();

  constructor(options: ShardsOptions) {
    this.#options = options;
    this.#marginMs = Math.min(3_600_000, (options.retentionMs ?? 0) / 8);
  }

  /**
   * Until when records of a shard that arrived may have expired unread; undefined: none; `unknown`: the shard was not entered.
   * @throws what `enter` met.
   */
  lostUntil(shardId: string): number | undefined | "unknown" {
    if (this.#options.retentionMs === undefined) return undefined;
    if (this.#failures.has(shardId)) throw this.#failures.get(shardId);
    const known = this.#known.get(shardId);
    return known ? known.state?.lost?.until : "unknown";
  }

  /** Returns whether a record was read before those expired that arrived up to `until`: it says nothing of them. */
  isOlder({ arrivedMs }: { readonly arrivedMs?: number | undefined }, until: number): boolean {
    return arrivedMs !== undefined && arrivedMs < until - this.#marginMs;
  }

  /** Looks at a shard before anything of a batch takes effect; `beats` are those in the batch. Never throws: see `lostUntil`. */
  async enter(
    shardId: string,
    streamArn: string,
    beats: readonly ShardBeat[],
    signal: AbortSignal,
  ): Promise<void> {
    if (this.#options.retentionMs === undefined) return;
    const known = this.#known.get(shardId);
    // By the clock on the wall: a function that is frozen has another one that stands still.
    const age = known ? Date.now() - known.readAt : EVERY_MS;
    const isFresh = age >= 0 && age < EVERY_MS;
    if (isFresh && !beats.some(({ quietSince }) => quietSince !== undefined)) return;
    try {
      const state = await this.#read(shardId, streamArn, signal);
      const noted = state && (await this.#noteLost(shardId, state, beats, signal));
      const writtenAt = known?.writtenAt ?? Number.NEGATIVE_INFINITY;
      this.#known.set(shardId, { state: noted, readAt: Date.now(), writtenAt });
      this.#failures.delete(shardId);
    } catch (error) {
      this.#known.delete(shardId);
      this.#failures.set(shardId, error);
    }
  }

  /** A record is finished, and all before it: it arrived then. Written once in a while; failing is no harm. */
  async finished(shardId: string, arrivedMs: number, sawBeat: boolean, signal: AbortSignal): Promise<void> {
    const known = this.#known.get(shardId);
    if (!known) return;
    const isDue = Math.abs(Date.now() - known.writtenAt) >= EVERY_MS;
    const isFirstBeat = sawBeat && !known.state?.beats;
    if (!isDue && !isFirstBeat) return;
    known.writtenAt = Date.now();
    const set = `SET arrived=:arrived${sawBeat ? ",beats=:true" : ""}`;
    await this.#update(shardId, set, signal, "attribute_not_exists(arrived) OR arrived<:arrived", {
      arrived: arrivedMs,
      true: sawBeat || undefined,
    });
  }

  /** Notes what may have expired, or that nothing has: nobody wrote meanwhile. */
  async #noteLost(
    shardId: string,
    state: ShardState,
    beats: readonly ShardBeat[],
    signal: AbortSignal,
  ): Promise<ShardState> {
    const { arrived, lost } = state;
    const wasQuiet = (last: number) =>
      beats.some(({ quietSince }) => quietSince !== undefined && last >= quietSince - BEAT_SLACK_MS);
    if (lost && wasQuiet(lost.from)) {
      const condition = "lostUntil=:until";
      await this.#update(shardId, "REMOVE lostFrom,lostUntil", signal, condition, { until: lost.until });
      return { ...state, lost: undefined };
    }
    const until = Date.now() - (this.#options.retentionMs as number) + this.#marginMs;
    if (!state.beats || arrived >= until || wasQuiet(arrived)) return state;
    // Noted already, by an invocation beside this one.
    if (lost && lost.until >= until - this.#marginMs / 2) return state;
    const condition = "attribute_not_exists(lostUntil) OR lostUntil<:until";
    await this.#update(shardId, "SET lostFrom=:from,lostUntil=:until", signal, condition, {
      from: arrived,
      until,
    });
    return { ...state, lost: { from: arrived, until } };
  }

  /** Reads the state of a shard; of a new one, what it has from its parents. Undefined: the consumer is new there. */
  async #read(shardId: string, streamArn: string, signal: AbortSignal): Promise<ShardState | undefined> {
    const own = await this.#item(shardId, signal);
    if (own) return own;
    const parents = await this.#options.parentsOf(shardId, streamArn, signal);
    const states: ShardState[] = [];
    for (const parent of parents) {
      // One that held nothing has it from its own parents.
      const state = await this.#read(parent, streamArn, signal);
      if (state) states.push(state);
    }
    if (states.length === 0) return undefined;
    const lost = states.flatMap((state) => state.lost ?? []);
    const inherited = {
      arrived: Math.min(...states.map(({ arrived }) => arrived)),
      beats: states.some(({ beats }) => beats),
      lost:
        lost.length === 0
          ? undefined
          : {
              from: Math.min(...lost.map(({ from }) => from)),
              until: Math.max(...lost.map(({ until }) => until)),
            },
    };
    const set = [
      "arrived=:arrived",
      "beats=:beats",
      ...(inherited.lost ? ["lostFrom=:from", "lostUntil=:until"] : []),
    ];
    await this.#update(shardId, `SET ${set.join(",")}`, signal, "attribute_not_exists(arrived)", {
      arrived: inherited.arrived,
      beats: inherited.beats,
      ...inherited.lost,
    });
    return inherited;
  }

  async #item(shardId: string, signal: AbortSignal): Promise<ShardState | undefined> {
    const item = await this.#options.table.until(signal, `read ${shardId}`).get(this.#key(shardId));
    if (item?.arrived?.N === undefined) return undefined;
    const [from, until] = [item.lostFrom?.N, item.lostUntil?.N];
    return {
      arrived: Number(item.arrived.N),
      beats: item.beats?.BOOL === true,
      lost:
        from === undefined || until === undefined ? undefined : { from: Number(from), until: Number(until) },
    };
  }

  /** Another that has written what is newer has the say. */
  async #update(
    shardId: string,
    expression: string,
    signal: AbortSignal,
    condition: string,
    values: PlainValues,
  ): Promise<void> {
    const update = updateIf(expression, condition, values);
    await this.#options.table.until(signal, `note ${shardId}`).update(this.#key(shardId), update);
  }

  #key(shardId: string): StateKey {
    return shardKey(this.#options.table, shardId);
  }
}
