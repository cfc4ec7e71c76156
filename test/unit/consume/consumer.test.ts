import { describe, expect, expectTypeOf, it } from "vitest";
import * as z from "zod";
import { environmentBytes, MAX_ENVIRONMENT_BYTES } from "../../../lib/aws/lambda-limits.ts";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { readConfiguration } from "../../../lib/consume/api/configuration.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { Registry, topicOrTable } from "../../../lib/consume/api/registry.ts";
import type { Row } from "../../../lib/consume/run/event.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { topicVariables } from "../../../lib/definition/topic-variables.ts";
import { seededRandom } from "../../../lib/local/shop/catalog.ts";
import { chain, invocationOf, packed } from "./records.ts";

const nothing = () => {};

describe("patterns", () => {
  const table = { schema: "public", table: "orders" };
  it.each([
    ["public.orders", true],
    ["public.*", true],
    ["*.orders", true],
    ['public."orders"', true],
    ["shop.public.orders", true],
    ["*.public.orders", true],
    ["shop.*", true],
    ["*", true],
    ["orders", false],
    ["public.order", false],
    ["shopXpublic.orders", false],
    ["other.public.orders", false],
  ])("%s", (pattern, matches) => {
    expect(topicOrTable(pattern)("shop.public.orders", table)).toBe(matches);
  });

  it("match a routed topic and the table inside of it", () => {
    expect(topicOrTable("shop.everything")("shop.everything", table)).toBe(true);
    expect(topicOrTable("public.orders")("shop.everything", table)).toBe(true);
    expect(topicOrTable("public.items")("shop.everything", table)).toBe(false);
  });
});

describe("consumer", () => {
  it("types events by operation and schema", () => {
    const schema = z.object({ id: z.coerce.number(), status: z.string().default("new") });
    consumer("orders")
      .on("public.orders", Operation.Update, (event) => {
        expectTypeOf(event.after).toEqualTypeOf<Row>();
        expectTypeOf(event.before).toEqualTypeOf<Row | null>();
      })
      .on("public.orders", [Operation.Create, Operation.Delete], { row: schema }, (event) => {
        if (event.operation === Operation.Create) expectTypeOf(event.after.status).toEqualTypeOf<string>();
        else expectTypeOf(event.after).toEqualTypeOf<null>();
      })
      .on("public.orders", Operation.Truncate, { once: "claim" }, (event) => {
        expectTypeOf(event.row).toEqualTypeOf<null>();
      })
      .onBatch("public.orders", { operations: Operation.Create, row: schema }, (events) => {
        expectTypeOf(events[0]?.after.id).toEqualTypeOf<number | undefined>();
      });
  });

  it("refuses what cannot work, naming it", () => {
    expect(() => consumer("Orders!")).toThrow(ConfigurationError);
    expect(() => consumer("orders").handler()).toThrow(/at least one handler/);
    expect(() => consumer("orders").on("", Operation.Create, nothing)).toThrow(ConfigurationError);
    expect(() => consumer("orders").on("public.orders, x", Operation.Create, nothing)).toThrow(
      ConfigurationError,
    );
    expect(() => consumer("orders").onBatch("public.orders", { maxEvents: 0 }, nothing)).toThrow(/maxEvents/);
  });

  it("reads the environment at the first invocation, and names every variable that is wrong", async () => {
    const handler = consumer("orders")
      .on("public.orders", Operation.Create, nothing)
      .handler({ environment: { TRIBUTARY_ATTEMPTS: "0", TRIBUTARY_POISON: "parked" } });
    const call = handler(invocationOf(packed(chain(1, 1))), { getRemainingTimeInMillis: () => 1000 });
    const error = await call.catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ConfigurationError);
    expect((error as ConfigurationError).problems.map(({ path }) => path).sort()).toEqual([
      "TRIBUTARY_ATTEMPTS",
      "TRIBUTARY_PIPELINE_NAME",
      "TRIBUTARY_POISON",
      "TRIBUTARY_STATE_TABLE",
    ]);
  });
});

describe("the environment", () => {
  const needed = { TRIBUTARY_STATE_TABLE: "state", TRIBUTARY_PIPELINE_NAME: "shop" };
  it("has defaults", () => {
    const queue = "https://sqs.us-east-1.amazonaws.com/1/q";
    expect(readConfiguration({ ...needed, TRIBUTARY_DEAD_LETTER_QUEUE_URL: queue })).toEqual({
      stateTable: "state",
      pipeline: "shop",
      deadLetterQueueUrl: queue,
      attempts: 3,
      poison: "park",
      logErrors: false,
      stage: "local",
      topics: undefined,
    });
  });

  it("must name a dead-letter queue where changes are given up", () => {
    expect(() => readConfiguration(needed)).toThrow(/TRIBUTARY_DEAD_LETTER_QUEUE_URL/);
    expect(readConfiguration({ ...needed, TRIBUTARY_POISON: "stop" }).deadLetterQueueUrl).toBeUndefined();
  });

  it("lists topics with commas", () => {
    const { topics } = readConfiguration({
      ...needed,
      TRIBUTARY_POISON: "stop",
      TRIBUTARY_TOPICS: "a.*,b.c.d",
    });
    expect(topics).toEqual(["a.*", "b.c.d"]);
  });

  const many = (count: number) =>
    Array.from({ length: count }, (_, i) => `shop.public.customer_order_items_${String(i).padStart(4, "0")}`);

  it("takes as many topics as compress into what Lambda allows, and says which consumer has more", () => {
    const define = (topics: string[]) =>
      definePipeline({
        name: "shop",
        source: postgres({ tables: ["public.*"] }),
        consumers: [{ name: "c", entry: "functions/c.ts", topics }],
      }).consumers[0]?.topics ?? [];
    for (const topics of [["shop.public.orders"], many(120), many(1000)]) {
      const variables = topicVariables(define(topics));
      expect(environmentBytes(variables)).toBeLessThan(MAX_ENVIRONMENT_BYTES - 900);
      const read = readConfiguration({ ...needed, TRIBUTARY_POISON: "stop", ...variables });
      expect(read.topics).toEqual(topics);
    }
    const random = seededRandom(1);
    const names = Array.from(
      { length: 600 },
      () => `shop.public.${Math.floor(random() * 2 ** 48).toString(36)}`,
    );
    expect(() => define(names)).toThrow(/consumers\[0\]\.topics.*4 KB of environment/s);
  });

  it("takes no packed topics that it cannot read", () => {
    for (const packed of ["", "AAAA", "not packed", Buffer.from("shop.*").toString("base64")]) {
      const read = () =>
        readConfiguration({ ...needed, TRIBUTARY_POISON: "stop", TRIBUTARY_TOPICS_PACKED: packed });
      expect(read, packed).toThrow(/TRIBUTARY_TOPICS_PACKED/);
    }
  });
});

describe("the registry", () => {
  it("gives an event to the first handler that matches", () => {
    const registry = new Registry();
    const one = { kind: "single", row: undefined, claim: false, handle: nothing } as const;
    const pattern = "public.orders";
    const first = {
      ...one,
      pattern,
      matches: topicOrTable(pattern),
      operations: new Set([Operation.Create]),
    };
    const second = {
      ...one,
      pattern: "public.*",
      matches: topicOrTable("public.*"),
      operations: new Set([Operation.Create, Operation.Update]),
    };
    registry.add(first);
    registry.add(second);
    const find = (op: "c" | "u" | "d", name: string) =>
      registry.find("shop.x", { op, source: { schema: "public", table: name } } as never);
    expect(find("c", "orders")).toBe(first);
    expect(find("u", "orders")).toBe(second);
    expect(find("c", "items")).toBe(second);
    expect(find("d", "orders")).toBeUndefined();
    expect(registry.patterns).toEqual(["public.orders", "public.*"]);
    expect(registry.unmatched).toEqual(["public.orders delete"]);
  });
});
