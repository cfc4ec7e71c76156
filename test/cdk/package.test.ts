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
  await writeFile(join(app, "src", "orders.test.ts"), HANDLER_TEST);
  await writeFile(join(app, "src", "faults.test.ts"), FAULT_TEST);
  await writeFile(join(app, "src", "wrong.ts"), WRONG);
});

afterAll(() => rm(app, { recursive: true, force: true }));

const HANDLER = `
import { consumer, Operation } from "tributary";
export const handler = consumer("orders")
  .on("public.orders", Operation.Create, async (event) => console.log(event.id))
  .handler();
`;

const HANDLER_TEST = `
import assert from "node:assert/strict";
import { test } from "node:test";
import { consumer, Operation, type ChangeEvent } from "tributary";
import { type Sink, sinkConsumer } from "tributary/sink";
import { changeEvent, HandlerInMemory, kinesisEvent, runHandler } from "tributary/testing";

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
import { changeEvent } from "tributary/testing";
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
import { consumer, Operation } from "tributary";
import { changeEvent, kinesisEvent, runHandler } from "tributary/testing";
import { AwsFaultProxy, checkEffects, FAILPOINTS, FAILPOINTS_VARIABLE, TcpFaultProxy, type Effect } from "tributary/testing/fault";

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
  expect(stdout.split("\n").filter((line) => /^(app|src\/|node_modules\/tributary\/)/.test(line))).toEqual([
    expect.stringMatching(/^src\/wrong\.ts\(3,\d+\): error TS2322/),
    expect.stringMatching(/^src\/wrong\.ts\(4,\d+\): error TS2339/),
  ]);
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
