import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, it, vi } from "vitest";

const SDK = ["@aws-sdk/*", "@smithy/*", "@aws-crypto/*"];

/** As `CdcPipeline` bundles a consumer, and not its redrive (package.json, `imports`). */
const DEPLOYED = ["module", "tributary-consumer"];

async function bundleBytes(...given: Parameters<typeof bundle>): Promise<number> {
  return (await bundle(...given)).byteLength;
}

async function bundle(
  contents: string,
  external: readonly string[] = [],
  conditions = ["module"],
): Promise<Uint8Array> {
  const { outputFiles } = await build({
    external: [...external],
    conditions,
    stdin: { contents, resolveDir: fileURLToPath(new URL("../../..", import.meta.url)) },
    bundle: true,
    minify: true,
    platform: "node",
    target: "node24",
    format: "esm",
    write: false,
  });
  return (outputFiles[0] as { contents: Uint8Array }).contents;
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

it("what a deployed consumer's bundle has beside the AWS clients stays below 124.4 KB", async () => {
  const bytes = await bundleBytes(CONSUMER, SDK, DEPLOYED);
  expect(bytes).toBeGreaterThan(50_000);
  expect(bytes).toBeLessThan(124_400);
});

it("a deployed consumer's bundle refuses to redrive, and names who does; with redrive it reads the request", async () => {
  const directory = await mkdtemp(join(tmpdir(), "tributary-bundle-"));
  const invoke = async (conditions: string[]) => {
    const file = join(directory, `${conditions.join("-")}.mjs`);
    await writeFile(file, await bundle(CONSUMER, [], conditions));
    const { handler } = (await import(file)) as { handler: (event: object, context: object) => unknown };
    const request = { tributary: "redrive", consumer: "b" };
    return Promise.resolve(handler(request, { getRemainingTimeInMillis: () => 1_000 }));
  };
  const variables = {
    TRIBUTARY_STATE_TABLE: "state",
    TRIBUTARY_PIPELINE_NAME: "shop",
    TRIBUTARY_DEAD_LETTER_QUEUE_URL: "https://sqs.eu-west-1.amazonaws.com/1/dead-letters",
    TRIBUTARY_RETENTION_HOURS: "24",
    AWS_REGION: "eu-west-1",
  };
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  try {
    await expect(invoke(DEPLOYED)).rejects.toMatchObject({
      code: "REDRIVE_ELSEWHERE",
      remedy: "tributary explain REDRIVE_ELSEWHERE",
    });
    await expect(invoke(["module"])).rejects.toThrow("this is the function of a");
  } finally {
    vi.unstubAllEnvs();
    await rm(directory, { recursive: true, force: true });
  }
});

it("a deployed consumer's bundle has no failpoints, no directories of claims and no texts of remedies", async () => {
  const texts = ["TRIBUTARY_FAILPOINTS", "file:///", "Heed ctx.signal"];
  const has = async (conditions: string[]) => {
    const code = new TextDecoder().decode(await bundle(CONSUMER, SDK, conditions));
    return texts.filter((text) => code.includes(text));
  };
  expect(await has(["module"])).toEqual(texts);
  // What is refused names what would be taken.
  expect(await has(DEPLOYED)).toEqual(["file:///"]);
});

it("with redrive, what it has beside the AWS clients stays below 155 KB", async () => {
  expect(await bundleBytes(CONSUMER, SDK)).toBeLessThan(155_000);
});

it("a sink's bundle has no more than its own code beside a consumer's", async () => {
  expect((await bundleBytes(SINK)) - (await bundleBytes(CONSUMER))).toBeLessThan(2_000);
});
