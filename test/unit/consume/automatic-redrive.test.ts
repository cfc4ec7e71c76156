import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { SQSEvent } from "aws-lambda";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { handler } from "../../../functions/redrive.ts";
import { formatPosition } from "../../../lib/change/position.ts";

/* functions/redrive with the answers of a consumer's redrive function, by the position that is asked for. */

const REPORT = {
  ...{ tributary: "redrive", consumer: "orders", redriven: 0, discarded: 0, more: false, durationMs: 1 },
  ...{ done: 0, failed: 0, open: 0, busy: 0, unhandled: 0, superseded: 0, letters: [] },
};
const at = (ordinal: number) => formatPosition({ epoch: 1, commitLsn: 1n, ordinal });
const answers: Record<string, object> = {
  [at(1)]: { ...REPORT, done: 1, redriven: 1 },
  [at(2)]: { ...REPORT, superseded: 1 },
  [at(3)]: REPORT,
};

let server: Server;
beforeEach(async () => {
  server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { position } = JSON.parse(Buffer.concat(chunks).toString());
    response.end(JSON.stringify(answers[position]));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  vi.stubEnv("AWS_ENDPOINT_URL_LAMBDA", `http://127.0.0.1:${port}`);
  vi.stubEnv("AWS_REGION", "eu-west-1");
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "test");
  vi.stubEnv("TRIBUTARY_REDRIVE_FUNCTION", "Redrive-Orders");
});
afterEach(() => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  server.close();
});

it("keeps the message of a superseded change, as the command does: nothing else has that change", async () => {
  const message = (position: string) => ({
    messageId: position,
    body: JSON.stringify({ consumer: "orders", topic: "shop.public.orders", partition: 0, position }),
  });
  const event = { Records: Object.keys(answers).map(message) } as unknown as SQSEvent;
  expect(await handler(event)).toEqual({ batchItemFailures: [{ itemIdentifier: at(2) }] });
});
