import { describe, expect, test } from "vitest";
import type { KeyPart, KeyRecord } from "../../lib/source/known-keys.ts";
import { KnownKeys } from "../../lib/source/polling/known-keys.ts";
import { MemoryReading } from "../postgres/tables-source.ts";

describe("known keys", () => {
  test("stand in few parts, are read again as they were, and have a bound", async () => {
    const { parts, keys: record } = new MemoryReading();
    const range = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => [String(from + i)]);
    const known = new KnownKeys(record, 2000);
    await known.load(true);
    for (let i = 0; i < 1000; i += 10) await known.add("public.t", range(i, i + 10));
    await known.remove("public.t", range(100, 400));
    await known.add("public.t", range(2000, 2300));
    expect(parts.size).toBeLessThanOrEqual(5);
    const again = new KnownKeys(record, 2000);
    await again.load(false);
    expect([...again.of("public.t")].sort()).toEqual([...known.of("public.t")].sort());
    await expect(again.add("public.t", range(5000, 7000))).rejects.toMatchObject({
      code: "POLLING_KEYS_FULL",
    });
  });

  test("are what the record says after a write that failed", async () => {
    const written: KeyPart[] = [];
    let failing = true;
    const record: KeyRecord = {
      async *read() {
        yield written;
      },
      async write(part) {
        if (failing) throw new Error("the table is away");
        written.push(part);
      },
    };
    const known = new KnownKeys(record);
    await expect(known.add("t", [["1"]])).rejects.toThrow("away");
    failing = false;
    await known.load(false);
    expect([...known.of("t")]).toEqual([]);
    await known.add("t", [["1"]]);
    expect(written).toMatchObject([{ table: "t", keys: [["1"]] }]);
  });
});
