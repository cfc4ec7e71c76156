import { DeleteItemCommand, GetItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, expect, test } from "vitest";
import { parsePosition } from "../../lib/change/position.ts";
import { Operation } from "../../lib/consume/api/operation.ts";
import { captureKey } from "../../lib/state/state-key.ts";
import { DONE, invoke } from "../aws/consume/consumer-bench.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { CaptureBench, type Program } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

withPostgres((server) => {
  async function bench(): Promise<CaptureBench> {
    const made = await CaptureBench.create(aws(), await freshDatabase(server()));
    cleanups.push(() => made.end());
    return made;
  }

  /** Starts a capture task, inserts these rows, waits until they are in the stream, stops it. */
  async function run(b: CaptureBench, from: number, to: number): Promise<Program> {
    const capture = b.capture();
    await capture.printed("streaming from slot");
    await b.insert(from, to);
    await b.reached(to);
    capture.signal("SIGTERM");
    expect(await capture.ended).toBe(0);
    return capture;
  }

  /** The capture task stops for good; gives the remedy it printed. */
  async function stops(b: CaptureBench, code: string): Promise<string> {
    const capture = b.capture();
    expect(await capture.ended).toBe(2);
    const line = capture.lines.find((text) => text.includes(`"code":"${code}"`));
    if (line === undefined) throw new Error(`no ${code} in:\n${capture.lines.join("\n")}`);
    return JSON.parse(line).remedy;
  }

  /** Runs the command that a remedy names, and what that tells to run. */
  async function follow(b: CaptureBench, remedy: string): Promise<string> {
    const show = argumentsIn(remedy);
    const shown = b.command(...show);
    expect(await shown.ended).toBe(2);
    const before = await item(b);
    const repeat = shown.lines.find((line) => line.includes("--confirm"));
    if (repeat === undefined) throw new Error(shown.lines.join("\n"));
    expect(await item(b)).toEqual(before);
    const done = b.command(...argumentsIn(repeat));
    expect([await done.ended, ...done.lines]).toEqual([0, ...done.lines]);
    return done.lines.join("\n");
  }

  /** `npm run -s tributary -- epoch new …` → its arguments. */
  function argumentsIn(text: string): string[] {
    const command = /npm run -s tributary -- (epoch new[^()\n]*)/.exec(text)?.[1];
    if (command === undefined) throw new Error(`no command in: ${text}`);
    return command
      .trim()
      .split(/\s+/)
      .map((word) => word.replace(/^'(.*)'$/, "$1"));
  }

  async function item(b: CaptureBench) {
    const { pk, sk } = captureKey("shop");
    const Key = { pk: { S: pk }, sk: { S: sk } };
    const { Item } = await aws().dynamodb.send(new GetItemCommand({ TableName: b.consumer.table, Key }));
    return { slot: Item?.slot?.S, epoch: Item?.epoch?.S, generation: Item?.generation?.N };
  }

  /** What takes effect of all that stands in the stream: row and epoch. */
  function consumerOf(b: CaptureBench) {
    const seen: string[] = [];
    const handler = b.consumer.instance((consumer) =>
      consumer.on("public.orders", Operation.Create, (event) => {
        seen.push(`${event.after.id}@${parsePosition(event.id).epoch}`);
      }),
    );
    return async () => {
      expect(await invoke(handler, await b.records())).toEqual(DONE);
      return seen.splice(0);
    };
  }

  test("a dropped slot: a typed stop, whose command begins an epoch that consumers take; the gap is told", async () => {
    const b = await bench();
    const consumed = consumerOf(b);
    await run(b, 1, 3);
    expect(await consumed()).toEqual(["1@1", "2@1", "3@1"]);
    await b.client.query("SELECT pg_drop_replication_slot($1)", [b.slot]);
    await b.insert(4, 5);

    const told = await follow(b, await stops(b, "SLOT_MISSING"));
    expect(told).toMatch(/epoch 2 has begun after epoch 1/);
    expect(told).toMatch(/NOT in the stream/);

    const again = await run(b, 6, 7);
    expect(again.lines.join()).toMatch(/epoch 2 begins at .*; the one before ended at /);
    expect(await consumed()).toEqual(["6@2", "7@2"]);
    await run(b, 8, 8);
    expect(await consumed()).toEqual(["8@2"]);
  });

  test("a slot made anew goes only when that is asked for, and never under a running capture task", async () => {
    const b = await bench();
    await run(b, 1, 3);
    await b.client.query("SELECT pg_drop_replication_slot($1)", [b.slot]);
    await b.insert(4, 5);
    await b.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [b.slot]);
    const remedy = await stops(b, "SLOT_AHEAD");

    const kept = b.command("epoch", "new", "--confirm", "shop");
    expect(await kept.ended).toBe(2);
    expect(kept.lines.join()).toMatch(/--drop-slot: the old slot .* is still there/);
    const wrong = b.command("epoch", "new", "--confirm", "shoq", "--drop-slot");
    expect(await wrong.ended).toBe(2);
    expect((await item(b)).epoch).toBeUndefined();

    await follow(b, remedy);
    const running = b.capture();
    await running.printed("streaming from slot");
    const refused = b.command("epoch", "new", "--confirm", "shop", "--drop-slot");
    expect(await refused.ended).toBe(1);
    expect(refused.lines.join("\n")).toContain("CAPTURE_LEASE_HELD");
    await b.insert(6, 6);
    await b.reached(6);
    expect(running.running).toBe(true);
    running.signal("SIGTERM");
    await running.ended;
    expect(await consumerOf(b)()).toEqual(["1@1", "2@1", "3@1", "6@2"]);
  });

  test("a lost record stops, and the epoch begun after it is above the consumers' marks, its writer above all", async () => {
    const b = await bench();
    const consumed = consumerOf(b);
    await run(b, 1, 2);
    expect(await b.command("epoch", "new", "--confirm", "shop", "--drop-slot").ended).toBe(0);
    for (let id = 3; id <= 6; id++) await run(b, id, id);
    expect(await consumed()).toEqual(["1@1", "2@1", "3@2", "4@2", "5@2", "6@2"]);

    const { pk, sk } = captureKey("shop");
    const Key = { pk: { S: pk }, sk: { S: sk } };
    await aws().dynamodb.send(new DeleteItemCommand({ TableName: b.consumer.table, Key }));
    const remedy = await stops(b, "STATE_LOST");
    await follow(b, remedy);
    await run(b, 7, 8);
    expect(await consumed()).toEqual(["7@3", "8@3"]);
  });

  test("a lost table: the epoch must be said, and is said above", async () => {
    const b = await bench();
    const unknown = b.command("epoch", "new", "--confirm", "shop");
    expect(await unknown.ended).toBe(2);
    expect(unknown.lines.join()).toMatch(/--above: the state table ".*" knows nothing/);
    expect(await b.command("epoch", "new", "--confirm", "shop", "--above", "7").ended).toBe(0);
    await run(b, 1, 1);
    expect(await consumerOf(b)()).toEqual(["1@8"]);
  });
});
