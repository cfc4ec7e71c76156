import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, expect, it, vi } from "vitest";
import { switchMapping } from "../../../lib/admin/event-source-mapping.ts";
import { consumerAtRest, pauseConsumer, resumeConsumer } from "../../../lib/admin/pause-consumer.ts";
import { retentionLeft } from "../../../lib/admin/retention-left.ts";
import { lambdaClient } from "../../../lib/aws/clients.ts";
import { PausePublisher } from "../../../lib/capture/pause-metrics.ts";
import { REDRIVE, REPLAY } from "../../../lib/consume/fence/partition-lease.ts";
import { noteDisabled, readPause, readPauses } from "../../../lib/state/pauses.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import { MemoryTable } from "../consume/memory-table.ts";

const ORDERS = { name: "orders", timeoutSeconds: 60 };
const UUID = "8d7c5c0a-0000-4000-8000-000000000001";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
  vi.restoreAllMocks();
});

/** Lambda's API as far as a mapping is switched: each answer is a state, or an error's name and status. */
async function mappingOn(answers: (string | readonly [name: string, status: number])[]) {
  const calls: { path: string; body: unknown }[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    calls.push({ path: request.url ?? "", body: JSON.parse(Buffer.concat(chunks).toString()) });
    const answer = answers.shift() ?? "Enabled";
    response.setHeader("content-type", "application/json");
    if (typeof answer === "string") return void response.end(JSON.stringify({ UUID, State: answer }));
    response.writeHead(answer[1], { "x-amzn-errortype": answer[0] }).end("{}");
  });
  return { mapping: { lambda: await lambdaOn(server), uuid: UUID }, calls };
}

async function lambdaOn(server: Server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => server.close().closeAllConnections());
  const { port } = server.address() as { port: number };
  return await lambdaClient({
    AWS_ENDPOINT_URL_LAMBDA: `http://127.0.0.1:${port}`,
    ...{ AWS_REGION: "eu-west-1", AWS_ACCESS_KEY_ID: "k", AWS_SECRET_ACCESS_KEY: "s" },
  });
}

function shop() {
  const dynamodb = new MemoryTable().client();
  return { dynamodb, table: "t", pipeline: "shop", signal: new AbortController().signal };
}

it("says when no invocation is left that might not know, and disables the mapping until the resume", async () => {
  const place = shop();
  const { mapping, calls } = await mappingOn([["ResourceInUseException", 400], "Disabling", "Enabling"]);
  const before = Date.now();
  const { pause, completeAt, mapping: outcome } = await pauseConsumer(place, ORDERS, { by: "ada" }, mapping);
  expect(completeAt - before).toBeGreaterThanOrEqual(65_000);
  expect(completeAt - before).toBeLessThan(70_000);
  expect(outcome).toEqual({ state: "Disabling" });
  // Where the resume does not know the stack, the pause tells the mapping.
  expect(await readPause(place, { consumer: "orders" })).toMatchObject({ id: pause.id, mapping: UUID });
  expect(await resumeConsumer(place, "orders", mapping)).toMatchObject({ pause: { id: pause.id } });
  expect(await readPause(place, { consumer: "orders" })).toBeUndefined();
  const path = `/2015-03-31/event-source-mappings/${UUID}`;
  expect(calls).toEqual([false, false, true].map((Enabled) => ({ path, body: { Enabled } })));
});

it("is at rest when its time is over, and is not waited for where another operator has resumed it", async () => {
  const place = shop();
  const { pause, completeAt } = await pauseConsumer(place, ORDERS, { by: "ada" });
  expect(await consumerAtRest(place, "orders", { pause, completeAt: Date.now() })).toBe(true);
  const waiting = consumerAtRest(place, "orders", { pause, completeAt });
  await resumeConsumer(place, "orders");
  await pauseConsumer(place, ORDERS, { by: "bob" });
  expect(await waiting).toBe(false);
});

it.each([REDRIVE, REPLAY])("is not at rest while a redrive is at a call, by its lease %o", async (kind) => {
  const place = shop();
  const { pk, sk } = fenceKey({ pipeline: "shop", consumer: "orders" }, "shop.public.orders", 0);
  const Item = {
    ...{ pk: { S: pk }, sk: { S: sk } },
    [`${kind.name}3`]: { S: "redrive-1" },
    [`${kind.end}3`]: { N: String(Date.now() + 1_500) },
  };
  await place.dynamodb.send(new PutItemCommand({ TableName: "t", Item }));
  const { pause } = await pauseConsumer(place, ORDERS, { by: "ada" });
  let told = 0;
  const before = Date.now();
  expect(await consumerAtRest(place, "orders", { pause, completeAt: before }, () => told++)).toBe(true);
  expect(Date.now() - before).toBeGreaterThanOrEqual(1_500);
  expect(told).toBe(1);
});

it("pauses all the same where the mapping may not be disabled", async () => {
  const place = shop();
  const { mapping } = await mappingOn([["AccessDeniedException", 403]]);
  const { mapping: outcome } = await pauseConsumer(place, ORDERS, { by: "ada" }, mapping);
  expect(outcome).toMatchObject({ error: { name: "AccessDeniedException" } });
  expect(await readPause(place, { consumer: "orders" })).toMatchObject({ by: "ada" });
});

it("stays paused where the mapping cannot be enabled", async () => {
  const place = shop();
  await pauseConsumer(place, ORDERS, { by: "ada" });
  const { mapping } = await mappingOn([["AccessDeniedException", 403]]);
  await expect(resumeConsumer(place, "orders", mapping)).rejects.toMatchObject({
    code: "MAPPING_NOT_ENABLED",
    message: expect.stringContaining("AccessDeniedException (HTTP 403)"),
  });
  expect(await readPause(place, { consumer: "orders" })).toMatchObject({ by: "ada" });
});

it.each(["before", "after"] as const)(
  "is not left disabled by a pause that ends right %s that",
  async (when) => {
    const place = shop();
    let enabled = true;
    let resumes: (() => Promise<unknown>) | undefined;
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const { Enabled } = JSON.parse(Buffer.concat(chunks).toString()) as { Enabled: boolean };
      const another = Enabled ? undefined : resumes;
      if (when === "before") await another?.();
      enabled = Enabled;
      if (when === "after") await another?.();
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ UUID, State: Enabled ? "Enabling" : "Disabling" }));
    });
    const mapping = { lambda: await lambdaOn(server), uuid: UUID };
    resumes = () => resumeConsumer(place, "orders", mapping);
    await pauseConsumer(place, ORDERS, { by: "ada" }, mapping);
    expect(await readPause(place, { consumer: "orders" })).toBeUndefined();
    expect(enabled).toBe(true);
  },
);

it("enables a mapping again that was disabled while a resume was under way", async () => {
  const table = new MemoryTable();
  const place = { ...shop(), dynamodb: table.client() };
  const { mapping, calls } = await mappingOn(["Enabling", "Disabling", "Enabling"]);
  const { pause } = await pauseConsumer(place, ORDERS, { by: "ada" });
  let late = false;
  // The pausing operator's call was slow: it comes between the enabled mapping and the end of the pause.
  const dynamodb = table.client(async (whenever, what) => {
    if (whenever === "before" && what.startsWith("delete") && !late) {
      late = true;
      await switchMapping(mapping, false, place.signal);
      await noteDisabled(place, { consumer: "orders" }, pause);
    }
    return "none";
  });
  expect(await resumeConsumer({ ...place, dynamodb }, "orders", mapping)).toMatchObject({
    pause: { id: pause.id },
  });
  expect(calls.map(({ body }) => body)).toEqual([{ Enabled: true }, { Enabled: false }, { Enabled: true }]);
  expect(await readPause(place, { consumer: "orders" })).toBeUndefined();
});

it("enables a mapping whose pause is gone, and refuses where there is nothing to resume", async () => {
  const { mapping } = await mappingOn(["Enabling", "Enabled"]);
  expect(await resumeConsumer(shop(), "orders", mapping)).toEqual({
    pause: undefined,
    mapping: { state: "Enabling" },
  });
  await expect(resumeConsumer(shop(), "orders", mapping)).rejects.toMatchObject({ code: "NOT_PAUSED" });
  await expect(resumeConsumer(shop(), "orders")).rejects.toMatchObject({ code: "NOT_PAUSED" });
});

it("tells in its metric the age of the oldest change that it lacked at the pause", async () => {
  const hour = 3_600_000;
  const place = shop();
  const now = Date.now();
  await pauseConsumer(place, ORDERS, { by: "ada", oldestAt: now - 20 * hour });
  await pauseConsumer(place, { ...ORDERS, name: "mails" }, { by: "ada" });
  const lines: { consumer: string; PauseRetentionUsed: number }[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line));
  const publisher = new PausePublisher({
    stage: "Test",
    pipeline: "shop",
    retentionHours: 24,
    seconds: 60,
    write,
  });
  publisher.take(await readPauses(place), now + 2 * hour);
  expect(lines.map(({ consumer, PauseRetentionUsed }) => [consumer, Math.round(PauseRetentionUsed)])).toEqual(
    [
      ["mails", 8],
      ["orders", 92],
    ],
  );
});

it("tells what is left of the retention: never more than all, never less than nothing", () => {
  const hour = 3_600_000;
  expect(retentionLeft(0, 24, 6 * hour)).toEqual({
    ...{ retentionHours: 24, oldestAt: 0, ageMs: 6 * hour, leftMs: 18 * hour, usedPercent: 25 },
  });
  expect(retentionLeft(0, 24, 30 * hour)).toMatchObject({ leftMs: 0, usedPercent: 100 });
  expect(retentionLeft(hour, 24, 0)).toMatchObject({ ageMs: 0, leftMs: 24 * hour, usedPercent: 0 });
});
