import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { afterEach, expect, test } from "vitest";
import { compareDeployed } from "../../../lib/admin/plan/deployed.ts";
import { topicFilters } from "../../../lib/consume/api/topic-filters.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";

const signal = new AbortController().signal;
let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((closed) => server?.close(closed));
});

const pipeline = definePipeline({
  name: "shop",
  source: postgres({ tables: ["public.*"] }),
  stream: { mode: "provisioned", shards: 4 },
  consumers: [{ name: "orders", entry: "x", topics: ["*.public.orders", "shop.public.items"] }],
});
const resources = {
  stream: "shop-stream",
  consumers: {
    orders: {
      ...{ function: "shop-orders", mapping: "uuid-1" },
      ...{ redriveFunction: undefined, verifyTask: undefined, entry: undefined, deadLetterQueue: undefined },
    },
  },
};
const filters = (topics: readonly string[]) =>
  (topicFilters(topics) ?? []).map((pattern) => ({ Pattern: JSON.stringify(pattern) }));
const AS_DEFINED = {
  stream: {
    ...{ RetentionPeriodHours: 168, OpenShardCount: 4, StreamModeDetails: { StreamMode: "PROVISIONED" } },
  },
  mapping: {
    ...{ BatchSize: 1000, MaximumBatchingWindowInSeconds: 0, ParallelizationFactor: 1 },
    FilterCriteria: { Filters: filters(["*.public.orders", "shop.public.items"]) },
  },
  function: { Timeout: 60, MemorySize: 512 },
};

/** Real clients, answered by a server; `refused`: the part of a path that it refuses. */
async function compared(
  deployed: Partial<Record<keyof typeof AS_DEFINED, object>>,
  refused?: string,
  more: Record<string, string> = {},
) {
  const paths: string[] = [];
  server = createServer((request, response) => {
    const target = String(request.headers["x-amz-target"] ?? request.url);
    paths.push(target);
    request.resume();
    if (refused !== undefined && target.includes(refused)) {
      response.writeHead(403, { "x-amzn-errortype": "AccessDeniedException" });
      response.end(JSON.stringify({ __type: "AccessDeniedException", message: "no" }));
      return;
    }
    const given = { ...AS_DEFINED, ...deployed };
    const answer = target.includes("DescribeStreamSummary")
      ? { StreamDescriptionSummary: given.stream }
      : target.includes("event-source-mappings")
        ? given.mapping
        : given.function;
    response.setHeader("content-type", "application/x-amz-json-1.1");
    response.end(JSON.stringify(answer));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const environment = {
    ...{ AWS_REGION: "eu-west-1", AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret" },
    AWS_ENDPOINT_URL: `http://127.0.0.1:${port}`,
    ...more,
  };
  return { ...(await compareDeployed(pipeline, resources, environment, signal)), paths };
}

test("finds nothing where the stack is as the definition says, and asks for each thing once", async () => {
  const { changes, unseen, paths } = await compared({});
  expect([changes, unseen]).toEqual([[], []]);
  expect(paths).toEqual([
    expect.stringContaining("DescribeStreamSummary"),
    expect.stringContaining("event-source-mappings/uuid-1"),
    expect.stringContaining("functions/shop-orders/configuration"),
  ]);
});

test("tells each setting that a deploy would change, with what it is and what it would be", async () => {
  const { changes } = await compared({
    stream: { RetentionPeriodHours: 24, OpenShardCount: 2, StreamModeDetails: { StreamMode: "PROVISIONED" } },
    mapping: {
      ...{ BatchSize: 10, MaximumBatchingWindowInSeconds: 5, ParallelizationFactor: 2 },
      FilterCriteria: { Filters: filters(["*.public.orders"]) },
    },
    function: { Timeout: 30, MemorySize: 256 },
  });
  expect(changes.map(({ name, setting, deployed, wanted }) => [name, setting, deployed, wanted])).toEqual([
    ["stream shop-stream", "retention in hours", "24", "168"],
    ["stream shop-stream", "shards", "2", "4"],
    ["event source mapping of orders", "batchSize", "10", "1000"],
    ["event source mapping of orders", "batchWindowSeconds", "5", "0"],
    ["event source mapping of orders", "parallelization", "2", "1"],
    [
      ...["event source mapping of orders", "filters"],
      ...[expect.not.stringContaining("items"), expect.stringContaining("items")],
    ],
    ["function of orders", "timeoutSeconds", "30", "60"],
    ["function of orders", "memoryMB", "256", "512"],
  ]);
});

test("the mode of the stream counts, and the order of filters does not", async () => {
  const stream = { RetentionPeriodHours: 168, StreamModeDetails: { StreamMode: "ON_DEMAND" } };
  const mapping = {
    ...AS_DEFINED.mapping,
    FilterCriteria: { Filters: AS_DEFINED.mapping.FilterCriteria.Filters.toReversed() },
  };
  const { changes } = await compared({ stream, mapping });
  expect(changes.map(({ setting, deployed }) => [setting, deployed])).toEqual([["mode", "on-demand"]]);
});

test("lists what it may not see, and looks at the rest", async () => {
  const { changes, unseen } = await compared({ function: { Timeout: 30, MemorySize: 512 } }, "mappings");
  expect(unseen).toEqual([
    { what: "event source mapping of orders", why: expect.stringContaining("AccessDenied"), failed: true },
  ]);
  expect(changes.map(({ setting }) => setting)).toEqual(["timeoutSeconds"]);
});

test("in the capture image compares the stream alone: its definition lacks the settings of consumers", async () => {
  const differs = { stream: { ...AS_DEFINED.stream, RetentionPeriodHours: 24 }, function: { Timeout: 1 } };
  const { changes, unseen, paths } = await compared(differs, undefined, { TRIBUTARY_OPERATE: "true" });
  expect(changes).toMatchObject([{ setting: "retention in hours", deployed: "24", wanted: "168" }]);
  expect(unseen).toEqual([
    { what: "settings of consumers", why: expect.stringContaining("run tributary plan without --remote") },
  ]);
  expect(paths).toHaveLength(1);
});
