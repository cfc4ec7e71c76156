import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { TableMetrics } from "../../../lib/capture/table-metrics.ts";
import { formatPosition } from "../../../lib/change/position.ts";
import { consumerMetricsLine } from "../../../lib/consume/run/consumer-metrics.ts";
import { InvocationCounts } from "../../../lib/consume/run/observer.ts";
import { ASSUMPTIONS } from "../../../lib/cost/assumptions.ts";
import { type Line, PRICES, unconfirmed } from "../../../lib/cost/bill.ts";
import { fenceUnits, invocations, lambda, stateTable } from "../../../lib/cost/consumers.ts";
import { estimate } from "../../../lib/cost/estimate.ts";
import { advantageStream, onDemandStream, provisionedStream, shardsFor } from "../../../lib/cost/kinesis.ts";
import { DEFAULT_LOAD, distinct, type Load, packed, unpacked } from "../../../lib/cost/load.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { CAPTURE_METRIC } from "../../../lib/telemetry/metrics.ts";

const SHOP = { stage: "Test", pipeline: "shop" };

/*
 * Computed by hand: a month has 730 hours, 2,628,000 seconds. 1,000 records a second of 904 bytes and 120 around them are
 * 1,024,000 bytes a second: 3.433228 GB an hour, 2,506.256104 a month.
 */
const load: Load = {
  ...DEFAULT_LOAD,
  changesPerSecond: 1000,
  bytes: 904,
  consumers: 2,
  packing: "none",
  retentionHours: 24,
  peak: 1,
};

const usd = (lines: readonly Line[]) => lines.reduce((sum, one) => sum + one.usd, 0);
const quantity = (lines: readonly Line[], what: string) => lines.find((one) => one.what === what)?.quantity;

describe("Kinesis", () => {
  it("on demand: stream hours, GB in, GB out for each consumer", () => {
    // 29.20 + 2,506.256104 GB × 0.08 + 2 × 2,506.256104 GB × 0.04
    expect(usd(onDemandStream(load, unpacked(load)))).toBeCloseTo(430.200977, 5);
  });

  it("counts each record in whole KB", () => {
    const lines = onDemandStream({ ...load, bytes: 905 }, unpacked({ ...load, bytes: 905 }));
    expect(quantity(lines, "GB ingested")).toBeCloseTo(2 * 2506.256104, 4);
  });

  it("kept for 7 days: what stands in the stream beyond the first of them", () => {
    const week = onDemandStream({ ...load, retentionHours: 168 }, unpacked(load));
    expect(quantity(week, "GB retained to 7 days")).toBeCloseTo(3.433228 * 144, 3);
    expect(quantity(week, "GB retained beyond")).toBeUndefined();
    const month = onDemandStream({ ...load, retentionHours: 720 }, unpacked(load));
    expect(quantity(month, "GB retained beyond")).toBeCloseTo(3.433228 * 552, 3);
  });

  it("On-demand Advantage: no stream hours, and 25 MiB/s at least of what goes in and out", () => {
    // 64,160.15625 GB × (0.032 + 0.016): more than 2,506 GB in and twice that out
    expect(usd(advantageStream(load, unpacked(load)))).toBeCloseTo(3079.6875, 4);
    const much = { ...load, changesPerSecond: 50_000, fanOut: 1 };
    // 125,312.805176 GB: in, once out, once by fan-out
    expect(usd(advantageStream(much, unpacked(much)))).toBeCloseTo(
      125_312.805176 * (0.032 + 0.016 + 0.02),
      2,
    );
    // It pays from 10 MiB/s of an account on.
    const rates = [9.9, 10.1].map((MiB) => {
      const loaded = { ...load, consumers: 1, changesPerSecond: MiB * 1024, bytes: 1024 - 120 };
      const [standard, advantage] = [onDemandStream, advantageStream].map((of) =>
        usd(of(loaded, unpacked(loaded))),
      );
      return Number(advantage) < Number(standard) - PRICES.kinesisOnDemand.streamHour * PRICES.hoursPerMonth;
    });
    expect(rates).toEqual([false, true]);
  });

  it("provisioned: one shard and 2,628 million PUT units", () => {
    // 730 × 0.015 + 2,628 × 0.014
    expect(usd(provisionedStream(load, unpacked(load)))).toBeCloseTo(47.742, 6);
    // and 730 × 0.020 for retention beyond a day
    const week = provisionedStream({ ...load, retentionHours: 168 }, unpacked(load));
    expect(usd(week)).toBeCloseTo(62.342, 6);
  });

  it.each([
    [{}, 1],
    [{ peak: 3 }, 3],
    // 0.977 MB/s to five consumers is 4.88 MB/s out, at 2 MB/s a shard
    [{ consumers: 5 }, 3],
    [{ bytes: 4000 }, 4],
  ])("shards for %j: %i", (change, shards) => {
    const changed = { ...load, ...change };
    expect(shardsFor(changed, unpacked(changed))).toBe(shards);
  });
});

describe("packing", () => {
  it("on one partition, what comes within the round trip shares a record", () => {
    const alone: Load = { ...load, packing: "batch", tables: 1, partitions: 1 };
    expect(packed(alone)).toEqual({ recordsPerSecond: 50, bytesPerRecord: 20 * 904 + 120 });
  });

  it("on many, hardly; and never more than a record holds", () => {
    const many = packed({ ...load, packing: "batch", tables: 100 });
    expect(many.recordsPerSecond).toBeGreaterThan(990);
    const large = packed({ ...load, packing: "batch", bytes: 300_000, tables: 1, partitions: 1 });
    expect(large.recordsPerSecond).toBeCloseTo(1000 / 3, 6);
  });

  it("two draws of two places meet one and a half", () => {
    expect([distinct(1, 7), distinct(2, 2), distinct(0, 3)]).toEqual(
      [1, 1.5, 0].map((n) => expect.closeTo(n)),
    );
  });
});

describe("consumers", () => {
  it("are called once a second and shard, or for each full batch", () => {
    const stream = unpacked(load);
    const perSecond = (change: Partial<Load>) =>
      invocations({ ...load, ...change }, stream, 4).map((one) => one.perSecond);
    expect(invocations({ ...load, batchSize: 100 }, stream, 4)).toEqual([
      { consumers: 2, perSecond: 10, changes: 100 },
    ]);
    expect(perSecond({})).toEqual([expect.closeTo(4, 6)]);
    expect(perSecond({ batchSize: 10_000, batchWindowSeconds: 5 })).toEqual([expect.closeTo(0.8, 6)]);
    // One with a fan-out of its own is handed records five times a second.
    expect(perSecond({ fanOut: 1 })).toEqual([expect.closeTo(4, 6), expect.closeTo(20, 6)]);
    expect(perSecond({ fanOut: 2, batchWindowSeconds: 2 })).toEqual([expect.closeTo(2, 6)]);
  });

  it("cost requests and GB-seconds", () => {
    const lines = lambda(load, [{ consumers: 2, perSecond: 10, changes: 100 }]);
    // 52.56 million calls at 0.20; 125 ms × 0.5 GB each: 3,285,000 GB-seconds
    expect(quantity(lines, "million invocations")).toBeCloseTo(52.56, 6);
    expect(quantity(lines, "GB-seconds")).toBeCloseTo(3_285_000, 3);
    expect(usd(lines)).toBeCloseTo(10.512 + 43.800219, 5);
  });

  it("pay for taking and closing each group of partitions", () => {
    // One group, all of its 32 partitions taken: 100 + 32 × (46 + 19) bytes are 3 units, twice.
    const whole = 100_000;
    expect(fenceUnits({ ...load, tables: 1, partitions: 32 }, whole, 1)).toBeCloseTo(6, 6);
    expect(fenceUnits({ ...load, tables: 2, partitions: 64 }, whole, 1)).toBeCloseTo(24, 6);
    // A change alone: one group, 100 + 32 × 46 + 19 bytes are 2 units, twice.
    expect(fenceUnits({ ...load, tables: 9, partitions: 32 }, 1, 32)).toBeCloseTo(4, 6);
  });
});

/** 1,000 changes a second on one partition and shard, to one consumer: small enough for a pencil. */
const pencil: Load = { ...load, consumers: 1, tables: 1, partitions: 1, network: "endpoints" };

describe("each part of a bill, by hand", () => {
  const [onDemand] = estimate(pencil).bills;
  const part = (name: string) => onDemand?.parts.find((one) => one.part === name)?.usd;

  it.each([
    // 730 h × (1 vCPU × 0.03238 + 2 GB × 0.00356)
    ["Fargate", 28.835],
    // 29.20 + 2,506.256104 GB × (0.08 in + 0.04 out)
    ["Kinesis", 329.950732],
    // 4 shards once a second: 10.512 million calls at 0.20; 25 ms + 250 changes × 1 ms, 0.5 GB: 1,445,400 GB-seconds at 0.0000133334
    ["Lambda", 2.1024 + 19.272096],
    // The fence's one item is below 1 KB: 4 × 2 units a second, 21.024 million; capture: 1.2 × 2 a second, 6.3072 million;
    // 26,280 dead letters: 3 units each, and one read unit: 78,840 and 26,280; at 0.625 and 0.125 a million
    ["DynamoDB", 13.14 + 3.942 + 0.049275 + 0.003285],
    // 26,280 letters, three requests each: 0.07884 million at 0.40
    ["SQS", 0.031536],
    // 26,280 objects: written at 0.005 and read at 0.0004 a thousand; of 2 MiB, 1 + 90 of 30.4167 days: 153.56250 GB at 0.023
    ["S3", 0.1314 + 0.010512 + 3.531938],
    // 22 + 2 + 13 metrics at 0.30; 12 + 16 metrics of alarms at 0.10; 2 + 2 composite alarms at 0.50; a dashboard; (2,200 + 330) bytes × 131,400 and 1,270 bytes × 10,512,000: 12.742991 GB at 0.50;
    // of them 14 of 30.4167 days stored, in 15 % of their size: 0.879790 GB at 0.03
    ["CloudWatch", 11.1 + 2.8 + 2 + 3 + 6.371495 + 0.026394],
    // 6 endpoints in 2 zones: 8,760 h and 2,506.256104 GB at 0.01; half of 2,212.554216 GB of changes from the database's zone at 0.02
    ["Network", 112.662561 + 22.125542],
    // A key, 2 roles × 3 parts × 12 × 730 = 52,560 requests at 0.03 for 10,000, a secret
    ["KMS and secrets", 1 + 0.15768 + 0.4],
  ])("%s: %d dollars", (name, usdByHand) => {
    expect(part(name)).toBeCloseTo(usdByHand, 5);
  });

  it("nothing else is in it", () => {
    expect(onDemand?.parts).toHaveLength(9);
  });

  it("fan-out: by GB on demand; by shard, hour and GB on a provisioned stream", () => {
    const fanned = { ...load, fanOut: 1 };
    // One of two consumers at 0.05 instead of 0.04
    expect(usd(onDemandStream(fanned, unpacked(fanned)))).toBeCloseTo(430.200977 + 25.062561, 5);
    // 730 h × 0.015 and 2,506.256104 GB × 0.013 beside 47.742
    expect(usd(provisionedStream(fanned, unpacked(fanned)))).toBeCloseTo(47.742 + 10.95 + 32.581329, 5);
    // It does not share what a shard gives
    expect(shardsFor({ ...load, consumers: 5, fanOut: 4 }, unpacked(load))).toBe(1);
  });

  it("the fence of consumers that are called at different rates", () => {
    const calls = [
      { consumers: 1, perSecond: 1, changes: 1 },
      { consumers: 2, perSecond: 5, changes: 1 },
    ];
    const lines = stateTable(pencil, calls, 1);
    // (1 + 2 × 5) × 2 units × 2,628,000 s
    expect(quantity(lines, "million write units of the fence")).toBeCloseTo(57.816, 6);
  });
});

describe("bills", () => {
  it("are the sum of their lines, part by part", () => {
    for (const { usd: total, parts, lines } of estimate(load).bills) {
      expect(total).toBeCloseTo(usd(lines), 8);
      expect(parts.reduce((sum, part) => sum + part.usd, 0)).toBeCloseTo(total, 8);
      for (const { quantity: q, unitPrice, usd: of } of lines) expect(of).toBeCloseTo(q * unitPrice, 8);
    }
  });

  it("of DMS and MSK at the same load", () => {
    const [, , , dms, msk] = estimate(load).bills;
    const part = (bill: typeof dms, name: string) => bill?.parts.find((one) => one.part === name)?.usd;
    // 730 × 0.119 + 100 × 0.115
    expect(part(dms, "DMS")).toBeCloseTo(98.37, 6);
    expect(part(dms, "Kinesis")).toBeCloseTo(430.200977, 5);
    // 3 × 730 × 0.204 + 3.433228 × 24 h × 3 copies × 0.1 + 730 × 0.11
    expect(part(msk, "MSK")).toBeCloseTo(446.76 + 24.719238 + 80.3, 5);
    // 2,506.256104 GB in and twice out, two thirds of it into another zone, at 0.02; and changes from the database's zone
    expect(part(msk, "Network")).toBeCloseTo(100.250244 + 22.125542, 5);
  });

  it("of a way through NAT, endpoints, or neither", () => {
    const network = (way: Load["network"]) => {
      const [bill] = estimate({ ...load, network: way }).bills;
      return bill?.parts.find(({ part }) => part === "Network")?.usd;
    };
    // Half of the changes come from another zone than the task's.
    const crossed = 22.125542;
    expect(network("none")).toBeCloseTo(crossed, 4);
    expect(network("nat")).toBeCloseTo(crossed + 730 * 0.045 + 2506.256104 * 0.045, 4);
    expect(network("endpoints")).toBeCloseTo(crossed + 6 * 2 * 7.3 + 2506.256104 * 0.01, 4);
  });

  it("grow with the load", () => {
    const small = estimate({ ...load, changesPerSecond: 10 }).bills;
    estimate(load).bills.forEach((bill, i) => {
      expect(bill.usd).toBeGreaterThan(small[i]?.usd ?? Number.POSITIVE_INFINITY);
    });
  });
});

describe("assumptions hold for what is built", () => {
  it("a load is as the definition's defaults have it", () => {
    const { topics, stream, consumers } = definePipeline({
      name: "shop",
      source: postgres({ tables: ["public.*"] }),
      consumers: [{ name: "orders", entry: "orders.ts", topics: ["*"] }],
    });
    expect(DEFAULT_LOAD).toMatchObject({
      partitions: topics.partitions,
      retentionHours: stream.retentionHours,
      packing: stream.packing,
      batchSize: consumers[0]?.batchSize,
      batchWindowSeconds: consumers[0]?.batchWindowSeconds,
      memoryMB: consumers[0]?.memoryMB,
    });
  });

  it("bytes of a fence item", () => {
    const mark = formatPosition({ epoch: 1, commitLsn: 1n, ordinal: 1 });
    // Names m12 and w12, a writer of ten digits; name t12 and a token of 12 bytes in base64.
    expect(ASSUMPTIONS.fenceMarkBytes).toBe("m12".length + mark.length + "w12".length + 6);
    expect(ASSUMPTIONS.fenceTokenBytes).toBe("t12".length + 16);
  });

  it("metrics of the capture task", () => {
    // All of the log but time to loss, which is there only while it threatens, rows to be read again, while there are some, and
    // what is said of several servers; and its starts.
    const {
      sourceConnected: _ofTables,
      walLossSeconds: _rare,
      rowsAsked: _whileThereAreSome,
      leftoverSlots: _ofSeveral,
      ...usual
    } = CAPTURE_METRIC;
    expect(ASSUMPTIONS.captureMetrics).toBe(Object.keys(usual).length + 1);
  });

  it("bytes of log lines, within a quarter", () => {
    const counts = new InvocationCounts();
    for (let i = 0; i < 100; i++) counts.effect(Date.now() - 900 - i);
    const invocation = consumerMetricsLine(SHOP, counts.report("order-summary", 0, 120)).length;
    expect(ratio(invocation, ASSUMPTIONS.invocationLineBytes)).toBeLessThan(1.25);
    const tables = new Map([["public.order_items", { changes: 12_345, bytes: 8_641_975 }]]);
    const [table = ""] = new TableMetrics(SHOP).lines(tables);
    expect(ratio(table.length, ASSUMPTIONS.tableLineBytes)).toBeLessThan(1.25);
  });

  function ratio(a: number, b: number): number {
    return Math.max(a / b, b / a);
  }
});

describe("prices", () => {
  it("each says where it comes from, what kind of place that is, and of which day", () => {
    for (const [name, group] of Object.entries(PRICES)) {
      if (typeof group !== "object" || !("sources" in group)) continue;
      const { sources, ...rest } = group;
      const prices = Object.keys(rest).filter((key) => typeof rest[key as keyof typeof rest] === "number");
      expect(new Set(sources.flatMap((source) => source.prices)), name).toEqual(new Set(prices));
      for (const { url, date, kind } of sources) {
        expect(url, name).toMatch(/^https:\/\//);
        expect(date, name).toMatch(/^20\d\d(-\d\d-\d\d)?$/);
        expect(Object.keys(PRICES.kinds), name).toContain(kind);
      }
    }
  });

  it("those that nobody read from AWS's price list are known", () => {
    expect(unconfirmed()).toEqual([
      "fargate.vcpuHour",
      "fargate.gbHour",
      ...["ingestedGb", "retrievedGb", "fanOutGb", "retainedGbMonth", "longRetainedGbMonth"].map(
        (price) => `kinesisOnDemandAdvantage.${price}`,
      ),
      "cloudwatch.metricMonth",
      "cloudwatch.compositeAlarmMonth",
      "dms.instanceHour",
      "msk.brokerHour",
      "msk.connectUnitHour",
    ]);
  });
});

describe("tributary cost", () => {
  const run = async (...args: string[]) =>
    promisify(execFile)(process.execPath, [
      fileURLToPath(new URL("../../../lib/cli/main.ts", import.meta.url)),
      "cost",
      ...args,
    ]);
  const asked = ["--changes-per-second", "500", "--bytes", "700", "--consumers", "3"];

  it("prints a bill by part, next to the alternatives, with its price basis", async () => {
    const { stdout } = await run(...asked);
    for (const text of [
      ...["Tributary, on-demand", "Fargate", "DMS to Kinesis", "MSK with Connect", "us-east-1"],
      "Not from AWS's price list, but from articles and quotations: fargate.vcpuHour",
    ])
      expect(stdout).toContain(text);
  });

  it("prints it as JSON", async () => {
    const { stdout } = await run(...asked, "--json");
    const { load: used, bills, prices } = JSON.parse(stdout);
    expect(used).toMatchObject({ changesPerSecond: 500, bytes: 700, consumers: 3, memoryMB: 512 });
    expect(bills).toHaveLength(5);
    expect(prices.date).toBe(PRICES.date);
    expect(bills).toEqual(JSON.parse(JSON.stringify(estimate(used).bills)));
  });

  it.each([
    [[]],
    [["--changes-per-second", "x", "--bytes", "1"]],
    [[...asked, "--peak", "0"]],
    [[...asked, "--fan-out", "4"]],
  ])("refuses %j as wrong usage", async (args) => {
    await expect(run(...args)).rejects.toMatchObject({ code: 2 });
  });
});
