import fc from "fast-check";
import { expect, test } from "vitest";
import { definePipeline, type PipelineInput, postgres } from "../../../lib/definition/pipeline.ts";
import { messageTopic, routeTables } from "../../../lib/definition/route.ts";

function define(topics: PipelineInput["topics"]) {
  return definePipeline({ name: "shop", source: postgres({ tables: ["*.*"] }), topics });
}

test("a table's topic is prefix, schema, table", () => {
  const route = routeTables(define({ partitions: 16 }));
  expect(route({ schema: "public", table: "orders" })).toEqual({
    topic: { name: "shop.public.orders", partitions: 16 },
    key: undefined,
  });
});

test("the first matching route renames; several tables may share a topic", () => {
  const route = routeTables(
    define({
      prefix: "crm",
      routes: [
        { match: "^public\\.orders_(\\d+)$", to: "public.orders" },
        { match: "^public\\.(.*)$", to: "all.$1" },
      ],
    }),
  );
  expect(route({ schema: "public", table: "orders_1" }).topic.name).toBe("crm.public.orders");
  expect(route({ schema: "public", table: "orders_22" }).topic.name).toBe("crm.public.orders");
  expect(route({ schema: "public", table: "customers" }).topic.name).toBe("crm.all.customers");
  expect(route({ schema: "sales", table: "orders_1" }).topic.name).toBe("crm.sales.orders_1");
});

test("key columns by table", () => {
  const route = routeTables(define({ keys: { "public.order_*": ["customer_id"] } }));
  expect(route({ schema: "public", table: "order_items" }).key).toEqual(["customer_id"]);
  expect(route({ schema: "public", table: "customers" }).key).toBeUndefined();
});

test("no two tables share a topic by their names", () => {
  const route = routeTables(define({}));
  const identifier = fc.string({
    minLength: 1,
    unit: fc.constantFrom("a", "B", ".", "%", "/", "*", "$", "2", "E", "\n"),
  });
  const table = fc.record({ schema: identifier, table: identifier });
  fc.assert(
    fc.property(table, table, (a, b) => {
      const same = a.schema === b.schema && a.table === b.table;
      expect(route(a).topic.name === route(b).topic.name).toBe(same);
      expect(route(a).topic.name).not.toBe(messageTopic(define({})).name);
    }),
  );
});

test("logical messages have a topic of one partition", () => {
  expect(messageTopic(define({}))).toEqual({ name: "shop.$messages", partitions: 1 });
});
