import { describe, expect, test } from "vitest";
import { triggers } from "../../lib/definition/pipeline.ts";
import { metricsLine } from "../../lib/telemetry/emf.ts";
import { captureStartsLine } from "../../lib/telemetry/log.ts";
import {
  BACKFILL_METRIC,
  CAPTURE_METRIC,
  CONSUMER_METRIC,
  DIMENSION,
  dimensionsOf,
  METRICS_NAMESPACE,
  type Metric,
  PAUSE_METRIC,
  REDRIVE_METRIC,
  STANDING_METRIC,
  TABLE_METRIC,
} from "../../lib/telemetry/metrics.ts";
import { matchMetrics } from "./matched-metrics.ts";
import { basics, definition, imported, minimal, synthesize } from "./stacks.ts";
import { isWatchedBy, watchedMetrics, withReferences } from "./watched-metrics.ts";

const SHOP = { stage: "Test", pipeline: "shop" };

const small = minimal();
const of = (metrics: Readonly<Record<string, Metric>>, more: Record<string, string>) =>
  Object.values(metrics).map(({ name }) => ({
    ...{ namespace: METRICS_NAMESPACE, name, dimensions: dimensionsOf(SHOP, more) },
  }));

/** All that the programs of a pipeline publish, with the dimensions that they give it. */
const emitted = [
  ...of(CAPTURE_METRIC, {}),
  ...of({ ...TABLE_METRIC, ...BACKFILL_METRIC }, { [DIMENSION.table]: "public.orders" }),
  ...["customer-view", "notifications"].flatMap((consumer) =>
    of(
      { ...CONSUMER_METRIC, ...PAUSE_METRIC, ...STANDING_METRIC, ...REDRIVE_METRIC },
      { [DIMENSION.consumer]: consumer },
    ),
  ),
];

/** Metrics that only a source of tables publishes. */
const OF_TABLES: readonly string[] = [CAPTURE_METRIC.sourceConnected.name];

describe("each metric that is published", () => {
  test("is drawn, with exactly its dimensions", () => {
    const drawn = watchedMetrics(small.template).filter(({ by }) => by.startsWith("widget"));
    const hidden = emitted.filter((metric) => !drawn.some((watched) => isWatchedBy(watched, metric)));
    expect(hidden.map(({ name }) => name)).toEqual(OF_TABLES);
  });

  test("is all that alarms and widgets look at", () => {
    const silent = watchedMetrics(small.template).filter(
      (watched) =>
        watched.namespace === METRICS_NAMESPACE && !emitted.some((metric) => isWatchedBy(watched, metric)),
    );
    // Counted in the log, at every level of it: test/unit/capture/start-line.test.ts.
    expect(silent.map(({ by, name }) => [by.replace(/^.*: /, ""), name])).toEqual([
      ["CaptureRestarting", "CaptureStarts/Test/shop"],
    ]);
  });

  test("of a source that reads tables is drawn too", () => {
    const made = synthesize((stack) => ({
      definition: definition({ source: triggers({ tables: ["public.orders"] }) }),
      ...basics(stack),
    }));
    const drawn = new Set(
      watchedMetrics(made.template).flatMap(({ by, name }) => (by.startsWith("widget") ? [name] : [])),
    );
    expect(OF_TABLES.filter((name) => !drawn.has(name))).toEqual([]);
  });
});

describe("lines of a run", () => {
  const line = (dimensions: Record<string, string>, metrics: readonly Metric[]) =>
    metricsLine(
      "capture",
      dimensions,
      metrics.map((metric) => [metric, 1]),
    );
  const capture = Object.values<Metric>(CAPTURE_METRIC);
  const starts = captureStartsLine("shop");
  const ofCapture = (names: readonly string[]) =>
    names.filter((name) => capture.some((each) => each.name === name));

  test("are asked for with their dimensions, and what nobody prints is named", () => {
    const lines = [starts, line(dimensionsOf(SHOP), capture.slice(0, -1))];
    const { hidden, silent } = matchMetrics(small.template, lines, "shop");
    expect(hidden.map((each) => each.split(" ")[0])).toEqual(OF_TABLES);
    expect(ofCapture(silent)).toEqual([capture.at(-1)?.name]);
    expect(silent).toContain("Applied");
    expect(silent).not.toContain("CaptureStarts/Test/shop");
    expect(matchMetrics(small.template, [], "shop").silent).toContain("CaptureStarts/Test/shop");
  });

  test("are hidden by another unit", () => {
    const { changes } = CAPTURE_METRIC;
    const { hidden } = matchMetrics(
      small.template,
      [line(dimensionsOf(SHOP), [{ ...changes, unit: "Bytes" }])],
      "shop",
    );
    expect(hidden).toEqual(['Changes Bytes {"stage":"Test","pipeline":"shop"}']);
  });

  test("are hidden by a dimension more, less or of another value", () => {
    for (const dimensions of [
      { ...dimensionsOf(SHOP), slot: "2" },
      { pipeline: "shop" },
      dimensionsOf({ ...SHOP, stage: "Live" }),
    ]) {
      const { hidden, silent } = matchMetrics(small.template, [line(dimensions, capture)], "shop");
      expect(hidden).toHaveLength(capture.length);
      expect(ofCapture(silent)).toHaveLength(capture.length - OF_TABLES.length);
    }
  });
});

test("an instance of RDS is drawn with its free storage", () => {
  const [storage] = watchedMetrics(imported().template).filter(({ name }) => name === "FreeStorageSpace");
  expect(storage).toMatchObject({ namespace: "AWS/RDS", dimensions: { DBInstanceIdentifier: "shop-db" } });
  expect(watchedMetrics(small.template).map(({ name }) => name)).not.toContain("FreeStorageSpace");
});

describe("the dashboard", () => {
  const { template } = small;
  const [{ Properties } = { Properties: {} }] = Object.values(
    template.findResources("AWS::CloudWatch::Dashboard"),
  );
  const { widgets } = JSON.parse(withReferences(Properties.DashboardBody)) as {
    widgets: {
      readonly type: string;
      readonly y: number;
      readonly properties: {
        readonly [name: string]: unknown;
        readonly title?: string;
        readonly annotations?: { readonly horizontal?: { readonly label: string; readonly value: number }[] };
      };
    }[];
  };
  const titled = (part: string) => widgets.find(({ properties: { title } }) => title?.includes(part));

  test("has what rings first, then single values, then graphs", () => {
    expect(widgets[0]).toMatchObject({ type: "alarm", properties: { sortBy: "stateUpdatedTimestamp" } });
    const rows = (view: string) =>
      widgets.filter(({ properties }) => properties.view === view).map(({ y }) => y);
    expect(rows("singleValue")).toHaveLength(4);
    expect(Math.max(...rows("singleValue"))).toBeLessThan(Math.min(...rows("timeSeries")));
  });

  test("draws where alarms ring, one line for all of a value", () => {
    const lines = (title: string) => titled(title)?.properties.annotations?.horizontal;
    expect(lines("Lag behind PostgreSQL")).toMatchObject([{ label: "ReplicationLag", value: 1024 ** 3 }]);
    expect(lines("What waits for somebody")?.map(({ value }) => value)).toEqual([1]);
  });

  test("asks the logs of the task and of every function for their last errors", () => {
    const query = String(titled("last errors")?.properties.query);
    const groups = Object.keys(template.findResources("AWS::Logs::LogGroup")).filter((id) =>
      /Consumer|Capture/.test(id),
    );
    const asked = [...query.matchAll(/SOURCE '<\{Ref:(\w+)\}>'/g)].map(([, id]) => id);
    expect(asked).toHaveLength(5);
    expect(groups).toEqual(expect.arrayContaining(asked));
  });

  test("names the command that explains each alarm, by every kind that is made", () => {
    const markdown = String(widgets.find(({ type }) => type === "text")?.properties.markdown);
    expect(markdown).toContain("npx tributary-cdc explain <alarm>");
    for (const kind of ["SlotInactive", "PutAside", "DeadLetters"]) expect(markdown).toContain(`\`${kind}\``);
    expect(markdown).not.toContain("SourceDisconnected");
  });
});
