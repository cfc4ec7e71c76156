import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { consumer, Operation } from "tributary-cdc";
import * as z from "zod/mini";

/*
 * Example of a side effect that must not repeat: a letter to the customer of a cancelled order, handed to the mailer's
 * queue. `once: "claim"` notes in DynamoDB that the handler is at work on an event, and then that it is done: a record
 * that comes again, to this or another invocation, sends no second letter. What remains is a process that dies between
 * sending and noting; a mailer that knows idempotency keys closes that too: give it `event.id`, which is unique in the
 * event's topic and partition.
 */

const cancellation = z.object({
  /** bigint comes as text: JavaScript's numbers would lose digits. */
  order_id: z.string(),
  reason: z.string(),
});

const LETTERS: Readonly<Record<string, string>> = {
  "changed-mind": "Your order was cancelled, as you asked.",
  "found-cheaper": "Your order was cancelled. We will look at our prices.",
  "too-late": "Your order was cancelled. We are sorry that it took so long.",
  "payment-failed": "Your order was cancelled because the payment did not succeed.",
};

/** An event that the shop publishes of an order, where its events are followed instead of its tables (`--source outbox`). */
const orderEvent = z.object({
  aggregateId: z.string(),
  type: z.string(),
  payload: z.object({ reason: z.optional(z.string()) }),
});

const sqs = new SQSClient();

async function send(orderId: string, reason: string, idempotencyKey: string): Promise<void> {
  const text = LETTERS[reason];
  // Trying again does not help, but only a person knows: after three attempts this becomes a dead letter.
  if (text === undefined) throw new Error("there is no letter for this reason of cancellation");
  await sqs.send(
    new SendMessageCommand({
      QueueUrl: process.env.LETTER_QUEUE_URL,
      MessageBody: JSON.stringify({ orderId, text, idempotencyKey }),
    }),
  );
}

export const handler = consumer("notifications")
  .on(
    "public.cancellations",
    Operation.Create,
    { row: cancellation, once: "claim" },
    async ({ id, after, topic, partition }) => {
      await send(after.order_id, after.reason, `${topic}/${partition}/${id}`);
    },
  )
  .on(
    "outbox.order",
    Operation.Create,
    { row: orderEvent, once: "claim" },
    async ({ id, after, topic, partition }) => {
      if (after.type !== "Order cancelled") return;
      await send(after.aggregateId, after.payload.reason ?? "", `${topic}/${partition}/${id}`);
    },
  )
  .handler();
