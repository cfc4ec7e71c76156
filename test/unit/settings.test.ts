import { expect, test } from "vitest";
import { definePipeline, outbox, type PipelineInput, postgres } from "../../lib/definition/pipeline.ts";
import { routeTables } from "../../lib/definition/route.ts";
import { sourceKind } from "../../lib/source/index.ts";
import { mergeSettings, settingsOf } from "../../lib/state/settings.ts";
import { StoredSettingChangedError } from "../../lib/state/state-errors.ts";

const orders = { schema: "public", table: "orders" };
const customers = { schema: "public", table: "customers" };

function settings(topics: PipelineInput["topics"], tables = [orders], source: { slot?: string } = {}) {
  const pipeline = definePipeline({
    name: "shop",
    source: postgres({ tables: ["public.*"], ...source }),
    topics,
  });
  return settingsOf(sourceKind(pipeline.source).settings(pipeline.source), routeTables(pipeline), tables);
}

test("the partitions of an outbox's topics are stored too, and refused when they change", () => {
  const now = (partitions: number) => {
    const pipeline = definePipeline({ name: "shop", source: outbox(), topics: { partitions } });
    return settingsOf(sourceKind(pipeline.source).settings(pipeline.source), routeTables(pipeline), []);
  };
  const stored = mergeSettings("shop", undefined, now(64));
  expect(() => mergeSettings("shop", stored, now(32))).toThrow(/partitions of outbox\./);
});

test("a table that is new is stored, one that left is remembered", () => {
  const first = mergeSettings("shop", undefined, settings({}, [orders]));
  const second = mergeSettings(
    "shop",
    first,
    settings({ keys: { "public.customers": ["id"] } }, [customers]),
  );
  expect(Object.keys(second.tables)).toEqual(["public.orders", "public.customers"]);
  expect(mergeSettings("shop", second, second)).toEqual(second);
});

test.each([
  ["partitions of public.orders", settings({ partitions: 32 })],
  ["key of public.orders", settings({ keys: { "public.orders": ["customer_id"] } })],
  ["topic of public.orders", settings({ prefix: "store" })],
  ["source.slot", settings({}, [orders], { slot: "another" })],
])("a changed %s is refused with both values", (setting, now) => {
  const stored = mergeSettings("shop", undefined, settings({}));
  const refused = (() => {
    try {
      mergeSettings("shop", stored, now);
    } catch (error) {
      return error;
    }
  })();
  expect(refused).toBeInstanceOf(StoredSettingChangedError);
  expect((refused as Error).message).toMatch(
    new RegExp(`${setting.replaceAll(".", "\\.")}: was .+, is now .+`),
  );
});
