import { appendFileSync } from "node:fs";
import type { KinesisStreamRecord } from "aws-lambda";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";

/*
 * A consumer in a process of its own, for tests that end it: handles one batch, prints the reply. What takes effect
 * stands in a file, a line each; `KILL_AT` names the event, as partition:id, whose handler ends the process.
 */

const { CONSUMER = "", EFFECTS = "", KILL_AT, BATCH } = process.env;
const effect = (event: { partition: number; id: string }) => {
  if (`${event.partition}:${event.id}` === KILL_AT) process.kill(process.pid, "SIGKILL");
  appendFileSync(EFFECTS, `${event.partition}:${event.id}\n`);
};
const handler = (
  BATCH
    ? consumer(CONSUMER).onBatch("public.orders", { maxEvents: Number(BATCH) }, (events) => {
        // All or nothing: the process ends before the first effect.
        if (events.some((event) => `${event.partition}:${event.id}` === KILL_AT))
          process.kill(process.pid, "SIGKILL");
        for (const event of events) effect(event);
      })
    : consumer(CONSUMER).on("public.orders", Operation.Create, effect)
).handler({ write: () => {} });

process.once("message", async (records: KinesisStreamRecord[]) => {
  const reply = await handler({ Records: records }, { getRemainingTimeInMillis: () => 60_000 });
  process.send?.(reply, () => process.disconnect());
});
