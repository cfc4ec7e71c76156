import type { PositionText } from "../change/position.ts";
import { ConsumerNotRegisteredError } from "../consume/consume-errors.ts";
import { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { StartPositions } from "../consume/fence/start-position.ts";
import type { ConsumerDefinition } from "../definition/definition.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import type { NewestChange } from "../state/capture-report.ts";
import type { StatePlace } from "../state/persistent-table.ts";

/**
 * The lag of a consumer behind the stream, by the newest changes of each topic that capture reported: `caught up` has all of them
 * in place; `behind` lacks some, the oldest known of which has waited for `forMs` (longer, where `atLeast`: what was written before
 * that one is not remembered). What capture reported is up to 10 s old; a change that went to no reported partition is not seen.
 */
export type ConsumerLag =
  | { readonly state: "caught up" }
  | {
      readonly state: "behind";
      readonly forMs: number;
      readonly atLeast: boolean;
      readonly topic: string;
    }
  | { readonly state: "unknown"; readonly reason: string };

/** The progress of a consumer in one topic. */
export interface TopicProgress {
  /** Checkpoints by partition. */
  readonly checkpoints: ReadonlyMap<number, PositionText>;
  /** Changes at or before it are not its business. */
  readonly startPosition: PositionText;
}

/** The last change of one topic partition that took effect at a consumer, or was passed. */
export interface PartitionProgress {
  readonly topic: string;
  readonly partition: number;
  readonly checkpoint: PositionText | undefined;
}

/** Returns how far a consumer is behind. @throws FenceUnavailableError, the SDK's errors */
export async function lagOf(
  { name, topics }: Pick<ConsumerDefinition, "name" | "topics">,
  partitions: readonly PartitionProgress[] | undefined,
  newest: Readonly<Record<string, readonly NewestChange[]>> | undefined,
  {
    place,
    signal,
    wall,
  }: { readonly place: StatePlace; readonly signal: AbortSignal; readonly wall: number },
): Promise<ConsumerLag> {
  if (!partitions || !newest) return { state: "unknown", reason: "the state table could not be read" };
  const startPositions = new StartPositions(new ConsumerTable({ ...place, consumer: name }));
  const progress = new Map<string, TopicProgress>();
  let isNew = false;
  for (const topic of Object.keys(newest)) {
    if (!topics.some((pattern) => topicPattern(pattern)(topic))) continue;
    const own = partitions.filter((each) => each.topic === topic);
    const checkpoints = own.flatMap(({ partition, checkpoint }) =>
      checkpoint === undefined ? [] : [[partition, checkpoint] as const],
    );
    try {
      const startPosition = await startPositions.of(topic, signal);
      progress.set(topic, { checkpoints: new Map(checkpoints), startPosition });
    } catch (error) {
      // Of a topic that was added to its definition, and says nothing of those that it has.
      if (!(error instanceof ConsumerNotRegisteredError)) throw error;
      isNew = true;
    }
  }
  if (progress.size === 0 && isNew)
    return { state: "unknown", reason: "capture has not started with this consumer yet" };
  const heard = Object.fromEntries(Object.entries(newest).filter(([topic]) => progress.has(topic)));
  return consumerLag(heard, (topic) => progress.get(topic) as TopicProgress, wall);
}

/** Returns how far a consumer is behind in the topics that capture reported. `now`: milliseconds since 1970 UTC. */
export function consumerLag(
  newest: Readonly<Record<string, readonly NewestChange[]>>,
  progressIn: (topic: string) => TopicProgress,
  now: number,
): ConsumerLag {
  const lags = Object.entries(newest).flatMap(([topic, changes]) =>
    lagIn(topic, changes, progressIn(topic), now),
  );
  if (lags.length === 0) {
    const reason = "capture has reported no change of its topics yet";
    return { state: "unknown", reason };
  }
  return lags.reduce((most, lag) => (forMs(lag) > forMs(most) ? lag : most));
}

function lagIn(
  topic: string,
  changes: readonly NewestChange[],
  { checkpoints, startPosition }: TopicProgress,
  now: number,
): ConsumerLag[] {
  if (changes.length === 0) return [];
  const isApplied = ({ partition, position }: NewestChange) =>
    (checkpoints.get(partition) ?? "") >= position || startPosition >= position;
  const waits = changes.filter((change) => !isApplied(change));
  const oldest = waits.at(-1);
  if (!oldest) return [{ state: "caught up" }];
  return [
    {
      state: "behind",
      forMs: Math.max(0, now - oldest.at),
      atLeast: oldest === changes.at(-1),
      topic,
    },
  ];
}

function forMs(lag: ConsumerLag): number {
  return lag.state === "behind" ? lag.forMs : -1;
}
