import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ConfigurationError } from "../../../lib/change/tributary-error.ts";
import { readDefinition } from "../../../lib/definition/file.ts";

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

/** Reads a definition in a process of its own: nothing transforms its TypeScript but Node. */
async function readAlone(files: Readonly<Record<string, string>>) {
  const project = await mkdtemp(join(directory, "project-"));
  for (const [name, text] of Object.entries(files)) await writeFile(join(project, name), text);
  const read = fileURLToPath(new URL("../../../lib/definition/file.ts", import.meta.url));
  const program = `import { readDefinition } from ${JSON.stringify(read)};
    try { console.log((await readDefinition("tributary.config.ts")).name); } catch (error) { console.log(error.message); }`;
  const args = ["--input-type=module", "--eval", program];
  const environment = { ...process.env, NODE_OPTIONS: "", NODE_NO_WARNINGS: "" };
  return await promisify(execFile)(process.execPath, args, { cwd: project, env: environment });
}

const TYPESCRIPT = `import { tables } from "./tables.ts";
  const name: string = "x";
  export default { name, source: { kind: "postgres", tables } };`;
const TABLES = `export const tables: string[] = ["public.*"];`;

test.each([
  ["no package.json", {}],
  ["a package.json without a type", { "package.json": "{}" }],
  ["modules", { "package.json": `{ "type": "module" }` }],
  ["what npm init writes", { "package.json": `{ "type": "commonjs" }` }],
])("TypeScript loads without flags and without a warning: %s", async (_what, manifest) => {
  const read = await readAlone({ ...manifest, "tributary.config.ts": TYPESCRIPT, "tables.ts": TABLES });
  expect(read).toEqual({ stdout: "x\n", stderr: "" });
});

test("a definition that is CommonJS is read as such", async () => {
  const text = `module.exports = { name: "x" as string, source: { kind: "postgres", tables: ["public.*"] } };`;
  expect(await readAlone({ "tributary.config.ts": text })).toEqual({ stdout: "x\n", stderr: "" });
});

test("where removing types is not enough, the error says so, and where", async () => {
  const tables = `enum Tables { Orders = "public.orders" }\nexport const tables = [Tables.Orders];`;
  const { stdout, stderr } = await readAlone({ "tributary.config.ts": TYPESCRIPT, "tables.ts": tables });
  expect(stdout).toMatch(/enum is not supported .*tables\.ts:1.*erasableSyntaxOnly/);
  expect(stderr).toBe("");
});
