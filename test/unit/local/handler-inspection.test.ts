import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { examine } from "../../../lib/admin/doctor/index.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { inspectHandlers } from "../../../lib/local/handler-inspection.ts";
import { DevProject } from "../../pipeline/dev-project.ts";

const TABLES = [{ schema: "public", table: "orders" }];

let project: DevProject;
beforeEach(async () => {
  project = await DevProject.make();
});
afterEach(() => project.remove());

const pipeline = (topics: readonly string[] = ["*"]) =>
  definePipeline({
    name: "mine",
    source: postgres({ tables: ["public.orders"] }),
    consumers: [{ name: "orders", entry: "functions/orders.ts", topics: [...topics] }],
  });
const handler = (pattern = "public.orders", name = "orders", before = "") => `
  import { consumer, Operation } from "tributary-cdc";
  ${before}
  export const handler = consumer("${name}").on("${pattern}", [Operation.Create], () => {}).handler();`;

const bundles = async () => (await readdir(tmpdir())).filter((name) => name.startsWith("tributary-doctor-"));

async function look(file: string | undefined, environment: Record<string, string> = {}) {
  if (file !== undefined) await project.write({ "functions/orders.ts": file });
  const before = await bundles();
  const { checks } = await examine({
    node: process.versions.node,
    environment: {},
    definition: { file: project.path("tributary.config.ts"), pipeline: pipeline() },
    database: undefined,
    resources: undefined,
    handlers: inspectHandlers(project.directory, { PATH: process.env.PATH, ...environment }),
  });
  expect(
    (await bundles()).filter((name) => !before.includes(name)),
    "bundles that are left",
  ).toEqual([]);
  const found = checks.find(({ name }) => name === "handler orders");
  if (found?.status !== "problem") return found;
  return found.problems.map(({ code, message, remedy }) => `${code} ${message} | ${remedy}`).join("\n");
}

describe("doctor looks at handlers as dev runs them", () => {
  test("one that is in order, with the environment that it reads as it is loaded", async () => {
    const needs = 'if (process.env.MINE !== "here") throw new Error("no MINE");';
    expect(await look(handler("public.orders", "orders", needs), { MINE: "here" })).toMatchObject({
      status: "ok",
      detail: "functions/orders.ts loads: 1 pattern",
    });
  });

  test("what is wrong with one, with the codes that dev says", async () => {
    expect(await look(undefined)).toMatch(
      /^CONFIGURATION The pipeline definition: consumers\[0\]\.entry is "functions\/orders\.ts" \| Name a file that exists/,
    );
    expect(await look("export const handler = (;")).toMatch(/^DEV_BUILD .*functions\/orders\.ts:1:25/s);
    expect(await look(handler("a", "orders", 'throw new Error("broken at load");'))).toMatch(
      /^FUNCTION_ENTRY .* throws while it loads: Error: broken at load\n {2}at .*functions\/orders\.ts:3/,
    );
    expect(await look("export const handle = 1;")).toMatch(
      /^FUNCTION_ENTRY .* exports no function "handler" \(it exports: handle\)/,
    );
    expect(await look(handler("a", "payments"))).toMatch(
      /^FUNCTION_ENTRY The handler file functions\/orders\.ts is the consumer "payments", the definition calls it "orders" \| Give both one name/,
    );
    expect(await look(handler("a", "orders", "process.exit(3);"))).toMatch(
      /^FUNCTION_ENTRY .* ends while it loads \(exit status 3\)/,
    );
  });

  test("one that another library made loads, and its patterns do not count as looked at", async () => {
    expect(await look("export const handler = async () => {};")).toMatchObject({
      status: "ok",
      notes: [expect.stringContaining("does not say its name")],
    });
  });

  test("patterns are held against tables: a typo, a topic that is not the consumer's, tables that nobody takes", () => {
    const { compare } = inspectHandlers(project.directory, {});
    const of = (pattern: string, topics?: readonly string[]) =>
      compare(
        pipeline(topics),
        TABLES,
        new Map([["orders", { registered: { consumer: "orders", patterns: [pattern] } }]]),
      );
    expect(of("public.orders")).toEqual({ unmatched: [], notes: [] });
    expect(of("public.orderz").unmatched).toEqual([
      {
        consumer: "orders",
        text: 'consumer orders, functions/orders.ts: no captured table matches "public.orderz"; did you mean "public.orders"?',
      },
    ]);
    expect(of("public.orders", ["mine.public.other"])).toMatchObject({
      unmatched: [
        { text: expect.stringContaining("topics in the definition: no captured table") },
        { text: expect.stringContaining("none of the consumer's topics") },
      ],
      notes: ["no consumer takes the changes of public.orders"],
    });
  });
});
