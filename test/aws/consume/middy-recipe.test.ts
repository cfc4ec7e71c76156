import { execFile, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { START_OF_HISTORY } from "../../../lib/change/position.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { changeEvent, kinesisEvent } from "../../../lib/testing/handler/index.ts";
import { emulatedAws } from "../emulated.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const aws = emulatedAws();
const closings: (() => Promise<unknown>)[] = [];

/** Invokes the handler of the file beside it with what comes on standard input, as Lambda does. */
const INVOKE = `
import { text } from "node:stream/consumers";
import { handler } from "./orders.ts";
const end = performance.now() + 20_000;
const context = { getRemainingTimeInMillis: () => end - performance.now(), functionName: "orders", awsRequestId: "request-1" };
const answer = await handler(JSON.parse(await text(process.stdin)), context);
console.log(JSON.stringify({ answer }));
// The tracer's datagrams are under way.
setTimeout(() => process.exit(), 500);
`;

let folder: string;

beforeAll(async () => {
  // In the project, so that the package's own name is found.
  await mkdir(join(ROOT, ".tributary"), { recursive: true });
  folder = await mkdtemp(join(ROOT, ".tributary", "recipe-"));
  const page = await readFile(join(ROOT, "docs/04-consumers.md"), "utf8");
  const block = /### With Middy and Powertools\n\n```ts\n(?<code>.*?)```/s.exec(page)?.groups?.code;
  await writeFile(join(folder, "orders.ts"), block ?? "");
  await writeFile(join(folder, "invoke.mjs"), INVOKE);
});
afterAll(async () => {
  await Promise.all(closings.map((close) => close()));
  await rm(folder, { recursive: true, force: true });
});

/** A server on this machine that answers every request by `answer`. */
async function serve(answer: (request: IncomingMessage) => object): Promise<string> {
  const server: Server = createServer((request, response) => {
    request.resume().on("end", () => response.end(JSON.stringify(answer(request))));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closings.push(async () => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The X-Ray daemon: it gets segments as datagrams, a header line and JSON. */
async function daemon() {
  const segments: Record<string, unknown>[] = [];
  const socket = createSocket("udp4", (message) => {
    segments.push(JSON.parse(message.toString().split("\n")[1] ?? ""));
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  closings.push(async () => socket.close());
  return { segments, address: `127.0.0.1:${socket.address().port}` };
}

describe("the page's handler with Middy and Powertools", () => {
  it("passes the type checker as it stands", async () => {
    const settings = {
      extends: join(ROOT, "tsconfig.json"),
      compilerOptions: { noEmit: true },
      include: [join(folder, "orders.ts")],
    };
    await writeFile(join(folder, "tsconfig.json"), JSON.stringify(settings));
    const tsc = join(ROOT, "node_modules/.bin/tsc");
    const { stdout } = await promisify(execFile)(tsc, ["-p", folder]).catch((error) => error);
    expect(stdout).toBe("");
  });

  it("applies changes with a secret that is fetched once, logs with Lambda's context, and traces each change", async () => {
    const ordered: unknown[] = [];
    let secretsRead = 0;
    const carrier = await serve(({ method, url, headers }) => {
      ordered.push(`${method} ${url} ${headers.authorization}`);
      return {};
    });
    const secrets = await serve(() => {
      secretsRead++;
      return { ARN: "arn", Name: "carrier-key", SecretString: "s3cret" };
    });
    const { segments, address } = await daemon();
    const table = await aws().freshTable();
    const consumers = [{ name: "orders", topics: ["*"] }];
    await registerConsumers(aws().dynamodb, table, "shop", consumers, START_OF_HISTORY);
    const placed = ["17", "4"].map((id) =>
      changeEvent({ table: "public.orders", op: "c", after: { id }, partition: 0 }),
    );
    const { answer, lines } = await invokeRecipe(kinesisEvent(placed), {
      ...aws().environment,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: secrets,
      TRIBUTARY_STATE_TABLE: table,
      TRIBUTARY_PIPELINE_NAME: "shop",
      TRIBUTARY_DEAD_LETTER_QUEUE_URL: await aws().freshQueue(),
      CARRIER_URL: carrier,
      AWS_EXECUTION_ENV: "AWS_Lambda_nodejs24.x",
      LAMBDA_TASK_ROOT: folder,
      _HANDLER: "orders.handler",
      _X_AMZN_TRACE_ID: "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
      AWS_XRAY_DAEMON_ADDRESS: address,
    });
    expect(answer).toEqual({ batchItemFailures: [] });
    expect(ordered).toEqual(["PUT /parcels/17 Bearer s3cret", "PUT /parcels/4 Bearer s3cret"]);
    expect(secretsRead).toBe(1);
    expect(lines.filter(({ message }) => message === "parcel ordered")).toMatchObject(
      placed.map(({ position }) => ({ position, function_name: "orders", function_request_id: "request-1" })),
    );
    expect(segments.map(({ name }) => name)).toContain("## orders.handler");
    expect(segments.filter(({ name }) => name === "## orders").map(({ annotations }) => annotations)).toEqual(
      placed.map(({ position }) => ({ position })),
    );
  });
});

async function invokeRecipe(event: object, environment: Readonly<Record<string, string | undefined>>) {
  const child = spawn(process.execPath, [join(folder, "invoke.mjs")], {
    env: { PATH: process.env.PATH, ...environment },
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.end(JSON.stringify(event));
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  await new Promise((resolve) => child.once("close", resolve));
  const lines = output
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { lines, answer: lines.find((line) => "answer" in line)?.answer };
}
