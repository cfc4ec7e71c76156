import { DeleteMessageBatchCommand, ReceiveMessageCommand, type SQSClient } from "@aws-sdk/client-sqs";
import type pg from "pg";
import * as z from "zod";
import { SourceTable } from "../../verify/source-table.ts";
import type { LocalAws } from "../host.ts";
import { POISON_REASON } from "./catalog.ts";
import { compareOnce, compareRows, type Mismatch } from "./compare.ts";
import { type Shop, withClient } from "./shop.ts";

const letter = z.object({ orderId: z.string() });
const deadLetter = z.object({
  payload: z.object({
    after: z.object({ order_id: z.string().optional(), aggregateId: z.string().optional() }).nullable(),
    source: z.object({ table: z.string() }),
  }),
});

/**
 * Compares every table of the shop with what the consumers hold of it, row by row, and the cancelled orders with the
 * letters that were sent and the dead letters that were expected. Takes the messages out of the queues.
 */
export async function verifyShop(shop: Shop, aws: LocalAws, signal: AbortSignal): Promise<Mismatch[]> {
  // The sinks find their stores where they do in a handler's process.
  Object.assign(process.env, shop.handlerEnvironment, aws.environment);
  const orderSummary = (await import("../../../functions/order-summary.ts")).sink;
  const customerView = (await import("../../../functions/customer-view.ts")).sink;
  const mismatches: Mismatch[] = [];
  for (const [sink, table] of [
    [orderSummary, "orders"],
    [orderSummary, "order_items"],
    [customerView, "customers"],
  ] as const) {
    const name = { schema: "public", table };
    const held = sink.table(name);
    if (!held) throw new Error(`the shop's consumers hold nothing of ${table}`);
    const found = await withClient(shop.databaseUrl, async (client) =>
      compareRows(table, { source: await SourceTable.open(client, undefined, name), sink: held, signal }),
    );
    mismatches.push(...found);
  }
  await orderSummary.close?.();
  return [...mismatches, ...(await verifyEvents(shop, aws))];
}

/** The same where events alone are followed: the cancelled orders and their letters. */
export async function verifyEvents(shop: Shop, aws: LocalAws): Promise<Mismatch[]> {
  return withClient(shop.databaseUrl, async (source) => [
    ...(await verifyNotifications(source, shop, aws)),
    ...(await unexpectedDeadLetters(aws)),
  ]);
}

async function verifyNotifications(source: pg.ClientBase, shop: Shop, aws: LocalAws): Promise<Mismatch[]> {
  const cancelled = async (reasons: string) => {
    const { rows } = await source.query<{ id: string }>(
      `SELECT order_id::text AS id FROM cancellations WHERE ${reasons}`,
      [POISON_REASON],
    );
    return new Set(rows.map(({ id }) => id));
  };
  const letters = await drain(aws.clients.sqs, shop.letterQueueUrl, letter);
  const dead = await drain(aws.clients.sqs, deadLetterQueue(aws, "notifications"), deadLetter);
  return [
    ...compareOnce(
      "letter for order",
      await cancelled("reason <> $1"),
      letters.map(({ orderId }) => orderId),
    ),
    ...compareOnce(
      "dead letter of notifications for order",
      await cancelled("reason = $1"),
      dead.map(({ payload }) => payload.after?.order_id ?? payload.after?.aggregateId ?? "(none)"),
    ),
  ];
}

async function unexpectedDeadLetters(aws: LocalAws): Promise<Mismatch[]> {
  const mismatches: Mismatch[] = [];
  for (const [consumer, url] of aws.resources.deadLetterQueues) {
    if (consumer === "notifications") continue;
    for (const { payload } of await drain(aws.clients.sqs, url, deadLetter)) {
      mismatches.push({ what: `dead letter of ${consumer}`, key: payload.source.table, kind: "extra" });
    }
  }
  return mismatches;
}

function deadLetterQueue(aws: LocalAws, consumer: string): string {
  const url = aws.resources.deadLetterQueues.get(consumer);
  if (url === undefined) throw new Error(`the consumer ${consumer} has no dead-letter queue`);
  return url;
}

/** Takes all messages out of a queue. */
async function drain<T>(sqs: SQSClient, QueueUrl: string, format: z.ZodType<T>): Promise<T[]> {
  const messages: T[] = [];
  for (;;) {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 300 }),
    );
    if (Messages.length === 0) return messages;
    messages.push(...Messages.map(({ Body = "" }) => format.parse(JSON.parse(Body))));
    await sqs.send(
      new DeleteMessageBatchCommand({
        QueueUrl,
        Entries: Messages.map(({ ReceiptHandle }, i) => ({
          Id: String(i),
          ReceiptHandle: ReceiptHandle ?? "",
        })),
      }),
    );
  }
}
