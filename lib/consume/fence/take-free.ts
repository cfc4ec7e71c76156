import { type ConditionalUpdate, updateIf } from "../../state/item-update.ts";
import { type TakenPartition, withList } from "./fence.ts";
import { readPartition, readToken } from "./fence-item.ts";
import { counterAhead, FenceToken, isHeld } from "./fence-token.ts";
import type { PartitionItem } from "./partition-item.ts";

/** Takes a free partition. Returns undefined if another owner is at work there, or died there. */
export async function takeFree(item: PartitionItem, owner: string): Promise<TakenPartition | undefined> {
  const { lists, place, signal } = item;
  const { partition } = place;
  const before = await item.read();
  const seen = readToken(before, partition);
  if (isHeld(seen)) return undefined;
  const token = new FenceToken(counterAhead([seen]), owner);
  await item.update("take", takeFreeUpdate(partition, seen, token));
  // The answer may be lost, and what is parked changes without a token.
  const after = await item.read();
  if (readToken(after, partition) !== token.held) return undefined;
  token.hold = after?.[`h${partition}`]?.S;
  const stored = { ...readPartition(after, partition), token: undefined };
  return withList(lists, place, { stored, token, isNew: before === undefined }, signal);
}

/** Makes the owner of a partition that nobody has, while its token is the one that was read. */
function takeFreeUpdate(partition: number, seen: string | undefined, token: FenceToken): ConditionalUpdate {
  const t = `t${partition}`;
  const unchanged = seen === undefined ? `attribute_not_exists(${t})` : `${t}=:seen`;
  return updateIf(`SET ${t}=:t`, unchanged, { t: token.held, seen });
}
