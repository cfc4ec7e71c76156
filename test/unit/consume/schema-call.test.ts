import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { RowSchema } from "../../../lib/consume/api/schema.ts";
import { at, chain, invocationOf, packed } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

type Validate = (row: { readonly id: string }) => unknown;

/** A schema whose answers are as odd as any library's may be. */
function schemaOf(validate: Validate): RowSchema<unknown> {
  return { "~standard": { version: 1, vendor: "test", validate: validate as never } };
}

const never = () => new Promise(() => {});
const fail = (error: unknown) => {
  throw error;
};

/** One event a call, or many: the schema is called before either. */
const KINDS: readonly [string, (c: Consumer, row: RowSchema<unknown>, seen: unknown[]) => Consumer][] = [
  ["on", (c, row, seen) => c.on("*", Operation.Create, { row }, ({ after }) => void seen.push(after))],
  [
    "onBatch",
    (c, row, seen) => c.onBatch("*", { row }, (events) => void seen.push(...events.map((e) => e.after))),
  ],
];

describe.each(KINDS)("a schema of %s", (_kind, register) => {
  const rigWith = async (validate: Validate, options: Parameters<typeof rig>[1] = {}) => {
    const seen: unknown[] = [];
    return { seen, ...(await rig((c) => register(c, schemaOf(validate), seen), options)) };
  };
  const event = invocationOf(packed(chain(1, 3)));

  it("that never answers is bound by the deadline, and given up when its attempts are used up", async () => {
    const { handler, letters, seen } = await rigWith((row) => (row.id === "2" ? never() : { value: row }), {
      attempts: 2,
    });
    // On a busy machine a call may have less than its share of the time, and count for nothing.
    for (let i = 0; i < 10 && letters.length === 0; i++) {
      expect((await handler(event, lambdaContext(400))).batchItemFailures).toHaveLength(1);
    }
    expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect(letters.map(({ position, error }) => [position, error.name])).toEqual([
      [at(2), "HandlerTimeoutError"],
    ]);
    expect(seen).toEqual([{ id: "1" }, { id: "3" }]);
  });

  it("that kills its process is found: its change is a dead letter", async () => {
    const { handler, letters, seen } = await rigWith((row) => (row.id === "2" ? never() : { value: row }));
    // Never heard of again: so it looks when the process is gone.
    for (let i = 0; i < 12 && letters.length === 0; i++) {
      await Promise.race([handler(event, lambdaContext(60_000)), sleep(60)]);
    }
    expect(letters.map(({ position, error }) => [position, error.name])).toEqual([
      [at(2), "HandlerDiedError"],
    ]);
    expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect(seen.at(-1)).toEqual({ id: "3" });
  });

  it.each<[string, () => unknown]>([
    ["throws", () => fail(new Error("look-up"))],
    ["rejects", async () => fail(null)],
    ["answers nothing", () => undefined],
    ["answers with issues that are none", () => ({ issues: 5 })],
  ])("that %s is tried again, and given up when its attempts are used up", async (_what, odd) => {
    let calls = 0;
    const validate: Validate = (row) => (row.id === "2" && ++calls < 3 ? odd() : { value: row });
    const patient = await rigWith(validate);
    expect(await patient.handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect([patient.letters, patient.seen.length]).toEqual([[], 3]);
    calls = 0;
    const strict = await rigWith(validate, { attempts: 2 });
    expect(await strict.handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect(strict.letters.map(({ position, attempts }) => [position, attempts])).toEqual([[at(2), 2]]);
    expect(strict.seen).toEqual([{ id: "1" }, { id: "3" }]);
  });

  it.each<[string, Validate]>([
    ["throws", () => fail(new SinkUnavailableError("s"))],
    ["rejects", async () => fail(new Error("x", { cause: new SinkUnavailableError("s") }))],
  ])("that %s since what it looks up is away gives nothing up", async (_what, away) => {
    let isAway = true;
    const { handler, letters, seen } = await rigWith(
      (row) => (isAway && row.id === "2" ? away(row) : { value: row }),
      {
        attempts: 1,
      },
    );
    for (const _ of [1, 2]) expect((await handler(event, lambdaContext())).batchItemFailures).toHaveLength(1);
    isAway = false;
    expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect([letters, seen.length]).toEqual([[], 3]);
  });

  it("that refuses a row is asked once", async () => {
    let calls = 0;
    const { handler, letters } = await rigWith((row) => {
      if (row.id !== "2") return { value: row };
      calls++;
      return { issues: [{ message: "no", path: [Symbol("odd"), { key: "id" }] }] };
    });
    expect(await handler(event, lambdaContext())).toEqual({ batchItemFailures: [] });
    expect([calls, letters.map(({ error }) => error.name)]).toEqual([1, ["RowSchemaError"]]);
  });

  it("that answers with a thenable of its own is waited for", async () => {
    const { handler, seen } = await rigWith((row) => ({
      // biome-ignore lint/suspicious/noThenProperty: as libraries' own promises have it
      then: (resolve: (answer: unknown) => void) => resolve({ value: { ...row, seen: true } }),
    }));
    await handler(event, lambdaContext());
    expect(seen[0]).toEqual({ id: "1", seen: true });
  });
});

describe("a schema in a redrive", () => {
  it("is bound by the deadline too, and an outage it meets is no failure", async () => {
    let mode = "refuses";
    const row = schemaOf(() => {
      if (mode === "away") return fail(new SinkUnavailableError("s"));
      return mode === "hangs" ? never() : { issues: [{ message: "no" }] };
    });
    const { handler } = await rig((c) => c.on("*", Operation.Create, { row }, () => {}));
    await handler(invocationOf(packed(chain(1, 1))), lambdaContext());
    mode = "hangs";
    expect(await handler({ tributary: "redrive" }, lambdaContext(400))).toMatchObject({
      failed: 1,
      redriven: 0,
    });
    mode = "away";
    expect(await handler({ tributary: "redrive" }, lambdaContext())).toMatchObject({ open: 1, failed: 0 });
  });
});
