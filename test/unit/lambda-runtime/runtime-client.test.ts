import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../../eventually.ts";
import { chain, invocationOf, packed } from "../consume/records.ts";
import { RuntimeApi } from "./runtime-api.ts";

/*
 * A consumer under AWS's own runtime interface clients, whose event loop is empty when a handler waits for nothing: that of
 * Node 20 and 22 then answers `null`, which means success, and that of Node 24 exits with 0.
 */
const here = import.meta.dirname;
const modules = join(here, "../../../node_modules");
const CLIENTS = [
  ["3.3.0, of Node 20 and 22", "aws-lambda-ric-3", join(here, "ric-3.mjs")],
  ["4.0.2, of Node 24", undefined, join(here, "fixtures/aws-lambda-ric-4.0.2.mjs")],
] as const;

/** The clients keep their process alive with nothing else. */
const TIMEOUT_MS = 2_000;

const running: { child: ChildProcess; api: RuntimeApi }[] = [];
afterEach(() => {
  for (const { child, api } of running.splice(0)) {
    child.kill("SIGKILL");
    api.close();
  }
});

async function start(main: string) {
  const api = new RuntimeApi(TIMEOUT_MS);
  const child = spawn(process.execPath, ["--require", join(here, "native-client.cjs"), main], {
    env: {
      PATH: process.env.PATH,
      AWS_LAMBDA_RUNTIME_API: await api.listen(),
      _HANDLER: "index.handler",
      LAMBDA_TASK_ROOT: join(here, "function"),
      AWS_LAMBDA_FUNCTION_NAME: "f",
      AWS_LAMBDA_FUNCTION_VERSION: "1",
      AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "512",
      AWS_LAMBDA_LOG_GROUP_NAME: "g",
      AWS_LAMBDA_LOG_STREAM_NAME: "s",
    },
  });
  running.push({ child, api });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const exit = once(child, "exit").then(([code]) => code as number | null);
  /** What the runtime answered to an event, or that its process ended. */
  const invoke = async (event: unknown) => {
    const before = api.answers.length;
    api.invoke(event);
    await eventually(() => api.answers.length > before || child.exitCode !== null, {
      what: `an answer; so far: ${output}`,
      deadlineMs: 20_000,
    });
    return api.answers[before] ?? `exit ${child.exitCode}: ${output}`;
  };
  return { api, child, invoke, exit };
}

describe.each(CLIENTS)("under AWS's runtime interface client %s", (_version, name, main) => {
  const missing =
    name === undefined || existsSync(join(modules, name))
      ? ""
      : `: SKIPPED, npm package ${name} is not installed`;

  it.skipIf(missing)(
    `a batch that is handled is answered so, and the process goes on${missing}`,
    async () => {
      const { api, child, invoke } = await start(main);
      const event = invocationOf(packed(chain(1, 1)));
      const done = { kind: "response", body: { batchItemFailures: [] } };
      expect(await invoke(event)).toEqual(done);
      expect(await invoke(event)).toEqual(done);
      await eventually(() => api.isIdle, { what: "the runtime to ask for the next invocation" });
      expect(child.exitCode).toBeNull();
    },
  );

  it.skipIf(missing)(
    `a handler that never settles fails its record, and its process is replaced${missing}`,
    async () => {
      const { invoke, exit } = await start(main);
      const event = invocationOf(packed(chain(1, 1)), packed(chain(2, 3)));
      const itemIdentifier = event.Records[1]?.kinesis.sequenceNumber;
      expect(await invoke(event)).toEqual({
        kind: "response",
        body: { batchItemFailures: [{ itemIdentifier }] },
      });
      expect(await exit).toBe(1);
    },
  );
});
