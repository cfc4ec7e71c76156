import { describe, expect, it } from "vitest";
import type { ChangeEventJson } from "../../../lib/change/event.ts";
import { Operation } from "../../../lib/consume/api/operation.ts";
import { parkingKey } from "../../../lib/consume/hold/parked-keys.ts";
import { parseExactJson } from "../../../lib/consume/run/json.ts";
import { memoryConsumer, timeLeft } from "./memory-consumer.ts";
import { eventJson, invocationOf, packed } from "./records.ts";

const keyOf = (id: string) =>
  parkingKey(parseExactJson(eventJson({ at: 1, after: null, rowJson: `{"id":${id}}` })) as ChangeEventJson);

describe("keys that are equal to PostgreSQL", () => {
  const equal: readonly (readonly [string, string])[] = [
    ['"1.50"', '"1.5"'],
    ['"100.00"', '"100"'],
    ['"-0.10"', '"-0.1"'],
    ['"ab  "', '"ab"'],
    ['{"a":[1.0]}', '{"a":[1]}'],
  ];

  it.each(equal)("%s and %s are one key", (a, b) => {
    expect(keyOf(a)).toBe(keyOf(b));
  });

  it.each(equal)("a change of %s that is parked has one of %s wait behind it", async (a, b) => {
    const effects: unknown[] = [];
    const { handler, reports } = await memoryConsumer((c) =>
      c.on("*", Operation.Create, (event) => {
        if (event.row.v === 1) throw new Error("poison");
        effects.push(event.row.v);
      }),
    );
    const changes = [
      { at: 1, after: null, rowJson: `{"id":${a},"v":1}` },
      { at: 2, after: 1, rowJson: `{"id":${b},"v":2}` },
      { at: 3, after: 2, rowJson: '{"id":"other","v":3}' },
    ];
    await handler(invocationOf(packed(changes)), timeLeft());
    expect(effects).toEqual([3]);
    expect(reports[0]).toMatchObject({ parked: 1, parkedBehind: 1 });
  });

  it("keys that differ are different keys", () => {
    const keys = ['"1.5"', '"1.05"', '"15"', '"150"', '" a"', '"a"', '{"a":1}', '{"a":"x"}', '["a"]'].map(
      keyOf,
    );
    expect(new Set(keys).size).toBe(keys.length);
  });

  it("takes a key of any depth and length", () => {
    const deep = `${'[{"a":'.repeat(20_000)}12345678901234567${"}]".repeat(20_000)}`;
    expect(keyOf(deep)).toBe(deep.replace("12345678901234567", '"12345678901234567"'));
    for (const inner of [" ", "0"]) {
      const long = `1.0${inner.repeat(300_000)}1`;
      expect(keyOf(JSON.stringify(long))).toBe(long);
    }
  });
});
