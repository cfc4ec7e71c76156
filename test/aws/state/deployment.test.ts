import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { expect, test } from "vitest";
import { awaitDeployment } from "../../../lib/state/deployment.ts";
import { StateTableError } from "../../../lib/state/state-errors.ts";
import { deployedKey } from "../../../lib/state/state-key.ts";
import { eventually } from "../../eventually.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();

test("a capture task waits until the stack has written its last item", async () => {
  const table = await aws().freshTable();
  let polls = 0;
  const dynamodb = aws().dynamodb;
  dynamodb.middlewareStack.add((next) => (call) => next(call).finally(() => polls++), {
    step: "initialize",
    name: "polls",
  });
  const lines: string[] = [];
  let done = false;
  const signal = AbortSignal.timeout(60_000);
  const waiting = awaitDeployment({
    dynamodb,
    table,
    pipeline: "shop",
    signal,
    pollMs: 20,
    log: (line) => lines.push(line),
  }).then(() => {
    done = true;
  });
  await eventually(() => lines.length === 1, { what: "the wait to begin" });
  // Another pipeline's deployment in the same table is not ours.
  await complete(table, "other");
  const before = polls;
  await eventually(() => done || polls > before + 2, { what: "two more polls" });
  expect(done).toBe(false);
  await complete(table, "shop");
  await waiting;
  dynamodb.middlewareStack.remove("polls");
  expect(lines).toHaveLength(1);
});

test("a wait ends with its signal, at its deadline, and where there is no table", async () => {
  const table = await aws().freshTable();
  const { dynamodb } = aws();
  const wait = { dynamodb, table, pipeline: "shop", log: () => {}, pollMs: 20 };
  const stopping = new AbortController();
  const waiting = awaitDeployment({ ...wait, signal: stopping.signal });
  stopping.abort();
  await expect(waiting).rejects.toThrow("aborted");
  const signal = AbortSignal.timeout(60_000);
  await expect(awaitDeployment({ ...wait, signal, deadlineMs: 50 })).rejects.toBeInstanceOf(StateTableError);
  await expect(awaitDeployment({ ...wait, signal, table: "none" })).rejects.toBeInstanceOf(StateTableError);
});

async function complete(table: string, pipeline: string): Promise<void> {
  const { pk, sk } = deployedKey(pipeline);
  const Item = { pk: { S: pk }, sk: { S: sk } };
  await aws().dynamodb.send(new PutItemCommand({ TableName: table, Item }));
}
