import type { PositionText } from "../../change/position.ts";
import type { Checkpoint } from "../fence/checkpoint.ts";
import type { Fence, FenceGroup } from "../fence/fence.ts";
import type { PartitionProgress } from "../fence/fence-item.ts";
import type { FenceToken } from "../fence/fence-token.ts";
import type { StartPositions } from "../fence/start-position.ts";
import type { PartitionHold } from "../hold/hold-state.ts";
import type { CallRight, Invocation, PartitionStart } from "./partition.ts";

/** A partition that somebody has taken, and what its runs need. */
export interface OwnedPartition {
  readonly invocation: Invocation;
  readonly fence: Fence;
  readonly startPositions: StartPositions;
  readonly place: FenceGroup;
  readonly token: FenceToken;
  readonly startPosition: PositionText;
  /** The predecessor died: each handler call is noted before. */
  readonly careful: boolean;
}

/** Returns where a run of the partition begins, and how it writes where it stands. */
export function partitionStart(
  { invocation, fence, startPositions, place, token, careful }: OwnedPartition,
  checkpoint: Checkpoint,
  parked: string | undefined,
  held: { readonly hold?: PartitionHold; readonly right?: CallRight } = {},
): PartitionStart {
  const { work, end } = invocation.deadline;
  const note = (progress: PartitionProgress) => fence.note(place, { progress, token }, end);
  return {
    ...{ checkpoint, parked, ...held },
    overtake: (progress) => fence.overtake(place, { progress, token }, end),
    startedAgain: (missing) => startPositions.startedAgain(place.topic, missing, work),
    note: careful ? note : undefined,
  };
}
