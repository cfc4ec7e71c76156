import { UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import type { ChangeLetter } from "../../../lib/admin/dead-letters/letter.ts";
import { StoredLetters } from "../../../lib/admin/dead-letters/stored-letters.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { CallFault, MemoryTable } from "./memory-table.ts";
import { at, type Change, chain, invocationOf, packed, TOPIC } from "./records.ts";
import { lambdaContext, rig } from "./rig.ts";

/*
 * A skipped change whose key a later one has passed never takes effect: nobody may take its dead letter for done, and delete its message,
 * whenever the invocation of the later one ends, or dies.
 */

const REDRIVE = { tributary: "redrive" } as const;
/** An invocation gives its partition back, and the list of keys with open dead letters is empty then; or is not. */
const LETS_GO = /^SET m0=.* REMOVE a0,k0$/;
const CLOSES = /^SET m0=/;
type Step = NonNullable<Parameters<MemoryTable["client"]>[0]>;

/** Changes of one key, the first of which fails. */
function same(from: number, to: number): Change[] {
  return chain(from, to).map((change) => ({ ...change, row: { id: "k", v: String(change.at) } }));
}

/** A process of the consumer. */
function processOf(table?: MemoryTable, step?: Step) {
  return rig(
    (c) =>
      c.on("*", Operation.Create, ({ after }) => {
        if (after.v === "1") throw new Error("poison");
      }),
    { poison: "skip", attempts: 1, ...(table && { table }), ...(step && { step }) },
  );
}

/** The message of the first change. */
const MESSAGE: ChangeLetter = {
  ...{ kind: "change", consumer: "c", topic: TOPIC, partition: 0, position: at(1), attempts: 1 },
  ...{ firstFailedAt: "", lastFailedAt: "", error: { name: "Error", message: "", stack: "" } },
  ...{ key: "k", table: undefined, event: undefined, item: undefined },
};

function lettersOf(table: MemoryTable, step: Step = async () => "none") {
  const place = { dynamodb: table.client(step), table: "t", pipeline: "p", consumer: "c" };
  return StoredLetters.read(place, AbortSignal.timeout(5_000));
}

/** Holds back each call of a process that does as is asked for. */
function pausing(isThere: (when: string, what: string, sk: string) => boolean) {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const step: Step = async (when, what, command): Promise<CallFault> => {
    const { Key } = (command as { readonly input: { readonly Key?: { sk?: { S?: string } } } }).input;
    if (!isThere(when, what, Key?.sk?.S ?? "")) return "none";
    reached.resolve();
    await gate.promise;
    return "none";
  };
  return { step, reached: reached.promise, go: () => gate.resolve() };
}

describe("the dead letter of a skipped change that a later one has passed", () => {
  it("is superseded, not done, where the invocation of that one dies when it has given its partition back", async () => {
    const { handler, table } = await processOf();
    await handler(invocationOf(packed(same(1, 1))), lambdaContext());
    const dying = pausing((when, what) => when === "after" && LETS_GO.test(what));
    const second = await processOf(table, dying.step);
    void second.handler(invocationOf(packed(same(2, 2))), lambdaContext());
    await dying.reached;
    expect((await lettersOf(table)).letters).toMatchObject([{ state: "superseded" }]);
    expect(await (await lettersOf(table)).isMended(MESSAGE)).toBe(false);
    expect(await handler(REDRIVE, lambdaContext())).toMatchObject({ superseded: 1, redriven: 0 });
    // Also the next redrive must not take it away.
    expect(await handler(REDRIVE, lambdaContext())).toMatchObject({ superseded: 1, redriven: 0 });
    expect(await (await lettersOf(table)).isMended(MESSAGE)).toBe(false);
    dying.go();
  });

  it("is superseded where a truncate is to come, and its invocation dies before that", async () => {
    const { handler, table } = await processOf();
    await handler(invocationOf(packed(same(1, 1))), lambdaContext());
    const dying = pausing((when, what) => when === "after" && /^SET m0=.* REMOVE a0,.*k0/.test(what));
    const second = await rig((c) => c.on("*", Operation.Truncate, () => {}), { table, step: dying.step });
    void second.handler(invocationOf(packed([{ at: 2, after: 1, op: "t" }])), lambdaContext());
    await dying.reached;
    expect(await (await lettersOf(table)).isMended(MESSAGE)).toBe(false);
    expect(await handler(REDRIVE, lambdaContext())).toMatchObject({ superseded: 1, redriven: 0 });
    dying.go();
  });

  it("is superseded to a reading that saw it before, and its partition behind", async () => {
    const { handler, table } = await processOf();
    await handler(invocationOf(packed(same(1, 1))), lambdaContext());
    let queries = 0;
    const stored = await lettersOf(table, async (when, what, command) => {
      if (when === "after" && what === "query" && queries++ === 0)
        await handler(invocationOf(packed(same(2, 2))), lambdaContext());
      expect(command).not.toBeInstanceOf(UpdateItemCommand);
      return "none";
    });
    expect(stored.letters).toMatchObject([{ state: "superseded" }]);
    expect(await stored.isMended(MESSAGE)).toBe(false);
  });

  it("is superseded to a redrive that saw it before, and its partition behind", async () => {
    const { handler, table } = await processOf();
    await handler(invocationOf(packed(same(1, 1))), lambdaContext());
    const closing = pausing((when, what) => when === "before" && LETS_GO.test(what));
    const second = await processOf(table, closing.step);
    const passing = second.handler(invocationOf(packed(same(2, 2))), lambdaContext());
    await closing.reached;
    const reading = pausing(
      (when, what, sk) => when === "after" && what === "get" && sk.startsWith("letter#"),
    );
    const third = await processOf(table, reading.step);
    const redriven = third.handler(REDRIVE, lambdaContext());
    await reading.reached;
    closing.go();
    await passing;
    reading.go();
    expect(await redriven).toMatchObject({ superseded: 1, redriven: 0 });
    expect(await (await lettersOf(table)).isMended(MESSAGE)).toBe(false);
  });

  it("has no message of another key's change, whose message does not tell its key", async () => {
    const { table } = await processOf();
    const keys = ["b", "c", "d", "e", "f", "g", "h", "i"];
    const { handler } = await rig(
      (c) =>
        c.on("*", Operation.Create, ({ id }) => {
          if (id !== at(2)) throw new Error("poison");
        }),
      { table, poison: "skip", attempts: 1 },
    );
    const others = keys.map((id, i) => ({ at: 3 + i, after: 2 + i, row: { id } }));
    await handler(invocationOf(packed([...same(1, 2), ...others])), lambdaContext());
    const stored = await lettersOf(table);
    for (const [i, key] of keys.entries()) {
      // Of a large change it says where the claim store has it.
      const found = await stored.letterOf({ ...MESSAGE, key: undefined, position: at(3 + i) });
      expect([found?.state, found?.letter?.key]).toEqual(["skipped", key]);
    }
    expect(await stored.letterOf(MESSAGE)).toMatchObject({ state: "superseded", letter: { key: "k" } });
    expect(await stored.letterOf({ ...MESSAGE, key: undefined, position: at(2) })).toBeDefined();
  });

  it("is done where the change itself took effect when it came again", async () => {
    const dying = pausing((when, what) => when === "before" && CLOSES.test(what));
    const { handler, table } = await processOf(undefined, dying.step);
    const event = invocationOf(packed(same(1, 1)));
    void handler(event, lambdaContext());
    await dying.reached;
    expect((await lettersOf(table)).letters).toMatchObject([{ state: "passing" }]);
    const healed = await rig((c) => c.on("*", Operation.Create, () => {}), { table, poison: "skip" });
    await healed.handler(event, lambdaContext());
    expect((await lettersOf(table)).letters).toEqual([]);
    expect(await (await lettersOf(table)).isMended(MESSAGE)).toBe(true);
    dying.go();
  });
});
