import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DeadLetterQueue, deadLetterError } from "../../../lib/consume/dead-letter/dead-letter.ts";
import { DeadLetterTooLargeError } from "../../../lib/consume/dead-letter/dead-letter-errors.ts";
import { memoryQueue } from "./memory-queue.ts";
import { at } from "./records.ts";

/** What SQS takes: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html */
const ACCEPTED = /^[\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]*$/u;
const LARGEST = 1024 * 1024;

const sent: string[] = [];
const queue = new DeadLetterQueue(
  memoryQueue((body) => sent.push(body)),
  "https://sqs.us-east-1.amazonaws.com/1/letters",
);

function letter(text: string) {
  const when = "2026-11-30T00:00:00.000Z";
  return {
    ...{ consumer: "c", topic: text, partition: 0, position: at(1), shardId: "s", sequenceNumber: "1" },
    ...{ attempts: 1, firstFailedAt: when, lastFailedAt: when },
    error: deadLetterError(Object.assign(new Error(text), { name: text, stack: text })),
  };
}

const text = fc.string({
  unit: fc.constantFrom(
    "\0",
    "\u0008",
    "\u007f",
    "\ud800",
    "\udfff",
    "\ufffe",
    "\uffff",
    "\u{1f980}",
    "\\",
    '"',
    "a",
  ),
});

describe("a dead letter", () => {
  it("is of characters that SQS takes, and says the same, whatever a row, a topic or an error says", async () => {
    await fc.assert(
      fc.asyncProperty(text, text, async (said, held) => {
        sent.length = 0;
        // As capture writes a row: raw where JSON lets it.
        const payload = JSON.stringify({ after: { [held]: held } });
        await queue.send(letter(said), AbortSignal.timeout(1000), payload);
        expect(sent[0]).toMatch(ACCEPTED);
        expect(JSON.parse(sent[0] as string)).toEqual({
          ...JSON.parse(JSON.stringify(letter(said))),
          payload: JSON.parse(payload),
        });
      }),
    );
  });

  it("has the size that it is sent with", async () => {
    sent.length = 0;
    const rest = Buffer.byteLength(JSON.stringify({ ...letter(""), payload: "" }));
    // Three bytes in a row, six in a letter.
    const room = Math.floor((LARGEST - rest) / 6);
    await queue.send(letter(""), AbortSignal.timeout(1000), JSON.stringify("\uffff".repeat(room)));
    expect(Buffer.byteLength(sent[0] as string)).toBeLessThanOrEqual(LARGEST);
    const larger = queue.send(
      letter(""),
      AbortSignal.timeout(1000),
      JSON.stringify("\uffff".repeat(room + 1)),
    );
    await expect(larger).rejects.toThrow(DeadLetterTooLargeError);
    expect(sent.length).toBe(1);
  });
});
