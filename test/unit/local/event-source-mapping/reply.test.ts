import { describe, expect, test } from "vitest";
import { completedByReply } from "../../../../lib/local/event-source-mapping/delivery.ts";

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
