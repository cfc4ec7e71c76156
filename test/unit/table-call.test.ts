import { once } from "node:events";
import { expect, test } from "vitest";
import { StateTableUnavailableError } from "../../lib/state/state-errors.ts";
import { persistently } from "../../lib/state/table-call.ts";

const table = "state";

test("what a task writes at its end is not cut, and fails with the table's error", async () => {
  const signal = AbortSignal.abort(new Error("the task ends"));
  await expect(persistently({ table, signal }, async () => "written")).resolves.toBe("written");
  const unanswered = persistently({ table, signal }, async ({ abortSignal }) => {
    abortSignal?.throwIfAborted();
    throw new Error("ETIMEDOUT");
  });
  await expect(unanswered).rejects.toBeInstanceOf(StateTableUnavailableError);
});

test("what the signal cuts ends with the signal's reason", async () => {
  const end = new AbortController();
  const reason = new Error("the task ends");
  const cut = persistently({ table, signal: end.signal, cut: true }, async ({ abortSignal }) => {
    await once(abortSignal as AbortSignal, "abort");
    throw new Error("aborted");
  });
  end.abort(reason);
  await expect(cut).rejects.toBe(reason);
});
