import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { ConsumerObserver } from "../../../lib/consume/run/observer.ts";
import { chain, invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

const fail = () => {
  throw new Error("no metrics today");
};

describe("an observer", () => {
  it.each<[string, () => unknown]>([
    ["throws", fail],
    ["throws nothing", () => Promise.reject(undefined)],
    ["rejects", async () => fail()],
    ["never ends", () => new Promise(() => {})],
    // biome-ignore lint/suspicious/noThenProperty: that is the point
    ["gives a thenable that throws", () => ({ then: fail })],
  ])("that %s fails no invocation, and no redrive: both are closed by then", async (_what, observe) => {
    const observer: ConsumerObserver = { invocation: observe, redrive: observe };
    const { handler, lines } = await rig((c) => c.on("*", Operation.Create, () => {}), { observer });
    const event = invocationOf(packed(chain(1, 3)));
    expect(await handler(event, lambdaContext(3_000))).toEqual({ batchItemFailures: [] });
    expect(await handler({ tributary: "redrive" }, lambdaContext(3_000))).toMatchObject({ redriven: 0 });
    const told = lines.map((line) => JSON.parse(line).message);
    expect(told.filter((message) => /^the observer/.test(message))).toHaveLength(2);
  });

  it("is waited for", async () => {
    const reports: number[] = [];
    const observer: ConsumerObserver = {
      invocation: async ({ applied }) => {
        await new Promise((resolve) => setImmediate(resolve));
        reports.push(applied);
      },
    };
    const { handler } = await rig((c) => c.on("*", Operation.Create, () => {}), { observer });
    await handler(invocationOf(packed(chain(1, 3))), lambdaContext());
    expect(reports).toEqual([3]);
  });
});
