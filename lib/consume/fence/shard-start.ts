import { updateIf } from "../../state/item-update.ts";
import { shardKey } from "../../state/state-key.ts";
import { type ConsumerPlace, ConsumerTable } from "./consumer-table.ts";

/**
 * Notes that a consumer has read these shards up to a time, in milliseconds since 1970 UTC: what arrived before is not its business, and may
 * expire unread (rule 35). Never takes back what it has read itself. Called by a capture task that writes beats: one counts as seen.
 */
export async function noteShardsRead(
  place: ConsumerPlace,
  shards: readonly string[],
  arrivedMs: number,
  signal: AbortSignal,
): Promise<void> {
  const table = new ConsumerTable(place);
  for (const shardId of shards)
    await table.until(signal, `note where ${place.consumer} begins in ${shardId}`).update(
      shardKey(place, shardId),
      updateIf(
        // The consumer notes none from before this time, and without any nothing that expires is looked for.
        "SET arrived=:arrived,beats=:true",
        "attribute_not_exists(arrived) OR arrived<:arrived",
        { arrived: Math.floor(arrivedMs), true: true },
      ),
    );
}
