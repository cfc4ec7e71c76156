import { DynamoDBClient, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { beforeAll, expect, test } from "vitest";
import { ConsumerWatch, type ConsumerWatchOptions } from "../../lib/capture/consumer-watch.ts";
import { START_OF_HISTORY } from "../../lib/change/position.ts";
import { ALL_OPERATIONS } from "../../lib/consume/api/operation.ts";
import { registerConsumers } from "../../lib/consume/fence/start-position.ts";
import { writeCaptureReport } from "../../lib/state/capture-report.ts";
import { setPause } from "../../lib/state/pauses.ts";
import { fenceKey } from "../../lib/state/state-key.ts";
import { at, chain, packed, TOPIC } from "../unit/consume/records.ts";
import { emf } from "../unit/observe/emf-line.ts";
import { type ConsumerBench, consumerBench, invoke, redrive } from "./consume/consumer-bench.ts";
import { emulatedAws } from "./emulated.ts";

const aws = emulatedAws();
const { signal } = new AbortController();
const HOUR = 3_600_000;
const ALONE = { TRIBUTARY_ATTEMPTS: "1" };

/** What a capture task writes of a consumer, and what it logs. */
function watchOf(
  { table }: ConsumerBench,
  names: readonly string[],
  options: Partial<ConsumerWatchOptions> = {},
) {
  const [lines, warnings]: string[][] = [[], []];
  const note = (message: string) => void warnings?.push(message);
  const watch = new ConsumerWatch({
    ...{ dynamodb: aws().dynamodb, table, stage: "Test", pipeline: "shop" },
    consumers: names.map((name) => ({ name, topics: ["shop.*"] })),
    log: { info: note, warn: note, error: note },
    write: (line) => void lines?.push(line),
    ...options,
  });
  const look = async () => {
    await watch.round(signal);
    return (lines ?? []).splice(0).map((line) => emf(line));
  };
  return { watch, look, warnings };
}
let bench: ConsumerBench;
beforeAll(async () => {
  bench = await consumerBench(aws());
});

/** Has a capture task report the newest change of the topic. */
function reportNewest(table: string, position: string, ago: number, slot = 1): Promise<void> {
  const now = Date.now();
  return writeCaptureReport(
    { dynamodb: aws().dynamodb, table, pipeline: "shop", slot, seat: "holder" },
    {
      ...{ state: "RUNNING", since: now, at: now, beat: 1, everyMs: 10_000, task: "one", startedAt: now },
      newest: { [TOPIC]: [{ partition: 0, position, at: now - ago }] },
    },
    null,
    signal,
  );
}

/** A handler that fails for as long as it is told to. */
function failing(poison: string) {
  let fails = true;
  const handler = bench.instance(
    (c) =>
      c.on("*", ALL_OPERATIONS, () => {
        if (fails) throw new TypeError("no");
      }),
    { ...ALONE, TRIBUTARY_POISON: poison },
  );
  return { handler, heal: () => (fails = false) };
}

test("keys with open dead letters are told until they are redriven, whatever the queue has forgotten and though nothing is invoked", async () => {
  const { look } = watchOf(bench, [bench.name]);
  const { handler, heal } = failing("park");
  await invoke(handler, [packed(chain(1, 1))]);
  // Taken out of the queue, as when they have expired there.
  expect(await bench.letters()).toHaveLength(1);
  for (let i = 0; i < 2; i++)
    expect(await look()).toMatchObject([
      {
        kind: "standing",
        dimensions: { stage: "Test", pipeline: "shop", consumer: bench.name },
        values: { OpenParkedKeys: 1, OpenHolds: 0 },
      },
    ]);
  heal();
  await redrive(handler);
  expect(await look()).toMatchObject([{ values: { OpenParkedKeys: 0, OpenHolds: 0 } }]);
});

test("a partition that is held is told until it is redriven", async () => {
  bench = await consumerBench(aws());
  const { look } = watchOf(bench, [bench.name]);
  const { handler, heal } = failing("stop");
  await invoke(handler, [packed(chain(1, 1))]);
  expect(await look()).toMatchObject([{ values: { OpenHolds: 1 } }]);
  heal();
  await redrive(handler);
  expect(await look()).toMatchObject([{ values: { OpenHolds: 0 } }]);
});

test("a partition that is held makes nobody late, unless what comes is not even held", async () => {
  bench = await consumerBench(aws());
  const { look } = watchOf(bench, [bench.name]);
  const { handler } = failing("stop");
  await invoke(handler, [packed(chain(1, 2))]);
  await reportNewest(bench.table, at(2), HOUR);
  expect(await look()).toMatchObject([{ values: { OpenHolds: 1, ConsumerLagMilliseconds: 0 } }]);
  // Nobody invokes it any more.
  await reportNewest(bench.table, at(3), HOUR);
  const [line] = await look();
  expect(line?.values.OpenHolds).toBe(1);
  expect(line?.values.ConsumerLagMilliseconds).toBeGreaterThanOrEqual(HOUR);
});

test("a consumer whose state takes too long to read keeps no other from being told", async () => {
  bench = await consumerBench(aws());
  const { region, endpoint, credentials, requestHandler } = aws().dynamodb.config;
  // DynamoDB takes the request and does not answer.
  const handle: typeof requestHandler.handle = (request, options) =>
    Buffer.from(request.body as Uint8Array).includes("#slow")
      ? new Promise((_, reject) => {
          const { abortSignal } = (options ?? {}) as { readonly abortSignal?: AbortSignal };
          if (abortSignal) abortSignal.onabort = () => reject(new Error("aborted"));
        })
      : requestHandler.handle(request, options);
  const dynamodb = new DynamoDBClient({
    ...{ region, credentials, ...(endpoint && { endpoint }), requestHandler: { handle } },
  });
  const { look, warnings } = watchOf(bench, ["slow", bench.name], { dynamodb, consumerDeadlineMs: 200 });
  expect((await look()).map((line) => line.dimensions.consumer)).toEqual([bench.name]);
  expect(warnings).toHaveLength(1);
});

test("a consumer that nobody invokes is late by the changes that it lacks; not one that has them, is paused, or is new", async () => {
  bench = await consumerBench(aws());
  const { name, table } = bench;
  const { dynamodb } = aws();
  const others = ["paused", "unknown"];
  await registerConsumers(
    dynamodb,
    table,
    "shop",
    [{ name: "paused", topics: ["shop.*"] }],
    START_OF_HISTORY,
  );
  const place = { dynamodb, table, pipeline: "shop" };
  await setPause({ ...place, signal }, { consumer: "paused" }, { by: "ada", since: 1, reason: undefined });
  const { look } = watchOf(bench, [name, ...others]);
  const lags = async () =>
    (await look()).map(({ dimensions, values }) => [dimensions.consumer, values.ConsumerLagMilliseconds]);
  expect(await lags()).toEqual([
    [name, undefined],
    ["paused", 0],
    ["unknown", undefined],
  ]);
  const report = (slot: number, ago: number) => reportNewest(table, at(2), ago, slot);
  // Of the slot that had the topic before, and of the one that has it.
  await report(1, 30 * HOUR);
  await report(2, HOUR);
  const [[, late] = []] = await lags();
  expect(late).toBeGreaterThanOrEqual(HOUR);
  expect(late).toBeLessThan(2 * HOUR);
  const handler = bench.instance((c) => c.on("*", ALL_OPERATIONS, () => {}));
  await invoke(handler, [packed(chain(1, 2))]);
  expect(await lags()).toEqual([
    [name, 0],
    ["paused", 0],
    ["unknown", undefined],
  ]);
});

test("what cannot be read of one consumer is logged once and not told, and the others are", async () => {
  bench = await consumerBench(aws());
  const { watch, look, warnings } = watchOf(bench, ["broken", bench.name]);
  const { pk, sk } = fenceKey({ pipeline: "shop", consumer: "broken" }, TOPIC, 0);
  const item = (keys: string) => ({ pk: { S: pk }, sk: { S: sk }, m0: { S: at(1) }, k0: { S: keys } });
  const store = (keys: string) =>
    aws().dynamodb.send(new PutItemCommand({ TableName: bench.table, Item: item(keys) }));
  await store("not a list");
  for (let i = 0; i < 2; i++) {
    const told = await look();
    expect(told.map(({ dimensions }) => dimensions.consumer)).toEqual(["broken", bench.name]);
    // Its lists alone: a consumer that is dead, too, is late and held all the same.
    expect(told[0]?.values).toMatchObject({ OpenHolds: 0 });
    expect(told[0]?.values).not.toHaveProperty("OpenParkedKeys");
    expect(told[1]?.values).toMatchObject({ OpenHolds: 0, OpenParkedKeys: 0 });
  }
  expect(warnings).toHaveLength(1);
  expect(warnings?.[0]).toContain("what consumers stand at cannot be read: RangeError");
  // One page each.
  expect(await watch.round(signal)).toBe(0);
});
