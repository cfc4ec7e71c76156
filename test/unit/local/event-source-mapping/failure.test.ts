import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  afterInvocation,
  completedByReply,
  expiredRecords,
  type FailurePolicy,
} from "../../../../lib/local/event-source-mapping/failure.ts";

const numbers = ["101", "102", "103", "104"];
const failures = (...ids: unknown[]) => ({
  batchItemFailures: ids.map((itemIdentifier) => ({ itemIdentifier })),
});

describe("a reply", () => {
  const replies: readonly [what: string, reply: unknown, completed: number][] = [
    ["null", null, 4],
    ["nothing", undefined, 4],
    ["an empty text", "", 4],
    ["an empty object", {}, 4],
    ["a null list", { batchItemFailures: null }, 4],
    ["an empty list", failures(), 4],
    ["the third failed", failures("103"), 2],
    ["several failed: the lowest counts", failures("104", "102", "103"), 1],
    ["the first failed", failures("101"), 0],
    ["a text", "done", 0],
    ["a number", 5, 0],
    ["a list", [], 0],
    ["true", true, 0],
    ["an item without an identifier", { batchItemFailures: [{}] }, 0],
    ["a list that is none", { batchItemFailures: "101" }, 0],
    ["a null identifier", failures(null), 0],
    ["an empty identifier", failures(""), 0],
    ["a number as identifier", failures(103), 0],
    ["a wrong key", { batchItemFailures: [{ identifier: "103" }] }, 0],
    ["a sequence number of another batch", failures("999"), 0],
    ["a good and an unknown one", failures("103", "999"), 0],
    ["a good and a null one", failures("103", null), 0],
    ["a list that is none", { batchItemFailures: "103" }, 0],
    ["a text", "ok", 0],
  ];
  test.each(replies)("%s", (_, reply, completed) => {
    expect(completedByReply(reply, numbers)).toBe(completed);
  });
});

const policy: FailurePolicy = {
  reportBatchItemFailures: true,
  bisectBatchOnFunctionError: false,
  maximumRetryAttempts: -1,
};

describe("after an invocation", () => {
  test("complete success: nothing comes again", () => {
    expect(afterInvocation({ size: 4, retries: 9, completed: 4 }, policy)).toEqual({
      completed: 4,
      retry: [],
      discard: false,
    });
  });

  test("failure: the whole batch again, for ever with -1", () => {
    expect(afterInvocation({ size: 4, retries: 20_000, completed: 0 }, policy).retry).toEqual([
      { from: 0, to: 4, retries: 20_001 },
    ]);
  });

  test("partial success: from the failed record on, counted anew", () => {
    expect(afterInvocation({ size: 4, retries: 5, completed: 3 }, policy)).toEqual({
      completed: 3,
      retry: [{ from: 3, to: 4, retries: 1 }],
      discard: false,
    });
  });

  test("retries used up: the rest of the batch is discarded", () => {
    const limited = { ...policy, maximumRetryAttempts: 2 };
    expect(afterInvocation({ size: 4, retries: 1, completed: 0 }, limited).discard).toBe(false);
    expect(afterInvocation({ size: 4, retries: 2, completed: 0 }, limited)).toEqual({
      completed: 0,
      retry: [],
      discard: true,
    });
    const none = { ...policy, maximumRetryAttempts: 0 };
    expect(afterInvocation({ size: 4, retries: 0, completed: 1 }, none)).toEqual({
      completed: 1,
      retry: [],
      discard: true,
    });
  });

  test("bisect: in half, or at the reported record, without using a retry", () => {
    const bisect = { ...policy, bisectBatchOnFunctionError: true, maximumRetryAttempts: 0 };
    expect(afterInvocation({ size: 5, retries: 0, completed: 0 }, bisect).retry).toEqual([
      { from: 0, to: 3, retries: 0 },
      { from: 3, to: 5, retries: 0 },
    ]);
    expect(afterInvocation({ size: 5, retries: 0, completed: 3 }, bisect).retry).toEqual([
      { from: 3, to: 5, retries: 0 },
    ]);
    expect(afterInvocation({ size: 1, retries: 0, completed: 0 }, bisect).discard).toBe(true);
  });

  test("completed, retried and discarded records are the batch, each once, in order", () => {
    const batch = fc
      .record({ size: fc.integer({ min: 1, max: 50 }), retries: fc.nat(5), part: fc.nat(50) })
      .map(({ size, retries, part }) => ({ size, retries, completed: Math.min(part, size) }));
    const policies = fc.record({
      reportBatchItemFailures: fc.constant(true),
      bisectBatchOnFunctionError: fc.boolean(),
      maximumRetryAttempts: fc.integer({ min: -1, max: 4 }),
    });
    fc.assert(
      fc.property(batch, policies, (given, rules) => {
        const { completed, retry, discard } = afterInvocation(given, rules);
        let next = completed;
        for (const part of retry) {
          expect(part.from).toBe(next);
          expect(part.to).toBeGreaterThan(part.from);
          next = part.to;
        }
        expect(discard ? given.size : next).toBe(given.size);
        if (discard) expect(retry).toEqual([]);
      }),
    );
  });
});

describe("record age", () => {
  const arrivals = [{ arrivedAt: 1_000 }, { arrivedAt: 2_000 }, { arrivedAt: 3_000 }];
  test("what is older than the maximum goes from the front", () => {
    expect(expiredRecords(arrivals, 1, 2_500)).toBe(1);
    expect(expiredRecords(arrivals, 1, 2_000)).toBe(0);
    expect(expiredRecords(arrivals, 1, 9_000)).toBe(3);
  });
  test("-1: none", () => {
    expect(expiredRecords(arrivals, -1, Number.MAX_SAFE_INTEGER)).toBe(0);
  });
});
