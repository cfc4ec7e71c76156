import { once } from "node:events";
import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { expect, test } from "vitest";
import { persistentTable } from "../../lib/state/persistent-table.ts";
import { StateTableUnavailableError } from "../../lib/state/state-errors.ts";

const table = "state";
const key = { pk: "a", sk: "b" };

/** A client whose calls do what is given. */
function client(send: (options: { readonly abortSignal?: AbortSignal }) => Promise<unknown>): DynamoDBClient {
  return {
    send: (_: unknown, options: { readonly abortSignal?: AbortSignal }) => send(options),
  } as unknown as DynamoDBClient;
}

test("what a task writes at its end is not cut, and fails with the table's error", async () => {
  const signal = AbortSignal.abort(new Error("the task ends"));
  const dynamodb = client(async ({ abortSignal }) => {
    abortSignal?.throwIfAborted();
    return {};
  });
  await expect(persistentTable({ dynamodb, table, signal }).put(key, {})).resolves.toBe(true);
  const unanswered = client(async ({ abortSignal }) => {
    abortSignal?.throwIfAborted();
    throw new Error("ETIMEDOUT");
  });
  await expect(persistentTable({ dynamodb: unanswered, table, signal }).put(key, {})).rejects.toBeInstanceOf(
    StateTableUnavailableError,
  );
});

test("what the signal cuts ends with the signal's reason", async () => {
  const end = new AbortController();
  const reason = new Error("the task ends");
  const dynamodb = client(async ({ abortSignal }) => {
    await once(abortSignal as AbortSignal, "abort");
    throw new Error("aborted");
  });
  const cut = persistentTable({ dynamodb, table, signal: end.signal }, true).get(key);
  end.abort(reason);
  await expect(cut).rejects.toBe(reason);
});

test("a wait between two tries is cut by the signal, and ends with its reason", async () => {
  const end = new AbortController();
  const reason = new Error("the task ends");
  let calls = 0;
  const dynamodb = client(async () => {
    calls++;
    queueMicrotask(() => setImmediate(() => end.abort(reason)));
    throw new Error("ETIMEDOUT");
  });
  await expect(persistentTable({ dynamodb, table, signal: end.signal }, true).get(key)).rejects.toBe(reason);
  expect(calls).toBe(1);
});
