import type { ConsumerTable } from "../fence/consumer-table.ts";
import type { Fence } from "../fence/fence.ts";
import type { PartitionItems } from "../fence/partition-items.ts";
import type { StartPositions } from "../fence/start-position.ts";
import type { HoldTable } from "../hold/hold-table.ts";
import type { ConsumerObserver } from "./observer.ts";
import type { Invocation } from "./partition.ts";
import type { PauseFlag } from "./pause-flag.ts";

/** The parts of a consumer that live as long as its process. */
export interface ConsumerInstance extends Omit<Invocation, "deadline" | "counts" | "token"> {
  readonly consumerTable: ConsumerTable;
  /** Returns whether the consumer reads a topic. */
  readonly isOwn: (topic: string) => boolean;
  readonly fence: Fence;
  readonly startPositions: StartPositions;
  readonly holds: HoldTable;
  readonly items: PartitionItems;
  readonly pause: PauseFlag;
  readonly observer: ConsumerObserver;
}

/** Returns what an instance and one invocation of it give the runs of partitions. */
export function asInvocation(
  instance: ConsumerInstance,
  own: Pick<Invocation, "deadline" | "counts" | "token">,
): Invocation {
  return { ...instance, ...own };
}
