import { DeleteItemCommand, PutItemCommand, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { describe, expect, it } from "vitest";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { RedriveLeases } from "../../../lib/consume/dead-letter/redrive-lease.ts";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import { Fence } from "../../../lib/consume/fence/fence.ts";
import { PARKING_LIMITS, ParkedKeys } from "../../../lib/consume/hold/parked-keys.ts";
import { fenceKey, parkedListKey } from "../../../lib/state/state-key.ts";
import { at, packed, TOPIC } from "../../unit/consume/records.ts";
import { emulatedAws } from "../emulated.ts";
import { type ConsumerBench, consumerBench, DONE, failedAt, invoke, redrive } from "./consumer-bench.ts";

const aws = emulatedAws();

/** Commit 1 of each key is poison until it is healed. */
async function parking() {
  const bench = await consumerBench(aws());
  const seen: string[] = [];
  let healed = false;
  const handler = bench.instance(
    (c) =>
      c.on("public.orders", Operation.Update, (event) => {
        if (!healed && event.id === at(1)) throw new Error("poison");
        seen.push(String(event.row?.v));
      }),
    { TRIBUTARY_ATTEMPTS: "1" },
  );
  const heal = () => {
    healed = true;
  };
  const change = (commit: number, id: string, partition = 0) =>
    packed([{ at: commit, after: commit === 1 ? null : commit - 1, op: "u", row: { id, v: commit } }], {
      partition,
    });
  return { bench, handler, seen, heal, change };
}

async function lists(bench: ConsumerBench): Promise<string[]> {
  const items = await bench.parkedItems();
  return items.flatMap(({ sk }) => (sk?.S?.startsWith("keys#") ? sk.S : []));
}

async function setKeys(bench: ConsumerBench, keys: string): Promise<void> {
  const { pk, sk } = fenceKey({ pipeline: "shop", consumer: bench.name }, TOPIC, 0);
  await aws().dynamodb.send(
    new UpdateItemCommand({
      TableName: bench.table,
      Key: { pk: { S: pk }, sk: { S: sk } },
      UpdateExpression: "SET k0=:k",
      ExpressionAttributeValues: { ":k": { S: keys } },
    }),
  );
}

describe("the list of parked keys", () => {
  it("leaves the fence item as small as without, however much is parked", async () => {
    const bench = await consumerBench(aws());
    const fence = new Fence(
      new ConsumerTable({
        dynamodb: aws().dynamodb,
        table: bench.table,
        pipeline: "shop",
        consumer: bench.name,
      }),
    );
    const partitions = Array.from({ length: 32 }, (_, i) => i);
    const { signal } = new AbortController();
    const full = new ParkedKeys();
    for (let i = 0; i < PARKING_LIMITS.keys; i++) full.add(`key ${i}`, "parked", at(1), 4);
    const place = { topic: TOPIC, group: 0 };
    const taken = await fence.take(place, partitions, "one", signal);
    const progress = { position: at(1), writer: 1, attempts: undefined, explained: undefined };
    const close = async (keys: string | undefined, from: typeof taken) =>
      fence.close(
        place,
        partitions.map((partition) => ({
          progress: { partition, ...progress, parked: keys },
          token: (from.get(partition) as NonNullable<ReturnType<typeof from.get>>).token,
        })),
        signal,
      );
    expect(await close(full.format(at(1)), taken)).toEqual({ lost: [], overtaken: [] });
    const { pk, sk } = fenceKey({ pipeline: "shop", consumer: bench.name }, TOPIC, 0);
    const sizes = (await bench.items()).filter((item) => item.sk?.S === sk && item.pk?.S === pk);
    expect(JSON.stringify(sizes).length).toBeLessThan(8_000);
    expect(await lists(bench)).toHaveLength(32);
    // Another process reads them, and writes nothing where nothing changed.
    const other = new Fence(
      new ConsumerTable({
        dynamodb: aws().dynamodb,
        table: bench.table,
        pipeline: "shop",
        consumer: bench.name,
      }),
    );
    const again = await other.take(place, partitions, "two", signal);
    expect([...again.values()].map(({ stored }) => stored.parked)).toEqual(
      partitions.map(() => full.format(at(1))),
    );
    const before = await lists(bench);
    expect(await close(full.format(at(1)), again)).toEqual({ lost: [], overtaken: [] });
    expect(await lists(bench)).toEqual(before);
  });

  it("is replaced as keys are parked and redriven, and gone with the last", async () => {
    const { bench, handler, seen, heal, change } = await parking();
    expect(await invoke(handler, [change(1, "a")])).toEqual(DONE);
    const first = await lists(bench);
    expect(await invoke(handler, [change(2, "a"), change(3, "b")])).toEqual(DONE);
    expect(await lists(bench)).toHaveLength(1);
    expect(await lists(bench)).not.toEqual(first);
    heal();
    expect(await redrive(handler)).toMatchObject({ redriven: 2, done: 1 });
    expect(seen).toEqual(["3", "1", "2"]);
    expect(await lists(bench)).toEqual([]);
    expect((await bench.stored()).parked).toBeUndefined();
  });

  it("is read as older libraries wrote it, in the fence itself; they refuse the new form", async () => {
    const { bench, handler, heal, seen, change } = await parking();
    expect(await invoke(handler, [change(1, "a")])).toEqual(DONE);
    const [named] = await lists(bench);
    const item = (await bench.parkedItems()).find(({ sk }) => sk?.S === named);
    await setKeys(bench, item?.keys?.S ?? "");
    expect(
      await invoke(
        bench.instance((c) => c.on("public.orders", Operation.Update, () => {})),
        [change(2, "a")],
      ),
    ).toEqual(DONE);
    expect(bench.reports.at(-1)).toMatchObject({ parkedBehind: 1 });
    heal();
    expect(await redrive(handler)).toMatchObject({ redriven: 2, done: 1 });
    expect(seen).toEqual(["1", "2"]);
    expect(() => ParkedKeys.parse("~kJ1x8Qm0aWbq3N9e")).toThrow();
  });

  it("that is missing stops its partition, and no other", async () => {
    const { bench, handler, seen, change } = await parking();
    expect(await invoke(handler, [change(1, "a")])).toEqual(DONE);
    const [sk = ""] = await lists(bench);
    const { pk } = parkedListKey(
      { pipeline: "shop", consumer: bench.name },
      { topic: TOPIC, partition: 0 },
      "",
    );
    await aws().dynamodb.send(
      new DeleteItemCommand({ TableName: bench.table, Key: { pk: { S: pk }, sk: { S: sk } } }),
    );
    const fresh = bench.instance((c) =>
      c.on("public.orders", Operation.Update, (event) => void seen.push(String(event.row?.v))),
    );
    const stopped = change(2, "a");
    const other = packed([{ at: 2, after: null, op: "u", row: { id: "z", v: "z" } }], { partition: 1 });
    expect(await invoke(fresh, [stopped, other])).toEqual(failedAt(stopped));
    expect(bench.lines.join("")).toContain('"code":"PARKED_KEYS_MISSING"');
    expect(seen).toEqual(["z"]);
  });

  it("that a process left before the fence named it goes with a redrive, a day later", async () => {
    const { bench, handler, change } = await parking();
    expect(await invoke(handler, [change(1, "a")])).toEqual(DONE);
    const named = await lists(bench);
    const orphan = async (version: string, ageHours: number) => {
      const { pk, sk } = parkedListKey(
        { pipeline: "shop", consumer: bench.name },
        { topic: TOPIC, partition: 0 },
        version,
      );
      const createdAt = { N: String(Date.now() - ageHours * 3_600_000) };
      const item = { pk: { S: pk }, sk: { S: sk }, keys: { S: "" }, createdAt };
      await aws().dynamodb.send(new PutItemCommand({ TableName: bench.table, Item: item }));
      return sk;
    };
    await orphan("old", 25);
    // Named still, however old it is.
    for (const sk of named) await orphan(sk.slice(sk.lastIndexOf("#") + 1), 25);
    const young = await orphan("young", 23);
    const { signal } = new AbortController();
    await new RedriveLeases(
      new ConsumerTable({
        dynamodb: aws().dynamodb,
        table: bench.table,
        pipeline: "shop",
        consumer: bench.name,
      }),
    ).removeOrphans(TOPIC, 0, signal);
    expect((await lists(bench)).sort()).toEqual([...named, young].sort());
  });
});
