import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { REQUIRE_BANNER } from "../../cdk/constructs/capture-program.ts";
import { findLockFile } from "../../cdk/constructs/lock-file.ts";
import { appWith, manifestIn, type PackedManifest, packAll } from "./packed.ts";

/*
 * Someone else's CDK app, which installed the package and what its manifest names, and nothing else of ours: no cdk-nag, no
 * TypeScript, no local parts. Node loads it as it is.
 */

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

let packed: ReadonlyMap<string, string>;
let directory = "";
let app = "";
let manifest: PackedManifest;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-packed-"));
  packed = await packAll(directory);
  app = await appWith([tarball("tributary-cdc")]);
  manifest = await manifestIn(app);
  await writeFile(join(app, "package-lock.json"), "{}");
  await mkdir(join(app, "src"));
  await writeFile(join(app, "src", "orders.ts"), HANDLER);
  await writeFile(join(app, "app.ts"), APP);
  await writeFile(join(app, "src", "orders.test.ts"), HANDLER_TEST);
  await writeFile(join(app, "src", "faults.test.ts"), FAULT_TEST);
  await writeFile(join(app, "src", "wrong.ts"), WRONG);
});

afterAll(async () => {
  for (const made of [app, directory]) await rm(made, { recursive: true, force: true });
});

function tarball(name: string): string {
  const found = packed.get(name);
  if (!found) throw new Error(`there is no package ${name}`);
  return found;
}

const HANDLER = `
import { consumer, Operation } from "tributary-cdc";
export const handler = consumer("orders")
  .on("public.orders", Operation.Create, async (event) => console.log(event.id))
  .handler();
`;

const HANDLER_TEST = `
import assert from "node:assert/strict";
import { test } from "node:test";
import { consumer, Operation, type ChangeEvent } from "tributary-cdc";
import { type Sink, sinkConsumer } from "tributary-cdc/sink";
import { changeEvent, HandlerInMemory, kinesisEvent, runHandler } from "tributary-cdc/testing";

const sent: string[] = [];
async function send({ after }: ChangeEvent<typeof Operation.Update>): Promise<void> {
  if (after.status === "lost") throw new RangeError("no such status");
  sent.push(after.id + " " + after.status);
}
const handler = consumer("mails").on("public.orders", Operation.Update, send).handler();
const change = (id: string, status: string) =>
  changeEvent({ table: "public.orders", op: "u", before: { id, status: "placed" }, after: { id, status } });

test("the handler's own function takes an event", async () => {
  await send(change("1", "paid"));
  assert.deepEqual(sent.splice(0), ["1 paid"]);
});

test("a run says what took effect, and what became a dead letter", async () => {
  const [paid, lost] = [change("17", "paid"), change("4", "lost")];
  const { applied, deadLetters, batchItemFailures } = await runHandler(handler, kinesisEvent([paid, lost]));
  assert.deepEqual(applied.map(({ id }) => id), [paid.id]);
  assert.deepEqual(deadLetters.map(({ position, error }) => [position, error.message]), [[lost.id, "no such status"]]);
  assert.deepEqual(batchItemFailures, []);
});

test("a run takes less than a tenth of a second", async () => {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 10; i++) {
    const started = performance.now();
    await runHandler(handler, kinesisEvent([change("17", "paid")]));
    best = Math.min(best, performance.now() - started);
  }
  console.log("one run: " + best.toFixed(1) + " ms");
  assert.ok(best < 100);
});

test("what comes twice takes effect once", async () => {
  const memory = new HandlerInMemory(handler);
  const event = kinesisEvent([change("17", "paid")]);
  sent.length = 0;
  await memory.run(event);
  const { report } = await memory.run(event);
  assert.deepEqual([sent, report.duplicates], [["17 paid"], 1]);
});

test("a sink is a consumer", async () => {
  const held = new Map<unknown, unknown>();
  const sink: Sink = {
    tables: ["public.orders"],
    apply: async (events) => events.forEach(({ key, after }) => held.set(key.id, after?.status)),
    sweep: async () => held.clear(),
    identity: async () => ({ id: "memory" }),
    verify: { table: () => undefined },
  };
  await runHandler(sinkConsumer("status", sink).handler(), kinesisEvent([change("17", "paid"), change("17", "sent")]));
  assert.deepEqual([...held], [["17", "sent"]]);
});
`;

const WRONG = `
import { changeEvent } from "tributary-cdc/testing";
const placed: number = changeEvent({ table: "public.orders", op: "c", after: { id: "17" } });
changeEvent({ table: "public.orders", op: "c", after: { id: "17" } }).after.status;
`;

/** One file, run as a test and, with a failpoint armed, as the process that the failpoint ends. */
const FAULT_TEST = `
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { consumer, Operation } from "tributary-cdc";
import { changeEvent, kinesisEvent, runHandler } from "tributary-cdc/testing";
import { AwsFaultProxy, checkEffects, FAILPOINTS, FAILPOINTS_VARIABLE, TcpFaultProxy, type Effect } from "tributary-cdc/testing/fault";

const events = ["1", "2", "3"].map((id) => changeEvent({ table: "public.orders", op: "c", after: { id }, partition: 0 }));
const expected = events.map(({ topic, position, key }) => ({ topic, position, key: String(key.id) }));
async function effectsOf(invocation: string): Promise<Effect[]> {
  const handler = consumer("orders").on("public.orders", Operation.Create, () => {}).handler();
  const { applied } = await runHandler(handler, kinesisEvent(events));
  return applied.map(({ topic, partition, position }) => ({ topic, partition, position, invocation }));
}

if (process.argv.includes("armed")) {
  await effectsOf("killed");
} else {
  test("the checker finds what is lost, comes twice or in another order", async () => {
    const effects = await effectsOf("first");
    const check = (found: Effect[]) => checkEffects("append", expected, found, new Map());
    const { lost, duplicates, outOfOrder, extra } = check(effects);
    assert.deepEqual([effects.length, lost, duplicates, outOfOrder, extra], [3, 0, 0, 0, 0]);
    assert.equal(check(effects.slice(1)).lost, 1);
    assert.equal(check([...effects, ...effects]).duplicates, 3);
    assert.equal(check(effects.toReversed()).outOfOrder, 2);
  });

  test("a failpoint ends the process where it says", () => {
    assert.ok(FAILPOINTS.includes("after-effect"));
    const env = { ...process.env, [FAILPOINTS_VARIABLE]: "after-effect=kill@2" };
    const killed = spawnSync(process.execPath, [import.meta.filename, "armed"], { env });
    assert.equal(killed.signal, "SIGKILL");
  });

  test("a TCP proxy cuts a link at a byte", async () => {
    const server = createServer((socket) => socket.once("data", () => socket.end("0123456789"))).listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: (server.address() as AddressInfo).port });
    const client = connect(proxy.port, proxy.host);
    await once(client, "connect");
    while (proxy.links.length === 0) await new Promise(setImmediate);
    proxy.links[0]?.cutAfterBytes(4, "fin");
    client.write("go");
    let got = "";
    for await (const chunk of client) got += chunk;
    assert.equal(got, "0123");
    await proxy.stop();
    server.close();
  });

  test("an AWS proxy fails the call that is chosen", async () => {
    const server = createHttpServer((_, response) => response.end("{}")).listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = await AwsFaultProxy.start({
      target: "http://127.0.0.1:" + (server.address() as AddressInfo).port,
      choose: ({ operation }) =>
        operation === "PutItem" ? { kind: "error", status: 400, code: "ThrottlingException" } : undefined,
    });
    const call = async (operation: string) =>
      (await fetch(proxy.endpoint, { method: "POST", body: "{}", headers: { "x-amz-target": "DynamoDB_20120810." + operation } })).status;
    assert.deepEqual([await call("GetItem"), await call("PutItem")], [200, 400]);
    await proxy.stop();
    server.close();
  });
}
`;

const CLIENTS = `
import * as aws from "tributary-cdc/internal/aws/clients.js";
const environment = { AWS_REGION: "us-east-1", AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b" };
const clients = [
  aws.dynamodbClient(environment), aws.kinesisClient(environment), aws.sqsClient(environment),
  await aws.s3Client(environment), await aws.lambdaClient(environment), await aws.secretsManagerClient(environment),
];
console.log(JSON.stringify(await Promise.all(clients.map(async (client) => [client.constructor.name, await client.config.region()]))));
`;

const APP = `
import { App, Stack } from "aws-cdk-lib";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as secretsmanager from "aws-cdk-lib/aws-secretsmanager";
import { CdcPipeline } from "tributary-cdc/cdk";
import { definePipeline, postgres } from "tributary-cdc/pipeline";

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
  const { stderr } = await run(process.execPath, ["app.ts"], { cwd: app, timeout: 120_000 });
  expect(stderr).not.toContain("ExperimentalWarning");
  // It is the package's own code that ran, as JavaScript.
  expect(await readdir(join(app, "node_modules", "tributary-cdc", "cdk", "constructs"))).not.toContain(
    "nag.ts",
  );
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
  // The app's handler, the same with redrive, and the package's own function that asks for redrive.
  const own = assets.map((files) => files.sort().join()).filter((files) => files.startsWith("index.mjs"));
  expect(own.sort()).toEqual(["index.mjs", "index.mjs,index.mjs.map", "index.mjs,index.mjs.map"]);
  expect(assets.map((files) => files.sort())).toContainEqual(
    ["Dockerfile", "health.mjs", "main.mjs", "operate.mjs", "pipeline.mjs", "writable"].sort(),
  );
});

test("a handler is tested with the kit, and faults are injected, from the package alone", async () => {
  for (const [file, tests] of [
    ["orders", 5],
    ["faults", 4],
  ] as const) {
    const { stdout } = await run(process.execPath, ["--test", `src/${file}.test.ts`], {
      cwd: app,
      timeout: 60_000,
    });
    expect(stdout).toMatch(new RegExp(`pass ${tests}\\s.*fail 0\\s`, "s"));
  }
});

test("its declarations hold, without skipping any of ours", async () => {
  const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  await writeFile(
    join(app, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        ...{ strict: true, noEmit: true, module: "nodenext", target: "es2024" },
        // An app on Node has these itself.
        ...{ types: ["node"], typeRoots: [join(PROJECT, "node_modules", "@types")] },
      },
      files: ["app.ts", "src/orders.ts", "src/orders.test.ts", "src/faults.test.ts", "src/wrong.ts"],
    }),
  );
  // From there, so that it names the files as they stand below.
  const { stdout } = await run(process.execPath, [tsc, "--project", app], { cwd: app }).catch(
    (error: { stdout: string }) => error,
  );
  // Others' declarations name what their users need not have. The wrong file shows that errors are seen, and types are no `any`.
  expect(
    stdout.split("\n").filter((line) => /^(app|src\/|node_modules\/tributary-cdc\/)/.test(line)),
  ).toEqual([
    expect.stringMatching(/^src\/wrong\.ts\(3,\d+\): error TS2322/),
    expect.stringMatching(/^src\/wrong\.ts\(4,\d+\): error TS2339/),
  ]);
});

test("the operator's command comes along, under both names", async () => {
  expect(Object.keys(manifest.bin)).toEqual(["tributary", "tributary-cdc"]);
  for (const bin of Object.values(manifest.bin)) {
    const command = (option: string) =>
      run(join(app, "node_modules", "tributary-cdc", bin), [option], {
        env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` },
      });
    const { stdout, stderr } = await command("--help");
    expect(stdout).toContain("redrive");
    expect(stderr).toBe("");
    expect(await command("--version")).toMatchObject({ stdout: `${manifest.version}\n`, stderr: "" });
  }
});

test("the command says in one line that a Node is too old, and what to do", async (context) => {
  const node = await olderNode();
  context.skip(node === undefined, "this machine has no Node below 24 outside of node_modules");
  const command = join(app, "node_modules", "tributary-cdc", manifest.bin.tributary ?? "");
  const { code, stderr, stdout } = await run(node as string, [command, "--help"]).then(
    () => ({ code: 0, stderr: "", stdout: "" }),
    (error: { code: number; stderr: string; stdout: string }) => error,
  );
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(
    /^tributary needs Node 24 or newer; this is Node [\d.]+: npm install --save-dev node@24 .*\n$/,
  );
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
  // Two copies of the first would not know each other's constructs; an app without constructs needs none of them.
  expect(manifest.peerDependencies).toMatchObject({ "tributary-cdc-local": manifest.version });
  expect(manifest.peerDependenciesMeta).toEqual(
    Object.fromEntries(
      ["aws-cdk-lib", "constructs", "tributary-cdc-local"].map((name) => [name, { optional: true }]),
    ),
  );
});

test("each package brings its licence and a page of its own", async () => {
  for (const [name, file] of packed) {
    const { stdout } = await run("tar", ["-tzf", file]);
    expect(stdout.split("\n"), name).toEqual(
      expect.arrayContaining(["package/LICENSE", "package/README.md", "package/package.json"]),
    );
    const { stdout: text } = await run("tar", ["-xzOf", file, "package/package.json"]);
    expect(JSON.parse(text), name).toMatchObject({ license: "Apache-2.0", version: manifest.version });
  }
});

const MAX_INSTALLED_KB = 40_000;
const MAX_OUTBOX_BYTES = 4_096;

test("an install without CDK and the local parts takes at most 40 MB", async (context) => {
  const empty = await mkdtemp(join(tmpdir(), "tributary-empty-"));
  try {
    await writeFile(join(empty, "package.json"), "{}");
    const install = ["install", "--omit=peer", "--no-audit", "--no-fund", "--fetch-retries=1"];
    const failure = await run("npm", [...install, tarball("tributary-cdc")], {
      cwd: empty,
      timeout: 150_000,
    }).then(
      () => undefined,
      (error: { stderr?: string }) => error.stderr ?? String(error),
    );
    // A refusal of npm's own is no missing registry.
    const unreachable = /ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ETIMEDOUT/.exec(failure ?? "")?.[0];
    context.skip(unreachable !== undefined, `npm's registry cannot be reached: ${unreachable}`);
    expect(failure).toBeUndefined();
    const { stdout } = await run("du", ["-sk", "node_modules"], { cwd: empty });
    expect(Number.parseInt(stdout, 10)).toBeLessThanOrEqual(MAX_INSTALLED_KB);
    const command = join(empty, "node_modules", "tributary-cdc", manifest.bin.tributary ?? "");
    const { stdout: help } = await run(process.execPath, [command, "--help"], { cwd: empty });
    expect(help).toContain("redrive");
  } finally {
    await rm(empty, { recursive: true, force: true });
  }
});

test("what an application publishes with is 4 KB at most", async () => {
  const { outputFiles } = await build({
    stdin: { contents: `export * from "tributary-cdc/outbox";`, resolveDir: app },
    ...{ bundle: true, minify: true, write: false, format: "esm", platform: "node", external: ["pg"] },
  });
  expect(outputFiles[0]?.contents.length).toBeLessThanOrEqual(MAX_OUTBOX_BYTES);
});

test("AWS's clients come along in small, and do what others' clients do", async () => {
  await writeFile(join(app, "clients.ts"), CLIENTS);
  const { stdout } = await run(process.execPath, ["clients.ts"], { cwd: app });
  expect(JSON.parse(stdout)).toEqual([
    ["DynamoDBClient", "us-east-1"],
    ["KinesisClient", "us-east-1"],
    ["SQSClient", "us-east-1"],
    ["S3Client", "us-east-1"],
    ["LambdaClient", "us-east-1"],
    ["SecretsManagerClient", "us-east-1"],
  ]);
  // A bundle of what was bundled, as `tributary dev` makes it: a name that both declared would end it as it loads.
  await build({
    ...{ entryPoints: [join(app, "src", "orders.ts")], outfile: join(app, "orders.mjs"), bundle: true },
    ...{ format: "esm", platform: "node", banner: { js: REQUIRE_BANNER } },
  });
  await run(process.execPath, ["--check", join(app, "orders.mjs")]);
  // Lambda has them: whoever bundles a handler without them finds them under their names.
  const { metafile } = await build({
    stdin: { contents: `export * from "tributary-cdc";`, resolveDir: app },
    ...{ bundle: true, write: false, format: "esm", platform: "node", metafile: true },
    external: ["@aws-sdk/*"],
  });
  const outside = Object.values(metafile.outputs).flatMap(({ imports }) => imports.map(({ path }) => path));
  expect(outside).toEqual(expect.arrayContaining(["@aws-sdk/client-dynamodb", "@aws-sdk/client-sqs"]));
});

test("without CDK everything but the constructs loads, and those say what to install", async () => {
  const bare = await appWith([tarball("tributary-cdc")], ["aws-cdk-lib", "constructs"]);
  try {
    const load = (name: string) =>
      run(process.execPath, ["-e", `await import(${JSON.stringify(name)})`, "--input-type=module"], {
        cwd: bare,
      });
    const entries = Object.keys(manifest.exports).filter((path) => !/\*|package\.json|cdk/.test(path));
    expect(entries.length).toBeGreaterThan(5);
    for (const path of entries) expect((await load(`tributary-cdc${path.slice(1)}`)).stderr).toBe("");
    await expect(load("tributary-cdc/cdk")).rejects.toMatchObject({
      stderr: expect.stringContaining(
        "PackagesMissingError: tributary-cdc/cdk needs aws-cdk-lib and constructs: npm install aws-cdk-lib constructs\n",
      ),
    });
  } finally {
    await rm(bare, { recursive: true, force: true });
  }
});

test("an app that is CommonJS requires the constructs", async () => {
  await writeFile(join(app, "old.cjs"), `console.log(typeof require("tributary-cdc/cdk").CdcPipeline)`);
  expect((await run(process.execPath, ["old.cjs"], { cwd: app })).stdout).toBe("function\n");
});

const LAPTOP = `
import { CreateTableCommand, DynamoDBClient, waitUntilTableExists } from "@aws-sdk/client-dynamodb";
import { TributaryError } from "tributary-cdc";
import { captureStatus, consumerStatus, pipelineState, readBackfills, requestBackfill, wantBackfill } from "tributary-cdc/admin";
import { definePipeline, postgres } from "tributary-cdc/pipeline";
import { startEmbeddedPostgres, startEmulators } from "tributary-cdc-local";
import pg from "pg";

const [server, emulators] = await Promise.all([startEmbeddedPostgres(), startEmulators()]);
const client = new pg.Client({ connectionString: server.url });
await client.connect();
const { rows } = await client.query("SHOW wal_level");
await client.end();
const taken = await startEmbeddedPostgres({ port: server.port }).catch((error) => error);

const { environment } = emulators;
const shop = pipelineState("shop", { stateTable: "state", environment });
const keys = ["pk", "sk"];
await shop.dynamodb.send(new CreateTableCommand({
  TableName: "state",
  BillingMode: "PAY_PER_REQUEST",
  AttributeDefinitions: keys.map((AttributeName) => ({ AttributeName, AttributeType: "S" })),
  KeySchema: keys.map((AttributeName, i) => ({ AttributeName, KeyType: i === 0 ? "HASH" : "RANGE" })),
}));
await waitUntilTableExists({ client: shop.dynamodb, maxWaitTime: 10, minDelay: 1 }, { TableName: "state" });
await requestBackfill(shop, "public.orders", { sweep: true, requestedAt: 0 });
await wantBackfill(shop, "public.orders", "pause");
const [backfill] = await readBackfills(shop);
const twice = await requestBackfill(shop, "public.orders", { sweep: true, requestedAt: 0 }).catch((error) => error);
const status = await consumerStatus({ ...shop, consumer: "orders" }, shop.signal);
const definition = definePipeline({ name: "shop", source: postgres({ tables: ["public.orders"] }), consumers: [] });
const { holds } = await captureStatus(shop, definition);
await Promise.all([server.stop(), emulators.stop()]);
console.log(JSON.stringify([
  rows[0].wal_level,
  [taken instanceof TributaryError, taken.code],
  [backfill.run, backfill.status, backfill.wanted],
  [twice instanceof TributaryError, twice.code],
  status,
  holds,
]));
`;

test("the local package starts its parts, whose errors are those of tributary-cdc, and admin acts on a state table there", async () => {
  const laptop = await appWith([tarball("tributary-cdc"), tarball("tributary-cdc-local")]);
  try {
    // An SDK of its own.
    await symlink(join(PROJECT, "node_modules", "@aws-sdk"), join(laptop, "node_modules", "@aws-sdk"));
    await writeFile(join(laptop, "laptop.ts"), LAPTOP);
    const { stdout } = await run(process.execPath, ["laptop.ts"], { cwd: laptop, timeout: 120_000 });
    expect(JSON.parse(stdout)).toEqual([
      "logical",
      [true, "PORT_TAKEN"],
      [1, "requested", "pause"],
      [true, "BACKFILL_ACTIVE"],
      [],
      [],
    ]);
  } finally {
    await rm(laptop, { recursive: true, force: true });
  }
});

test("the local package names this version of tributary-cdc, and holds nothing that tributary-cdc has", async () => {
  const laptop = await appWith([tarball("tributary-cdc"), tarball("tributary-cdc-local")]);
  try {
    const local = await manifestIn(laptop, "tributary-cdc-local");
    expect(local.peerDependencies).toEqual({ "tributary-cdc": manifest.version });
    expect(Object.keys(local.dependencies)).toEqual(
      expect.arrayContaining(["dynalite", "kinesalite", "local-aws-sqs"]),
    );
    const filesOf = async (name: string) =>
      (await readdir(join(laptop, "node_modules", name), { recursive: true })).filter((file) =>
        /\.js$/.test(file),
      );
    const main = new Set(await filesOf("tributary-cdc"));
    expect((await filesOf("tributary-cdc-local")).filter((file) => main.has(file))).toEqual([]);
  } finally {
    await rm(laptop, { recursive: true, force: true });
  }
});

/** A Node of this machine that is older than what the command needs. */
async function olderNode(): Promise<string | undefined> {
  for (const folder of ["/usr/bin", "/usr/local/bin", ...(process.env.PATH ?? "").split(":")]) {
    if (folder.includes("node_modules")) continue;
    const version = await run(join(folder, "node"), ["--version"]).then(
      ({ stdout }) => Number.parseInt(stdout.slice(1), 10),
      () => undefined,
    );
    if (version !== undefined && version < 24) return join(folder, "node");
  }
  return undefined;
}
