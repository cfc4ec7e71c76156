import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/operation.ts";
import { invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

describe("a redrive of a held partition", () => {
  it("does not call handlers beside an invocation that is at work on the same changes", async () => {
    const called = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<void>();
    const effects: unknown[] = [];
    let isBad = true;
    const first = await rig(
      (c) =>
        c.on("*", Operation.Create, async ({ after }) => {
          if (isBad) throw new Error("poison");
          called.resolve();
          await ended.promise;
          effects.push(after.v);
        }),
      { poison: "stop", attempts: 1 },
    );
    const second = await rig((c) => c.on("*", Operation.Create, ({ after }) => effects.push(after.v)), {
      ...{ poison: "stop", table: first.table },
    });
    const old = { at: 1, after: null, row: { id: "k", v: "old" } };
    await first.handler(invocationOf(packed([old])), lambdaContext());
    isBad = false;
    // Its next try has come.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    const next = { at: 2, after: 1, row: { id: "k", v: "new" } };
    const atWork = first.handler(invocationOf(packed([next])), lambdaContext());
    await called.promise;
    const report = await second.handler({ tributary: "redrive" }, lambdaContext(1_500));
    ended.resolve();
    await atWork;
    expect(effects).toEqual(["old", "new"]);
    expect(report).toMatchObject({ redriven: 0, busy: 1 });
  });
});
