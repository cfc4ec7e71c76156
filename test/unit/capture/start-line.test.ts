import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { CAPTURE_STARTS_LINE } from "../../../lib/telemetry/log.ts";

const PROGRAM = fileURLToPath(new URL("../../../functions/capture/main.ts", import.meta.url));

it("is written first by a task that fails at once, at whatever level it logs", async () => {
  const env = { PATH: process.env.PATH, POWERTOOLS_LOG_LEVEL: "ERROR" };
  const printed = await new Promise<string>((resolve) =>
    execFile(process.execPath, [PROGRAM], { env, timeout: 30_000 }, (_, stdout) => resolve(stdout)),
  );
  const lines = printed
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { readonly level: string; readonly message: string });
  // The metric filter of cdk/constructs/pipeline-alarms.ts looks for the message.
  expect(lines[0]).toMatchObject({ message: CAPTURE_STARTS_LINE });
  expect(lines.slice(1).map(({ level }) => level)).toEqual(["ERROR"]);
});
