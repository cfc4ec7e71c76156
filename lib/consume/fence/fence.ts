import type { UpdateItemCommandOutput } from "@aws-sdk/client-dynamodb";
import type { ConditionalUpdate } from "../../state/item-update.ts";
import { fenceKey, type StateKey } from "../../state/state-key.ts";
import type { StateItem } from "../../state/state-table.ts";
import type { PartitionName } from "../consume-errors.ts";
import { formatHold } from "../hold/hold.ts";
import { ParkedKeysMissingError } from "../hold/hold-errors.ts";
import { ParkedLists } from "../hold/parked-lists.ts";
import { hasReached } from "./checkpoint.ts";
import type { ConsumerTable } from "./consumer-table.ts";
import {
  beginUpdate,
  closeUpdate,
  GROUP_SIZE,
  giveBackUpdate,
  handOverUpdate,
  noteUpdate,
  type OwnProgress,
  overtakeUpdate,
  PARTITIONS_WITH_MORE,
  readPartition,
  readToken,
  type StoredPartition,
  storedKeys,
  takeUpdate,
} from "./fence-item.ts";
import { counterAhead, FenceToken } from "./fence-token.ts";
import { isLive, REDRIVE, readLease } from "./partition-lease.ts";

/** A group of a topic's partitions: one item of the fence. */
export interface FenceGroup {
  readonly topic: string;
  readonly group: number;
}

/** A partition that was taken: what stood there before, and the token that its owner writes with from now on. */
export interface TakenPartition {
  readonly stored: StoredPartition;
  readonly token: FenceToken;
  /** Nothing of the partition's group stood there. */
  readonly isNew: boolean;
  /** Why nothing may take effect there. */
  readonly error?: unknown;
}

/** The partitions that could not be closed; all others are closed. */
export interface Closed {
  /** Another invocation has taken them, and has not come as far. */
  readonly lost: readonly number[];
  /** Another may have taken them, and has come as far: what else the state table holds of them may be that one's. */
  readonly overtaken: readonly number[];
}

/** Progress as the fence is to hold it, and the list of parked keys that it names then. */
interface NamedProgress extends OwnProgress {
  readonly list: FenceToken["list"];
}

/**
 * The fence of a consumer in the state table. An invocation takes its partitions before the first effect, and
 * closes them with their new checkpoints after the last one; both are one conditional update an item. Whoever took
 * later owns: a predecessor that still lives cannot move the checkpoint any more. Each write moves the token on, so that a
 * request which arrives a second time, however late, changes nothing (rule 37).
 */
export class Fence {
  readonly #table: ConsumerTable;
  readonly #lists: ParkedLists;

  constructor(table: ConsumerTable) {
    this.#table = table;
    this.#lists = new ParkedLists(table);
  }

  /**
   * Takes partitions of a group and tells what stood there before. A token in the answer is one that was not
   * given back: its owner died, or still runs (rule 11). When an answer was lost, it may be our own: then nobody
   * knows, and it counts as not given back.
   */
  async take(
    place: FenceGroup,
    partitions: readonly number[],
    owner: string,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<number, TakenPartition>> {
    for (let [counter, isFirst] = [counterAhead([]), true]; ; isFirst = false) {
      const update = takeUpdate(partitions, new FenceToken(counter, owner), !isFirst);
      const answer = await this.#try(place, update, "take", signal, "ALL_OLD");
      if (answer) {
        const isNew = answer.Attributes === undefined;
        const taken = partitions.map(async (partition) => {
          const stored = readPartition(answer.Attributes, partition);
          const token = new FenceToken(counter, owner);
          token.hold = answer.Attributes?.[`h${partition}`]?.S;
          const named = await withList(
            this.#lists,
            { ...place, partition },
            { stored, token, isNew },
            signal,
          );
          return [partition, named] as const;
        });
        return new Map(await Promise.all(taken));
      }
      // Another took it since with a clock that is ahead of ours, or in this very millisecond.
      const stored = await this.#read(place, signal);
      counter = Math.max(
        counter + 1,
        counterAhead(partitions.map((partition) => readToken(stored, partition))),
      );
    }
  }

  /** Notes that a group which is new has nothing to do with what expired before now. */
  async begin(place: FenceGroup, nowMs: number, signal: AbortSignal): Promise<void> {
    await this.#try(place, beginUpdate(nowMs), "begin", signal);
  }

  /**
   * Writes the checkpoints of partitions and gives them back. Returns those that another invocation has taken: they are lost
   * where it has not come as far as this one, or has not seen the newest writer that this one saw.
   */
  async close(place: FenceGroup, own: readonly OwnProgress[], signal: AbortSignal): Promise<Closed> {
    const named = await Promise.all(own.map((entry) => this.#named(place, entry, signal)));
    const more = named.some(
      ({ progress: { attempts, parked, explained, lost, hold } }) =>
        (attempts ?? parked ?? explained ?? lost ?? hold) !== undefined,
    );
    const parts = more ? PARTITIONS_WITH_MORE : GROUP_SIZE;
    const closed = { lost: [] as number[], overtaken: [] as number[] };
    for (let i = 0; i < named.length; i += parts) {
      const { lost, overtaken } = await this.#close(place, named.slice(i, i + parts), signal);
      closed.lost.push(...lost);
      closed.overtaken.push(...overtaken);
    }
    return closed;
  }

  /** As the fence is to hold it: a list of parked keys that has changed is stored first, and named. */
  async #named(
    { topic }: FenceGroup,
    { progress, token }: OwnProgress,
    signal: AbortSignal,
  ): Promise<NamedProgress> {
    const { partition, parked } = progress;
    const { list } = token;
    if (parked === undefined || parked === (list.keys ?? ""))
      return { progress: { ...progress, parked: list.stored }, token, list };
    if (parked === "") return { progress, token, list: { stored: undefined, keys: undefined } };
    const stored = await this.#lists.write({ topic, partition }, parked, signal);
    return { progress: { ...progress, parked: stored }, token, list: { stored, keys: parked } };
  }

  /** The fence names this list now. What it named before may go; a process that dies here leaves it to redrive. */
  async #renamed({ topic }: FenceGroup, { progress, token, list }: NamedProgress, signal: AbortSignal) {
    const { stored } = token.list;
    token.list = list;
    if (stored === list.stored) return;
    await this.#lists.remove({ topic, partition: progress.partition }, stored, signal).catch(() => {});
  }

  async #close(place: FenceGroup, own: readonly NamedProgress[], signal: AbortSignal): Promise<Closed> {
    const lost: number[] = [];
    const overtaken: number[] = [];
    let open = own;
    while (open.length > 0) {
      if (await this.#try(place, closeUpdate(open), "close", signal)) {
        await Promise.all(open.map((entry) => this.#renamed(place, entry, signal)));
        break;
      }
      const stored = await this.#read(place, signal);
      const mine = open.filter(({ progress, token }) => readToken(stored, progress.partition) === token.held);
      for (const { progress } of open.filter((entry) => !mine.includes(entry))) {
        const { partition } = progress;
        // Our own update whose answer was lost, or a successor that came as far and saw as new a writer: what we did is on
        // record. Which of the two, the token does not tell: who took it in one millisecond with us gives it back as we do.
        if (hasReached(readPartition(stored, partition), progress)) overtaken.push(partition);
        else lost.push(partition);
      }
      open = mine;
    }
    return { lost, overtaken };
  }

  /** Writes where one partition stands and keeps it. Returns whether it is still ours. */
  async note(place: FenceGroup, own: OwnProgress, signal: AbortSignal): Promise<boolean> {
    return (await this.#keep(place, own, noteUpdate, "note", signal)) === "ours";
  }

  /**
   * Writes where a partition stands, from where keys with open dead letters may be overtaken: no redrive is at work
   * there, and none begins with a key that is not listed as it was. Keeps it. Not sent while a redrive is at work: what was
   * refused only for that long, would be carried out by a late duplicate after the redrive's end (rule 37).
   */
  async overtake(
    place: FenceGroup,
    own: OwnProgress,
    signal: AbortSignal,
  ): Promise<"ours" | "lost" | "redriven"> {
    const { partition } = own.progress;
    for (;;) {
      const redrive = readLease(await this.#read(place, signal), REDRIVE, partition);
      if (isLive(redrive)) return "redriven";
      const update = (it: OwnProgress, next: string) => overtakeUpdate(it, next, redrive);
      const outcome = await this.#keep(place, own, update, "overtake", signal);
      // Refused although it is ours: another redrive has begun since.
      if (outcome !== "redriven") return outcome;
    }
  }

  /** A write that keeps the partition; `redriven` where it is ours, and was refused for another reason. */
  async #keep(
    place: FenceGroup,
    own: OwnProgress,
    update: (own: OwnProgress, next: string) => ConditionalUpdate,
    what: string,
    signal: AbortSignal,
  ): Promise<"ours" | "lost" | "redriven"> {
    const { progress, token } = own;
    const named = await this.#named(place, own, signal);
    const next = token.issue();
    if (!(await this.#try(place, update(named, next), what, signal))) {
      const stored = readToken(await this.#read(place, signal), progress.partition);
      if (stored === token.held) return "redriven";
      // Where it is the next one, the write was carried out, and its answer was lost.
      if (stored !== next) return "lost";
    }
    token.advance();
    token.hold = progress.hold ? formatHold(progress.hold, progress) : undefined;
    await this.#renamed(place, named, signal);
    return "ours";
  }

  /** Reads how a partition that is ours stands now; undefined where another has taken it. */
  async look(
    { topic, group }: FenceGroup,
    partition: number,
    token: FenceToken,
    signal: AbortSignal,
  ): Promise<StoredPartition | undefined> {
    const item = await this.#read({ topic, group }, signal);
    if (readToken(item, partition) !== token.held) return undefined;
    const stored = readPartition(item, partition);
    token.hold = item?.[`h${partition}`]?.S;
    const taken = await withList(this.#lists, { topic, partition }, { stored, token, isNew: false }, signal);
    if (taken.error !== undefined) throw taken.error;
    return taken.stored;
  }

  /** Gives a partition back on which nothing was done. */
  async giveBack(
    place: FenceGroup,
    partition: number,
    token: FenceToken,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#try(place, giveBackUpdate(partition, token), "give back", signal);
  }

  /**
   * Another took the partition while we replayed what it holds, and waits for the lease `replay`: what we came to is written
   * for that one, or it would be done again. Nothing is written where somebody has gone on.
   */
  async handOver(place: FenceGroup, own: OwnProgress, replay: string, signal: AbortSignal): Promise<void> {
    const { progress, token } = own;
    const { partition } = progress;
    const [held, keys] = [token.hold, storedKeys(token.list.stored, true)];
    if (!progress.hold || held === undefined) return;
    let named: NamedProgress | undefined;
    // One that gave it back without waiting, and who took it next, wait for the same.
    for (let refused: string | undefined; ; ) {
      const item = await this.#read(place, signal);
      const taker = readToken(item, partition);
      const isAsLeft = item?.[`h${partition}`]?.S === held && item?.[`k${partition}`]?.S === keys;
      if (!isAsLeft || taker === undefined || taker === refused) return;
      named ??= await this.#named(place, own, signal);
      // The list that was named before stays until it is an orphan: the taker has read its name.
      const update = handOverUpdate({ progress: named.progress, token }, taker, replay);
      if (await this.#try(place, update, "hand over", signal)) return;
      refused = taker;
    }
  }

  /** Returns undefined where the condition does not hold. */
  #try(
    place: FenceGroup,
    update: ConditionalUpdate,
    what: string,
    signal: AbortSignal,
    returned: "ALL_OLD" | "NONE" = "NONE",
  ): Promise<UpdateItemCommandOutput | undefined> {
    const table = this.#table.until(signal, `${what} ${place.topic} group ${place.group}`);
    return table.update(this.#key(place), { ...update, ReturnValues: returned });
  }

  #read(place: FenceGroup, signal: AbortSignal): Promise<StateItem | undefined> {
    return this.#table.until(signal, `read ${place.topic} group ${place.group}`).get(this.#key(place));
  }

  #key({ topic, group }: FenceGroup): StateKey {
    return fenceKey(this.#table, topic, group);
  }
}

/** With the list of parked keys that the fence names; one that is missing stops its partition alone. */
export async function withList(
  lists: ParkedLists,
  place: PartitionName,
  taken: TakenPartition,
  signal: AbortSignal,
): Promise<TakenPartition> {
  const { stored, token } = taken;
  try {
    const keys = await lists.read(place, stored.parked, signal);
    token.list = { stored: stored.parked, keys };
    return { ...taken, stored: { ...stored, parked: keys } };
  } catch (error) {
    if (!(error instanceof ParkedKeysMissingError)) throw error;
    return { ...taken, error };
  }
}
