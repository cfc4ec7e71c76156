import { DeleteItemCommand } from "@aws-sdk/client-dynamodb";
import type { KinesisStreamRecord } from "aws-lambda";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { type MemoryOptions, memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, type Change, chain, invocationOf, kinesisRecord, packed, recordJson, TOPIC } from "./records.ts";

let clock = 0;
beforeEach(() => {
  clock = Date.parse("2026-01-01T00:00:00Z");
  vi.spyOn(Date, "now").mockImplementation(() => clock);
});
afterEach(() => void vi.restoreAllMocks());

/** A consumer that notes what took effect, and fails where it is told to. */
async function holdingConsumer(options: MemoryOptions = {}) {
  const effects: string[] = [];
  const bad = new Set<string>();
  const build = (c: Consumer) =>
    c.on("*", ALL_OPERATIONS, ({ id, partition }) => {
      if (bad.has(id)) throw new Error("poison");
      effects.push(`${partition}/${id}`);
    });
  const made = await memoryConsumer(build, options);
  const invoke = async (...records: KinesisStreamRecord[]) => {
    const { batchItemFailures } = await made.handler(invocationOf(...records), timeLeft());
    return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier);
  };
  const redrive = (dryRun = false) => made.handler({ tributary: "redrive", dryRun }, timeLeft());
  const stored = (partition = 0) => readPartition(made.table.item(`fence#${TOPIC}#0`), partition);
  const held = () => made.table.items("hold#");
  return { ...made, invoke, redrive, stored, held, effects, bad };
}

function ids(from: number, to: number, partition = 0): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => `${partition}/${at(from + i)}`);
}

const other = () => packed(chain(1, 1), { partition: 1 });
const truncate = (commit: number): Change => ({ op: "t", at: commit, after: commit - 1 });

describe("a partition that waits for somebody", () => {
  it("is held at a gap: its shard goes on, and what was missing is applied before what is held", async () => {
    const { invoke, stored, effects, held, reports } = await holdingConsumer();
    const missing = packed(chain(3, 4));
    await invoke(packed(chain(1, 2)));
    expect(await invoke(packed(chain(5, 6)), other())).toEqual([]);
    expect(await invoke(packed(chain(7, 8)))).toEqual([]);
    expect(effects).toEqual([...ids(1, 2), ...ids(1, 1, 1)]);
    expect(stored()).toMatchObject({
      position: at(2),
      hold: { cause: "GapError", intake: { position: at(8) } },
    });
    expect(reports.at(-1)).toMatchObject({ heldPartitions: 1, failedPartitions: 0 });
    expect(reports.at(-1)?.heldBytes).toBeGreaterThan(0);

    expect(await invoke(missing)).toEqual([]);
    expect(effects).toEqual([...ids(1, 2), ...ids(1, 1, 1), ...ids(3, 8)]);
    expect(stored()).toEqual(expect.not.objectContaining({ hold: expect.anything() }));
    expect(stored()).toMatchObject({ position: at(8), parked: undefined });
    expect(held(), "nothing is left behind").toEqual([]);
    await invoke(packed(chain(9, 9)));
    expect(effects.at(-1)).toBe(`0/${at(9)}`);
  });

  it.each([
    ["under the policy stop", "stop", { at: 2, after: 1 }],
    ["at a change without a key", "park", truncate(2)],
  ] as const)("is held %s, and heals by itself when its handler is mended", async (_, poison, change) => {
    const { invoke, effects, bad, stored, reports } = await holdingConsumer({ poison });
    bad.add(at(2));
    expect(await invoke(packed(chain(1, 1)), packed([change]), packed(chain(3, 4)), other())).toEqual([]);
    expect(effects).toEqual([...ids(1, 1), ...ids(1, 1, 1)]);
    bad.clear();
    await invoke(packed(chain(5, 5)));
    expect(effects, "its next try has not come").toHaveLength(2);
    clock += 1_000;
    await invoke(packed(chain(6, 6)));
    expect(effects.slice(2)).toEqual(ids(2, 6));
    expect(stored()).toMatchObject({ position: at(6), attempts: undefined });
    expect(reports.at(-1)).toMatchObject({ heldPartitions: 0, heldBytes: 0 });
  });

  it("is tried ever more rarely, up to once a minute, and often again after progress", async () => {
    const { invoke, bad, stored, reports } = await holdingConsumer({ poison: "stop" });
    bad.add(at(2)).add(at(4));
    await invoke(packed(chain(1, 4)));
    const waits: number[] = [];
    for (let i = 5; i < 13; i++) {
      clock = stored().hold?.nextTry ?? 0;
      await invoke(packed(chain(i, i)));
      waits.push((stored().hold?.nextTry ?? 0) - clock);
      expect(reports.at(-1)).toMatchObject({ held: 1 });
    }
    expect(waits).toEqual([2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    bad.delete(at(2));
    clock = stored().hold?.nextTry ?? 0;
    await invoke(packed(chain(13, 13)));
    expect(stored()).toMatchObject({ position: at(3), hold: { nextTry: clock + 2_000 } });
  });

  it("is held where no more can be parked, and goes on once a redrive has made room", async () => {
    const { invoke, redrive, effects, bad, stored } = await holdingConsumer();
    const changes = chain(1, 258);
    for (const { at: commit } of changes) bad.add(at(commit));
    expect(
      await invoke(packed(changes), packed(chain(259, 260)), packed(chain(900, 900, null), { partition: 1 })),
    ).toEqual([]);
    expect(effects).toEqual(ids(900, 900, 1));
    expect(stored()).toMatchObject({ position: at(256), hold: { cause: "ParkingFullError" } });
    bad.clear();
    await redrive();
    expect(effects).toHaveLength(1 + 260);
    expect(effects.slice(-4)).toEqual(ids(257, 260));
    expect(stored()).toMatchObject({ position: at(260), parked: undefined });
  });

  it("is held at a record of a newer version, of which it knows the key alone", async () => {
    const { invoke, effects, stored, held } = await holdingConsumer();
    const newer = recordJson(chain(2, 3)).replace('{"v":1', '{"v":9');
    const record = kinesisRecord(newer);
    expect(await invoke(packed(chain(1, 1)), record, packed(chain(4, 4)), other())).toEqual([]);
    expect(await invoke(record, packed(chain(5, 5))), "it comes again").toEqual([]);
    expect(effects).toEqual([...ids(1, 1), ...ids(1, 1, 1)]);
    expect(stored()).toMatchObject({ position: at(1), hold: { cause: "RecordNotSupportedError" } });
    expect(held().map(({ records }) => JSON.parse(records?.S ?? "").length)).toEqual([1, 1, 1]);
    clock += 60_000;
    expect(await invoke(packed(chain(6, 6)))).toEqual([]);
    expect(stored(), "and waits for a newer library").toMatchObject({ position: at(1), hold: { tries: 1 } });
  });

  it("is healed by a redrive, without a new change", async () => {
    const { invoke, redrive, effects, bad, stored, held } = await holdingConsumer({ poison: "stop" });
    bad.add(at(2));
    await invoke(packed(chain(1, 3)));
    const looked = await redrive(true);
    expect(looked.letters).toEqual([
      expect.objectContaining({ key: "*", outcome: "open", position: at(1), error: "Error" }),
    ]);
    expect((await redrive()).letters).toEqual([expect.objectContaining({ key: "*", outcome: "failed" })]);
    bad.clear();
    expect(await redrive()).toMatchObject({ done: 1, redriven: 2 });
    expect(effects).toEqual(ids(1, 3));
    expect(stored()).toMatchObject({ position: at(3), token: undefined });
    expect(held()).toEqual([]);
    expect((await redrive(true)).letters).toEqual([]);
  });

  it("keeps records larger than an item of the state table whole", async () => {
    const { invoke, effects, bad, held } = await holdingConsumer({ poison: "stop" });
    bad.add(at(1));
    const text = "x".repeat(700_000);
    const large: Change = { at: 2, after: 1, row: { id: "2", text } };
    await invoke(packed(chain(1, 1)), packed([large]), packed(chain(3, 3)));
    for (const item of held()) expect(item.data?.B?.length).toBeLessThanOrEqual(256 * 1024);
    bad.clear();
    clock += 1_000;
    await invoke(packed(chain(4, 4)));
    expect(effects).toEqual(ids(1, 4));
  });

  it("goes no further where records that it holds are gone from the table", async () => {
    const { invoke, redrive, bad, plain, held, effects, stored } = await holdingConsumer({ poison: "stop" });
    bad.add(at(2));
    await invoke(packed(chain(1, 3)));
    bad.clear();
    for (const { pk = { S: "" }, sk = { S: "" } } of held())
      await plain.send(new DeleteItemCommand({ TableName: "t", Key: { pk, sk } }));
    expect((await redrive()).letters).toEqual([
      expect.objectContaining({ key: "*", outcome: "failed", error: "HoldIncompleteError" }),
    ]);
    expect(stored()).toMatchObject({ position: at(1), hold: { intake: { position: at(3) } } });
    expect(effects).toEqual(ids(1, 1));
  });

  it("refuses libraries that know of no holds, in its list of parked keys", async () => {
    const { invoke, bad, table } = await holdingConsumer({ poison: "stop" });
    bad.add(at(1));
    await invoke(packed(chain(1, 1)));
    // What they parse it with.
    const entry = /^([psx])([\w-]{14})([0-9a-z]+)\.([0-9a-z]+)$/;
    const keys = table.item(`fence#${TOPIC}#0`)?.k0?.S?.split(",") ?? [];
    expect(keys.some((key) => !entry.test(key))).toBe(true);
  });
});
