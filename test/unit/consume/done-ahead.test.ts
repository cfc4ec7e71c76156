import { describe, expect, it } from "vitest";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { FailedEvents, SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { formatDone, parseDone } from "../../../lib/consume/run/done-ahead.ts";
import { at, chain, invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

type Handle = (ids: readonly string[]) => unknown;

const handling = (handle: Handle) => (c: Consumer) =>
  c.onBatch("*", {}, (events) => handle(events.map(({ after }) => String(after?.id))));

const away = () => new SinkUnavailableError("s");

describe("what took effect although an event before it did not", () => {
  it.each<[string, (n: number, ids: readonly string[]) => unknown]>([
    [
      "and the sink is away when that is tried again",
      (n) => (n === 1 ? new FailedEvents([1]) : n === 2 ? away() : undefined),
    ],
    [
      "since the sink went away in the middle",
      (n) => (n === 1 ? new FailedEvents([1], { cause: away() }) : undefined),
    ],
    [
      "and the sink is away for some that are tried again",
      (n) =>
        n === 1 ? new FailedEvents([0, 1]) : n === 2 ? new FailedEvents([1], { cause: away() }) : undefined,
    ],
    ["and the sink stays away", (n) => (n === 1 ? new FailedEvents([1]) : n < 5 ? away() : undefined)],
  ])("is not called again: %s", async (_what, errorOf) => {
    let calls = 0;
    const effects: string[] = [];
    const { handler, letters, table } = await rig(
      handling((ids) => {
        const error = errorOf(++calls, ids);
        const failed = error instanceof FailedEvents ? error.indexes : error ? ids.map((_, i) => i) : [];
        effects.push(...ids.filter((_, i) => !failed.includes(i)));
        if (error) throw error;
      }),
    );
    // More comes meanwhile.
    const [first, second] = [packed(chain(1, 4)), packed(chain(5, 6))];
    let left = 1;
    for (let i = 0; i < 6 && left > 0; i++) {
      left = (await handler(invocationOf(first, second), lambdaContext())).batchItemFailures.length;
    }
    expect(left).toBe(0);
    expect(effects.toSorted()).toEqual(["1", "2", "3", "4", "5", "6"]);
    expect(letters).toEqual([]);
    expect(table.items("fence")[0]?.a0).toBeUndefined();
  });

  it("is told in little space, or not at all", () => {
    const positions = Array.from({ length: 300 }, (_, i) => at(7, { ordinal: 2 * i + 1 }));
    const text = formatDone(positions) ?? "";
    expect(text.length).toBeLessThan(1_600);
    expect(parseDone(text)).toEqual(positions);
    expect(parseDone(formatDone([at(1)]))).toEqual([at(1)]);
    expect(formatDone([])).toBeUndefined();
    expect(formatDone(Array.from({ length: 2_000 }, (_, i) => at(i + 1)))).toBeUndefined();
    for (const odd of [undefined, 5, "", "abc", "a;b", "<>:1"]) expect(parseDone(odd)).toEqual([]);
  });
});
