import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { GetQueueAttributesCommand, SendMessageCommand } from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { QueueReading } from "../../../lib/admin/dead-letters/letter-queue.ts";
import { listDeadLetters } from "../../../lib/admin/dead-letters/list.ts";
import { acknowledgeMessages, clearMended } from "../../../lib/admin/dead-letters/mended.ts";
import { type DeadLetterPlace, deadLetterPlace } from "../../../lib/admin/dead-letters/place.ts";
import { showDeadLetters } from "../../../lib/admin/dead-letters/show.ts";
import { redrive as redriveAll } from "../../../lib/admin/redrive.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import type { RedriveReport } from "../../../lib/consume/dead-letter/redrive-request.ts";
import { eventually } from "../../eventually.ts";
import { at, type Change, packed } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { type ConsumerBench, consumerBench, DONE, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();
let claims: string;
beforeAll(async () => {
  claims = await mkdtemp(join(tmpdir(), "tributary-dead-letters-"));
});
afterAll(() => rm(claims, { recursive: true, force: true }));

function updates(keys: string, from = 1, more: Partial<Change> = {}): Change[] {
  return keys.split(" ").map((id, i) => {
    const commit = from + i;
    return { at: commit, after: commit === 1 ? null : commit - 1, op: "u", row: { id }, ...more };
  });
}

/** Where the dead letters of a bench stand. */
function placeOf(bench: ConsumerBench): DeadLetterPlace {
  const none = {
    function: undefined,
    mapping: undefined,
    redriveFunction: undefined,
    verifyTask: undefined,
    entry: undefined,
  };
  return deadLetterPlace(
    {
      ...{ pipeline: "shop", stateTable: bench.table, captureDeadLetters: undefined },
      claimStore: pathToFileURL(claims).href,
      consumers: {
        [bench.name]: { ...none, deadLetterQueue: bench.environment.TRIBUTARY_DEAD_LETTER_QUEUE_URL },
      },
    },
    { environment: bench.environment },
  );
}

/** A consumer that fails on keys that begin with `bad` until it is healed. */
async function scene(environment: Record<string, string> = {}) {
  const bench = await consumerBench(aws());
  const state = { healed: false, effects: [] as string[] };
  const handler = bench.instance(
    (c) =>
      c.on("public.orders", Operation.Update, async (event) => {
        const id = String(event.after.id);
        if (id.startsWith("bad") && !state.healed) throw new RangeError(`no room for ${id}`);
        state.effects.push(id);
      }),
    { TRIBUTARY_ATTEMPTS: "2", TRIBUTARY_CLAIM_BUCKET: pathToFileURL(claims).href, ...environment },
  );
  const place = placeOf(bench);
  /** Waits until the queue shows so many messages to everybody: the emulator shows one a millisecond after it was asked to. */
  const shows = (messages: number) =>
    eventually(
      async () => {
        const { Attributes = {} } = await aws().sqs.send(
          new GetQueueAttributesCommand({ QueueUrl: place.queues[bench.name], AttributeNames: ["All"] }),
        );
        const { ApproximateNumberOfMessages: all, ApproximateNumberOfMessagesNotVisible: hidden } =
          Attributes;
        return Number(all) === messages && Number(hidden) === 0;
      },
      { what: `${messages} visible messages`, deadlineMs: 5_000 },
    );
  const run = (request: Parameters<typeof redrive>[1]): Promise<RedriveReport> => redrive(handler, request);
  const list = async () => (await listDeadLetters(place, [bench.name])).letters;
  return { bench, state, handler, place, shows, run, list, consumer: bench.name };
}

describe("dead letters of a consumer", () => {
  it("are listed with what waits behind them, shown whole, and gone with their messages when they are redriven", async () => {
    const { state, handler, place, shows, run, list, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("bad good bad bad"))])).toEqual(DONE);
    expect(await list()).toEqual([
      {
        ...{ consumer, state: "parked", topic: "shop.public.orders", partition: 0, key: "bad" },
        ...{ table: "public.orders", position: at(1), error: "RangeError", attempts: 2, waiting: 2 },
        ...{ heldBytes: undefined, messages: [expect.any(String)] },
        ...{ firstFailedAt: expect.any(String), lastFailedAt: expect.any(String) },
      },
    ]);
    // Whoever looks next sees it as well.
    await shows(1);
    for (const choice of [{ key: "bad" }, { position: at(3) }]) {
      const [letter] = await showDeadLetters(place, { consumer, ...choice });
      expect(letter).toMatchObject({
        ...{ state: "parked", key: "bad", position: at(1), attempts: 2 },
        error: {
          name: "RangeError",
          message: "no room for bad",
          stack: expect.stringContaining("dead-letters.test.ts"),
        },
        waiting: [
          { position: at(3), op: "u", table: "public.orders" },
          { position: at(4), op: "u", table: "public.orders" },
        ],
        ...{ waitingCount: 2, messages: [expect.any(String)] },
      });
      expect(JSON.parse(letter?.event ?? "")).toMatchObject({ op: "u", after: { id: "bad" } });
    }
    expect(await showDeadLetters(place, { consumer, key: "good" })).toEqual([]);
    await shows(1);

    // Nothing is cleared that is open.
    expect(await clearMended(place, consumer)).toEqual({ removed: 0, left: 1, more: false });
    state.healed = true;
    await redriveAll(run, { consumer });
    expect(state.effects).toEqual(["good", "bad", "bad", "bad"]);
    expect(await list()).toMatchObject([
      { state: "mended", position: at(1), messages: [expect.any(String)] },
    ]);
    expect(await clearMended(place, consumer)).toEqual({ removed: 1, left: 0, more: false });
    expect(await list()).toEqual([]);
    await shows(0);
  });

  it("keep their message while a later change of the key fails: the alarm must not go quiet", async () => {
    const { handler, place, run, list, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("bad bad"))])).toEqual(DONE);
    await redriveAll(run, { consumer, key: "bad" }, { discard: true });
    expect(await list()).toMatchObject([
      { state: "parked", position: at(2), waiting: 0, messages: [expect.any(String)] },
    ]);
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 0, left: 1 });
    const [letter] = await showDeadLetters(place, { consumer, key: "bad" });
    expect(letter).toMatchObject({ position: at(2), waiting: [] });
    await redriveAll(run, { consumer, position: at(2) }, { discard: true });
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 1, left: 0 });
    expect(await list()).toEqual([]);
  });

  it("keep the messages of other keys, and of a key that failed again since", async () => {
    const { state, handler, place, run, list, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("bad1 bad2"))])).toEqual(DONE);
    state.healed = true;
    await redriveAll(run, { consumer, key: "bad1" });
    state.healed = false;
    expect(await invoke(handler, [packed(updates("bad1", 3))])).toEqual(DONE);
    // The first message of bad1 is of a change that is through; the second is not.
    expect(await clearMended(place, consumer)).toEqual({ removed: 1, left: 2, more: false });
    expect((await list()).map(({ position, messages }) => [position, messages.length]).sort()).toEqual([
      [at(2), 1],
      [at(3), 1],
    ]);
  });

  it("under skip: each change that failed has its message; what a later change superseded stays until somebody acknowledges it", async () => {
    const { state, handler, place, shows, run, list, consumer } = await scene({ TRIBUTARY_POISON: "skip" });
    expect(await invoke(handler, [packed(updates("bad bad"))])).toEqual(DONE);
    expect(await list()).toMatchObject([
      { state: "skipped", position: at(1), waiting: 0, messages: [{}, {}].map(() => expect.any(String)) },
    ]);
    state.healed = true;
    expect(await invoke(handler, [packed(updates("bad", 3))])).toEqual(DONE);
    await redriveAll(run, { consumer });
    const [letter] = await list();
    expect(letter).toMatchObject({ state: "superseded", position: at(1) });
    expect(letter?.messages).toHaveLength(2);
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 0, left: 2 });
    const [shown] = await showDeadLetters(place, { consumer, position: at(1) });
    expect(JSON.parse(shown?.event ?? "")).toMatchObject({ after: { id: "bad" } });
    const url = place.queues[consumer] as string;
    expect(await acknowledgeMessages(place, url, new Set(letter?.messages.slice(0, 1)))).toBe(1);
    await shows(1);
  });

  it("are not cleared while their partition has not passed them: their batch comes again", async () => {
    const { handler, place, list, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("good good"))])).toEqual(DONE);
    const told = { consumer, topic: "shop.public.orders", partition: 0, attempts: 1 };
    const failure = { firstFailedAt: "", lastFailedAt: "", error: { name: "E", message: "", stack: "" } };
    // Its invocation died when it had sent the message; the one of the change before is through.
    for (const commit of [2, 3]) {
      const MessageBody = JSON.stringify({ ...told, position: at(commit), ...failure });
      await aws().sqs.send(new SendMessageCommand({ QueueUrl: place.queues[consumer], MessageBody }));
    }
    expect(await clearMended(place, consumer)).toEqual({ removed: 1, left: 1, more: false });
    expect(await list()).toMatchObject([{ state: "passing", position: at(3) }]);
  });

  it("of a large change: its row is read from the claim store, and what is gone there is said", async () => {
    const { handler, place, consumer } = await scene();
    const note = "x".repeat(300_000);
    const change = { ...(updates("bad")[0] as Change), row: { id: "bad", note } };
    expect(await invoke(handler, [packed([change])])).toEqual(DONE);
    const [letter] = await showDeadLetters(place, { consumer, key: "bad" });
    expect(JSON.parse(letter?.event ?? "")).toMatchObject({ after: { id: "bad", note } });
    await rm(claims, { recursive: true });
    const [gone] = await showDeadLetters(place, { consumer, key: "bad" });
    expect(gone).toMatchObject({ state: "parked", unread: { code: "CLAIM_MISSING" } });
  });

  it("of a record that could not be read stand in the queue alone; so does what is none of ours", async () => {
    const { handler, place, list, consumer, shows } = await scene();
    const record = packed(updates("good"));
    const broken = { ...record, kinesis: { ...record.kinesis, data: Buffer.from("{").toString("base64") } };
    expect(await invoke(handler, [broken])).toEqual(DONE);
    const url = place.queues[consumer] as string;
    await aws().sqs.send(new SendMessageCommand({ QueueUrl: url, MessageBody: "hello" }));
    const letters = await list();
    expect(letters.map(({ state }) => state).sort()).toEqual(["foreign", "unreadable record"]);
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 0, left: 2 });
    const foreign = letters.find(({ state }) => state === "foreign");
    expect(await acknowledgeMessages(place, url, new Set(foreign?.messages))).toBe(1);
    await shows(1);
    expect((await list()).map(({ state }) => state)).toEqual(["unreadable record"]);
  });

  it("of a held partition: the change that it waits for, and how much it holds", async () => {
    const { state, handler, place, list, run, consumer } = await scene({ TRIBUTARY_POISON: "stop" });
    expect(await invoke(handler, [packed(updates("bad other"))])).toEqual(DONE);
    expect(await list()).toMatchObject([{ state: "held", key: "*", error: "RangeError", messages: [] }]);
    const [letter] = await showDeadLetters(place, { consumer, key: "*" });
    expect(letter).toMatchObject({ state: "held", position: at(1), hold: { cause: "RangeError" } });
    expect(letter?.error.message).toBe("no room for bad");
    expect(JSON.parse(letter?.event ?? "")).toMatchObject({ after: { id: "bad" } });
    state.healed = true;
    await redriveAll(run, { consumer });
    expect(await list()).toEqual([]);
    expect(state.effects).toEqual(["bad", "other"]);
  });

  it("are listed where the queue cannot be read, with the reason", async () => {
    const { bench, handler, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("bad"))])).toEqual(DONE);
    const place = placeOf(bench);
    const gone = { ...place, queues: { [consumer]: `${place.queues[consumer]}-gone` } };
    const { letters, queues } = await listDeadLetters(gone, [consumer]);
    expect(letters).toMatchObject([{ state: "parked", messages: [] }]);
    expect(queues).toMatchObject([{ error: { code: "DEAD_LETTER_QUEUE_UNREAD" } }]);
    await expect(showDeadLetters(gone, { consumer, key: "none" })).rejects.toMatchObject({
      code: "DEAD_LETTER_QUEUE_UNREAD",
    });
  });

  it("are not read from a queue that would move them when they are read", async () => {
    const { bench, handler, consumer, shows } = await scene();
    expect(await invoke(handler, [packed(updates("bad"))])).toEqual(DONE);
    const place = placeOf(bench);
    await shows(1);
    const target = await aws().freshQueue();
    const [account, name] = target.split("/").slice(-2);
    const deadLetterTargetArn = `arn:aws:sqs:us-east-1:${account}:${name}`;
    const moving = await aws().freshQueue({
      RedrivePolicy: JSON.stringify({ maxReceiveCount: 3, deadLetterTargetArn }),
    });
    const { queues } = await listDeadLetters({ ...place, queues: { [consumer]: moving } }, [consumer]);
    expect(queues).toMatchObject([{ read: 0, error: { code: "DEAD_LETTER_QUEUE_MOVES" } }]);
  });
});

describe("two operators", () => {
  it("who redrive at once apply nothing twice, and the second one is told busy", async () => {
    const bench = await consumerBench(aws());
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const effects: string[] = [];
    let healed = false;
    const handler = bench.instance(
      (c) =>
        c.on("public.orders", Operation.Update, async (event) => {
          if (!healed) throw new Error("poison");
          reached.resolve();
          await gate.promise;
          effects.push(String(event.after.id));
        }),
      { TRIBUTARY_ATTEMPTS: "1" },
    );
    const place = placeOf(bench);
    const consumer = bench.name;
    expect(await invoke(handler, [packed(updates("a a"))])).toEqual(DONE);
    healed = true;
    const run = (request: Parameters<typeof redrive>[1]) => redrive(handler, request);
    const first = redriveAll(run, { consumer });
    await reached.promise;
    expect(await redriveAll(run, { consumer }, { discard: false })).toMatchObject({ busy: 1, redriven: 0 });
    // What somebody is at work on keeps its message, and is not given up under their hands.
    expect(await redriveAll(run, { consumer, position: at(1) }, { discard: true })).toMatchObject({
      ...{ busy: 1, discarded: 0 },
    });
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 0, left: 1 });
    gate.resolve();
    expect(await first).toMatchObject({ redriven: 2, done: 1 });
    expect(effects).toEqual(["a", "a"]);
    const [one, other] = await Promise.all([clearMended(place, consumer), clearMended(place, consumer)]);
    expect((one?.removed ?? 0) + (other?.removed ?? 0)).toBe(1);
  });

  it("who look at once each see what they can, and are told of the rest", async () => {
    const { handler, place, list, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("bad"))])).toEqual(DONE);
    const url = place.queues[consumer] as string;
    const other = await QueueReading.open(aws().sqs, url, place.state.signal);
    try {
      for await (const _ of other.messages()) break;
      const { letters, queues } = await listDeadLetters(place, [consumer]);
      expect(queues).toMatchObject([{ read: 0, inFlight: 1 }]);
      expect(letters).toMatchObject([{ state: "parked", messages: [] }]);
      expect(await clearMended(place, consumer)).toMatchObject({ more: true });
    } finally {
      await other.close();
    }
    expect(await list()).toMatchObject([{ messages: [expect.any(String)] }]);
  });
});

describe("a redrive that was interrupted", () => {
  it("after its changes took effect and before the message went: the next one clears it", async () => {
    const { state, handler, place, run, list, consumer } = await scene();
    expect(await invoke(handler, [packed(updates("bad bad"))])).toEqual(DONE);
    state.healed = true;
    // One change of two, and then the terminal was closed.
    expect(await redriveAll(run, { consumer }, { limit: 1 })).toMatchObject({ redriven: 1, done: 0 });
    expect(await list()).toMatchObject([
      { state: "parked", position: at(2), waiting: 0, messages: [expect.any(String)] },
    ]);
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 0 });
    expect(await redriveAll(run, { consumer })).toMatchObject({ redriven: 1, done: 1 });
    expect(await clearMended(place, consumer)).toMatchObject({ removed: 1, left: 0 });
    expect(state.effects).toEqual(["bad", "bad"]);
  });
});

describe("a reading", () => {
  it("has a bound, tells that there is more, and shows everything again", async () => {
    const url = await aws().freshQueue();
    const signal = new AbortController().signal;
    for (let i = 0; i < 23; i++)
      await aws().sqs.send(new SendMessageCommand({ QueueUrl: url, MessageBody: String(i) }));
    const read = async (limit: number) => {
      const reading = await QueueReading.open(aws().sqs, url, signal, limit);
      const bodies: number[] = [];
      try {
        for await (const { body } of reading.messages()) bodies.push(Number(body));
      } finally {
        await reading.close();
      }
      return { bodies: bodies.sort((a, b) => a - b), more: reading.more };
    };
    const { bodies, more } = await read(12);
    expect(bodies).toHaveLength(12);
    expect(more).toBe(true);
    expect(await read(1_000)).toEqual({ bodies: Array.from({ length: 23 }, (_, i) => i), more: false });
  });
});
