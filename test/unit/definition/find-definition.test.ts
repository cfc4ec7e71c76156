import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { findDefinition } from "../../../lib/definition/find-definition.ts";

let root: string;
let count = 0;
beforeAll(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "tributary-find-")));
});
afterAll(() => rm(root, { recursive: true }));

/** A folder of its own with these files, empty ones. */
async function tree(...files: string[]): Promise<string> {
  const folder = join(root, String(++count));
  await mkdir(folder);
  for (const file of files) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), "");
  }
  return folder;
}

/** What is found from a folder of the tree, both paths relative to the tree. */
async function found(folder: string, cwd = ".", given?: string) {
  const { file, projectDirectory } = await findDefinition(given, join(folder, cwd));
  const short = (path: string) => path.replace(folder, "").replace(/^\//, "");
  return [short(file), short(projectDirectory)];
}

test.each(["ts", "mts", "js", "mjs"])(
  "tributary.config.%s of the working directory is found",
  async (ending) => {
    const folder = await tree("package.json", `tributary.config.${ending}`);
    expect(await found(folder)).toEqual([`tributary.config.${ending}`, ""]);
  },
);

test("TypeScript goes before what was compiled from it, and any config before cdk/pipeline.ts", async () => {
  const all = ["tributary.config.js", "tributary.config.ts", "cdk/pipeline.ts"];
  expect(await found(await tree("package.json", ...all))).toEqual(["tributary.config.ts", ""]);
});

test("from a folder below the project's the same file is found", async () => {
  const folder = await tree("package.json", "tributary.config.ts", "src/handlers/orders.ts");
  expect(await found(folder, "src/handlers")).toEqual(["tributary.config.ts", ""]);
});

test("the search ends at the nearest package.json: another package's definition is not this one's", async () => {
  const folder = await tree(
    "package.json",
    "tributary.config.ts",
    "packages/a/package.json",
    "packages/a/src/a.ts",
  );
  await expect(found(folder, "packages/a/src")).rejects.toThrow(ConfigurationError);
});

test("without a config, cdk/pipeline.ts of the project is found, from a folder below too", async () => {
  const folder = await tree("package.json", "cdk/pipeline.ts", "src/orders.ts");
  expect(await found(folder, "src")).toEqual(["cdk/pipeline.ts", ""]);
  expect(await found(folder, "cdk")).toEqual(["cdk/pipeline.ts", ""]);
});

test("without a package.json the working directory is the project", async () => {
  expect(await found(await tree("cdk/pipeline.ts"))).toEqual(["cdk/pipeline.ts", ""]);
  expect(await found(await tree("tributary.config.mjs"))).toEqual(["tributary.config.mjs", ""]);
});

test("a folder of that name is no definition", async () => {
  const folder = await tree("package.json", "tributary.config.ts/index.ts", "cdk/pipeline.ts");
  expect(await found(folder)).toEqual(["cdk/pipeline.ts", ""]);
});

test("--pipeline goes before all, then TRIBUTARY_PIPELINE; the project is that of the file", async () => {
  const folder = await tree("package.json", "tributary.config.ts", "b/package.json", "b/lib/p.ts", "c.ts");
  vi.stubEnv("TRIBUTARY_PIPELINE", join(folder, "c.ts"));
  expect(await found(folder, ".", "b/lib/p.ts")).toEqual(["b/lib/p.ts", "b"]);
  expect(await found(folder)).toEqual(["c.ts", ""]);
  vi.stubEnv("TRIBUTARY_PIPELINE", "");
  expect(await found(folder)).toEqual(["tributary.config.ts", ""]);
  vi.unstubAllEnvs();
});

test("where there is none, the error lists where it was looked for and how to get one", async () => {
  const folder = await tree("package.json", "src/orders.ts");
  const error = await findDefinition(undefined, join(folder, "src")).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ConfigurationError);
  const { message } = error as ConfigurationError;
  for (const looked of [join(folder, "src"), folder, join(folder, "cdk", "pipeline.ts")])
    expect(message).toContain(looked);
  expect(message).toMatch(/tributary\.config\.ts .*--pipeline.*npx tributary-cdc init/);
});
