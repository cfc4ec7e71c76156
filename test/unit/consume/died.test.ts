import { setTimeout as sleep } from "node:timers/promises";
import { UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { GIVEN_BACK } from "../../../lib/consume/fence/fence-token.ts";
import { chain, invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

/** Whether a call gives partition 0 back: what an invocation ends with. */
function isClose(command: unknown): boolean {
  if (!(command instanceof UpdateItemCommand)) return false;
  return Object.values(command.input.ExpressionAttributeValues ?? {}).some(({ S }) =>
    S?.endsWith(GIVEN_BACK),
  );
}

describe("with a predecessor that died", () => {
  it.each<[string, number, () => unknown]>([
    ["succeeded", 2, () => undefined],
    ["found its sink away", 3, () => Promise.reject(new SinkUnavailableError("s"))],
  ])(
    "a handler that %s is no killer because its invocation could not be closed",
    async (_what, wanted, end) => {
      let phase = "dies";
      let calls = 0;
      const { handler, letters } = await rig(
        (c) =>
          c.on("*", Operation.Create, () => {
            calls++;
            if (phase === "dies") return new Promise(() => {});
            return phase === "cannot close" ? end() : undefined;
          }),
        {
          attempts: 1,
          step: async (when, _what, command) =>
            phase === "cannot close" && when === "before" && isClose(command) ? "throttled" : "none",
        },
      );
      const event = invocationOf(packed(chain(1, 1)));
      await Promise.race([handler(event, lambdaContext(60_000)), sleep(50)]);
      phase = "cannot close";
      expect((await handler(event, lambdaContext(400))).batchItemFailures).toHaveLength(1);
      phase = "well";
      expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
      expect(letters).toEqual([]);
      expect(calls).toBe(wanted);
    },
  );

  it("no call begins that its note made late", async () => {
    let phase = "dies";
    let calls = 0;
    const { handler } = await rig(
      (c) =>
        c.on("*", Operation.Create, () => {
          calls++;
          return phase === "dies" ? new Promise(() => {}) : undefined;
        }),
      {
        step: async (when, what) => {
          if (phase === "slow" && when === "after" && what.includes("a0=")) await sleep(380);
          return "none";
        },
      },
    );
    const event = invocationOf(packed(chain(1, 1)));
    await Promise.race([handler(event, lambdaContext(60_000)), sleep(50)]);
    phase = "slow";
    expect((await handler(event, lambdaContext(600))).batchItemFailures).toHaveLength(1);
    expect(calls).toBe(1);
  });
});
