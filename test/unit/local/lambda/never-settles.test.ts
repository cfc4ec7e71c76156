import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { completedByReply } from "../../../../lib/local/event-source-mapping/delivery.ts";
import { startLambdaFunction } from "../../../../lib/local/lambda/host.ts";
import { chain, invocationOf, packed } from "../../consume/records.ts";

test("a handler that never settles ends its invocation in order, with nothing passed over", async () => {
  const lines: string[] = [];
  const fn = await startLambdaFunction({
    entry: fileURLToPath(new URL("./never-settles.ts", import.meta.url)),
    timeoutMs: 3_000,
    concurrency: 1,
    onLog: (line) => lines.push(line),
  });
  onTestFinished(() => fn.stop());
  const event = invocationOf(packed(chain(1, 3)));
  const result = await fn.invoke(event);
  expect(result.ok, lines.join("\n")).toBe(true);
  const sequenceNumbers = event.Records.map(({ kinesis }) => kinesis.sequenceNumber);
  expect(result.ok && completedByReply(result.response, sequenceNumbers)).toBe(0);
  // The process goes on: it is one handler that hangs.
  expect(fn.pids()).toHaveLength(1);
});
