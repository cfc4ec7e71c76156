import type { PositionText } from "../../change/position.ts";
import { fenceKey, parkedListKey } from "../../state/state-key.ts";
import { type PartitionName, StateItemError } from "../consume-errors.ts";
import { groupOf, readPartition, readToken, storedKeys } from "../fence/fence-item.ts";
import { counterAhead, FenceToken, GIVEN_BACK } from "../fence/fence-token.ts";
import type { PartitionItem } from "../fence/partition-item.ts";
import { PartitionItems } from "../fence/partition-items.ts";
import { freeOf, isLive, PartitionLease, REDRIVE, REPLAY, takeLease } from "../fence/partition-lease.ts";
import { ParkedKeysMissingError } from "../hold/hold-errors.ts";
import type { PartitionHold } from "../hold/hold-state.ts";
import { ParkedKeys } from "../hold/parked-keys.ts";
import type { RunningCall } from "../run/running-calls.ts";

/** A list that no fence names and that is older was left by a process that died, in milliseconds. */
const ORPHANED_MS = 24 * 3_600_000;

/** A partition as redrive sees it. */
export interface FencedPartition {
  /** Changes of a chain beyond it are not parked for good: they come again. */
  readonly checkpoint: PositionText;
  /** See `ParkedKeys`. */
  readonly parked: string | undefined;
  /** That list as the fence holds or names it. */
  readonly stored: string | undefined;
  /** While it is held. */
  readonly hold?: PartitionHold | undefined;
  /** The token that an invocation would take it from. */
  readonly token: string | undefined;
  /** Set where an invocation holds it, or died there. */
  readonly held: boolean;
  /** A call that ran on when its invocation ended. */
  readonly running: RunningCall | undefined;
  /** Somebody replays what it holds. */
  readonly replayed: boolean;
  /** See `StoredPartition`. */
  readonly fault: string | undefined;
}

/**
 * Gives leases to redrives of keys: one redrive at a time in a partition, and no key is overtaken there meanwhile. Attribute
 * `r<p>` names the lease, `u<p>` is when it ends.
 */
export class RedriveLeases extends PartitionItems {
  #taken = 0;

  /** A lease that is renewed until it is given back; undefined while another redrive has one. */
  async take(
    topic: string,
    partition: number,
    owner: string,
    signal: AbortSignal,
  ): Promise<RedriveLease | undefined> {
    const name = `${owner}.${++this.#taken}`;
    const lease = await takeLease(this.item(topic, partition, signal), REDRIVE, name);
    return lease instanceof PartitionLease ? new RedriveLease(lease) : undefined;
  }

  /** Reads how a partition stands now. */
  async look(topic: string, partition: number, signal: AbortSignal): Promise<FencedPartition> {
    return readFenced(this.item(topic, partition, signal));
  }

  /** Removes lists of a partition's parked keys that processes left which died. */
  async removeOrphans(topic: string, partition: number, signal: AbortSignal): Promise<void> {
    const item = this.item(topic, partition, signal);
    const named = async () => readPartition(await item.read(), partition).parked;
    const { pipeline, consumer } = this.table;
    const prefix = parkedListKey({ pipeline, consumer }, { topic, partition }, "");
    const lists = this.table.until(signal, "read parked keys");
    const old: string[] = [];
    for await (const { sk, createdAt } of lists.query(prefix, { attributes: ["sk", "createdAt"] }))
      if (Number(createdAt?.N) < Date.now() - ORPHANED_MS) old.push(sk?.S?.slice(prefix.sk.length) ?? "");
    if (old.length === 0) return;
    // Read after them: what it does not name now, nobody can name any more.
    const current = await named();
    for (const version of old)
      if (!current?.split(",").includes(`~${version}`))
        await this.lists.remove({ topic, partition }, `~${version}`, signal);
  }
}

/**
 * The right to bring the parked changes of one partition to effect. Invocations go on meanwhile: what they do not
 * touch (keys that are parked) is all that redrive touches. Both meet where a key is parked no more.
 */
export class RedriveLease {
  readonly #lease: PartitionLease;

  constructor(lease: PartitionLease) {
    this.#lease = lease;
  }

  /** Reads how the partition stands now. */
  async read(): Promise<FencedPartition> {
    return readFenced(this.#lease.item);
  }

  /** Returns whether the lease still is this redrive's: asked before each effect. */
  async isOurs(): Promise<boolean> {
    return (await this.#lease.renew()) !== undefined;
  }

  /**
   * Replaces the list of parked keys, if it still is what was read: nothing was parked since. While an invocation
   * holds the partition it may be about to park a change behind the key: then refused, unless by force, which takes
   * the partition and gives it back at once: the invocation cannot move the checkpoint any more, and its batch comes again.
   * `untouched`: refused too where an invocation has come and gone since. Always refused while somebody replays what the
   * partition holds: that one hands over what it did as long as nobody has touched the list.
   */
  async replaceParked(
    { stored: listed = "", token, hold }: FencedPartition,
    left: string | undefined,
    when: "free" | "untouched" | "by force",
  ): Promise<boolean> {
    const isHeld = hold !== undefined;
    const force = when === "by force";
    const was = storedKeys(listed, isHeld) ?? "";
    const { name, item } = this.#lease;
    const { lists, place, signal } = item;
    const [r, k, t] = [`r${place.partition}`, `k${place.partition}`, `t${place.partition}`];
    const now = storedKeys(left === undefined ? undefined : await lists.write(place, left, signal), isHeld);
    const set = [...(now === undefined ? [] : [`${k}=:list`]), ...(force ? [`${t}=:t`] : [])];
    const given = when === "untouched" && token !== undefined ? token : GIVEN_BACK;
    const free = force ? `${t}<:t` : given === GIVEN_BACK ? `contains(${t},:t)` : `${t}=:t`;
    const replaced = await item.update("unpark", {
      UpdateExpression: [
        ...(set.length > 0 ? [`SET ${set.join(",")}`] : []),
        ...(now === undefined ? [`REMOVE ${k}`] : []),
      ].join(" "),
      ConditionExpression: `${r}=:r AND ${k}=:was AND (attribute_not_exists(${t}) OR ${free}) AND ${freeOf(REPLAY, place.partition)}`,
      ExpressionAttributeValues: {
        ":r": { S: name },
        ":was": { S: was },
        ":now": { N: String(Date.now()) },
        ":t": { S: force ? new FenceToken(counterAhead([token]), name).givenBack : given },
        ...(now === undefined ? {} : { ":list": { S: now } }),
      },
    });
    // Where it was refused, nothing names the new list, unless the answer to a first try was lost: then it stays.
    if (replaced) await lists.remove(place, listed, signal).catch(() => {});
    return replaced !== undefined;
  }

  /** Renews the lease no more. */
  abandon(): void {
    this.#lease.abandon();
  }

  /** Gives the lease back. */
  release(signal?: AbortSignal): Promise<void> {
    return this.#lease.release(signal);
  }
}

async function readFenced(item: PartitionItem): Promise<FencedPartition> {
  const { lists, place, signal } = item;
  let seen: string | undefined;
  for (;;) {
    const fence = await item.read();
    const {
      position: checkpoint = "",
      parked: stored,
      token,
      hold,
      ...more
    } = readPartition(fence, place.partition);
    const { attempts, fault } = more;
    try {
      const parked = await lists.read(place, stored, signal);
      const held = token !== undefined;
      const running = attempts?.running;
      const replayed = isLive(more.replay);
      const seen = { checkpoint, parked, stored, hold, token: readToken(fence, place.partition) };
      return { ...seen, held, running, replayed, fault };
    } catch (error) {
      // An invocation may have replaced it since; what is named still, and is not there, is missing.
      if (!(error instanceof ParkedKeysMissingError) || stored === seen) throw error;
      seen = stored;
    }
  }
}

/**
 * The parked keys of a partition.
 * @throws StateItemError where the fence is not as this version writes it.
 */
export function keysOf(
  consumer: string,
  { topic, partition }: PartitionName,
  { parked, fault }: FencedPartition,
): ParkedKeys {
  const item = fenceKey({ pipeline: "", consumer }, topic, groupOf(partition)).sk;
  if (fault !== undefined) throw new StateItemError(consumer, item, fault);
  try {
    return ParkedKeys.parse(parked);
  } catch {
    throw new StateItemError(consumer, item, `k${partition}: expected a list of parked keys`);
  }
}
