import { UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { formatPosition, START_OF_HISTORY } from "../../../lib/change/position.ts";
import { consumer } from "../../../lib/consume/api/consumer.ts";
import { ALL_OPERATIONS } from "../../../lib/consume/api/operation.ts";
import { changeTopics, lastStart, type TopicSpans } from "../../../lib/consume/api/topic-spans.ts";
import { registerConsumers } from "../../../lib/consume/fence/start-position.ts";
import { highestEpoch } from "../../../lib/consume/run/highest-epoch.ts";
import { type CallFault, MemoryTable } from "./memory-table.ts";
import { at, chain, invocationOf, packed } from "./records.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

const BOTH = ["*.orders", "*.items"];
/** All changes up to a commit are confirmed. */
const confirmed = (commit: number, epoch = 1) =>
  commit === 0 ? START_OF_HISTORY : formatPosition({ epoch, commitLsn: BigInt(commit), ordinal: 9 });

/** A consumer's deploys: of its function, and of the capture task. */
function deploys() {
  const table = new MemoryTable();
  const dynamodb = table.client(async () => "none");
  const effects: string[] = [];
  const codes: string[] = [];
  return {
    table,
    effects,
    codes,
    capture: (topics: readonly string[], position: string) =>
      registerConsumers(dynamodb, "t", "p", [{ name: "c", topics }], position),
    /** Gives records of `shop.public.orders` to the function; tells whether they are through. */
    deployed(topics: readonly string[]) {
      const environment = {
        TRIBUTARY_STATE_TABLE: "t",
        TRIBUTARY_PIPELINE_NAME: "p",
        TRIBUTARY_POISON: "stop",
      };
      const handler = consumer("c")
        .on("*", ALL_OPERATIONS, (event) => void effects.push(String(event.row?.id)))
        .handler({
          environment: { ...environment, TRIBUTARY_TOPICS: topics.join(",") },
          dynamodb,
          observer: { invocation: () => {} },
          write: (line) => codes.push(...(/"code":"(\w+)"/.exec(line)?.slice(1) ?? [])),
        });
      return async (from: number, to: number) => {
        const event = invocationOf(packed(chain(from, to)));
        const { batchItemFailures } = await handler(event, { getRemainingTimeInMillis: () => 60_000 });
        return batchItemFailures.length === 0;
      };
    },
  };
}

describe("a topic that a consumer gave up and takes again", () => {
  it("starts where it was taken again", async () => {
    const { capture, deployed, effects } = deploys();
    await capture(BOTH, confirmed(0));
    expect(await deployed(BOTH)(1, 3)).toBe(true);
    await capture(["*.items"], confirmed(3));
    expect(await deployed(["*.items"])(4, 6), "filtered away, or passed").toBe(true);
    await capture(BOTH, confirmed(6));
    expect(await deployed(BOTH)(7, 8)).toBe(true);
    expect(effects).toEqual(["1", "2", "3", "7", "8"]);
  });

  it("does so too where nothing was confirmed between the two deploys, and once more", async () => {
    const { capture, deployed, effects } = deploys();
    await capture(BOTH, confirmed(0));
    expect(await deployed(BOTH)(1, 2)).toBe(true);
    for (const from of [3, 7]) {
      await capture(["*.items"], confirmed(from + 1));
      expect(await deployed(["*.items"])(from, from + 1)).toBe(true);
      await capture(BOTH, confirmed(from + 1));
      await capture(BOTH, confirmed(from + 1));
      expect(await deployed(BOTH)(from + 2, from + 3)).toBe(true);
    }
    expect(effects).toEqual(["1", "2", "5", "6", "9", "10"]);
  });

  it("is held at the gap while the capture task does not know yet, and goes on in the same process", async () => {
    const { capture, deployed, effects, codes } = deploys();
    await capture(BOTH, confirmed(0));
    expect(await deployed(BOTH)(1, 3)).toBe(true);
    await capture(["*.items"], confirmed(3));
    const back = deployed(BOTH);
    expect([await back(7, 8), codes]).toEqual([true, ["GAP"]]);
    await capture(BOTH, confirmed(6));
    expect(effects.slice(3), "it is held").toEqual([]);
    vi.setSystemTime(Date.now() + 60_000);
    expect(await back(9, 9)).toBe(true);
    expect(effects.slice(3)).toEqual(["7", "8", "9"]);
  });

  it("skips nothing where the function never was without it", async () => {
    const { capture, deployed, effects } = deploys();
    await capture(BOTH, confirmed(0));
    const invoke = deployed(BOTH);
    expect(await invoke(1, 2)).toBe(true);
    // The deploy is rolled back before the function's turn; it lags behind what is confirmed.
    await capture(["*.items"], confirmed(4));
    await capture(BOTH, confirmed(6));
    expect(await invoke(3, 8)).toBe(true);
    expect(effects).toEqual(["1", "2", "3", "4", "5", "6", "7", "8"]);
  });

  it("does not take what stands at or before its new start, once something is missing there", async () => {
    const { capture, deployed, effects } = deploys();
    await capture(BOTH, confirmed(0));
    expect(await deployed(BOTH)(1, 2)).toBe(true);
    await capture(["*.items"], confirmed(6));
    expect(await deployed(["*.items"])(3, 4)).toBe(true);
    await capture(BOTH, confirmed(6));
    expect(await deployed(BOTH)(5, 8)).toBe(true);
    expect(effects).toEqual(["1", "2", "7", "8"]);
  });

  it("shows what a function without it passed after it was taken again", async () => {
    const { capture, deployed, codes } = deploys();
    await capture(BOTH, confirmed(0));
    expect(await deployed(BOTH)(1, 2)).toBe(true);
    await capture(["*.items"], confirmed(3));
    await capture(BOTH, confirmed(4));
    expect(await deployed(["*.items"])(3, 6)).toBe(true);
    expect([await deployed(BOTH)(7, 8), codes]).toEqual([true, ["GAP"]]);
  });
});

describe("a topic that a consumer always had", () => {
  it.each([
    ["the capture task starts again with the same topics", BOTH],
    ["another pattern takes its pattern's place", ["shop.*", "*.items"]],
    ["another topic is added", [...BOTH, "*.customers"]],
  ])("shows what is missing, also where %s", async (_how, topics) => {
    const { capture, deployed, codes } = deploys();
    await capture(BOTH, confirmed(0));
    expect(await deployed(BOTH)(1, 2)).toBe(true);
    await capture(topics, confirmed(6));
    expect([await deployed(topics)(7, 8), codes]).toEqual([true, ["GAP"]]);
  });
});

describe("registerConsumers", () => {
  it("gives hundreds of topics their floors, in updates that DynamoDB takes", async () => {
    const { capture, table } = deploys();
    const topics = Array.from({ length: 400 }, (_, i) => `*.public.t${i}`);
    await capture(topics, confirmed(5));
    for (const topic of topics) expect(table.item("floor")?.[`floor:${topic}`]).toEqual({ S: confirmed(5) });
    const first = { ...table.item("floor") };
    await capture(topics.toReversed(), confirmed(9));
    expect(table.item("floor"), "a second start changes nothing").toEqual(first);
  });

  it("reads what an older library wrote: floors alone", async () => {
    const { capture, deployed, effects, table } = deploys();
    const [first, second] = BOTH;
    await table
      .client(async () => "none")
      .send(
        new UpdateItemCommand({
          TableName: "t",
          Key: { pk: { S: "p#consumer#c" }, sk: { S: "floor" } },
          UpdateExpression: "SET #a=:floor,#b=:floor",
          ExpressionAttributeNames: { "#a": `floor:${first}`, "#b": `floor:${second}` },
          ExpressionAttributeValues: { ":floor": { S: at(1) } },
        }),
      );
    expect(await deployed(BOTH)(1, 3)).toBe(true);
    await capture(["*.items"], confirmed(3));
    await capture(BOTH, confirmed(6));
    expect(await deployed(BOTH)(7, 7)).toBe(true);
    expect(effects).toEqual(["2", "3", "7"]);
  });

  it("is where the definition says, of a consumer that is new and of no other (rule 65)", async () => {
    const { table, capture } = deploys();
    const dynamodb = table.client(async () => "none");
    const begin = (startAt: string, position: string, topics = ["*.orders"]) =>
      registerConsumers(
        dynamodb,
        "t",
        "p",
        [{ name: "c", topics, start: { startAt, position } }],
        confirmed(9),
      );
    await begin("oldest", confirmed(2));
    expect(table.item("floor")).toMatchObject({
      "floor:*.orders": { S: confirmed(2) },
      startAt: { S: "oldest" },
    });
    // A later start changes nothing, and a topic that is added begins now.
    await begin("2026-11-30T00:00:00Z", confirmed(1), BOTH);
    expect(table.item("floor")).toMatchObject({
      "floor:*.orders": { S: confirmed(2) },
      "floor:*.items": { S: confirmed(9) },
      startAt: { S: "oldest" },
    });
    await capture(BOTH, confirmed(12));
    expect(table.item("floor")?.["floor:*.items"]).toEqual({ S: confirmed(9) });
  });

  it("keeps what two capture tasks note at once", async () => {
    const table = new MemoryTable();
    const waiting: (() => void)[] = [];
    const step = (): Promise<CallFault> => new Promise((resolve) => waiting.push(() => resolve("none")));
    const [a, b] = [table.client(step), table.client(step)];
    const both = Promise.all([
      registerConsumers(a, "t", "p", [{ name: "c", topics: ["x"] }], confirmed(1)),
      registerConsumers(b, "t", "p", [{ name: "c", topics: ["x", "y"] }], confirmed(2)),
    ]);
    let done = false;
    void both.then(() => {
      done = true;
    });
    while (!done) {
      for (const go of waiting.splice(0)) go();
      await new Promise(setImmediate);
    }
    const spans = JSON.parse(table.item("floor")?.spans?.S ?? "") as TopicSpans;
    expect(Object.keys(spans).sort()).toEqual(["x", "y"]);
    expect(spans.x).toHaveLength(1);
    expect(table.item("floor")).toMatchObject({ revision: { N: "2" } });
  });

  it("leaves no epoch of a start position to be begun again", async () => {
    const { capture, table } = deploys();
    await capture(BOTH, confirmed(0));
    await capture(["*.items"], confirmed(3, 2));
    await capture(BOTH, confirmed(4, 3));
    const dynamodb = table.client(async () => "none");
    const { signal } = new AbortController();
    expect(await highestEpoch(dynamodb, "t", "p", [{ name: "c" }], signal)).toBe(3);
  });
});

describe("the spans of a pattern", () => {
  it("are bounded: what becomes one span explains less, never more", () => {
    let spans: TopicSpans = {};
    for (let i = 1; i <= 40; i++)
      spans = changeTopics(spans, i % 2 ? ["a"] : [], i, at(i)) ?? expect.fail("nothing changed");
    expect(spans.a?.length).toBeLessThan(10);
    spans = changeTopics(spans, ["*"], 41, at(41)) ?? {};
    expect(lastStart(spans, "a"), "given up at 40, taken again at 41").toBe(at(41));
    expect(lastStart(spans, "b")).toBe(at(41));
    const replaced = changeTopics(spans, ["b", "a"], 42, at(42)) ?? {};
    expect(lastStart(replaced, "a")).toBe(at(41));
    expect(lastStart(replaced, "c")).toBeUndefined();
  });
});
