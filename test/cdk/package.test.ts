import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { findLockFile } from "../../cdk/constructs/lock-file.ts";
import { buildPackage } from "../../package/build.ts";

/*
 * Someone else's CDK app, which installed the package and what its manifest names, and nothing else of ours: no cdk-nag, no
 * TypeScript, no local parts. Node loads it as it is.
 */

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

interface Manifest {
  readonly dependencies: Record<string, string>;
  readonly peerDependencies: Record<string, string>;
  readonly bin: Record<string, string>;
}

let app = "";
let manifest: Manifest;

beforeAll(async () => {
  app = await mkdtemp(join(tmpdir(), "tributary-app-"));
  const built = join(app, "built");
  await buildPackage(built);
  const { stdout } = await run("npm", ["pack", built, "--pack-destination", app, "--silent"]);
  await run("tar", ["-xzf", join(app, stdout.trim().split("\n").at(-1) ?? ""), "-C", app]);
  const modules = join(app, "node_modules");
  await mkdir(modules);
  await cp(join(app, "package"), join(modules, "tributary"), { recursive: true });
  manifest = JSON.parse(await readFile(join(modules, "tributary", "package.json"), "utf8")) as Manifest;
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(PROJECT, "node_modules", name), join(modules, name));
  }
  await writeFile(join(app, "package.json"), JSON.stringify({ name: "someones-app", type: "module" }));
  await writeFile(join(app, "package-lock.json"), "{}");
  await mkdir(join(app, "src"));
  await writeFile(join(app, "src", "orders.ts"), HANDLER);
  await writeFile(join(app, "app.ts"), APP);
});

afterAll(() => rm(app, { recursive: true, force: true }));

const HANDLER = `
import { consumer, Operation } from "tributary";
export const handler = consumer("orders")
  .on("public.orders", Operation.Create, async (event) => console.log(event.id))
  .handler();
`;

const APP = `
import { App, Stack } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import { CdcPipeline } from "tributary/cdk";
import { definePipeline, postgres } from "tributary/pipeline";

const app = new App({ outdir: "out" });
const stack = new Stack(app, "Orders");
new CdcPipeline(stack, "Changes", {
  definition: definePipeline({
    name: "orders",
    source: postgres({ tables: ["public.orders"] }),
    consumers: [{ name: "orders", entry: "src/orders.ts", topics: ["*.public.orders"] }],
  }),
  vpc: new ec2.Vpc(stack, "Vpc"),
  database: { host: "db.internal" },
  databaseName: "orders",
  secret: secretsmanager.Secret.fromSecretNameV2(stack, "Secret", "capture"),
  consumers: { orders: { redrive: { queue: true } } },
});
app.synth();
`;

test("the app synthesizes with Node alone: template, handler and capture task", async () => {
  await run(process.execPath, ["app.ts"], { cwd: app, timeout: 120_000 });
  // It is the package's own code that ran, as JavaScript.
  expect(await readdir(join(app, "node_modules", "tributary", "cdk", "constructs"))).not.toContain("nag.ts");
  const out = join(app, "out");
  const template = JSON.parse(await readFile(join(out, "Orders.template.json"), "utf8")) as {
    Resources: Record<string, { Type: string }>;
  };
  const types = new Set(Object.values(template.Resources).map(({ Type }) => Type));
  for (const type of ["AWS::ECS::Service", "AWS::Lambda::EventSourceMapping", "AWS::Kinesis::Stream"])
    expect(types).toContain(type);
  const assets = await Promise.all(
    (await readdir(out)).filter((name) => name.startsWith("asset.")).map((name) => readdir(join(out, name))),
  );
  // Both the app's handler, and the package's own function that asks for redrive.
  expect(assets.filter((files) => files.join() === "index.mjs")).toHaveLength(2);
  expect(assets.map((files) => files.sort())).toContainEqual(
    ["Dockerfile", "authorities", "health.mjs", "main.mjs", "pipeline.mjs"].sort(),
  );
});

test("its declarations hold, without skipping any of ours", async () => {
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  await writeFile(
    join(app, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: { strict: true, noEmit: true, module: "nodenext", target: "es2024", types: [] },
      files: ["app.ts", "src/orders.ts"],
    }),
  );
  const { stdout } = await run(process.execPath, [tsc, "--project", app]).catch(
    (error: { stdout: string }) => error,
  );
  // Others' declarations name what their users need not have.
  expect(stdout.split("\n").filter((line) => /^(app|src\/|node_modules\/tributary\/)/.test(line))).toEqual(
    [],
  );
});

test("the operator's command comes along", async () => {
  const command = join(app, "node_modules", "tributary", manifest.bin.tributary ?? "");
  const { stdout } = await run(command, ["--help"], {
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` },
  });
  expect(stdout).toContain("redrive");
});

test("the lock file is found at the root of a workspace, whoever wrote it", () => {
  const root = join(app, "workspace");
  const member = join(root, "packages", "pipeline");
  mkdirSync(member, { recursive: true });
  expect(findLockFile(member)).toBe(join(app, "package-lock.json"));
  writeFileSync(join(root, "yarn.lock"), "");
  expect(findLockFile(member)).toBe(join(root, "yarn.lock"));
  expect(() => findLockFile("/")).toThrow(/projectRoot: neither it nor a directory above has a lock file/);
});

test("nothing that only this project's tests, tools and laptops need comes along", () => {
  const names = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
  expect(names).toEqual(expect.arrayContaining(["esbuild", "zod", "aws-cdk-lib", "constructs"]));
  for (const name of ["cdk-nag", "typescript", "vitest", "kinesalite", "dynalite", "aws-cdk"])
    expect(names).not.toContain(name);
  // Two copies of these would not know each other's constructs.
  expect(Object.keys(manifest.peerDependencies)).toEqual(["aws-cdk-lib", "constructs"]);
});
