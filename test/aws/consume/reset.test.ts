import type { KinesisStreamRecord } from "aws-lambda";
import { describe, expect, it } from "vitest";
import { acceptGap, planAcceptance } from "../../../lib/admin/accept-gap.ts";
import { consumerStatus, needsAttention } from "../../../lib/admin/consumer-status.ts";
import { clearMended } from "../../../lib/admin/dead-letters/mended.ts";
import { openReset, resetPartitions } from "../../../lib/admin/reset.ts";
import { healReset } from "../../../lib/admin/reset-healing.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { RedriveLeases } from "../../../lib/consume/dead-letter/redrive-lease.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import {
  type Backfill,
  readBackfill,
  requestBackfill,
  wantBackfill,
  writeBackfill,
} from "../../../lib/state/backfills.ts";
import { persistentTable } from "../../../lib/state/persistent-table.ts";
import { captureKey } from "../../../lib/state/state-key.ts";
import { eventually } from "../../eventually.ts";
import { at, backfillEnd, type Change, chain, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { consumerBench, DONE, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();
const signal = AbortSignal.timeout(600_000);
const ORDERS = "public.orders";
const topics = [{ topic: TOPIC, partitions: 2, tables: [ORDERS] }];

/** A consumer that notes what takes effect, and what an operator does with it. `bad`: commits that fail. */
async function resetBench() {
  const bench = await consumerBench(aws());
  const effects: string[] = [];
  const bad = new Set<string>();
  const before = new Map<string, Promise<unknown>>();
  const handler = bench.instance(
    (c) =>
      c.on("*", ALL_OPERATIONS, async ({ partition, id }) => {
        await before.get(id);
        if (bad.has(id)) throw new Error("poison");
        effects.push(`${partition}:${id}`);
      }),
    { TRIBUTARY_ATTEMPTS: "1" },
  );
  const place = { dynamodb: aws().dynamodb, table: bench.table, pipeline: "shop", consumer: bench.name };
  const store = { ...place, signal };
  const options = { by: "me@here", invocationMs: 0, patienceMs: 300, signal };
  return {
    ...{ bench, effects, bad, before, handler, place, store, options },
    deliver: (...records: KinesisStreamRecord[]) => invoke(handler, records),
    attention: async () => (await consumerStatus(place, signal)).filter(needsAttention),
    /** What capture has confirmed, and under which generation. */
    confirmed: (commit: number, generation = 1, number = 1) => {
      const slot = {
        ...{ epoch: 1, slot: "s", publication: "p", database: "d", systemId: "1", timeline: 1 },
        ...{ confirmedLsn: String(commit), recentCommits: [] },
      };
      return persistentTable(store).update(captureKey("shop", number), {
        UpdateExpression: "SET slot=:s,generation=:g",
        ExpressionAttributeValues: { ":s": { S: JSON.stringify(slot) }, ":g": { N: String(generation) } },
      });
    },
    move: async (anew = false, more: Partial<typeof options> & { onStep?: () => void } = {}) => {
      const { last: seen, isOpen } = await openReset(place, signal);
      return await resetPartitions(place, { topics, seen, goesOn: isOpen && !anew }, { ...options, ...more });
    },
    /** What the capture task says of the backfill. */
    tell: async (status: Backfill["status"], startPosition: string, startedAt = Date.now()) => {
      const backfill = (await readBackfill(store, ORDERS)) as Backfill;
      const counts = { lastKey: null, keyColumns: ["id"], chunk: 1, rows: 1, bytes: 1, updatedAt: startedAt };
      const progress = { ...counts, startPosition, startedAt };
      expect(await writeBackfill(store, backfill, 1, { status, epoch: 1, progress })).toBe(true);
    },
    backfill: () => readBackfill(store, ORDERS),
  };
}

const ids = (partition: number, ...commits: number[]) =>
  commits.map((commit) => `${partition}:${at(commit)}`);

/** The end of a backfill that began behind a commit. */
function ended(commit: number, began: number, after = commit - 1, run = 1): Change {
  const message = backfillEnd(formatPosition({ epoch: 1, commitLsn: BigInt(began), ordinal: 0 }), { run });
  return { op: "m", at: commit, after, message };
}

const both = (...changes: Change[]) => [0, 1].map((partition) => packed(changes, { partition }));

describe("a reset", () => {
  it("has each partition begin behind what is confirmed, one that never had a change too", async () => {
    const { confirmed, move, deliver, effects, bench, place, store, backfill, attention } =
      await resetBench();
    await deliver(packed(chain(1, 2)));
    await confirmed(8, 3);
    const record = await move();
    expect(record).toMatchObject({ phase: "backfills", by: "me@here", drainUntil: 0 });
    const start = formatPosition({ epoch: 1, commitLsn: 8n, ordinal: 0 });
    for (const partition of [0, 1])
      expect(await bench.stored(partition)).toMatchObject({ position: start, writer: 3, token: undefined });
    expect(await attention()).toMatchObject(
      [0, 1].map((partition) => ({ partition, gap: undefined, unhealed: [{ cause: "reset", upTo: start }] })),
    );
    // Nor does it count what has expired unread by now.
    expect((await bench.stored(1)).lost).toMatchObject({ state: "settled" });
    // Nothing is asked for before.
    expect(await backfill()).toBeUndefined();
    expect(await healReset(place, record, { signal, timeoutMs: 0 })).toBe("asked");
    expect(await backfill()).toMatchObject({ run: 1, request: { consumer: bench.name, sweep: true } });

    // Who repeats it goes on where it stands, and moves nothing once more.
    const noted = await attention();
    await confirmed(9, 3);
    expect(await move()).toEqual(record);
    expect(await attention()).toEqual(noted);

    // What was left out comes after all: from the stream, from a task that was replaced.
    expect(
      await deliver(packed(chain(3, 7), { writer: 3 }), packed(chain(9, 9, null), { writer: 2 })),
    ).toEqual(DONE);
    expect(await deliver(packed(chain(8, 9, 7), { writer: 3 }))).toEqual(DONE);
    expect(effects).toEqual([...ids(0, 1, 2), ...ids(0, 8, 9)]);
    const two = [0, 1].map((partition) => packed([ended(12, 10, 9)], { partition, writer: 3 }));
    expect(await deliver(two[0] as KinesisStreamRecord)).toEqual(DONE);
    expect(await attention()).toMatchObject([{ partition: 1 }]);
    expect((await openReset(place, signal)).isOpen).toBe(true);
    const first = packed([{ ...ended(12, 10), after: null }], { partition: 1, writer: 3 });
    expect(await deliver(first)).toEqual(DONE);
    expect(await attention()).toEqual([]);
    expect((await openReset(place, signal)).isOpen).toBe(false);
    expect(await healReset(place, record, { signal, timeoutMs: 0 })).toBe("healed");
    expect(await readBackfill(store, ORDERS)).toMatchObject({ run: 1 });
  });

  it("clears what is parked and passes what is held; later changes of the key take effect at once", async () => {
    const { confirmed, move, deliver, effects, bad, bench, handler, attention, place } = await resetBench();
    bad.add(at(2));
    const key = { row: { id: "k" } };
    const parked: Change[] = [
      { at: 1, after: null },
      { at: 2, after: 1, ...key },
      { at: 3, after: 2, ...key },
    ];
    await deliver(packed(parked), packed(chain(5, 6), { partition: 1 }));
    expect(await attention()).toMatchObject([
      { partition: 0, deadLetters: 1, parked: 2 },
      { partition: 1, hold: { cause: "GapError" }, gap: { upTo: at(4) } },
    ]);
    // Behind all that it has met, although capture has told less.
    await confirmed(2);
    const record = await move();
    expect(await attention()).toMatchObject([
      { partition: 0, deadLetters: 0, parked: 0, unhealed: [{ cause: "reset" }] },
      { partition: 1, gap: undefined, unhealed: [{ cause: "gap" }, { cause: "reset" }] },
    ]);
    // The held partition goes on by itself with the next record.
    const next: Change = { at: 8, after: 3, ...key };
    expect(await deliver(packed([next]), packed(chain(8, 8, 6), { partition: 1 }))).toEqual(DONE);
    expect(effects).toEqual([...ids(0, 1), ...ids(0, 8), ...ids(1, 8)]);
    expect((await bench.stored(1)).hold).toBeUndefined();
    expect((await bench.items()).filter(({ pk }) => pk?.S?.endsWith("#held"))).toEqual([]);
    const open = (await bench.parkedItems()).filter(
      ({ sk, superseded }) => sk?.S?.startsWith("letter#") && !superseded,
    );
    expect(open).toEqual([]);
    const { letters } = await redrive(handler);
    expect(letters).toMatchObject([{ position: at(2), outcome: "superseded", redriven: 0 }]);
    // The end of the backfill heals the gap as well.
    expect(await healReset(place, record, { signal, timeoutMs: 0 })).toBe("asked");
    expect(await deliver(...both({ ...ended(10, 9), after: at(8) }))).toEqual(DONE);
    expect(await attention()).toEqual([]);
  });

  it("that dies when its partitions are moved takes no parked change for done: its message stays", async () => {
    const { confirmed, move, deliver, bad, handler, place, bench } = await resetBench();
    bad.add(at(2));
    await deliver(packed(chain(1, 2)));
    await confirmed(5);
    const dying = move(false, {
      onStep: () => {
        throw new Error("the terminal was closed");
      },
    });
    await expect(dying).rejects.toThrow("the terminal was closed");
    const sqs = aws().sqs;
    const queues = { [bench.name]: bench.environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL };
    const dlq = { sqs, queues, state: { ...place, signal } };
    expect(await clearMended(dlq, bench.name)).toMatchObject({ removed: 0, left: 1 });
    expect(await redrive(handler)).toMatchObject({ superseded: 1, redriven: 0 });
    expect(await clearMended(dlq, bench.name)).toMatchObject({ removed: 0, left: 1 });
    // It is gone on with.
    expect(await move()).toMatchObject({ phase: "backfills" });
    expect(await clearMended(dlq, bench.name)).toMatchObject({ removed: 0, left: 1 });
  });

  it("an invocation that is frozen meanwhile moves nothing, and its rows are read when it can run no more", async () => {
    const { confirmed, move, deliver, before, bench, backfill, place, tell } = await resetBench();
    let wake = () => {};
    before.set(at(2), new Promise<void>((resolve) => (wake = resolve)));
    const frozen = deliver(packed(chain(1, 5)));
    await eventually(async () => (await bench.stored()).token !== undefined, { what: "the partition taken" });
    await confirmed(6);
    const began = Date.now();
    const record = await move(false, { invocationMs: 1_000 - 10_000 + 500 });
    expect(record.drainUntil).toBeGreaterThan(began);
    const states: string[] = [];
    const healing = healReset(place, record, {
      ...{ signal, timeoutMs: 0, pollMs: 20 },
      onProgress: ({ tables }) => void states.push(...tables.map(({ state }) => state)),
    });
    expect(await healing).toBe("asked");
    expect([...new Set(states)]).toEqual(["drain", "reading"]);
    expect((await backfill())?.request.requestedAt).toBeGreaterThanOrEqual(record.drainUntil);
    // What began too early is of no use, whatever it has seen of the log.
    await tell("running", at(9), record.drainUntil - 1);
    const stop = new AbortController();
    const look = { signal: stop.signal, timeoutMs: 0, onProgress: () => stop.abort() };
    await expect(healReset(place, record, look)).rejects.toThrow();
    expect(await backfill()).toMatchObject({ run: 1, wanted: "cancel" });
    wake();
    // It came as far as is on record by now.
    expect(await frozen).toEqual(DONE);
    expect(await bench.stored()).toMatchObject({
      position: formatPosition({ epoch: 1, commitLsn: 6n, ordinal: 0 }),
      token: undefined,
    });
  });

  it("knows of an invocation that it took a partition from, though its operator died, and when it is done anew", async () => {
    const { confirmed, move, deliver, before, bench, backfill, place } = await resetBench();
    let wake = () => {};
    before.set(at(2), new Promise<void>((resolve) => (wake = resolve)));
    const frozen = deliver(packed(chain(1, 5)));
    await eventually(async () => (await bench.stored()).token !== undefined, { what: "the partition taken" });
    await confirmed(6);
    let moved = 0;
    const dies = () => {
      // Both partitions are moved, and given back.
      if (++moved === 2) throw new Error("died");
    };
    const ends = Date.now() + 60_000;
    await expect(move(false, { invocationMs: 60_000, onStep: dies })).rejects.toThrow("died");
    expect((await bench.stored()).token).toBeUndefined();
    for (const anew of [false, false, true]) {
      const record = await move(anew, { invocationMs: 60_000 });
      expect(record.drainUntil, `anew: ${anew}`).toBeGreaterThanOrEqual(ends);
      const stop = new AbortController();
      const look = { signal: stop.signal, timeoutMs: 0, onProgress: () => stop.abort() };
      await expect(healReset(place, record, look)).rejects.toThrow();
      expect(await backfill()).toBeUndefined();
    }
    wake();
    await frozen;
  });

  it("done anew is not healed by the backfill of the one before, whose rows a replaced task wrote", async () => {
    const { confirmed, move, deliver, place, tell, backfill, attention, effects } = await resetBench();
    await confirmed(5, 1);
    expect(await healReset(place, await move(), { signal, timeoutMs: 0 })).toBe("asked");
    await tell("running", at(7));
    // The first task gave a chunk, the second one reads the others: nothing is confirmed yet that is newer.
    await confirmed(5, 2);
    const record = await move(true);
    const chunk: Change = { op: "r", at: 8, after: null, source: { backfill: { run: 1 } } };
    await deliver(packed([chunk], { writer: 1 }));
    await deliver(
      ...[0, 1].map((partition) => packed([{ ...ended(12, 7), after: null }], { partition, writer: 2 })),
    );
    expect(effects).toEqual([]);
    expect(await attention()).toHaveLength(2);
    const stop = new AbortController();
    const look = { signal: stop.signal, timeoutMs: 0, onProgress: () => stop.abort() };
    await expect(healReset(place, record, look)).rejects.toThrow();
    expect(await backfill()).toMatchObject({ run: 1, wanted: "cancel" });
    await tell("cancelled", at(7));
    expect(await healReset(place, record, { signal, timeoutMs: 0 })).toBe("asked");
    const message = backfillEnd(at(14), { run: 2 });
    const end: Change = { op: "m", at: 15, after: at(12), message };
    await deliver(...[0, 1].map((partition) => packed([end], { partition, writer: 2 })));
    expect(await attention()).toEqual([]);
  });

  it("waits for a redrive that is at work on a key", async () => {
    const { confirmed, move, deliver, bad, place, attention } = await resetBench();
    bad.add(at(1));
    await deliver(packed(chain(1, 2)));
    await confirmed(3);
    const lease = await new RedriveLeases(new ConsumerTable(place)).take(TOPIC, 0, "redrive", signal);
    let waited = 0;
    const moving = move(false, { onStep: () => void waited++ });
    await eventually(() => waited > 1, { what: "a wait for the redrive" });
    expect(await attention()).toMatchObject([{ deadLetters: 1, parked: 1 }, {}]);
    await lease?.release();
    await moving;
    expect(await attention()).toMatchObject([{ deadLetters: 0, parked: 0 }, {}]);
  });

  it("is not healed by a backfill that began before; one for the consumer is replaced, another is waited for", async () => {
    const { confirmed, move, deliver, place, store, tell, backfill, bench } = await resetBench();
    await deliver(packed(chain(1, 2)));
    await requestBackfill(store, ORDERS, { consumer: bench.name, sweep: true, requestedAt: 1 });
    await tell("running", at(2));
    await confirmed(5);
    const record = await move();
    const heal = () => {
      const states: string[] = [];
      const stop = new AbortController();
      const done = healReset(place, record, {
        ...{ signal: stop.signal, timeoutMs: 0, pollMs: 10 },
        onProgress: ({ tables }) => {
          states.push(...tables.map(({ state }) => state));
          if (states.length > 2) stop.abort();
        },
      }).catch(() => "waits");
      return { done, states };
    };
    const first = heal();
    expect([await first.done, ...new Set(first.states)]).toEqual(["waits", "busy"]);
    expect(await backfill()).toMatchObject({ run: 1, wanted: "cancel" });
    await tell("cancelled", at(2));
    // Somebody else is faster, for everybody and without a sweep.
    await requestBackfill(store, ORDERS, { sweep: false, requestedAt: 2 });
    await tell("running", at(7));
    const second = heal();
    expect([await second.done, ...new Set(second.states)]).toEqual(["waits", "busy"]);
    expect(await backfill()).toMatchObject({ run: 2, wanted: "run" });
    await tell("done", at(7));
    expect(await heal().done).toBe("asked");
    expect(await backfill()).toMatchObject({ run: 3, request: { consumer: bench.name, sweep: true } });
    // The end of the others' says nothing here.
    const others = backfillEnd(at(7), { sweep: false, run: 2 });
    await deliver(packed([{ op: "m", at: 8, after: 2, message: others }]));
    expect((await openReset(place, signal)).isOpen).toBe(true);
  });

  it("does not say that all rows are in the sink where one of them failed", async () => {
    const { confirmed, move, deliver, bad, place } = await resetBench();
    await confirmed(5);
    const record = await move();
    const heal = { signal, timeoutMs: 0 };
    expect(await healReset(place, record, heal)).toBe("asked");
    bad.add(at(8));
    const row: Change = { op: "r", at: 8, after: null };
    expect(await deliver(packed([row, ended(9, 7, 8)]))).toEqual(DONE);
    expect(await deliver(packed([{ ...ended(9, 7), after: null }], { partition: 1 }))).toEqual(DONE);
    expect(await healReset(place, record, heal)).toBe("failed");
  });

  it("says so where its backfill is cancelled, and a repetition asks for another", async () => {
    const { confirmed, move, place, store, tell, backfill } = await resetBench();
    await confirmed(5);
    const record = await move();
    const healing = healReset(place, record, { signal, timeoutMs: 60_000, pollMs: 10 });
    const refusal = expect(healing).rejects.toMatchObject({
      code: "RESET_INCOMPLETE",
      message: expect.stringContaining("cancelled"),
    });
    await eventually(async () => (await backfill())?.run === 1, { what: "a backfill" });
    await wantBackfill(store, ORDERS, "cancel");
    await tell("cancelled", at(6));
    await refusal;
    expect(await healReset(place, await move(), { signal, timeoutMs: 0 })).toBe("asked");
    expect(await backfill()).toMatchObject({ run: 2, status: "requested" });
  });

  it("done anew counts from its own beginning, though nothing has changed since the first", async () => {
    const { confirmed, move, deliver, place, attention, tell } = await resetBench();
    const ask = async () => expect(await healReset(place, await move(), heal)).toBe("asked");
    const heal = { signal, timeoutMs: 0 };
    await confirmed(5);
    await ask();
    expect(await deliver(...both({ ...ended(8, 6), after: null }))).toEqual(DONE);
    expect(await attention()).toEqual([]);
    await tell("done", at(6));
    // The checkpoint moves no further, and the record of before is under the same position.
    await confirmed(8);
    await ask();
    const [first] = await attention();
    const { unhealed: [stretch] = [] } = first ?? {};
    // That of the one before, which began behind this position, is not meant.
    expect(await deliver(...both({ ...ended(11, 10), after: at(8) }))).toEqual(DONE);
    expect(await attention()).toHaveLength(2);
    expect(await deliver(...both(ended(12, 10, 11, 2)))).toEqual(DONE);
    expect(await attention()).toEqual([]);
    const again = await move();
    expect(await attention()).toHaveLength(2);
    expect((await attention())[0]?.unhealed.map(({ upTo }) => upTo)).toEqual([at(12)]);
    expect(await deliver(packed([{ at: 13, after: 12 }]))).toEqual(DONE);
    const third = await move(true);
    expect(third.id).not.toBe(again.id);
    // What the one before had left out, this one leaves out as well.
    expect((await attention()).map(({ unhealed }) => unhealed.map(({ upTo }) => upTo))).toEqual([
      [at(13)],
      [at(12)],
    ]);
    expect(stretch?.upTo).toBe(at(8));
    expect((await openReset(place, signal)).last?.id).toBe(third.id);
  });

  it("of a pipeline with several slots begins where the slowest is, and counts all their tasks", async () => {
    const { confirmed, move, bench, store } = await resetBench();
    await confirmed(9, 4);
    await confirmed(6, 2, 2);
    await persistentTable(store).update(captureKey("shop"), {
      UpdateExpression: "SET slots=:n",
      ExpressionAttributeValues: { ":n": { N: "2" } },
    });
    await move();
    expect(await bench.stored()).toMatchObject({
      position: formatPosition({ epoch: 1, commitLsn: 6n, ordinal: 0 }),
      writer: 2,
    });
  });

  it("of two operators at once is one reset", async () => {
    const { confirmed, move, attention, backfill, place } = await resetBench();
    await confirmed(5);
    const [one, other] = await Promise.all([move(), move()]);
    expect(one?.id).toBe(other?.id);
    expect(await attention()).toHaveLength(2);
    const heal = { signal, timeoutMs: 0 };
    expect(await Promise.all([healReset(place, one, heal), healReset(place, other, heal)])).toEqual([
      "asked",
      "asked",
    ]);
    expect(await backfill()).toMatchObject({ run: 1 });
  });

  it("settles what may have expired unread, and an accepted gap before it", async () => {
    const { confirmed, move, deliver, place, attention, tell } = await resetBench();
    await deliver(packed(chain(1, 1)), packed(chain(5, 5)));
    const plan = await planAcceptance(place, { topic: TOPIC }, [ORDERS], signal);
    await acceptGap(place, plan, "me", signal);
    await confirmed(6);
    const record = await move();
    expect((await attention())[0]?.unhealed.map(({ accepted }) => accepted?.by)).toEqual([
      "me@here",
      "me@here",
    ]);
    await tell("done", at(7));
    expect(await healReset(place, record, { signal, timeoutMs: 0 })).toBe("asked");
    expect(await deliver(...both({ ...ended(9, 8, 8, 2), after: null }))).toEqual(DONE);
    expect(await attention()).toEqual([]);
  });
});
