import { setTimeout as sleep } from "node:timers/promises";
import type { PositionText } from "../change/position.ts";
import { parseTable } from "../change/table-pattern.ts";
import { ConsumerNotRegisteredError } from "../consume/consume-errors.ts";
import { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { StartPositions } from "../consume/fence/start-position.ts";
import { readCheckpoints } from "../consume/run/checkpoints.ts";
import { routeTables } from "../definition/route.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import type { LogPipeline } from "../source/postgres/definition.ts";
import { barrierOf, type Hold } from "../source/postgres/hold/hold-record.ts";
import type { StatePlace } from "../state/persistent-table.ts";

/** A consumer that has not passed all that stands before a hold. */
export interface ConsumerBehind {
  readonly consumer: string;
  readonly partitions: readonly number[];
}

const POLL_MS = 500;

/**
 * Waits until every consumer of a held topic has passed what stands before the hold, in each partition: a row whose key
 * is another one behind it goes to another partition, and must not be overtaken by what it was before. Gives those that are
 * behind when the time is over.
 * @throws FenceUnavailableError
 */
export async function passHold(
  { dynamodb, table, pipeline: name, signal }: StatePlace,
  pipeline: LogPipeline,
  hold: Hold,
  timeoutMs: number,
): Promise<readonly ConsumerBehind[]> {
  const { topic } = routeTables(pipeline)(parseTable(hold.reason.table));
  const consumers = pipeline.consumers.filter(({ topics }) =>
    topics.some((pattern) => topicPattern(pattern)(topic.name)),
  );
  const barrier = barrierOf(hold);
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const behind: ConsumerBehind[] = [];
    for (const { name: consumer } of consumers) {
      const startPosition = await startPositionOf(
        new StartPositions(new ConsumerTable({ dynamodb, table, pipeline: name, consumer })),
        topic.name,
        signal,
      );
      const checkpoints = await readCheckpoints({ dynamodb, table, pipeline: name }, consumer, topic, signal);
      const partitions = checkpoints.flatMap((checkpoint, partition) =>
        (checkpoint ?? "") < barrier && startPosition < barrier ? [partition] : [],
      );
      if (partitions.length > 0) behind.push({ consumer, partitions });
    }
    if (behind.length === 0 || performance.now() >= deadline) return behind;
    await sleep(POLL_MS, undefined, { signal });
  }
}

/** One that capture does not know yet begins behind what is confirmed by then. */
async function startPositionOf(
  startPositions: StartPositions,
  topic: string,
  signal: AbortSignal,
): Promise<PositionText> {
  try {
    return await startPositions.of(topic, signal);
  } catch (error) {
    if (error instanceof ConsumerNotRegisteredError) return "";
    throw error;
  }
}
