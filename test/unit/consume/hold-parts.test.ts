import { describe, expect, it } from "vitest";
import { ConsumerTable } from "../../../lib/consume/fence/consumer-table.ts";
import {
  closeUpdate,
  type OwnProgress,
  PARTITIONS_WITH_MORE,
  readPartition,
} from "../../../lib/consume/fence/fence-item.ts";
import { counterAhead, FenceToken } from "../../../lib/consume/fence/fence-token.ts";
import { formatHold, HOLD_BYTES, parseHold, sequenceKey } from "../../../lib/consume/hold/hold.ts";
import { takeIn } from "../../../lib/consume/hold/hold-intake.ts";
import type { PartitionHold } from "../../../lib/consume/hold/hold-state.ts";
import { HoldTable } from "../../../lib/consume/hold/hold-table.ts";
import { orderedBatch } from "../../../lib/consume/run/ordered-batch.ts";
import { MemoryTable, updated } from "./memory-table.ts";
import { at, type Change, chain, packed, TOPIC } from "./records.ts";

const signal = AbortSignal.timeout(60_000);

const hold: PartitionHold = {
  id: "AbCd1234",
  intake: { position: at(3), writer: 1 },
  ...{ cause: "GapError", since: "2026-01-01T00:00:00.000Z", last: "", bytes: 0, holes: [] },
  ...{ tries: 0, nextTry: 1 },
};
const checkpoint = { position: at(3), writer: 1, attempts: undefined };

/** Records of one partition, each of these changes and by this writer. */
function records(...of: [changes: readonly Change[], writer?: number][]) {
  const raw = of.map(([changes, writer = 1]) => packed(changes, { writer }));
  return orderedBatch(raw).lanes[0]?.records ?? [];
}

function positions(runs: ReturnType<typeof takeIn>["runs"]): string[][] {
  return runs.map((run) =>
    run.flatMap(({ events }) => events.map(({ source }) => source.commitLsn as string)),
  );
}

describe("what goes into a hold", () => {
  it("is a copy of the stream behind the checkpoint, without what a newer writer has superseded", () => {
    const came = records(
      [chain(2, 3)],
      [chain(4, 5)],
      [chain(5, 6, null), 2],
      [chain(6, 6)],
      [chain(7, 7), 2],
    );
    const { runs, stale, duplicates, hold: after } = takeIn(came, hold, checkpoint, () => 10);
    expect(runs).toEqual([[came[1], came[2], came[4]]]);
    expect({ stale, duplicates }).toEqual({ stale: 1, duplicates: 1 });
    expect(after).toMatchObject({ intake: { position: at(7), writer: 2 }, bytes: 30 });
    expect(after.last).toBe(sequenceKey(came[4]?.sequenceNumber ?? ""));
  });

  it("is not stored twice when it comes again", () => {
    const came = records([chain(4, 5)], [chain(6, 7)]);
    const once = takeIn(came, hold, checkpoint, () => 10).hold;
    expect(takeIn(came, once, checkpoint, () => 10)).toMatchObject({ runs: [], hold: once, filled: false });
  });

  it("stands apart where something is missing, and lets what was missing in, once", () => {
    const all = records([chain(4, 5)], [chain(6, 7)], [chain(8, 9)], [chain(10, 11)]);
    const [first, second, third, fourth] = all as [never, never, never, never];
    const start = takeIn([first, fourth], hold, checkpoint, () => 10);
    expect(positions(start.runs)).toHaveLength(2);
    const filled = takeIn([second, third], start.hold, checkpoint, () => 10);
    expect(filled.filled).toBe(true);
    expect(filled.runs).toEqual([[second, third]]);
    expect(takeIn(all, filled.hold, checkpoint, () => 10).runs).toEqual([]);
  });

  it("is bounded in bytes; what was missing is let in all the same", () => {
    const [first, missing, third, fourth] = records(
      [chain(4, 4)],
      [chain(5, 5)],
      [chain(6, 6)],
      [chain(7, 7)],
    );
    const [a, b, c, d] = [first, missing, third, fourth] as [never, never, never, never];
    const half = () => HOLD_BYTES / 2;
    const full = takeIn([a, c, d], hold, checkpoint, half);
    expect(full.refused).toBe(d);
    expect(full.hold.bytes).toBe(HOLD_BYTES);
    expect(takeIn([d], full.hold, checkpoint, half)).toMatchObject({ runs: [], refused: d });
    expect(takeIn([b], full.hold, checkpoint, half)).toMatchObject({ filled: true, refused: undefined });
  });

  it("tells a few holes apart, and lets everything in between the others", () => {
    const came = records(...Array.from({ length: 24 }, (_, i): [Change[]] => [chain(4 + i, 4 + i)]));
    const even = came.filter((_, i) => i % 2 === 0);
    const odd = came.filter((_, i) => i % 2 === 1);
    const start = takeIn(even, hold, checkpoint, () => 1);
    expect(start.hold.holes.length).toBeLessThanOrEqual(8);
    const stored = takeIn(odd, start.hold, checkpoint, () => 1).runs.flat();
    expect(stored).toEqual(odd);
  });
});

describe("the table of held records", () => {
  const place = { topic: TOPIC, partition: 3, id: hold.id };
  const make = () => {
    const table = new MemoryTable();
    return {
      table,
      holds: new HoldTable(
        new ConsumerTable({
          dynamodb: table.client(async () => "none"),
          table: "t",
          pipeline: "p",
          consumer: "c",
        }),
      ),
    };
  };
  const read = async (holds: HoldTable, upTo: string) => {
    const found = [];
    for await (const { records } of holds.records(place, upTo, signal)) found.push(...records);
    return found.map(({ kinesis }) => ({ n: kinesis.sequenceNumber, data: kinesis.data }));
  };
  const key = ({ kinesis }: ReturnType<typeof packed>) => sequenceKey(kinesis.sequenceNumber);

  it("gives whole records in the order of the stream, whoever wrote them, up to the last that counts", async () => {
    const { holds } = make();
    const [a, b, c, d] = Array.from({ length: 4 }, (_, i) => packed(chain(i + 1, i + 1))) as [
      ReturnType<typeof packed>,
      ReturnType<typeof packed>,
      ReturnType<typeof packed>,
      ReturnType<typeof packed>,
    ];
    await holds.put(place, [[c]], "second", signal);
    await holds.put(place, [[a, b]], "first", signal);
    await holds.put(place, [[d]], "one that died", signal);
    const facts = ({ kinesis }: typeof a) => ({ n: kinesis.sequenceNumber, data: kinesis.data });
    expect(await read(holds, key(c))).toEqual([a, b, c].map(facts));
    expect(await read(holds, key(d))).toEqual([a, b, c, d].map(facts));
  });

  it("passes what was stored in part by a process that died, and removes it with the rest", async () => {
    const { holds, table } = make();
    const large = packed([{ at: 1, after: null, row: { id: "1", text: "x".repeat(600_000) } }]);
    await holds.put(place, [[large]], "a", signal);
    await holds.put(place, [[large]], "b", signal);
    await holds.put(place, [[large]], "c", signal);
    // Of the first its beginning alone is there, of the second all but that: they make no whole.
    const torn = table.items("hold#").filter(({ sk, part }) => {
      const writer = sk?.S?.split("#").at(-2);
      return (writer === "a" && part?.N !== "0") || (writer === "b" && part?.N === "0");
    });
    expect(torn.length).toBeGreaterThan(2);
    await holds.remove(
      torn.map(({ pk, sk }) => ({ pk: pk?.S ?? "", sk: sk?.S ?? "" })),
      signal,
    );
    expect(await read(holds, key(large))).toEqual([
      { n: large.kinesis.sequenceNumber, data: large.kinesis.data },
    ]);
    await holds.removeAll(place, signal);
    expect(table.items("hold#")).toEqual([]);
  });
});

describe("a hold in the fence item", () => {
  const attempts = { from: at(4), to: at(5), count: 2, calls: 3, since: hold.since };

  it("is read as it was written, with its checkpoint", () => {
    const value = { ...checkpoint, attempts, explained: at(4) };
    const full = { ...hold, holes: [["a", "b", at(5)]] as const };
    expect(parseHold(formatHold(full, value), hold.intake)).toEqual({ hold: full, checkpoint: value });
    expect(parseHold("{}", hold.intake)).toBeUndefined();
    expect(parseHold("no JSON", hold.intake)).toBeUndefined();
    expect(readPartition({ m4: { S: at(3) }, h4: { S: '{"v":2}' } }, 4).fault).toBe("h4: expected a hold");
  });

  it.each<[string, (stored: Record<string, unknown>) => object]>([
    ["a hole without its position", (stored) => ({ ...stored, holes: [["a", "b"]] })],
    ["a hole with more than three members", (stored) => ({ ...stored, holes: [["a", "b", at(5), at(6)]] })],
    ["calls of no event", (stored) => ({ ...stored, attempts: { ...attempts, count: 0 } })],
    ["calls from no position", (stored) => ({ ...stored, attempts: { ...attempts, from: "1" } })],
    ["a position in the wrong case", (stored) => ({ ...stored, mark: at(10).toLowerCase() })],
    ["another version", (stored) => ({ ...stored, v: "1" })],
  ])("is not read where it has %s", (_what, altered) => {
    const stored = JSON.parse(formatHold(hold, { ...checkpoint, attempts })) as Record<string, unknown>;
    expect(parseHold(JSON.stringify(stored), hold.intake)).toBeDefined();
    expect(parseHold(JSON.stringify(altered(stored)), hold.intake)).toBeUndefined();
  });

  it("is written with the members that older libraries read", () => {
    const text = `{"v":1,"id":"AbCd1234","mark":"${at(3)}","writer":1,"cause":"GapError","since":"2026-01-01T00:00:00.000Z","last":"","bytes":0,"holes":[],"tries":0,"next":1}`;
    expect(JSON.parse(formatHold(hold, checkpoint))).toEqual(JSON.parse(text));
    expect(parseHold(text, hold.intake)).toEqual({ hold, checkpoint });
  });

  it("keeps apart what took effect and what is held, and leaves nothing behind when it is over", () => {
    const token = new FenceToken(counterAhead([]), "kJ1x8Qm0aWbq3N9e");
    const own = (more: object): OwnProgress => ({
      progress: { partition: 4, ...checkpoint, parked: "pabcdefghABCDEF1.1", ...more },
      token,
    });
    const held = closeUpdate([own({ hold: { ...hold, intake: { position: at(8), writer: 2 } } })]);
    const item = updated(held.UpdateExpression, {}, held);
    expect(item.m4).toEqual({ S: at(8) });
    expect(readPartition(item, 4)).toMatchObject({
      ...{ position: at(3), writer: 1, parked: "pabcdefghABCDEF1.1" },
      hold: { id: hold.id, intake: { position: at(8), writer: 2 } },
    });
    const over = closeUpdate([own({ hold: null, parked: undefined })]);
    expect(over.UpdateExpression).toMatch(/REMOVE .*h4/);
    expect(over.UpdateExpression).toMatch(/REMOVE .*k4/);
  });

  it("fits DynamoDB's limits on expressions", () => {
    const parts = Array.from({ length: PARTITIONS_WITH_MORE }, (_, i) => 4095 - i);
    const own = parts.map((partition) => ({
      progress: {
        partition,
        ...checkpoint,
        attempts,
        parked: "p",
        hold,
        lost: { until: 1, state: "open" } as const,
      },
      token: new FenceToken(counterAhead([]), "kJ1x8Qm0aWbq3N9e"),
    }));
    const { UpdateExpression, ConditionExpression = "" } = closeUpdate(own);
    expect(UpdateExpression.length).toBeLessThan(4096);
    const operators = `${UpdateExpression} ${ConditionExpression}`.match(
      /[=<>,(]|\b(SET|REMOVE|AND|OR|NOT)\b/g,
    );
    expect(operators?.length).toBeLessThan(300);
  });
});
