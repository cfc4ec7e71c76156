import type { SQSClient } from "@aws-sdk/client-sqs";
import { expect, test } from "vitest";
import { CaptureDeadLetterQueue } from "../../lib/capture/dead-letters.ts";
import type { ClaimStore } from "../../lib/change/claim-store.ts";
import { START_OF_HISTORY } from "../../lib/change/position.ts";
import { DeadLetterTooLargeError } from "../../lib/consume/dead-letter/dead-letter-errors.ts";
import type { AsideLetter } from "../../lib/source/postgres/aside/aside-record.ts";

const signal = new AbortController().signal;
const letter: AsideLetter = {
  ...{ pipeline: "shop", topic: "shop.public.orders", table: "public.orders", position: START_OF_HISTORY },
  ...{ lsn: "0/1", xid: 7, commitTime: "0", putAsideAt: "2026-11-30T00:00:00.000Z" },
  error: { code: "CHANGE_TOO_LARGE", message: "m" },
  relation: { oid: 1, schema: "public", table: "orders", identity: "default", columns: [] },
};

/** A queue that keeps what it is sent, and a claim store that counts bytes. */
function scene(withClaims = true) {
  const sent: string[] = [];
  const stored: number[] = [];
  const sqs = {
    send: async ({ input }: { input: { MessageBody: string } }) => void sent.push(input.MessageBody),
  } as unknown as SQSClient;
  const claims = {
    bucket: "b",
    prefix: "",
    put: async (_claim: unknown, bytes: Uint8Array) => void stored.push(bytes.length),
  } as unknown as ClaimStore;
  return { queue: new CaptureDeadLetterQueue(sqs, "url", withClaims ? claims : undefined), sent, stored };
}

test("a message whose base64 is longer than a string can be goes to the claim store all the same", async () => {
  const message = Buffer.alloc(420_000_000);
  const { queue, sent, stored } = scene();
  await queue.send(letter, message, signal);
  expect(stored).toEqual([message.length]);
  expect(JSON.parse(sent[0] ?? "")).toMatchObject({ messageClaim: { bytes: message.length } });
  await expect(scene(false).queue.send(letter, message, signal)).rejects.toThrow(DeadLetterTooLargeError);
});

test("a message that the letter has room for is in the letter", async () => {
  const { queue, sent, stored } = scene();
  await queue.send(letter, Buffer.from("I"), signal);
  expect(JSON.parse(sent[0] ?? "")).toMatchObject({ message: Buffer.from("I").toString("base64") });
  expect(stored).toEqual([]);
});
