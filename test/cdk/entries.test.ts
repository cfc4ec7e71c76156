import { execFile } from "node:child_process";
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

/*
 * Entries of consumers are relative to the project, wherever a command is started: the app of `cdk synth` here; those that read the
 * definition's file in test/unit/cli/entries.test.ts.
 */

const ROOT = new URL("../../", import.meta.url);
const run = promisify(execFile);

let project = "";
let elsewhere = "";
beforeAll(async () => {
  project = await realpath(await mkdtemp(join(tmpdir(), "tributary-entries-")));
  elsewhere = await mkdtemp(join(tmpdir(), "tributary-elsewhere-"));
  await symlink(fileURLToPath(new URL("node_modules", ROOT)), join(project, "node_modules"));
  await writeFile(join(project, "package.json"), `{ "type": "module" }`);
  await writeFile(join(project, "package-lock.json"), "{}");
  await mkdir(join(project, "src"));
  await writeFile(join(project, "src", "orders.ts"), "export const handler = () => {};");
  await mkdir(join(project, "cdk"));
  await writeFile(join(project, "cdk", "app.ts"), appWith("src/orders.ts"));
  await writeFile(join(project, "cdk", "wrong.ts"), appWith("orders.ts"));
});
afterAll(async () => {
  await rm(project, { recursive: true });
  await rm(elsewhere, { recursive: true });
});

const appWith = (entry: string) => `
import { App, Stack } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import { CdcPipeline } from ${JSON.stringify(new URL("cdk/constructs/cdc-pipeline.ts", ROOT).href)};
import { definePipeline, postgres } from ${JSON.stringify(new URL("lib/definition/pipeline.ts", ROOT).href)};

const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
const stack = new Stack(app, "Orders");
new CdcPipeline(stack, "Changes", {
  definition: definePipeline({
    name: "orders",
    source: postgres({ tables: ["public.orders"] }),
    consumers: [{ name: "orders", entry: "${entry}", topics: ["*"] }],
  }),
  vpc: new ec2.Vpc(stack, "Vpc"),
  database: { host: "db.internal", resourceId: "db-1" },
  databaseName: "orders",
  authentication: "iam",
});
app.synth();
`;

test.each([
  ["the project", () => project],
  ["the folder of the app", () => join(project, "cdk")],
  ["elsewhere", () => elsewhere],
])("an app that is started from %s finds the handlers of its project", async (_where, cwd) => {
  await run(process.execPath, [join(project, "cdk", "app.ts")], { cwd: cwd(), timeout: 60_000 });
});

test("a handler that is not there is named, with the place where it was looked for", async () => {
  const failed = run(process.execPath, [join(project, "cdk", "wrong.ts")], {
    cwd: elsewhere,
    timeout: 60_000,
  });
  const looked = join(project, "orders.ts");
  await expect(failed).rejects.toThrow(
    `consumers.orders.entry: name a file that exists (looked for ${looked})`,
  );
});
