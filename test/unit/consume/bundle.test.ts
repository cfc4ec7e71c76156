import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, it } from "vitest";

it("a consumer's bundle, all AWS clients included, stays below 1 MB", async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: `import { consumer, Operation } from "./lib/index.ts";
        export const handler = consumer("a").on("public.a", Operation.Create, () => {}).handler();`,
      resolveDir: fileURLToPath(new URL("../../..", import.meta.url)),
    },
    bundle: true,
    minify: true,
    platform: "node",
    target: "node24",
    format: "esm",
    write: false,
  });
  const bytes = outputFiles[0]?.contents.byteLength ?? 0;
  expect(bytes).toBeGreaterThan(100_000);
  expect(bytes).toBeLessThan(1_000_000);
});
