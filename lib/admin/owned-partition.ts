import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { PositionText } from "../change/position.ts";
import { type PartitionName, StateItemError } from "../consume/consume-errors.ts";
import { RedriveLeases } from "../consume/dead-letter/redrive-lease.ts";
import type { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { Fence, type FenceGroup, type TakenPartition } from "../consume/fence/fence.ts";
import { groupOf } from "../consume/fence/fence-item.ts";
import type { PartitionItem } from "../consume/fence/partition-item.ts";
import { PartitionLease } from "../consume/fence/partition-lease.ts";
import { awaitReplay, takeReplay } from "../consume/fence/replay-lease.ts";
import { StartPositions } from "../consume/fence/start-position.ts";
import { takeFree } from "../consume/fence/take-free.ts";
import { fenceKey } from "../state/state-key.ts";

/** Wait for a replay of what a partition holds. */
const REPLAY_PATIENCE_MS = 2_000;
const POLL_MS = 50;
/** Tokens and leases of resets: who died there had called no handler, and had told from whom it took the partition. */
const RESETS = /^(~.{9}:)?reset-/;

/** A partition that an operator's act has taken, as an invocation takes it: none can overwrite what is written. */
export interface OwnedPartition extends Pick<TakenPartition, "stored" | "token"> {
  readonly fence: Fence;
  readonly group: FenceGroup;
  readonly startPosition: PositionText;
}

/** Options of `withPartition`. */
export interface OwnedPartitionOptions {
  /** Begins the names of tokens and leases. */
  readonly act: "reset" | "accept-gap";
  /** Until when invocations at work are waited for, by `performance.now()`: what those have done would be done again. */
  readonly until: number;
  readonly signal: AbortSignal;
  /**
   * Called before the partition is taken from an invocation or a replay that may be alive, whose call for a change still ends; and
   * once more behind it, with the name of the token or the lease. Whoever must know that later stores it here: nothing shows it any
   * more once the partition is given back.
   */
  readonly taking?: (from: string) => Promise<void>;
}

/**
 * Takes a partition, and has `write` say where it stands and give it back. Once more where that gives undefined: another has taken it
 * meanwhile. Invocations at work are waited for; where the time is over, the partition is taken from them, and from whoever replays
 * what it holds.
 *
 * @throws StateItemError, ParkedKeysMissingError where what the state table holds is not to be built on; FenceUnavailableError;
 * ConsumerNotRegisteredError; what `write` throws.
 */
export async function withPartition<T>(
  table: ConsumerTable,
  { topic, partition }: PartitionName,
  { act, until, signal, taking = async () => {} }: OwnedPartitionOptions,
  write: (own: OwnedPartition) => Promise<T | undefined>,
): Promise<T> {
  const fence = new Fence(table);
  const startPosition = await new StartPositions(table).of(topic, signal);
  const group = { topic, group: groupOf(partition) };
  const owner = `${act}-${randomBytes(6).toString("base64url")}`;
  const leases = new RedriveLeases(table);
  const item = leases.item(topic, partition, signal);
  let replay: PartitionLease | undefined;
  try {
    for (;;) {
      let found = await takeFree(item, owner);
      // What a live invocation has done would be done again. Of what is held, a replay hands it over.
      while (!found && performance.now() < until && !(await leases.look(topic, partition, signal)).hold) {
        await sleep(POLL_MS, undefined, { signal });
        found = await takeFree(item, owner);
      }
      if (!found) {
        const { token: from = "" } = await leases.look(topic, partition, signal);
        if (!RESETS.test(from)) await taking(from);
        found = (await fence.take(group, [partition], owner, signal)).get(partition);
      }
      if (found === undefined) throw new RangeError(`the fence gave no partition ${partition}`);
      const { stored, token, error } = found;
      if (stored.token !== undefined && !RESETS.test(stored.token)) await taking(stored.token);
      if (stored.hold && !replay) {
        // Whoever replays it has lost the partition: it ends behind the call that is under way, and hands over what it did.
        await fence.giveBack(group, partition, token, signal);
        replay = await endReplay(item, owner, taking, signal);
        continue;
      }
      if (replay && !(await replay.renew())) {
        // It is another's since: that one hands over what it did, and none of it may be overwritten.
        await fence.giveBack(group, partition, token, signal);
        replay.abandon();
        replay = undefined;
        continue;
      }
      if (error !== undefined) throw error;
      // What a newer library wrote, or somebody's hand, must not be overwritten: it says where the partition stands.
      if (stored.fault !== undefined)
        throw new StateItemError(
          table.consumer,
          fenceKey({ pipeline: "", consumer: table.consumer }, topic, group.group).sk,
          stored.fault,
        );
      const written = await write({ stored, token, fence, group, startPosition });
      if (written !== undefined) return written;
    }
  } finally {
    await replay?.release();
  }
}

/**
 * Whoever replays what the partition holds is given a little time to end, since what it has done and not noted is done again.
 * Then the lease is taken from it: it does nothing more, and overwrites nothing.
 */
async function endReplay(
  item: PartitionItem,
  owner: string,
  taking: (from: string) => Promise<void>,
  signal: AbortSignal,
): Promise<PartitionLease | undefined> {
  const patience = AbortSignal.any([signal, AbortSignal.timeout(REPLAY_PATIENCE_MS)]);
  const ended = await awaitReplay(item, owner, patience, () => {});
  if (ended instanceof PartitionLease) return ended;
  const { name = "" } = ended;
  if (!RESETS.test(name)) await taking(name);
  const lease = await takeReplay(item, owner, true);
  return lease instanceof PartitionLease ? lease : undefined;
}
