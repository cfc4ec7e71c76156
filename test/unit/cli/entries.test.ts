import { execFile } from "node:child_process";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readDefinition } from "../../../lib/definition/file.ts";
import { findDefinition } from "../../../lib/definition/find-definition.ts";
import { checkHandlerFiles } from "../../../lib/local/handler-files.ts";

const CLI = fileURLToPath(new URL("../../../lib/cli/main.ts", import.meta.url));

let project = "";
let elsewhere = "";
beforeAll(async () => {
  project = await realpath(await mkdtemp(join(tmpdir(), "tributary-entries-")));
  elsewhere = await mkdtemp(join(tmpdir(), "tributary-elsewhere-"));
  await mkdir(join(project, "src", "deep"), { recursive: true });
  await writeFile(join(project, "package.json"), "{}");
  await writeFile(join(project, "tributary.config.ts"), definitionWith("src/orders.ts"));
  await writeFile(join(project, "src", "wrong.ts"), definitionWith("orders.ts"));
  await writeFile(
    join(project, "src", "orders.ts"),
    "export const sink = { table: (): undefined => undefined };",
  );
});
afterAll(async () => {
  await rm(project, { recursive: true });
  await rm(elsewhere, { recursive: true });
});

const definitionWith = (entry: string) => `export default {
  name: "shop",
  source: { kind: "postgres", tables: ["public.orders"] },
  consumers: [{ name: "orders", entry: "${entry}", topics: ["*"] }],
};`;

test.each([
  ["the project", () => project, () => []],
  ["a folder below", () => join(project, "src", "deep"), () => []],
  ["elsewhere, with --pipeline", () => elsewhere, () => ["--pipeline", join(project, "tributary.config.ts")]],
])("verify, started from %s, loads the sink of the project's handler", async (_where, cwd, more) => {
  const args = [
    "verify",
    "--table",
    "public.orders",
    "--consumer",
    "orders",
    "--state-table",
    "t",
    ...more(),
  ];
  const environment = { ...process.env, NODE_OPTIONS: "", NODE_NO_WARNINGS: "" };
  const failed = await promisify(execFile)(process.execPath, [CLI, ...args], {
    cwd: cwd(),
    env: environment,
  }).catch((error: { code: number; stderr: string }) => error);
  // The sink was asked, before any database.
  expect(failed).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("the sink of orders holds nothing of it"),
  });
  expect(failed.stderr).not.toContain("Warning");
});

test("the local host finds the handlers of the definition's project", async () => {
  const check = async (file: string) => {
    const place = await findDefinition(file, elsewhere);
    await checkHandlerFiles(await readDefinition(place.file), place.projectDirectory);
  };
  await check(join(project, "tributary.config.ts"));
  await expect(check(join(project, "src", "wrong.ts"))).rejects.toThrow(
    `looked for ${join(project, "orders.ts")}`,
  );
});
