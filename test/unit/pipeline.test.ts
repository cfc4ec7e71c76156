import { describe, expect, test } from "vitest";
import { unreadTopics } from "../../lib/capture/unread-topics.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { captures } from "../../lib/definition/definition.ts";
import {
  definePipeline,
  type PipelineInput,
  polling,
  postgres,
  triggers,
} from "../../lib/definition/pipeline.ts";

const smallest = { name: "shop", source: postgres({ tables: ["public.*"] }) } satisfies PipelineInput;

function problems(input: unknown): Record<string, string> {
  try {
    definePipeline(input as PipelineInput);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError);
    return Object.fromEntries((error as ConfigurationError).problems.map((p) => [p.path, p.remedy]));
  }
  return {};
}

describe("definePipeline", () => {
  test("fills in what the smallest definition leaves out", () => {
    const pipeline = definePipeline({ ...smallest, name: "my-shop" });
    expect(pipeline.source).toMatchObject({ slot: "tributary_my_shop", publication: "tributary_my_shop" });
    expect(pipeline.topics).toEqual({ prefix: "my-shop", routes: [], keys: {}, partitions: 64 });
    expect(pipeline.stream).toMatchObject({
      mode: "on-demand",
      packing: "batch",
      maxRecordBytes: 1024 * 1024,
      oversize: "claim",
    });
  });

  test("a definition that went through once goes through again unchanged", () => {
    const pipeline = definePipeline({
      ...smallest,
      consumers: [{ name: "orders", entry: "functions/orders.ts", topics: ["*.public.orders"] }],
    });
    expect(definePipeline(pipeline)).toEqual(pipeline);
  });

  test.each([
    ["name", { ...smallest, name: "Shop!" }, "lower-case letters"],
    ["source.tables[0]", { ...smallest, source: postgres({ tables: ["orders"] }) }, "schema.table"],
    ["source.tables", { ...smallest, source: postgres({ tables: [] }) }, "at least one table"],
    ["source.slot", { ...smallest, source: postgres({ tables: ["a.b"], slot: "My-Slot" }) }, "underscores"],
    ["topics.partitions", { ...smallest, topics: { partitions: 0 } }, "at least 1"],
    [
      "topics.routes[0].match",
      { ...smallest, topics: { routes: [{ match: "(", to: "x" }] } },
      "regular expression",
    ],
    ["stream.shards", { ...smallest, stream: { mode: "provisioned" } }, "how many shards"],
    ["stream.shards", { ...smallest, stream: { shards: 4 } }, "provisioned"],
    [
      "consumers[0].topics",
      { ...smallest, consumers: [{ name: "a", entry: "a.ts", topics: [] }] },
      "at least one topic",
    ],
    [
      "consumers[0].topics[0]",
      { ...smallest, consumers: [{ name: "a", entry: "a.ts", topics: ["*.a, *.b"] }] },
      "commas",
    ],
    [
      "consumers[0].batchSize",
      { ...smallest, consumers: [{ name: "a", entry: "a.ts", topics: ["*"], batchSize: 1e6 }] },
      "at most 10000",
    ],
    [
      "consumers[0].retires",
      { ...smallest, consumers: [{ name: "a", entry: "a.ts", topics: ["*"], retires: 3 }] },
      "no such field",
    ],
    [
      "consumers[0].startAt",
      {
        ...smallest,
        consumers: [{ name: "a", entry: "a.ts", topics: ["*"], startAt: "2026-11-30T21:00:00" }],
      },
      "a time with its offset",
    ],
    [
      "consumers[0].startAt",
      {
        ...smallest,
        consumers: [{ name: "a", entry: "a.ts", topics: ["*"], startAt: "2999-01-01T00:00:00+02:00" }],
      },
      "a time that has passed",
    ],
    [
      "consumers[0].startAt",
      {
        name: "shop",
        source: triggers({ tables: ["public.orders"] }),
        consumers: [{ name: "a", entry: "a.ts", topics: ["*"], startAt: "oldest" }],
      },
      "a triggers source begins now",
    ],
    [
      "consumers[1].name",
      {
        ...smallest,
        consumers: [
          { name: "a", entry: "a.ts", topics: ["*"] },
          { name: "a", entry: "b.ts", topics: ["*"] },
        ],
      },
      "name of its own",
    ],
    ["source", { name: "shop" }, "write postgres({…})"],
    ["source.slot", { ...smallest, name: "tail-orders" }, "tributary tail"],
    [
      "source.publication",
      { ...smallest, source: postgres({ tables: ["a.b"], publication: "tributary_tail" }) },
      "tributary tail",
    ],
    ["source.slots", { ...smallest, source: { ...smallest.source, slots: 0 } }, "at least 1"],
    ["source.slots", { ...smallest, source: { ...smallest.source, slots: 17 } }, "at most 16"],
    ["source.slots", { ...smallest, source: { ...smallest.source, slots: "2" } }, "write a number"],
    [
      "source.slots",
      { ...smallest, source: { ...triggers({ tables: ["public.*"] }), slots: 2 } },
      "no such field of a triggers source",
    ],
    [
      "source.slot",
      { ...smallest, source: { ...smallest.source, slots: 2, slot: "s".repeat(58) } },
      "at most 57 bytes",
    ],
    [
      "source.where.orders",
      { ...smallest, source: { ...smallest.source, where: { orders: "true" } } },
      "schema.table",
    ],
    [
      'source.where["public.orders"]',
      { ...smallest, source: { ...smallest.source, where: { "public.orders": "" } } },
      "it is empty",
    ],
    [
      "source.deletes.everySeconds",
      { ...smallest, source: polling({ tables: ["public.*"], deletes: { everySeconds: 0 } }) },
      "at least 1",
    ],
    [
      "source.outbox.messages",
      { ...smallest, source: { ...smallest.source, outbox: { messages: 7 } } },
      "write true",
    ],
    ["stream.mode", { ...smallest, stream: { mode: "ondemand" } }, 'write "on-demand" or "provisioned"'],
    ["(definition)", undefined, "an object"],
    [
      "source.publication",
      { ...smallest, source: { ...smallest.source, publication: "ü".repeat(40) } },
      "63 bytes",
    ],
    ["consumers", { ...smallest, consumers: { a: 1n } }, "a list"],
  ])("names %s, its value and the remedy", (path, input, remedy) => {
    expect(problems(input)[path]).toContain(remedy);
  });

  test("names all that is wrong at once, with the values found", () => {
    const wrong = { ...smallest, name: "X", topics: { partitions: 9999 } };
    expect(() => definePipeline(wrong)).toThrow(
      /name: [\s\S]*got "X"[\s\S]*topics\.partitions: [\s\S]*got 9999/,
    );
  });
});

test("an excluded table is not captured though a pattern takes it", () => {
  const { source } = definePipeline({
    ...smallest,
    source: postgres({ tables: ["public.*", 'odd."A.b"'], exclude: ["public.audit_*"] }),
  });
  expect(captures(source, { schema: "public", table: "orders" })).toBe(true);
  expect(captures(source, { schema: "public", table: "audit_log" })).toBe(false);
  expect(captures(source, { schema: "odd", table: "A.b" })).toBe(true);
  expect(captures(source, { schema: "odd", table: "A" })).toBe(false);
});

test("a topic pattern that no captured table goes to is told", () => {
  const reads = (...topics: string[]) =>
    unreadTopics(definePipeline({ ...smallest, consumers: [{ name: "orders", entry: "a.ts", topics }] }), [
      { schema: "public", table: "orders" },
    ]);
  expect(reads("*.public.orders", "shop.*")).toEqual([]);
  expect(reads("public.orders", "*")).toEqual([
    {
      message: 'consumer "orders" reads the topic "public.orders", and no captured table goes there',
      remedy: "Captured tables go to shop.public.orders.",
    },
  ]);
});
