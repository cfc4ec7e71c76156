import { expect, test } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import {
  definePipeline,
  outbox,
  type Pipeline,
  type PipelineInput,
  postgres,
} from "../../../lib/definition/pipeline.ts";
import { sourceKind } from "../../../lib/source/index.ts";

const define = (source: PipelineInput["source"], topics: PipelineInput["topics"] = {}) =>
  definePipeline({ name: "shop", source, topics });

test("the outbox's table is captured without being named, once", () => {
  const tables = (given: string[], table: string) =>
    define(postgres({ tables: given, outbox: { table } })).source.tables;
  expect(tables([], 'public."outbox"')).toEqual(["public.outbox"]);
  expect(tables(["public.orders"], "app.Outbox")).toEqual(["public.orders", "app.Outbox"]);
  expect(tables(["public.*"], "public.outbox")).toEqual(["public.*"]);
});

test("a definition may be read again: what it became is what it was", () => {
  for (const source of [
    postgres({ outbox: { table: "public.outbox", messages: true } }),
    postgres({ tables: ["public.*"], outbox: { messages: "app" } }),
    outbox({ keepHours: 24, cloudEvents: { source: "https://shop.example" } }),
  ]) {
    const once = define(source);
    expect(definePipeline(once as PipelineInput)).toEqual(once);
  }
  expect(define(postgres({ outbox: { messages: true } })).source).toMatchObject({
    tables: [],
    outbox: { messages: "outbox", malformed: "stop" },
  });
});

test.each<[string, PipelineInput["source"], RegExp]>([
  ["nothing to capture", postgres({ tables: [] }), /source\.tables: name at least one table/],
  ["an outbox of nothing", postgres({ outbox: {} }), /source\.outbox: name the outbox's table/],
  [
    "no messages and no table",
    postgres({ outbox: { messages: false } }),
    /source\.outbox: name the outbox's table/,
  ],
  [
    "a prefix of ours",
    postgres({ outbox: { messages: "tributary.x" } }),
    /source\.outbox\.messages: .*taken/,
  ],
  ["no table name", postgres({ outbox: { table: "outbox" } }), /source\.outbox\.table: write schema\.table/],
  [
    "a table left out",
    postgres({ outbox: { table: "public.outbox" }, exclude: ["public.out*"] }),
    /source\.exclude: let the outbox's table in/,
  ],
  ["a relay of no table", outbox({ table: "a.b.c" }), /source\.table: write schema\.table/],
  ["CloudEvents of nowhere", outbox({ cloudEvents: { source: "" } }), /source\.cloudEvents\.source/],
  ["tables of a relay", { ...outbox(), tables: ["public.orders"] } as never, /source\.tables/],
])("%s is refused, naming the field", (_, source, message) => {
  expect(() => define(source)).toThrow(ConfigurationError);
  expect(() => define(source)).toThrow(message);
});

test("what each form needs in the database", () => {
  const outboxPlan = (pipeline: Pipeline) => sourceKind(pipeline.source).outbox(pipeline);
  expect(outboxPlan(define(postgres({ tables: ["public.*"] })))).toBeUndefined();
  expect(outboxPlan(define(postgres({ outbox: { messages: true } })))).toMatchObject({
    install: [],
    grants: [],
  });
  const table = outboxPlan(define(postgres({ outbox: { table: "public.outbox" } })));
  expect(table?.install).toHaveLength(1);
  const relay = outboxPlan(define(outbox({ table: 'a"b.c'.replace('a"b', '"a""b"') }), { partitions: 8 }));
  expect(relay?.install.join("\n")).toContain('"a""b"."c_murmur3"(aggregate_id) % 8 % 8');
  expect(relay?.uninstall.at(-1)).toBe('DROP FUNCTION IF EXISTS "a""b"."c_murmur3"(text);');
});
