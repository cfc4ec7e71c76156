import * as z from "zod";
import { consumerStatus } from "../../admin/consumer-status.ts";
import { clearMended } from "../../admin/dead-letters/mended.ts";
import type { LocalAws, LocalHost } from "../host.ts";

/** The part of a redrive's report that is told. */
const report = z.looseObject({
  tributary: z.literal("redrive"),
  redriven: z.number(),
  failed: z.number(),
  done: z.number(),
  more: z.boolean(),
});

/** The place of the consumers' state, and the signal that ends the redrive. */
export interface RedriveChangedOptions {
  readonly pipeline: string;
  readonly aws: Pick<LocalAws, "clients" | "resources">;
  readonly signal: AbortSignal;
}

/** Changes of one call: each must end within the function's time. */
const STEP = 100;

/**
 * Has a consumer whose code has changed try its open dead letters again: what failed is most often what was mended. Gives what
 * became of them in words; undefined where there are none.
 */
export async function redriveChanged(
  { consumers }: Pick<LocalHost, "consumers">,
  name: string,
  { pipeline, aws, signal }: RedriveChangedOptions,
): Promise<string | undefined> {
  const consumer = consumers.find((running) => running.name === name);
  if (consumer === undefined) return undefined;
  const place = {
    dynamodb: aws.clients.dynamodb,
    table: aws.resources.stateTable,
    pipeline,
    consumer: name,
  };
  const status = await consumerStatus(place, signal);
  if (status.every(({ deadLetters }) => deadLetters === 0)) return undefined;
  let redriven = 0;
  let failed = 0;
  while (!signal.aborted) {
    const result = await consumer.invoke({ tributary: "redrive", consumer: name, limit: STEP });
    if (!result.ok) return `its dead letters could not be tried again: ${result.error.type}`;
    const step = report.safeParse(result.response).data;
    if (!step) return undefined;
    redriven += step.redriven;
    failed = step.failed;
    if (!step.more || step.redriven + step.done === 0) break;
  }
  if (redriven > 0) await clearQueue(name, { pipeline, aws, signal });
  const again = failed === 0 ? "" : `, ${failed} keys failed again`;
  return `dead letters were tried again with the changed code: ${redriven} changes took effect${again}`;
}

/** Messages whose changes are through go. What stays is listed, and goes with the next redrive. */
async function clearQueue(name: string, { pipeline, aws, signal }: RedriveChangedOptions): Promise<void> {
  const { clients, resources } = aws;
  const place = {
    state: { dynamodb: clients.dynamodb, table: resources.stateTable, pipeline, signal },
    sqs: clients.sqs,
    queues: { [name]: resources.deadLetterQueues.get(name) },
  };
  await clearMended(place, name).catch(() => {});
}
