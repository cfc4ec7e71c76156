import { App, Stack } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import { expect, test } from "vitest";
import { CdcPipeline } from "../../cdk/constructs/cdc-pipeline.ts";
import { CapturePublisher } from "../../lib/capture/capture-metrics.ts";
import { stageFromEnvironment } from "../../lib/telemetry/stage.ts";
import { emf } from "../unit/observe/emf-line.ts";
import { basics, definition } from "./stacks.ts";
import { isWatchedBy, type WatchedMetric, watchedMetrics } from "./watched-metrics.ts";

/** One pipeline in two stacks of an account: production by its stack's name, staging by one that is given. */
function stages(): { readonly production: Template; readonly staging: Template } {
  const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
  const made = (name: string, stage?: string) => {
    const stack = new Stack(app, name, { env: { account: "123456789012", region: "eu-central-1" } });
    new CdcPipeline(stack, "Pipeline", {
      definition: definition(),
      ...basics(stack),
      ...(stage !== undefined && { stage }),
    });
    return stack;
  };
  const stacks = [made("Production"), made("Shop-2", "staging")] as const;
  const [production, staging] = stacks.map((stack) => Template.fromStack(stack)) as [Template, Template];
  return { production, staging };
}

const { production, staging } = stages();

const ours = (template: Template) =>
  watchedMetrics(template).filter(({ namespace }) => namespace === "Tributary");

/** The variables of each program that publishes metrics: capture's container, and all functions of consumers. */
function environments(template: Template): Record<string, string>[] {
  const tasks = Object.values(template.findResources("AWS::ECS::TaskDefinition")).flatMap(({ Properties }) =>
    (Properties.ContainerDefinitions as { Name: string; Environment: { Name: string; Value: string }[] }[])
      .filter((container) => container.Name === "capture")
      .map(({ Environment }) => Object.fromEntries(Environment.map(({ Name, Value }) => [Name, Value]))),
  );
  const functions = Object.values(template.findResources("AWS::Lambda::Function"))
    .map(({ Properties }) => (Properties.Environment?.Variables ?? {}) as Record<string, string>)
    .filter((variables) => "TRIBUTARY_PIPELINE_NAME" in variables);
  return [...tasks, ...functions];
}

/** The metrics that a capture task of the template publishes while it reads its slot. */
function emittedByCapture(template: Template) {
  const [variables = {}] = environments(template);
  const lines: string[] = [];
  const publisher = new CapturePublisher({
    stage: stageFromEnvironment(variables),
    ...{ pipeline: "shop", seconds: 20, write: (line: string) => lines.push(line) },
  });
  publisher.take({
    stream: {
      ...{ changes: 0, records: 0, bytes: 0, requests: 0, retries: 0, throttles: 0, oversize: 0 },
      ...{ tables: new Map([["public.orders", { changes: 1, bytes: 1 }]]), bufferedBytes: 0 },
      ...{ oldestUnacknowledgedMs: 0, acknowledgedPlace: undefined, acknowledgedCommitTimeMs: undefined },
    },
    source: {
      ...{ connected: true, receivedLsn: 1n, serverLsn: 1n, confirmedLsn: 1n, reconnects: 0, backfills: [] },
      ...{ leftoverSlots: [], holds: [], putAside: 0, rowsAsked: 0, walStatus: "reserved" as const },
      ...{ safeWalBytes: undefined, walHeldBytes: undefined, walLossSeconds: undefined },
      ...{ oldestTransactionSeconds: undefined, oldestTransactionPid: undefined },
    },
  });
  return lines
    .map(emf)
    .flatMap(({ namespace, dimensions, values }) =>
      Object.keys(values).map((name) => ({ namespace, name, dimensions })),
    );
}

test("each program knows its stage: the stack's name, or the one that is given", () => {
  const of = (template: Template) => environments(template).map((variables) => variables.TRIBUTARY_STAGE);
  // The task, and of two consumers the function and the redrive.
  expect(of(production)).toEqual(Array(5).fill("Production"));
  expect(of(staging)).toEqual(Array(5).fill("staging"));
});

test("two stacks of one pipeline's name share no metric, in no alarm, widget or search", () => {
  const key = ({ by: _, ...metric }: WatchedMetric) => JSON.stringify(metric);
  const shared = new Set(ours(production).map(key));
  expect(shared.size).toBeGreaterThan(40);
  expect(ours(staging).filter((metric) => shared.has(key(metric)))).toEqual([]);
  // Whatever names no resource of its stack names its stage.
  for (const [template, stage] of [
    [production, "Production"],
    [staging, "staging"],
  ] as const) {
    for (const metric of ours(template)) {
      const { name, dimensions } = metric;
      const counted = name.startsWith(`CaptureStarts/${stage}/shop`);
      expect(counted || dimensions.stage === stage, JSON.stringify(metric)).toBe(true);
    }
  }
  const foreign = watchedMetrics(production).filter(({ namespace }) => namespace !== "Tributary");
  for (const metric of foreign) {
    expect(
      Object.values(metric.dimensions).some((value) => value.startsWith("<")),
      JSON.stringify(metric),
    ).toBe(true);
  }
});

test("a silent task of one stage rings, whatever the other one's says", () => {
  const ringing = (template: Template, data: ReturnType<typeof emittedByCapture>) => {
    const silent = Object.values(template.findResources("AWS::CloudWatch::Alarm"))
      .filter(({ Properties }) => Properties.TreatMissingData === "breaching")
      .map(({ Properties }) => Properties.AlarmName as string);
    const heard = ours(template)
      .filter((watched) => data.some((metric) => isWatchedBy(watched, metric)))
      .map(({ by }) => by);
    return silent.filter((name) => !heard.includes(`alarm ${name}`)).map((name) => name.split(": ")[1]);
  };
  const ofStaging = emittedByCapture(staging);
  expect(ringing(production, ofStaging)).toEqual(["SlotInactive"]);
  expect(ringing(staging, ofStaging)).toEqual([]);
  expect(ringing(production, emittedByCapture(production))).toEqual([]);
});

test("refuses a stage that cannot stand in a metric's name, a dimension and a search", () => {
  const stack = new Stack(new App(), "Test");
  const made = () =>
    new CdcPipeline(stack, "Pipeline", { definition: definition(), ...basics(stack), stage: 'a"b/c' });
  expect(made).toThrow(
    expect.objectContaining({ problems: [expect.objectContaining({ path: "stage", value: 'a"b/c' })] }),
  );
});
