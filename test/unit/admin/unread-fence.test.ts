import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { expect, it } from "vitest";
import { consumerProblems } from "../../../lib/admin/consumer-problems.ts";
import { consumerStatus } from "../../../lib/admin/consumer-status.ts";
import type { PipelineResources } from "../../../lib/admin/resources.ts";
import { summaryOf } from "../../../lib/admin/status-parts.ts";
import { statusInWords } from "../../../lib/cli/consumer.ts";
import type { StateItem } from "../../../lib/state/state-table.ts";
import { MemoryTable } from "../consume/memory-table.ts";
import { at } from "../consume/records.ts";

const { signal } = new AbortController();
const fine = { m1: { S: at(1) }, w1: { N: "1" } };

async function look(attributes: StateItem, sk = "fence#shop.public.orders#0") {
  const dynamodb = new MemoryTable().client();
  const Item = { pk: { S: "p#consumer#c" }, sk: { S: sk }, ...attributes };
  await dynamodb.send(new PutItemCommand({ TableName: "t", Item }));
  return await consumerStatus({ dynamodb, table: "t", pipeline: "p", consumer: "c" }, signal);
}

it.each([
  ["m3: expected a position", { m3: { S: "soon" } }],
  ["w3: expected a whole number", { w3: { N: "1.5" } }],
  ["h3: expected a hold", { m3: { S: at(2) }, h3: { S: "{}" } }],
  ["a3: expected calls of a handler", { m3: { S: at(2) }, a3: { S: "x" } }],
  ["k3: expected a list of parked keys", { m3: { S: at(2) }, k3: { S: "zzz" } }],
])(
  "a partition whose fence item says %s is a problem that names the item, beside the others",
  async (fault, own) => {
    const found = await look({ ...fine, ...(own as StateItem) });
    expect(found).toMatchObject([
      { partition: 1, checkpoint: at(1) },
      { partition: 3, unread: { code: "STATE_ITEM" } },
    ]);
    expect(found[0]).not.toHaveProperty("unread");
    const [, unread] = found;
    const item = `the item fence#shop.public.orders#0 of the state table cannot be read: ${fault}`;
    expect(JSON.parse(JSON.stringify(unread)).unread.message).toContain(item);
    expect(statusInWords(unread as NonNullable<typeof unread>, "c").join("\n")).toContain(item);

    const none = { lag: undefined, paused: undefined, retention: undefined, messages: undefined };
    const summary = summaryOf({ name: "c", topics: ["*"] } as never, found, none);
    const problems = consumerProblems(summary, { consumers: {} } as PipelineResources);
    expect(problems).toMatchObject([
      { severity: "unhealthy", code: "STATE_ITEM", message: expect.stringContaining(item) },
    ]);
  },
);

it("an item of the fence that names no partitions ends the look with its name", async () => {
  await expect(look(fine, "fence#shop.public.orders#x")).rejects.toMatchObject({
    code: "STATE_ITEM",
    message: expect.stringContaining("fence#shop.public.orders#x"),
  });
});
