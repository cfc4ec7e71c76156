import { type AttributeValue, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import type { KinesisStreamRecord } from "aws-lambda";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { readPartition } from "../../../lib/consume/fence/fence-item.ts";
import { type MemoryOptions, memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { at, chain, invocationOf, kinesisRecord, packed, recordJson, TOPIC } from "./records.ts";

/* Holds where the state table, the stream or a process does not do as it should. */

let clock = 0;
beforeEach(() => {
  clock = Date.parse("2026-01-01T00:00:00Z");
  vi.spyOn(Date, "now").mockImplementation(() => clock);
});
afterEach(() => void vi.restoreAllMocks());

async function bench(options: MemoryOptions = {}) {
  const effects: string[] = [];
  const build = (c: Consumer) =>
    c.on("*", ALL_OPERATIONS, ({ id, partition }) => void effects.push(`${partition}/${id}`));
  const made = await memoryConsumer(build, options);
  const invoke = async (records: KinesisStreamRecord[], ms?: number) => {
    const { batchItemFailures } = await made.handler(invocationOf(...records), timeLeft(ms));
    return batchItemFailures.map(({ itemIdentifier }) => itemIdentifier);
  };
  const stored = (partition = 0) => readPartition(made.table.item(`fence#${TOPIC}#0`), partition);
  return { ...made, invoke, stored, effects };
}

const ids = (from: number, to: number, partition = 0) =>
  Array.from({ length: to - from + 1 }, (_, i) => `${partition}/${at(from + i)}`);

describe("what was missing in a hold", () => {
  it("is let in, whichever of it comes first", async () => {
    const { invoke, effects, stored } = await bench();
    const [first, second, third, fourth] = [2, 3, 4, 5].map((n) => packed(chain(n, n)));
    await invoke([packed(chain(1, 1))]);
    await invoke([fourth as KinesisStreamRecord]);
    await invoke([third as KinesisStreamRecord]);
    await invoke([second as KinesisStreamRecord]);
    await invoke([first as KinesisStreamRecord]);
    expect(effects).toEqual(ids(1, 5));
    expect(stored().hold).toBeUndefined();
  });

  it("is let in between a record and one of a newer version", async () => {
    const { invoke, effects, stored } = await bench();
    const missing = packed(chain(2, 3));
    const newer = kinesisRecord(recordJson(chain(4, 4)).replace('{"v":1', '{"v":9'));
    const [first, gap] = [packed(chain(1, 1)), packed(chain(9, 9, 8))];
    await invoke([first]);
    await invoke([newer, gap]);
    await invoke([missing]);
    expect(effects).toEqual(ids(1, 3));
    expect(stored()).toMatchObject({ position: at(3), hold: { cause: "RecordNotSupportedError" } });
  });

  it("takes no request for each of its records", async () => {
    let puts = 0;
    const { invoke, effects } = await bench({
      step: async (when, what) => {
        if (when === "before" && /^put hold#/.test(what)) puts++;
        return "none";
      },
    });
    const missing = Array.from({ length: 500 }, (_, i) => packed(chain(2 + i, 2 + i)));
    await invoke([packed(chain(1, 1))]);
    await invoke([packed(chain(502, 502))]);
    puts = 0;
    await invoke(missing);
    expect(effects).toEqual(ids(1, 502));
    expect(puts).toBeLessThan(10);
  });
});

describe("a hold whose records cannot be stored in time", () => {
  it("leaves the others their close: what they did is not done again", async () => {
    let full = false;
    let over = Number.POSITIVE_INFINITY;
    const { effects, stored, ...made } = await bench({
      step: async (when, what) => {
        // As a client does whose signal has aborted.
        if (performance.now() > over) throw Object.assign(new Error("aborted"), { name: "AbortError" });
        return when === "before" && full && /^put hold#/.test(what) ? "throttled" : "none";
      },
    });
    const invoke = async (records: KinesisStreamRecord[], ms = 10_000) => {
      over = performance.now() + ms - 50;
      return made.invoke(records, ms);
    };
    await invoke([packed(chain(1, 1))]);
    full = true;
    const [gap, other] = [packed(chain(3, 3)), packed(chain(1, 1), { partition: 1 })];
    await invoke([gap, other], 1_500).catch(() => {});
    expect(stored(1)).toMatchObject({ position: at(1), token: undefined });
    await invoke([gap, other], 1_500).catch(() => {});
    full = false;
    expect(await invoke([gap, other])).toEqual([]);
    // It goes on so while it is held.
    full = true;
    const more = [packed(chain(4, 4)), packed(chain(2, 2), { partition: 1 })];
    await invoke(more, 1_500).catch(() => {});
    full = false;
    expect(await invoke(more)).toEqual([]);
    expect(effects).toEqual([...ids(1, 1), ...ids(1, 2, 1)]);
  });
});

describe("a hold that is over", () => {
  it("is over although its letter cannot be removed; a redrive removes it later", async () => {
    let full = false;
    const { invoke, effects, stored, handler, table } = await bench({
      step: async (when, what) =>
        when === "before" && full && /^delete letter#/.test(what) ? "throttled" : "none",
    });
    const missing = packed(chain(2, 2));
    await invoke([packed(chain(1, 1))]);
    await invoke([packed(chain(3, 3))]);
    full = true;
    expect(await invoke([missing], 1_500)).toEqual([]);
    expect(effects).toEqual(ids(1, 3));
    expect(stored()).toMatchObject({ position: at(3), token: undefined });
    expect(stored().hold).toBeUndefined();
    full = false;
    // Its time is by the clock that stands beside the mocked one.
    clock = Date.parse(new Date().toISOString()) + 48 * 3_600_000;
    await handler({ tributary: "redrive" }, timeLeft());
    expect([...table.items("hold#"), ...table.items("letter#")]).toEqual([]);
  });
});

describe("a hold whose fence is altered while a redrive takes it", () => {
  it("is given back as it is", async () => {
    let alters: (() => Promise<unknown>) | undefined;
    const { invoke, stored, handler, plain, table } = await bench({
      step: async (when, what) => {
        if (when === "before" && what.startsWith("SET t")) await alters?.();
        return "none";
      },
    });
    await invoke([packed(chain(1, 1))]);
    await invoke([packed(chain(3, 3))]);
    const { pk, sk } = table.item(`fence#${TOPIC}#0`) as Record<"pk" | "sk", AttributeValue>;
    alters = () =>
      plain.send(
        new UpdateItemCommand({
          ...{ TableName: "t", Key: { pk, sk }, UpdateExpression: "SET h0=:h" },
          ExpressionAttributeValues: { ":h": { S: "altered" } },
        }),
      );
    expect(await handler({ tributary: "redrive" }, timeLeft())).toMatchObject({
      letters: [{ key: "*", outcome: "failed", error: "StateItemError" }],
    });
    expect(stored()).toMatchObject({ fault: expect.stringContaining("h0"), token: undefined });
  });
});

describe("a process that dies while it begins a hold", () => {
  it("leaves nothing that no letter names", async () => {
    let dies = false;
    const { invoke, table } = await bench({
      step: async (when, what) => {
        if (dies && when === "before" && /^put letter#/.test(what)) return new Promise(() => {});
        return "none";
      },
    });
    await invoke([packed(chain(1, 1))]);
    dies = true;
    void invoke([packed(chain(3, 3))], 1_000).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 200));
    const named = table.items("letter#").map(({ chain: name }) => name?.S?.slice(1));
    for (const { sk } of table.items("hold#"))
      expect(
        named.some((id) => sk?.S?.includes(id as string)),
        sk?.S,
      ).toBe(true);
  });
});
