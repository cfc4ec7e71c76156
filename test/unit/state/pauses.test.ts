import { PutItemCommand } from "@aws-sdk/client-dynamodb";
import { expect, test } from "vitest";
import { clearPause, readPause, readPauses, setPause } from "../../../lib/state/pauses.ts";
import { NotPausedError, PausedAlreadyError } from "../../../lib/state/state-errors.ts";
import { pauseKey } from "../../../lib/state/state-key.ts";
import type { StateItem } from "../../../lib/state/state-table.ts";
import { type CallFault, MemoryTable } from "../consume/memory-table.ts";

const ORDERS = { consumer: "orders" };
const ADA = { by: "ada@laptop", since: 1_000, reason: "sink is being rebuilt" };
const BOB = { by: "bob@phone", since: 2_000, reason: undefined };

/** `faults`: what becomes of the calls, in their order. */
function placeOn(table: MemoryTable, faults: CallFault[] = []) {
  const dynamodb = table.client(async (when) => (when === "before" && faults.shift()) || "none");
  return { dynamodb, table: "state", pipeline: "shop", signal: new AbortController().signal };
}

test("capture and consumers are paused each by itself, and only in their own pipeline", async () => {
  const place = placeOn(new MemoryTable());
  expect(await readPauses(place)).toEqual({ capture: undefined, consumers: new Map() });
  const consumer = await setPause(place, ORDERS, ADA);
  const capture = await setPause(place, "capture", BOB);
  expect(consumer).toMatchObject(ADA);
  expect(await readPauses(place)).toEqual({ capture, consumers: new Map([["orders", consumer]]) });
  expect(await readPauses({ ...place, pipeline: "shop2" })).toEqual({
    capture: undefined,
    consumers: new Map(),
  });
  expect(await clearPause(place, ORDERS)).toEqual(consumer);
  expect(await readPause(place, ORDERS)).toBeUndefined();
  expect(await readPause(place, "capture")).toEqual(capture);
});

test("the second operator is told who paused, when and why, and changes nothing", async () => {
  const place = placeOn(new MemoryTable());
  const [first, second] = await Promise.allSettled([
    setPause(place, ORDERS, ADA),
    setPause(place, ORDERS, BOB),
  ]);
  expect(first.status).toBe("fulfilled");
  expect(second).toMatchObject({ status: "rejected", reason: expect.any(PausedAlreadyError) });
  const { message, remedy } = (second as PromiseRejectedResult).reason;
  expect(message).toContain('by ada@laptop since 1970-01-01T00:00:01.000Z ("sink is being rebuilt")');
  expect(remedy).toContain("tributary consumer resume --consumer orders");
  expect(await readPause(place, ORDERS)).toMatchObject(ADA);
});

test("one's own pause whose answer was lost is no other operator's", async () => {
  const table = new MemoryTable();
  // Carried out, and its answer lost: the second try finds what the first one wrote.
  const pause = await setPause(placeOn(table, ["lost"]), ORDERS, ADA);
  expect(await readPause(placeOn(table), ORDERS)).toEqual(pause);
});

test("a resume whose answer was lost has resumed", async () => {
  const table = new MemoryTable();
  const pause = await setPause(placeOn(table), ORDERS, ADA);
  expect(await clearPause(placeOn(table, ["none", "lost"]), ORDERS)).toEqual(pause);
  expect(await readPause(placeOn(table), ORDERS)).toBeUndefined();
});

test("a resume ends the pause that was seen, and no later one", async () => {
  const table = new MemoryTable();
  await setPause(placeOn(table), ORDERS, ADA);
  let once = false;
  const dynamodb = table.client(async (when, what) => {
    if (when === "before" && what.startsWith("delete") && !once) {
      once = true;
      await clearPause(placeOn(table), ORDERS);
      await setPause(placeOn(table), ORDERS, BOB);
    }
    return "none";
  });
  const late = clearPause({ ...placeOn(table), dynamodb }, ORDERS);
  await expect(late).rejects.toThrow(/paused anew, by bob@phone/);
  expect(await readPause(placeOn(table), ORDERS)).toMatchObject(BOB);
});

test.each<StateItem>([{ pause: { S: "{}" } }, { pause: { S: "no JSON" } }, {}])(
  "%o is a pause too, hides no other, and can be ended",
  async (attributes) => {
    const place = placeOn(new MemoryTable());
    const { pk, sk } = pauseKey("shop", "consumer#orders");
    const Item = { pk: { S: pk }, sk: { S: sk }, ...attributes };
    await place.dynamodb.send(new PutItemCommand({ TableName: "state", Item }));
    const capture = await setPause(place, "capture", BOB);
    const read = await readPauses(place);
    expect(read.capture).toEqual(capture);
    expect(read.consumers.get("orders")).toMatchObject({ by: "somebody" });
    await expect(setPause(place, ORDERS, ADA)).rejects.toBeInstanceOf(PausedAlreadyError);
    expect(await clearPause(place, ORDERS)).toMatchObject({ by: "somebody" });
    expect(await readPause(place, ORDERS)).toBeUndefined();
  },
);

test("what is not paused cannot be resumed", async () => {
  await expect(clearPause(placeOn(new MemoryTable()), "capture")).rejects.toBeInstanceOf(NotPausedError);
});
