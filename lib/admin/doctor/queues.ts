import { GetQueueAttributesCommand } from "@aws-sdk/client-sqs";
import { sqsClient } from "../../aws/clients.ts";
import { sourceKind } from "../../source/index.ts";
import { MISSING_QUEUE } from "../queue-depth.ts";
import { askAws } from "./ask-aws.ts";
import { isEmulated } from "./aws-caller.ts";
import { type Check, NotChecked, ok } from "./check.ts";
import { DeadLetterQueueError } from "./doctor-errors.ts";
import type { Examination } from "./examination.ts";

/** A dead letter is a whole event: the largest message that SQS takes, in bytes. */
const LARGEST = 1024 * 1024;
/** The longest that SQS keeps a message, in seconds. */
const LONGEST = 14 * 24 * 3600;

/** The dead-letter queues: capture's, and each consumer's. */
export function queueChecks(examination: Examination): readonly Check[] {
  const { pipeline, subject } = examination;
  const { resources } = subject;
  const ofConsumers = (pipeline?.consumers ?? []).map(
    ({ name }) => [`queue ${name}`, () => resources?.consumers[name]?.deadLetterQueue] as const,
  );
  const hasOwn = pipeline === undefined || sourceKind(pipeline.source).can.putAside;
  const all = [
    ...(hasOwn ? [["queue of capture", () => resources?.captureDeadLetters] as const] : []),
    ...ofConsumers,
  ];
  return all.map(([name, url]) => ({
    name,
    look: (signal) => lookAtQueue(examination, url, signal),
  }));
}

/** The command that makes a queue of this URL, as the construct does. */
function creation(url: string): string {
  const attributes = `MaximumMessageSize=${LARGEST},MessageRetentionPeriod=${LONGEST}`;
  return `aws sqs create-queue --queue-name ${url.split("/").at(-1)} --attributes ${attributes}`;
}

async function lookAtQueue(examination: Examination, urlOf: () => string | undefined, signal: AbortSignal) {
  const { environment } = examination.subject;
  const { place } = examination.requireResources();
  const url = urlOf();
  if (url === undefined) throw new NotChecked(`${place} does not name it`);
  await examination.signedIn();
  const client = sqsClient(environment);
  const { Attributes: found = {} } = await askAws(
    "sqs:GetQueueAttributes",
    () =>
      client.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ["All"] }), {
        abortSignal: signal,
      }),
    {
      names: MISSING_QUEUE,
      error: (cause) =>
        new DeadLetterQueueError({
          message: `there is no queue ${url}: a change that fails for good could not be kept, and holds its partition`,
          remedy: `Correct the queue's URL, the region or the account; or deploy the stack. One that somebody deleted no deploy makes again (with --attributes also KmsMasterKeyId, as the others have it): ${creation(url)}`,
          cause,
        }),
    },
  ).finally(() => client.destroy());
  const notes: string[] = [];
  if (!isEmulated(environment)) {
    if (Number(found.MaximumMessageSize) < LARGEST)
      notes.push(
        `it takes messages of ${found.MaximumMessageSize} bytes: larger dead letters are refused (1048576 is what SQS allows)`,
      );
    if (Number(found.MessageRetentionPeriod) < LONGEST)
      notes.push(
        `it keeps dead letters for ${(Number(found.MessageRetentionPeriod) / 86_400).toFixed(1)} days; SQS allows 14`,
      );
  }
  return ok(`${url.split("/").at(-1)}: ${found.ApproximateNumberOfMessages ?? "?"} dead letters`, notes);
}
