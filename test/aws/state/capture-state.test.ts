import {
  type DynamoDBClient,
  GetItemCommand,
  ScanCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { describe, expect, test } from "vitest";
import { dynamodbClient } from "../../../lib/aws/clients.ts";
import { CaptureLeaseLostError } from "../../../lib/source/capture-lease-lost.ts";
import type { SlotState } from "../../../lib/source/postgres/slot/slot-record.ts";
import type { CaptureLeaseOptions } from "../../../lib/state/capture-lease.ts";
import { removeOthers } from "../../../lib/state/capture-parts.ts";
import { readCaptureRecord } from "../../../lib/state/capture-record.ts";
import { CaptureState } from "../../../lib/state/capture-state.ts";
import { CaptureLeaseHeldError, StateTableError } from "../../../lib/state/state-errors.ts";
import { AwsFaultProxy } from "../../../lib/testing/fault/aws-proxy.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();

async function options(over: Partial<CaptureLeaseOptions> = {}): Promise<CaptureLeaseOptions> {
  return {
    dynamodb: aws().dynamodb,
    table: over.table ?? (await aws().freshTable()),
    pipeline: "shop",
    leaseMs: 1500,
    signal: new AbortController().signal,
    log: () => {},
    ...over,
  };
}

const slot: SlotState = {
  epoch: 1,
  slot: "tributary_shop",
  publication: "tributary_shop",
  publicationOid: 16_412,
  database: "shop",
  systemId: "7412345678901234567",
  timeline: 1,
  confirmedLsn: 0x1_0000_0000n + 5n,
  recentCommits: [{ commitLsn: 2n ** 63n, xid: 4294967295, commitTime: 812345678901234n }],
};

test("the slot state and the settings come back as they were written", async () => {
  const state = await CaptureState.take(await options());
  expect(await state.read()).toBeUndefined();
  expect(await state.readSettings()).toBeUndefined();
  await state.write(slot);
  const settings = {
    keyFormat: "murmur3/1",
    publication: "p",
    slot: "s",
    tables: { "public.a": { topic: "t", partitions: 4, key: null } },
  };
  await state.writeSettings(settings);
  expect(await state.read()).toEqual(slot);
  expect(await state.readSettings()).toEqual(settings);
  await state.release();
});

describe("what grows with the number of tables", () => {
  const tables = Object.fromEntries(
    Array.from({ length: 5000 }, (_, i) => [
      `public.táble_${i}`,
      { topic: `shop.public.täble_${i}`, partitions: 64, key: ["tenant_id", "id"] },
    ]),
  );
  const large = { keyFormat: "murmur3/1", publication: "p", slot: "s", tables };
  const topics = Object.values(tables).map(({ topic }) => topic);

  async function items(table: string): Promise<{ sk: string; bytes: number }[]> {
    const { Items = [] } = await aws().dynamodb.send(new ScanCommand({ TableName: table }));
    return Items.map((item) => ({ sk: item.sk?.S ?? "", bytes: JSON.stringify(item).length }));
  }

  test("stands beside the item that is rewritten at each beat, and comes back as it was", async () => {
    const table = await aws().freshTable();
    const state = await CaptureState.take(await options({ table, slot: 2 }));
    await state.writeArriving(Object.fromEntries(Object.keys(tables).map((name) => [name, 1])));
    await state.writeSettings(large);
    await state.writeTopics(topics);
    const key = [{ number: 1, type: 23, names: ["id", "order_id"] }];
    const stretch = { from: "0".repeat(34), oid: 16384, identity: "d", key };
    const known = Object.fromEntries(Object.keys(tables).map((name) => [name, [stretch]]));
    await state.write({ ...slot, tables: known });
    await state.write({ ...slot, confirmedLsn: slot.confirmedLsn + 1n, tables: known });
    expect(await state.read()).toEqual({ ...slot, confirmedLsn: slot.confirmedLsn + 1n, tables: known });
    expect(await state.readSettings()).toEqual(large);
    const record = await readCaptureRecord(await options({ table, slot: 2 }));
    expect(record).toMatchObject({ settings: large, topics, arriving: {} });
    const item = (await items(table)).find(({ sk }) => sk === "capture#2");
    expect(item?.bytes, "a write unit a beat").toBeLessThan(1024);
    await state.writeSettings({ ...large, tables: {} });
    await state.forgetSlot();
    expect((await items(table)).map(({ sk }) => sk).sort()).toEqual(["capture", "capture#2"]);
    await state.release();
  });

  test("is the holder's alone, and what a zombie has left goes with the next write", async () => {
    const table = await aws().freshTable();
    const zombie = await CaptureState.take(await options({ table, leaseMs: 600_000 }));
    await zombie.writeSettings(large);
    const state = await CaptureState.take(await options({ table, generationAtLeast: 1_000 }));
    await expect(zombie.writeSettings({ ...large, slot: "z" })).rejects.toThrow(CaptureLeaseLostError);
    expect(await state.readSettings()).toEqual(large);
    await state.writeSettings({ ...large, slot: "t" });
    const parts = (await items(table)).filter(({ sk }) => sk.startsWith("part#"));
    const versions = new Set(parts.map(({ sk }) => sk.replace(/\/\d+$/, "")));
    expect(versions.size, "one version is left").toBe(1);
    await removeOthers(await options({ table }), 1, "settings", undefined);
    expect(await state.readSettings(), "nothing of a newer generation is removed").toMatchObject({
      slot: "t",
    });
    await state.release();
  });

  test("is read in the form of older versions, and missing is an error", async () => {
    const table = await aws().freshTable();
    const state = await CaptureState.take(await options({ table }));
    const old = async (text: string) =>
      await aws().dynamodb.send(
        new UpdateItemCommand({
          TableName: table,
          Key: { pk: { S: "shop#capture" }, sk: { S: "capture" } },
          UpdateExpression: "SET settings = :settings",
          ExpressionAttributeValues: { ":settings": { S: text } },
        }),
      );
    const some = { ...large, tables: Object.fromEntries(Object.entries(tables).slice(0, 1000)) };
    await old(JSON.stringify(some));
    expect(await state.readSettings()).toEqual(some);
    await old("~gone/2");
    await expect(state.readSettings()).rejects.toMatchObject({ code: "CAPTURE_RECORD_BROKEN" });
    await state.release();
  });
});

test("a released lease is taken at once, by the next generation", async () => {
  const first = await options({ leaseMs: 600_000 });
  const a = await CaptureState.take(first);
  await a.write(slot);
  await a.release();
  const b = await CaptureState.take(first);
  expect([a.generation, b.generation]).toEqual([1, 2]);
  expect(await b.read()).toEqual(slot);
  await b.release();
});

test("an owner that renews keeps the lease; the newcomer says who holds it", async () => {
  const given = await options({ leaseMs: 1200, waitMs: 4000 });
  const owner = await CaptureState.take(given);
  await expect(CaptureState.take(given)).rejects.toThrow(CaptureLeaseHeldError);
  await owner.write(slot);
  await owner.release();
});

test("an owner that fell silent loses the lease, and each write of it is refused from then on", async () => {
  const table = await aws().freshTable();
  // A zombie: it renews once in ten minutes, and its successor waits for a second and a half.
  const zombie = await CaptureState.take(await options({ table, leaseMs: 600_000 }));
  const successor = await CaptureState.take(await options({ table }));
  expect(successor.generation).toBe(zombie.generation + 1);
  await expect(zombie.write(slot)).rejects.toThrow(CaptureLeaseLostError);
  expect(zombie.lost.aborted).toBe(true);
  expect(await successor.read()).toBeUndefined();
  await zombie.release();
  await successor.write(slot);
  await successor.release();
});

test("ten newcomers at once: each generation is given once", async () => {
  const given = await options({ leaseMs: 600_000, waitMs: 60_000 });
  const generations: number[] = [];
  await Promise.all(
    Array.from({ length: 10 }, async () => {
      const state = await CaptureState.take(given);
      generations.push(state.generation);
      await state.release();
    }),
  );
  expect(generations).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

test("a wait for the lease is told once, not at each look", async () => {
  const given = await options({ leaseMs: 1000, waitMs: 5000 });
  const owner = await CaptureState.take(given);
  const lines: string[] = [];
  await expect(CaptureState.take({ ...given, log: (line) => lines.push(line) })).rejects.toThrow(
    CaptureLeaseHeldError,
  );
  expect(lines).toEqual([expect.stringMatching(/^waiting for the capture lease of "shop"/)]);
  await owner.release();
});

test("a new epoch: the slot is forgotten, the settings are the new ones, and only the holder may", async () => {
  const table = await aws().freshTable();
  const settings = { keyFormat: "murmur3/1", publication: "p", slot: "s", tables: {} };
  const zombie = await CaptureState.take(await options({ table, leaseMs: 600_000 }));
  await zombie.write(slot);
  await zombie.writeSettings(settings);
  const state = await CaptureState.take(await options({ table, generationAtLeast: 1_000_000 }));
  expect(state.generation).toBe(1_000_000);
  await state.beginEpoch({ epoch: 2, endedAt: slot.confirmedLsn }, { ...settings, slot: "t" });
  expect(await state.read()).toBeUndefined();
  expect(await state.newEpoch()).toEqual({ epoch: 2, endedAt: slot.confirmedLsn });
  expect(await state.readSettings()).toEqual({ ...settings, slot: "t" });
  await expect(zombie.beginEpoch({ epoch: 9 }, undefined)).rejects.toThrow(CaptureLeaseLostError);
  await state.release();
  const next = await CaptureState.take(await options({ table }));
  expect(next.generation).toBe(1_000_001);
  await next.release();
});

test.each([
  ["AccessDeniedException", "STATE_TABLE"],
  ["ValidationException", "STATE_TABLE"],
  ["ThrottlingException", undefined],
  ["InternalServerError", undefined],
])("%s: refused at once with %s, or tried again", async (name, code) => {
  const { dynamodb, ...given } = await options();
  let calls = 0;
  const proxy = await AwsFaultProxy.start({
    target: (await dynamodb.config
      .endpoint?.()
      .then(({ protocol, hostname, port }) => `${protocol}//${hostname}:${port}`)) as string,
    choose: ({ operation }) =>
      operation === "UpdateItem" && ++calls <= 3
        ? { kind: "error", status: name === "InternalServerError" ? 500 : 400, code: name }
        : undefined,
  });
  const faulty = dynamodbClient({ ...aws().environment, AWS_ENDPOINT_URL_DYNAMODB: proxy.endpoint });
  try {
    const taken = CaptureState.take({ ...given, dynamodb: faulty });
    if (code === undefined) {
      await (await taken).release();
      expect(calls).toBeGreaterThan(3);
    } else {
      await expect(taken).rejects.toMatchObject({
        code,
        retry: "stop",
        message: expect.stringContaining(name),
      });
      expect(calls).toBe(1);
    }
  } finally {
    faulty.destroy();
    await proxy.stop();
  }
});

test("without the table: a typed error that names it", async () => {
  const missing = CaptureState.take(await options({ table: "no-such-table" }));
  await expect(missing).rejects.toThrow(StateTableError);
  await expect(missing).rejects.toThrow(/"no-such-table"/);
});

test("generations of writers side by side grow with the lease's, and wait for a task that holds it", async () => {
  const shared = await options({ leaseMs: 400 });
  expect(await CaptureState.nextGeneration(shared)).toBe(1);
  const held = await CaptureState.take(shared);
  expect(held.generation).toBe(2);
  const waiting = CaptureState.nextGeneration(shared);
  const early = await Promise.race([
    waiting,
    CaptureState.nextGeneration({ ...shared, waitMs: 1 }).catch((e) => e),
  ]);
  expect(early).toBeInstanceOf(CaptureLeaseHeldError);
  await held.write(slot);
  await held.release();
  expect(await waiting).toBe(3);
  // Both at once: never the same.
  const both = await Promise.all([CaptureState.nextGeneration(shared), CaptureState.nextGeneration(shared)]);
  expect(new Set(both).size).toBe(2);
  expect(Math.min(...both)).toBeGreaterThan(3);
});

test("known keys come back over several pages, and a predecessor cannot write where its successor has", async () => {
  const given = await options({ leaseMs: 600_000 });
  const zombie = await CaptureState.take(given);
  const long = Array.from({ length: 300 }, (_, i) => [`${i} ${"ü☃".repeat(150)}`, "2"]);
  const parts = Array.from({ length: 12 }, (_, id) => ({ id, table: "public.t", keys: long }));
  for (const part of parts) await zombie.reading.keys.write(part);
  const successor = await CaptureState.take({ ...given, leaseMs: 300 });
  const read = async () => {
    const found = [];
    for await (const page of successor.reading.keys.read()) found.push(...page);
    return found.sort((a, b) => a.id - b.id);
  };
  expect(await read()).toEqual(parts);
  const changed = { id: 3, table: "public.t", keys: [["1", "2"]] };
  await successor.reading.keys.write(changed);
  await successor.reading.keys.write({ id: 4, table: "public.t", keys: [] });
  await expect(zombie.reading.keys.write({ ...changed, keys: [] })).rejects.toThrow(CaptureLeaseLostError);
  expect((await read()).map(({ id, keys }) => [id, keys.length])).toEqual(
    parts.filter(({ id }) => id !== 4).map(({ id }) => [id, id === 3 ? 1 : 300]),
  );
  await successor.release();
});

test("several slots of a pipeline count generations together, each under a lease of its own", async () => {
  const table = await aws().freshTable();
  const seen: number[] = [];
  const leases: CaptureState[] = [];
  // The second one first: the first one's item is not there yet. All of them are held at the same time.
  for (const slot of [2, 1, 3]) {
    const state = await CaptureState.take(await options({ table, slot }));
    seen.push(state.generation);
    leases.push(state);
  }
  for (const state of leases) await state.release();
  const restarts = [1, 1, 2, 1, 3, 2];
  for (const slot of restarts) {
    const state = await CaptureState.take(await options({ table, slot }));
    seen.push(state.generation);
    await state.release();
  }
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(new Set(seen).size).toBe(seen.length);

  const together = await Promise.all(
    [1, 2, 3].map(async (slot) => CaptureState.take(await options({ table, slot }))),
  );
  const generations = together.map(({ generation }) => generation);
  expect(new Set(generations).size).toBe(3);
  expect(Math.min(...generations)).toBeGreaterThan(Math.max(...seen));
  for (const state of together) await state.release();
});

test("whose taking of a lease was long under way is above what other slots were given meanwhile", async () => {
  const given = await options({ leaseMs: 600_000, slot: 2 });
  const before = await CaptureState.take(given);
  // It finds the one before silent, and its request to take over is on the wire for long.
  const { promise: goOn, resolve: letGoOn } = Promise.withResolvers<void>();
  const { promise: held, resolve: hold } = Promise.withResolvers<void>();
  const slow = {
    send: async (command: UpdateItemCommand) => {
      if (command instanceof UpdateItemCommand && command.input.UpdateExpression?.includes("#owner")) {
        hold();
        await goOn;
      }
      return await given.dynamodb.send(command);
    },
  } as unknown as DynamoDBClient;
  const taking = CaptureState.take({ ...given, leaseMs: 300, dynamodb: slow });
  await held;
  // Meanwhile the first slot's task starts anew, writes and confirms the last of a table; the one before lives, sees it, and ends.
  const first = await CaptureState.take({ ...given, slot: 1 });
  await before.release();
  letGoOn();
  const taken = await taking;
  expect(taken.generation).toBeGreaterThan(first.generation);
  await taken.confirm();
  for (const state of [first, taken]) await state.release();
});

test("a pipeline of one slot has in its item what it always had", async () => {
  const given = await options();
  const state = await CaptureState.take(given);
  const { Item } = await aws().dynamodb.send(
    new GetItemCommand({
      TableName: given.table,
      Key: { pk: { S: `${given.pipeline}#capture` }, sk: { S: "capture" } },
    }),
  );
  expect(Object.keys(Item ?? {}).sort()).toEqual(["beat", "generation", "owner", "pk", "sk"]);
  await state.release();
});
