import { PutItemCommand, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it, vi } from "vitest";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { SinkUnavailableError } from "../../../lib/consume/api/handler-errors.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { RedriveReport, RedriveRequest } from "../../../lib/consume/dead-letter/redrive-request.ts";
import { PAUSE_SEEN_MS } from "../../../lib/consume/run/pause-flag.ts";
import { clearPause, setPause } from "../../../lib/state/pauses.ts";
import { fenceKey } from "../../../lib/state/state-key.ts";
import { type MemoryOptions, memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, type Change, chain, invocationOf, packed, TOPIC } from "./records.ts";

/** Changes of one key. */
function same(from: number, to: number): Change[] {
  return chain(from, to).map((change) => ({ ...change, row: { id: "k" } }));
}

/** A consumer whose handler fails at chosen positions, or at all; its effects are the commits of what took effect. */
async function failing(options: MemoryOptions = {}, once?: "claim") {
  const effects: number[] = [];
  const state = { bad: "all" as "all" | readonly number[] };
  const handle = (event: { readonly position: string }) => {
    const commit = Number.parseInt(event.position.slice(8, 24), 16);
    if (state.bad === "all" || state.bad.includes(commit)) throw new Error("poison");
    effects.push(commit);
  };
  const made = await memoryConsumer(
    (c) => c.on("*", Operation.Create, once ? { once } : {}, handle),
    options,
  );
  const redrive = (request: Partial<RedriveRequest> = {}, ms?: number): Promise<RedriveReport> =>
    made.handler({ tributary: "redrive", ...request }, timeLeft(ms));
  return { ...made, effects, state, redrive };
}

describe("a redrive by position", () => {
  it("finds a later letter of a key that was skipped", async () => {
    const { handler, letters, state, effects, redrive } = await failing({ poison: "skip" });
    await handler(invocationOf(packed(same(1, 2))), timeLeft());
    expect(letters.map((letter) => (JSON.parse(letter) as { position: string }).position)).toEqual([
      at(1),
      at(2),
    ]);
    state.bad = [];
    expect(await redrive({ position: at(2) })).toMatchObject({ redriven: 2, done: 1 });
    expect(effects).toEqual([1, 2]);
  });

  it("finds any change that waits, of its key alone", async () => {
    const { handler, state, effects, redrive } = await failing();
    const other = { at: 4, after: 3, row: { id: "other" } };
    await handler(invocationOf(packed([...same(1, 3), other])), timeLeft());
    state.bad = [];
    for (const position of [at(5), at(3, { epoch: 2 }), at(1, { ordinal: 2 })])
      expect(await redrive({ position })).toMatchObject({ redriven: 0, letters: [] });
    expect(await redrive({ position: at(3), dryRun: true })).toMatchObject({ open: 1 });
    expect(await redrive({ position: at(3) })).toMatchObject({ redriven: 3, done: 1 });
    expect(effects).toEqual([1, 2, 3]);
  });

  it("goes on with a key whose first change took effect in an earlier one", async () => {
    const { handler, state, effects, redrive } = await failing();
    await handler(invocationOf(packed(same(1, 3))), timeLeft());
    state.bad = [2];
    expect(await redrive({ position: at(1) })).toMatchObject({ redriven: 1, failed: 1 });
    state.bad = [];
    expect(await redrive({ position: at(1) })).toMatchObject({ redriven: 2, done: 1 });
    expect(effects).toEqual([1, 2, 3]);
  });
});

describe("a redrive under way", () => {
  it("ends with the change that it is at when the consumer is paused (rule 62)", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "Date"] });
    try {
      const { handler, plain, deploy } = await failing();
      await handler(invocationOf(packed(same(1, 5))), timeLeft());
      const effects: number[] = [];
      const place = { dynamodb: plain, table: "t", pipeline: "p", signal: new AbortController().signal };
      const healed = deploy((c) =>
        c.on("*", Operation.Create, async (event) => {
          effects.push(Number.parseInt(event.position.slice(8, 24), 16));
          if (effects.length !== 2) return;
          await setPause(place, { consumer: "c" }, { by: "ada", since: 0, reason: undefined });
          await vi.advanceTimersByTimeAsync(PAUSE_SEEN_MS);
        }),
      );
      const redrive = () => healed({ tributary: "redrive" }, timeLeft());
      expect(await redrive()).toMatchObject({ redriven: 2, open: 1 });
      expect(effects).toEqual([1, 2]);
      await expect(redrive()).rejects.toMatchObject({ code: "CONSUMER_PAUSED" });
      await clearPause(place, { consumer: "c" });
      expect(await redrive()).toMatchObject({ redriven: 3, done: 1 });
      expect(effects).toEqual([1, 2, 3, 4, 5]);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("a redrive whose change fails", () => {
  it("does not call its handler again once the consumer is paused (rule 62)", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "Date"] });
    try {
      const { handler, plain, deploy } = await failing({ attempts: 3 });
      await handler(invocationOf(packed(same(1, 3))), timeLeft());
      const calls: number[] = [];
      let fails = true;
      const place = { dynamodb: plain, table: "t", pipeline: "p", signal: new AbortController().signal };
      const deployed = deploy((c) =>
        c.on("*", Operation.Create, async (event) => {
          calls.push(Number.parseInt(event.position.slice(8, 24), 16));
          if (!fails) return;
          await setPause(place, { consumer: "c" }, { by: "ada", since: 0, reason: undefined });
          await vi.advanceTimersByTimeAsync(PAUSE_SEEN_MS);
          throw new Error("refused");
        }),
      );
      const redrive = () => deployed({ tributary: "redrive" }, timeLeft());
      expect(await redrive()).toMatchObject({ redriven: 0, open: 1, failed: 0 });
      expect(calls).toEqual([1]);
      fails = false;
      await clearPause(place, { consumer: "c" });
      expect(await redrive()).toMatchObject({ redriven: 3, done: 1 });
      expect(calls).toEqual([1, 1, 2, 3]);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("discard", () => {
  it("by key gives up the change that failed and no other, however often it is asked for", async () => {
    const { handler, state, effects, redrive } = await failing();
    await handler(invocationOf(packed(same(1, 4))), timeLeft());
    state.bad = [];
    let discarded = 0;
    for (let more = true; more; ) {
      const report = await redrive({ key: "k", discard: true, limit: 1 });
      more = report.more;
      discarded += report.discarded;
    }
    expect({ discarded, effects }).toEqual({ discarded: 1, effects: [2, 3, 4] });
  });

  it("gives up nothing that a redrive only tried when its time was over, or that ended its process", async () => {
    let mode: "throws" | "runs on" | "works" = "throws";
    const effects: string[] = [];
    const { handler } = await memoryConsumer((c) =>
      c.on("*", Operation.Create, async (event, { signal }) => {
        if (mode === "throws") throw new Error("poison");
        if (mode === "runs on")
          await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        effects.push(event.position);
      }),
    );
    await handler(invocationOf(packed(same(1, 3))), timeLeft());
    mode = "runs on";
    const request = { tributary: "redrive", key: "k", discard: true } as const;
    // Gives up the first, and is still at the second when its time is over: as little time as is unfair.
    expect(await handler(request, timeLeft(600))).toMatchObject({ discarded: 1 });
    mode = "works";
    expect(await handler({ ...request, dryRun: true }, timeLeft())).toMatchObject({
      letters: [{ outcome: "open" }],
    });
    await handler(request, timeLeft());
    expect(effects.slice(-2)).toEqual([at(2), at(3)]);
  });

  it("gives up the change that a redrive found to fail, and says which that is", async () => {
    const { handler, state, effects, redrive } = await failing();
    await handler(invocationOf(packed(same(1, 4))), timeLeft());
    state.bad = [3];
    expect(await redrive()).toMatchObject({ redriven: 2, letters: [{ outcome: "failed", failed: at(3) }] });
    expect(await redrive({ dryRun: true })).toMatchObject({ letters: [{ outcome: "open", failed: at(3) }] });
    expect(await redrive({ key: "k", discard: true })).toMatchObject({ discarded: 1, redriven: 1, done: 1 });
    expect(effects).toEqual([1, 2, 4]);
  });

  it("by position gives up that change alone; repeated, nothing", async () => {
    const { handler, state, effects, redrive } = await failing();
    await handler(invocationOf(packed(same(1, 4))), timeLeft());
    state.bad = [2];
    const named = { position: at(1), discard: true } as const;
    expect(await redrive(named)).toMatchObject({ discarded: 1, failed: 1 });
    expect(await redrive(named)).toMatchObject({ discarded: 0, letters: [] });
    // Behind one that fails it is not reached.
    expect(await redrive({ position: at(3), discard: true })).toMatchObject({ discarded: 0, failed: 1 });
    state.bad = [];
    expect(await redrive({ position: at(3), discard: true })).toMatchObject({ discarded: 1, done: 1 });
    expect(effects).toEqual([2, 4]);
  });

  it("takes the letters of an earlier version, which did not name the change that failed", async () => {
    const { handler, state, effects, redrive, table, plain } = await failing();
    await handler(invocationOf(packed(same(1, 4))), timeLeft());
    state.bad = [2];
    await redrive();
    const [letter] = table.items("letter#");
    await plain.send(
      new UpdateItemCommand({
        TableName: "t",
        Key: { pk: letter?.pk as { S: string }, sk: letter?.sk as { S: string } },
        UpdateExpression: "REMOVE failed",
      }),
    );
    expect(await redrive({ dryRun: true })).toMatchObject({ letters: [{ failed: at(2) }] });
    state.bad = [];
    expect(await redrive({ key: "k", discard: true, limit: 2 })).toMatchObject({ discarded: 1, redriven: 1 });
    // Nothing failed since: all that is left takes effect.
    expect(await redrive({ key: "k", discard: true })).toMatchObject({ discarded: 0, redriven: 1, done: 1 });
    expect(effects).toEqual([1, 3, 4]);
  });
});

describe("the limit", () => {
  it("holds over all partitions together", async () => {
    const { handler, state, effects, redrive } = await failing();
    const partitions = [0, 1, 2, 3, 4, 5, 6, 7].map((partition) => packed(chain(1, 2), { partition }));
    await handler(invocationOf(...partitions), timeLeft());
    state.bad = [];
    for (const limit of [1, 3]) {
      effects.length = 0;
      expect(await redrive({ limit })).toMatchObject({ redriven: limit, more: true });
      expect(effects.length).toBe(limit);
    }
  });
});

describe("a handler that is gone", () => {
  const gone = (c: Consumer) => c.on("public.items", Operation.Create, () => {});

  it("leaves its changes parked, and the report says so", async () => {
    const { handler, deploy, table, state, effects, redrive } = await failing();
    await handler(invocationOf(packed(same(1, 2))), timeLeft());
    const wrong = deploy(gone);
    for (let i = 0; i < 2; i++) {
      expect(await wrong({ tributary: "redrive" }, timeLeft())).toMatchObject({
        ...{ redriven: 0, done: 0, unhandled: 1, more: false },
        letters: [{ outcome: "unhandled", error: "HandlerMissingError", failed: at(1) }],
      });
    }
    expect(table.items("change#").length).toBe(2);
    state.bad = [];
    expect(await redrive()).toMatchObject({ redriven: 2, done: 1 });
    expect({ effects, left: table.items("change#").length }).toEqual({ effects: [1, 2], left: 0 });
  });

  it("can be given up, each change by name", async () => {
    const { handler, deploy, table } = await failing();
    await handler(invocationOf(packed(same(1, 2))), timeLeft());
    const wrong = deploy(gone);
    const request = { tributary: "redrive", key: "k", discard: true } as const;
    expect(await wrong(request, timeLeft())).toMatchObject({ discarded: 1, unhandled: 1 });
    expect(await wrong(request, timeLeft())).toMatchObject({ discarded: 1, done: 1 });
    expect(table.items("change#")).toEqual([]);
  });
});

describe("a key that was about to be overtaken", () => {
  const one: Change = { at: 1, after: null, row: { id: "k" } };
  const two: Change = { op: "u", at: 2, after: 1, row: { id: "k" } };
  const build = async () => {
    const made = await memoryConsumer(
      (c) =>
        c
          .on("*", Operation.Create, () => {
            throw new Error("poison");
          })
          .on("*", Operation.Update, () => {
            throw new SinkUnavailableError("s");
          }),
      { poison: "skip" },
    );
    await made.handler(invocationOf(packed([one])), timeLeft());
    await made.handler(invocationOf(packed([two])), timeLeft());
    const effects: string[] = [];
    const creates = made.deploy((c) => c.on("*", Operation.Create, (e) => void effects.push(e.position)));
    const both = made.deploy((c) =>
      c.on("*", [Operation.Create, Operation.Update], (e) => void effects.push(e.position)),
    );
    return { ...made, effects, creates, both };
  };

  it("is open to redrive when nothing is at work on it, and the later change still follows", async () => {
    const { effects, both } = await build();
    expect(await both({ tributary: "redrive", dryRun: true }, timeLeft())).toMatchObject({
      open: 1,
      busy: 0,
    });
    expect(await both({ tributary: "redrive" }, timeLeft())).toMatchObject({ redriven: 1, done: 1, busy: 0 });
    await both(invocationOf(packed([two])), timeLeft());
    expect(effects).toEqual([at(1), at(2)]);
  });

  it("is open to redrive when the later change took no effect after all", async () => {
    const { effects, creates } = await build();
    await creates(invocationOf(packed([two])), timeLeft());
    expect(await creates({ tributary: "redrive" }, timeLeft())).toMatchObject({ redriven: 1, busy: 0 });
    expect(effects).toEqual([at(1)]);
  });

  it("is superseded when the later change takes effect", async () => {
    const { effects, both } = await build();
    await both(invocationOf(packed([two])), timeLeft());
    expect(await both({ tributary: "redrive" }, timeLeft())).toMatchObject({ redriven: 0, superseded: 1 });
    expect(effects).toEqual([at(2)]);
  });
});

describe("once: claim", () => {
  it("a claim of a redrive that died holds its own change, and no other key of the partition", async () => {
    let mode: "throws" | "dies" | "works" = "throws";
    const effects: string[] = [];
    const died = Promise.withResolvers<void>();
    const { handler, plain } = await memoryConsumer((c) =>
      c.on("*", Operation.Create, { once: "claim" }, (event) => {
        if (mode === "throws") throw new Error("poison");
        if (mode === "dies" && event.row.id === "1") {
          died.resolve();
          return new Promise(() => {});
        }
        effects.push(String(event.row.id));
      }),
    );
    await handler(invocationOf(packed(chain(1, 3))), timeLeft());
    mode = "dies";
    void handler({ tributary: "redrive" }, timeLeft(900_000));
    await died.promise;
    mode = "works";
    // A minute later its lease of the partition is over; its claim lasts as long as its process might have.
    const { pk, sk } = fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0);
    await plain.send(
      new UpdateItemCommand({
        TableName: "t",
        Key: { pk: { S: pk }, sk: { S: sk } },
        UpdateExpression: "SET u0=:u",
        ExpressionAttributeValues: { ":u": { N: "1" } },
      }),
    );
    const report = await handler({ tributary: "redrive" }, timeLeft(60_000));
    expect(report).toMatchObject({ redriven: 2, busy: 1, done: 2 });
    expect(report.durationMs).toBeLessThan(10_000);
    expect(effects).toEqual(["2", "3"]);
  });
});

describe("what stands before and behind an effect", () => {
  it("a redrive whose lease was taken over meanwhile makes no call", async () => {
    let shutOut = false;
    const { handler, plain, state, effects, redrive } = await failing({
      step: async (when, what) => {
        // Between the look at the changes and the call: an invocation that had to overtake the key.
        if (shutOut && when === "after" && what.startsWith("SET trying")) {
          const { pk, sk } = fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0);
          await plain.send(
            new UpdateItemCommand({
              TableName: "t",
              Key: { pk: { S: pk }, sk: { S: sk } },
              UpdateExpression: "REMOVE r0",
            }),
          );
        }
        return "none";
      },
    });
    await handler(invocationOf(packed(same(1, 2))), timeLeft());
    state.bad = [];
    shutOut = true;
    expect(await redrive()).toMatchObject({ redriven: 0, busy: 1 });
    expect(effects).toEqual([]);
    shutOut = false;
    expect(await redrive()).toMatchObject({ redriven: 2 });
  });

  it("nor does it give a change up", async () => {
    let shutOut = false;
    const { handler, plain, state, effects, redrive } = await failing({
      step: async (when, what) => {
        if (shutOut && when === "after" && what === "query") {
          const { pk, sk } = fenceKey({ pipeline: "p", consumer: "c" }, TOPIC, 0);
          await plain.send(
            new UpdateItemCommand({
              TableName: "t",
              Key: { pk: { S: pk }, sk: { S: sk } },
              UpdateExpression: "REMOVE r0",
            }),
          );
        }
        return "none";
      },
    });
    await handler(invocationOf(packed(same(1, 2))), timeLeft());
    state.bad = [];
    shutOut = true;
    expect(await redrive({ key: "k", discard: true })).toMatchObject({ discarded: 0, busy: 1 });
    shutOut = false;
    expect(await redrive()).toMatchObject({ redriven: 2 });
    expect(effects).toEqual([1, 2]);
  });

  it("a change that took effect is not applied again when it is written once more", async () => {
    let dies = false;
    let first = true;
    const { handler, plain, table, state, effects, redrive } = await failing({
      step: async (when, what) => {
        // The process ends after the effect, between its two notes of it.
        if (
          dies &&
          when === "before" &&
          (what.startsWith("delete change#") || what.startsWith("SET applied"))
        ) {
          if (first) {
            first = false;
            return "none";
          }
          throw new Error("the process ended");
        }
        return "none";
      },
    });
    await handler(invocationOf(packed(same(1, 2))), timeLeft());
    const parked = table.items("change#").map((item) => ({ ...item }));
    state.bad = [];
    dies = true;
    await redrive();
    expect(effects).toEqual([1]);
    dies = false;
    // An invocation that was superseded, and is only now about to park what it had parked before.
    for (const Item of parked) await plain.send(new PutItemCommand({ TableName: "t", Item }));
    await redrive();
    expect(effects).toEqual([1, 2]);
  });
});
