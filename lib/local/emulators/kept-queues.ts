import type { Server, ServerResponse } from "node:http";
import * as z from "zod";
import { Journal } from "./journal.ts";
import { interceptCalls } from "./json-calls.ts";

const message = z.looseObject({
  MessageBody: z.string(),
  MessageAttributes: z.record(z.string(), z.unknown()).optional(),
});
type Message = z.infer<typeof message>;

const entrySchema = z.union([
  z.object({ queue: z.string(), attributes: z.record(z.string(), z.string()) }),
  z.object({ send: z.string(), queue: z.string(), message }),
  z.object({ del: z.string() }),
]);
type Entry = z.infer<typeof entrySchema>;

const queueUrl = z.looseObject({ QueueUrl: z.string() });
const batchEntry = z.looseObject({ Id: z.string() });
const SHAPES = {
  create: z.looseObject({
    QueueName: z.string(),
    Attributes: z.record(z.string(), z.string()).default({}),
  }),
  sent: z.looseObject({ MessageId: z.string() }),
  batch: queueUrl.extend({ Entries: z.array(batchEntry) }),
  batchDone: z.looseObject({
    Successful: z.array(z.looseObject({ Id: z.string(), MessageId: z.string().optional() })).default([]),
  }),
  handle: z.looseObject({ ReceiptHandle: z.string() }),
  received: z.looseObject({
    Messages: z.array(z.looseObject({ MessageId: z.string(), ReceiptHandle: z.string() })).optional(),
  }),
};
const HANDLES_KEPT = 100_000;

/**
 * Keeps the messages of an SQS emulator in a file: what was sent is there again after `kill -9`, what was deleted is not. They have
 * other message ids then, and are visible at once.
 */
export class KeptQueues {
  readonly #journal: Journal;
  readonly #before: readonly Entry[];
  readonly #queues = new Map<string, Record<string, string>>();
  readonly #messages = new Map<string, { readonly queue: string; readonly message: Message }>();
  readonly #handles = new Map<string, string>();

  constructor(file: string) {
    const { journal, entries } = Journal.open(file, entrySchema);
    this.#journal = journal;
    this.#before = entries;
  }

  /** Fills the emulator, which listens on this port, and then writes down what happens in it. */
  async follow(server: Server, port: number): Promise<void> {
    await this.#replay(port);
    this.#journal.rewrite(this.#entries());
    interceptCalls(server, ({ operation, body, response, pass }) => {
      const end = response.end.bind(response) as (...given: unknown[]) => ServerResponse;
      response.end = (...given: unknown[]) => {
        // Before the answer: what the caller knows of is in the file.
        try {
          if (response.statusCode === 200) this.#note(operation, parse(body), parse(given[0]));
        } catch {
          // The disk is full: no answer, and the caller tries again.
          return response.destroy();
        }
        return end(...given);
      };
      pass();
    });
  }

  async #replay(port: number): Promise<void> {
    const queues = new Map<string, Record<string, string>>();
    const messages = new Map<string, { queue: string; message: Message }>();
    for (const entry of this.#before) {
      if ("send" in entry) messages.set(entry.send, entry);
      else if ("del" in entry) messages.delete(entry.del);
      else queues.set(entry.queue, entry.attributes);
    }
    const endpoint = `http://127.0.0.1:${port}`;
    const urls = new Map<string, string>();
    for (const [name, attributes] of queues) {
      const made = await call(endpoint, "CreateQueue", { QueueName: name, Attributes: attributes });
      urls.set(name, queueUrl.parse(made).QueueUrl);
      this.#queues.set(name, attributes);
    }
    for (const { queue, message } of messages.values()) {
      const url = urls.get(queue);
      if (url === undefined) continue;
      const sent = await call(endpoint, "SendMessage", { ...message, QueueUrl: url });
      this.#messages.set(SHAPES.sent.parse(sent).MessageId, { queue, message });
    }
  }

  #note(operation: string, input: unknown, output: unknown): void {
    switch (operation) {
      case "CreateQueue": {
        const { QueueName: queue, Attributes: attributes } = SHAPES.create.parse(input);
        if (!this.#queues.has(queue)) this.#write({ queue, attributes });
        return;
      }
      case "SendMessage":
        this.#sent(input, SHAPES.sent.parse(output).MessageId, queueOf(input));
        return;
      case "SendMessageBatch": {
        const entries = new Map(SHAPES.batch.parse(input).Entries.map((entry) => [entry.Id, entry]));
        for (const { Id, MessageId } of SHAPES.batchDone.parse(output).Successful)
          if (MessageId) this.#sent(entries.get(Id), MessageId, queueOf(input));
        return;
      }
      case "ReceiveMessage":
        for (const { MessageId, ReceiptHandle } of SHAPES.received.parse(output ?? {}).Messages ?? [])
          this.#received(ReceiptHandle, MessageId);
        return;
      case "DeleteMessage":
        this.#deleted(this.#handles.get(SHAPES.handle.parse(input).ReceiptHandle));
        return;
      case "DeleteMessageBatch": {
        const entries = new Map(SHAPES.batch.parse(input).Entries.map((entry) => [entry.Id, entry]));
        for (const { Id } of SHAPES.batchDone.parse(output).Successful)
          this.#deleted(this.#handles.get(SHAPES.handle.parse(entries.get(Id)).ReceiptHandle));
        return;
      }
      case "PurgeQueue":
      case "DeleteQueue":
        for (const [id, { queue }] of this.#messages) if (queue === queueOf(input)) this.#deleted(id);
    }
  }

  #sent(given: unknown, id: string, queue: string): void {
    const { MessageBody, MessageAttributes } = message.parse(given);
    const kept = { MessageBody, ...(MessageAttributes && { MessageAttributes }) };
    this.#write({ send: id, queue, message: kept });
  }

  #received(handle: string, id: string): void {
    this.#handles.set(handle, id);
    // The oldest: nobody deletes by it any more.
    const [oldest] = this.#handles.keys();
    if (this.#handles.size > HANDLES_KEPT && oldest !== undefined) this.#handles.delete(oldest);
  }

  #deleted(id: string | undefined): void {
    if (id !== undefined && this.#messages.has(id)) this.#write({ del: id });
  }

  #write(entry: Entry): void {
    this.#journal.append(entry);
    if ("send" in entry) this.#messages.set(entry.send, entry);
    else if ("del" in entry) this.#messages.delete(entry.del);
    else this.#queues.set(entry.queue, entry.attributes);
    if (!this.#journal.overgrown) return;
    try {
      this.#journal.rewrite(this.#entries());
    } catch {
      // No room for a shorter one: the longer one holds everything, and this entry.
    }
  }

  *#entries(): Iterable<Entry> {
    for (const [queue, attributes] of this.#queues) yield { queue, attributes };
    for (const [send, { queue, message }] of this.#messages) yield { send, queue, message };
  }
}

function queueOf(input: unknown): string {
  return queueUrl.parse(input).QueueUrl.split("/").at(-1) ?? "";
}

async function call(endpoint: string, operation: string, input: unknown): Promise<unknown> {
  const answer = await fetch(endpoint, {
    method: "POST",
    headers: { "content-type": "application/x-amz-json-1.0", "x-amz-target": `AmazonSQS.${operation}` },
    body: JSON.stringify(input),
  });
  if (!answer.ok) throw new Error(`${operation}: ${await answer.text()}`);
  return await answer.json();
}

function parse(bytes: unknown): unknown {
  try {
    return JSON.parse(String(bytes));
  } catch {
    return undefined;
  }
}
