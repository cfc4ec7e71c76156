import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { loadProjectEnvironment } from "../../../lib/cli/project-environment.ts";

const ROOT = new URL("../../../", import.meta.url);
const CLI = fileURLToPath(new URL("lib/cli/main.ts", ROOT));

let project = "";
beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "tributary-env-"));
  await symlink(fileURLToPath(new URL("node_modules", ROOT)), join(project, "node_modules"));
  await mkdir(join(project, "src"));
  await writeFile(join(project, "package.json"), `{ "type": "module" }`);
  await writeFile(join(project, "src", "orders.ts"), "export const handler = () => {};");
  await writeFile(join(project, ".env"), "DATABASE_URL='postgres://me@127.0.0.1:1/of_env_file'\n");
  await writeFile(
    join(project, "tributary.config.ts"),
    `export default { name: "shop", source: { kind: "postgres", tables: ["public.*"] },
       consumers: [{ name: "orders", entry: "src/orders.ts", topics: ["*"] }] };`,
  );
});
afterAll(() => rm(project, { recursive: true }));

/** Which port of a server that is not there `dev` looked for. */
async function portOf(
  cwd: string,
  environment: NodeJS.ProcessEnv,
  ...args: string[]
): Promise<string | undefined> {
  const env = { ...process.env, DATABASE_URL: undefined, ...environment };
  const failed = promisify(execFile)(process.execPath, [CLI, "dev", ...args], { cwd, env, timeout: 25_000 });
  const { stderr } = await failed.catch((error: { stderr: string }) => error);
  return /PostgreSQL at 127\.0\.0\.1:(\d+) cannot be reached/.exec(stderr)?.[1];
}

test("dev takes the database of the project's .env, from a folder below too; the environment and the option go before it", async () => {
  expect(await portOf(project, {})).toBe("1");
  expect(await portOf(join(project, "src"), {})).toBe("1");
  expect(await portOf(project, { DATABASE_URL: "postgres://me@127.0.0.1:2/d" })).toBe("2");
  expect(await portOf(project, {}, "--database-url", "postgres://me@127.0.0.1:3/d")).toBe("3");
});

test("nothing of the project's .env comes beside the place that the environment names", async () => {
  const from = {
    AWS_PROFILE: "other",
    AWS_REGION: "us-east-2",
    TRIBUTARY_STACK: "Other",
    OF_THE_PROJECT: "1",
  };
  const file = Object.entries(from).map(([name, value]) => `${name}=${value}\n`);
  const text = await readFile(join(project, ".env"), "utf8");
  await writeFile(join(project, ".env"), text + file.join(""));
  const definition = join(project, "tributary.config.ts");
  for (const name of [...Object.keys(from), "DATABASE_URL"]) vi.stubEnv(name, undefined);
  try {
    vi.stubEnv("TRIBUTARY_STATE_TABLE", "shop-state");
    await loadProjectEnvironment(definition);
    expect(process.env).toMatchObject({ OF_THE_PROJECT: "1", DATABASE_URL: expect.any(String) });
    for (const name of Object.keys(from).filter((name) => /^(AWS|TRIBUTARY)_/.test(name)))
      expect(process.env[name], name).toBeUndefined();
    vi.stubEnv("TRIBUTARY_STATE_TABLE", undefined);
    await loadProjectEnvironment(definition);
    expect(process.env).toMatchObject(from);
  } finally {
    vi.unstubAllEnvs();
    await writeFile(join(project, ".env"), text);
  }
});
