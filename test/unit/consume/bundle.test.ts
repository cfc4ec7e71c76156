import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, it } from "vitest";

const SDK = ["@aws-sdk/*", "@smithy/*", "@aws-crypto/*"];

async function bundleBytes(contents: string, external: readonly string[] = []): Promise<number> {
  const { outputFiles } = await build({
    external: [...external],
    stdin: { contents, resolveDir: fileURLToPath(new URL("../../..", import.meta.url)) },
    bundle: true,
    minify: true,
    platform: "node",
    target: "node24",
    format: "esm",
    write: false,
  });
  return outputFiles[0]?.contents.byteLength ?? 0;
}

const CONSUMER = `
  import { consumer, Operation } from "./lib/index.ts";
  export const handler = consumer("a").on("public.a", Operation.Create, () => {}).handler();`;
const SINK = `
  import "./lib/index.ts";
  import { sinkConsumer } from "./lib/sink/sink-consumer.ts";
  const sink = { tables: ["public.a"], apply: async () => {}, sweep: async () => {} };
  export const handler = sinkConsumer("a", sink).handler();`;

it("a consumer's bundle, all AWS clients included, stays below 1 MB", async () => {
  const bytes = await bundleBytes(CONSUMER);
  expect(bytes).toBeGreaterThan(100_000);
  expect(bytes).toBeLessThan(1_000_000);
});

it("what a consumer's bundle has beside the AWS clients stays below 154 KB", async () => {
  const bytes = await bundleBytes(CONSUMER, SDK);
  expect(bytes).toBeGreaterThan(50_000);
  expect(bytes).toBeLessThan(154_000);
});

it("a sink's bundle has no more than its own code beside a consumer's", async () => {
  expect((await bundleBytes(SINK)) - (await bundleBytes(CONSUMER))).toBeLessThan(2_000);
});
