import { describe, expect, it } from "vitest";
import { FailedEvents, SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { RedriveReport } from "../../../lib/consume/dead-letter/redrive-request.ts";
import { at, type Change, chain, invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

/* What brings an old state of a key over a newer one, or loses what failed, although each step alone is in order. */

/** Changes of one key. */
function same(from: number, to: number): Change[] {
  return chain(from, to).map((change) => ({ ...change, row: { id: "k", v: String(change.at) } }));
}

const REDRIVE = { tributary: "redrive" } as const;

/** Ends when the test says so, and heeds no signal. */
function endless() {
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { ended, end };
}

describe("a change that is given up in a later invocation than the one in which a newer one of its key took effect", () => {
  it.each(["park", "skip"] as const)("%s: is not redriven over that", async (poison) => {
    const effects: unknown[] = [];
    let calls = 0;
    let isBad = true;
    const { handler, letters } = await rig(
      (c) =>
        c.onBatch("*", {}, (events) => {
          calls++;
          if (calls === 1) {
            effects.push(events[1]?.after?.v);
            throw new FailedEvents([0], { cause: new SinkUnavailableError("s") });
          }
          if (isBad) throw new Error("poison");
          effects.push(...events.map(({ after }) => after?.v));
        }),
      { poison, attempts: 1 },
    );
    const event = invocationOf(packed(same(1, 2)));
    expect((await handler(event, lambdaContext())).batchItemFailures).toHaveLength(1);
    expect((await handler(event, lambdaContext())).batchItemFailures).toHaveLength(0);
    expect(letters.map(({ position }) => position)).toEqual([at(1)]);
    isBad = false;
    await handler(REDRIVE, lambdaContext());
    expect(effects).toEqual(["2"]);
  });
});

describe("a redrive in another process", () => {
  it("does not begin with a letter while the change that overtakes it is in a call that runs on", async () => {
    const { ended, end } = endless();
    const effects: unknown[] = [];
    const handle = (wait: boolean) => async (v: unknown) => {
      if (v === "2" && wait) await ended;
      effects.push(v);
    };
    let isBad = true;
    const first = await rig(
      (c) =>
        c.on("*", Operation.Create, async ({ after }) => {
          if (isBad) throw new Error("poison");
          await handle(true)(after.v);
        }),
      { poison: "skip", attempts: 1 },
    );
    const second = await rig((c) => c.on("*", Operation.Create, ({ after }) => handle(false)(after.v)), {
      poison: "skip",
      table: first.table,
    });
    await first.handler(invocationOf(packed(same(1, 1))), lambdaContext());
    isBad = false;
    const event = invocationOf(packed(same(2, 2)));
    expect((await first.handler(event, lambdaContext(1_200))).batchItemFailures).toHaveLength(1);
    const report = (await second.handler(REDRIVE, lambdaContext(3_000))) as RedriveReport;
    end();
    await first.handler(event, lambdaContext());
    expect(effects).toEqual(["2"]);
    expect(report).toMatchObject({ redriven: 0, busy: 1 });
  });
});

describe("an invocation that was overtaken", () => {
  it("does not remove what its successor has put behind a letter that it superseded", async () => {
    const { ended, end } = endless();
    const effects: unknown[] = [];
    let isBad = true;
    let isCalled = () => {};
    const called = new Promise<void>((resolve) => {
      isCalled = resolve;
    });
    const first = await rig(
      (c) =>
        c.on("*", Operation.Create, async ({ after }) => {
          if (isBad) throw new Error("poison");
          isCalled();
          await ended;
          effects.push(after.v);
        }),
      { poison: "skip", attempts: 1 },
    );
    let isSecondBad = true;
    const second = await rig(
      (c) =>
        c.on("*", Operation.Create, ({ after }) => {
          if (isSecondBad) throw new Error("poison");
          effects.push(after.v);
        }),
      { poison: "skip", attempts: 1, table: first.table },
    );
    await first.handler(invocationOf(packed(same(1, 1))), lambdaContext());
    isBad = false;
    const overtaken = first.handler(invocationOf(packed(same(2, 2))), lambdaContext());
    await called;
    // The same batch, and what came since.
    const again = await second.handler(invocationOf(packed(same(2, 3))), lambdaContext());
    expect(again.batchItemFailures).toEqual([]);
    expect(second.letters.map(({ position }) => position)).toEqual([at(2), at(3)]);
    end();
    await overtaken;
    isSecondBad = false;
    await second.handler(REDRIVE, lambdaContext());
    expect(effects.at(-1)).toBe("3");
  });
});
