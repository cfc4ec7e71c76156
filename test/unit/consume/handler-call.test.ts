import { describe, expect, it } from "vitest";
import type { ChangeEventJson } from "../../../lib/change/event.ts";
import { callHandler } from "../../../lib/consume/api/handler-call.ts";
import { FailedEvents, SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import type { BatchRegistration } from "../../../lib/consume/api/registry.ts";
import { Deadline } from "../../../lib/consume/run/deadline.ts";
import { type AnyEvent, HandledEvent, wireRows } from "../../../lib/consume/run/event.ts";
import { parseExactJson } from "../../../lib/consume/run/json.ts";
import { RunningCalls } from "../../../lib/consume/run/running-calls.ts";
import { at, eventJson, TOPIC } from "./records.ts";

const events = [1, 2, 3, 4].map((n) => {
  const wire = parseExactJson(eventJson({ at: n, after: n - 1 || null })) as ChangeEventJson;
  return new HandledEvent(wire, { topic: TOPIC, partition: 0 }, at(n), wireRows(wire));
});

/** How a batch handler's call ends: the indexes that failed, or the kind of its end. */
async function endOf(handle: (events: readonly AnyEvent[]) => unknown, deadline = new Deadline(10_000)) {
  const registration: BatchRegistration = {
    kind: "batch",
    pattern: "*",
    matches: () => true,
    operations: new Set(),
    maxEvents: 500,
    row: undefined,
    handle,
  };
  const invocation = { consumer: "c", deadline, running: new RunningCalls(), write: () => {} };
  try {
    const result = await callHandler(registration, events, 1, invocation);
    return result.kind === "some-failed" ? result.indexes : result.kind;
  } finally {
    deadline.clear();
  }
}

const throwing = (error: unknown) => () => {
  throw error;
};
const odd = (indexes: unknown) => new FailedEvents(indexes as number[]);

describe("what a batch handler returns", () => {
  it.each<[string, unknown, unknown]>([
    ["nothing", undefined, "done"],
    ["text", "3", "done"],
    ["no indexes", [], "done"],
    ["indexes", [3, 1, 3], [1, 3]],
    ["the answers of Promise.all: nothing each", [undefined, undefined, undefined, undefined], "done"],
    ["the answers of Promise.all: objects", [{ ok: 1 }, { ok: 1 }, { ok: 1 }, { ok: 0 }], "done"],
    ["the answers of Promise.all: texts", ["OK", "OK", "OK", "OK"], "done"],
    ["each event's own index, or nothing", [undefined, 1, null, 3], [1, 3]],
    ["indexes beyond the events", [1, 4], "failed"],
    ["numbers that are no indexes", [0.5], "failed"],
    ["no number", [Number.NaN], "failed"],
    ["big integers", [1n], "failed"],
    ["indexes among answers", [1, { ok: 1 }], "failed"],
  ])("%s", async (_what, returned, end) => {
    expect(await endOf(() => returned)).toEqual(end);
    expect(await endOf(async () => returned)).toEqual(end);
  });
});

describe("what a batch handler throws", () => {
  it.each<[string, unknown, unknown]>([
    ["failed events", new FailedEvents([2, 0]), [0, 2]],
    ["no failed events", new FailedEvents([]), "done"],
    ["failed events that are none", new FailedEvents([9]), "failed"],
    ["failed events without a list", Object.assign(new FailedEvents([]), { indexes: 3 }), "failed"],
    ["failed events with a hole", odd([undefined]), "failed"],
    [
      "failed events since the sink is away",
      new FailedEvents([0], { cause: new SinkUnavailableError("s") }),
      "unavailable",
    ],
    ["an outage of the sink", new SinkUnavailableError("s"), "unavailable"],
    ["anything else", null, "failed"],
  ])("%s", async (_what, error, end) => {
    expect(await endOf(throwing(error))).toEqual(end);
    expect(await endOf(async () => throwing(error)())).toEqual(end);
  });
});

describe("a call when time is over", () => {
  it("does not begin", async () => {
    let called = false;
    const end = await endOf(() => {
      called = true;
    }, new Deadline(0));
    expect([end, called]).toEqual(["cut-short", false]);
  });
});
