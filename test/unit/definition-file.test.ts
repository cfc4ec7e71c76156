import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { readDefinition } from "../../lib/definition/file.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-definition-"));
});
afterAll(() => rm(directory, { recursive: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

test("the example definition is read", async () => {
  expect((await readDefinition("cdk/pipeline.ts")).name).toBe("shop");
});

test("a plain object is validated as well as a defined one", async () => {
  const path = await file(
    "plain.mjs",
    `export default { name: "x", source: { kind: "postgres", tables: ["public.*"] } }`,
  );
  expect((await readDefinition(path)).source).toMatchObject({ slot: "tributary_x" });
});

test.each([
  ["a file that is not there", async () => join(directory, "none.ts"), /no such file .*none\.ts/],
  ["a directory", async () => directory, /no such file/],
  ["a file of another kind", () => file("notes.md", "# Notes"), /cannot be loaded/],
  ["a slip in the code", () => file("slip.mjs", "export default {{"), /cannot be loaded/],
  ["no default export", () => file("named.mjs", "export const pipeline = {}"), /no default export/],
  ["a wrong definition", () => file("wrong.mjs", `export default { name: "x" }`), /source: /],
])("%s: the error names it", async (_what, given, message) => {
  const wrong = readDefinition(await given());
  await expect(wrong).rejects.toThrow(ConfigurationError);
  await expect(wrong).rejects.toThrow(message);
});
