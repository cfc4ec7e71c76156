import { Duration, Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import * as sns from "aws-cdk-lib/aws-sns";
import { describe, expect, test } from "vitest";
import { HealthAlarm } from "../../cdk/constructs/alarm-actions.ts";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import { postgres } from "../../lib/definition/pipeline.ts";
import { entriesOf } from "../../lib/explain/catalogue.ts";
import { CAPTURE_ALARM, CONSUMER_ALARM, PIPELINE_ALARM, SOURCE_ALARM } from "../../lib/telemetry/alarms.ts";
import { basics, definition, type Synthesized, synthesize } from "./stacks.ts";

/** Two topics, two slots, an alarm of each kind. */
const two = synthesize((stack) => ({
  definition: definition({ source: postgres({ tables: ["public.*"], slots: 2 }) }),
  ...basics(stack),
  alarms: { freshness: Duration.minutes(5) },
  alarmTopics: {
    page: sns.Topic.fromTopicArn(stack, "Page", "arn:aws:sns:eu-central-1:123456789012:page"),
    ticket: sns.Topic.fromTopicArn(stack, "Ticket", "arn:aws:sns:eu-central-1:123456789012:ticket"),
  },
}));
const quiet = synthesize((stack) => ({ definition: definition(), ...basics(stack) }));

type Alarm = Readonly<Record<string, unknown>> & {
  readonly AlarmName: string;
  readonly AlarmDescription: string;
  readonly AlarmRule: string;
};
function alarmsOf(of: Synthesized, type: "Alarm" | "CompositeAlarm"): Alarm[] {
  return Object.values(of.template.findResources(`AWS::CloudWatch::${type}`)).map(
    ({ Properties }) => Properties as Alarm,
  );
}
function alarm(name: string, of: Synthesized = two): Alarm {
  const found = [...alarmsOf(of, "Alarm"), ...alarmsOf(of, "CompositeAlarm")].find(
    ({ AlarmName }) => AlarmName === `Test/shop: ${name}`,
  );
  if (!found) throw new Error(`no alarm ${name}`);
  return found;
}
const topicsOf = ({ AlarmActions = [] }: Alarm) =>
  (AlarmActions as string[]).map((arn) => arn.split(":").at(-1));
/** What rings, by the state of each metric alarm. */
function ruleHolds({ AlarmRule }: Alarm, ringing: readonly string[]): boolean {
  const text = AlarmRule.replaceAll(/ALARM\("Test\/shop: ([^"]+)"\)/g, (_, name) =>
    String(ringing.includes(name)),
  )
    .replaceAll("AND", "&&")
    .replaceAll("OR", "||")
    .replaceAll("NOT", "!");
  expect(text).toMatch(/^[truefals&|!() ]+$/);
  return new Function(`return ${text}`)() as boolean;
}

/** Values of a metric, one for each period, the latest last; undefined: no data. */
type Series = readonly (number | undefined)[];
/** Whether a metric-math alarm of M out of N rings after the last period. */
function rings({ Metrics, DatapointsToAlarm, EvaluationPeriods }: Alarm, of: Record<string, Series>) {
  const { Expression = "" } =
    (Metrics as { readonly Expression?: string }[]).find((each) => each.Expression) ?? {};
  const code = Expression.replaceAll(" AND ", " && ").replace(/^IF\((.*), 1, 0\)$/, "return $1");
  const periods = Array.from({ length: EvaluationPeriods as number }, (_, i) => {
    const ids = Object.keys(of);
    const values = ids.map((id) => of[id]?.[i]);
    return new Function("FILL", ...ids, code)(
      (value: number | undefined, filler: number) => value ?? filler,
      ...values,
    ) as boolean;
  });
  return periods.filter(Boolean).length >= (DatapointsToAlarm as number);
}
/** An hour in periods of five minutes: `before` for those before the last `count`, which have `then`. */
const hour = (before: number | undefined, count = 0, then?: number): Series =>
  Array.from({ length: 12 }, (_, i) => (i < 12 - count ? before : then));

test("Unread rings for a consumer that is not polled, and for none that is idle, paused, or new in this deploy", () => {
  const none = hour(undefined);
  const busy = { incoming: hour(10), polled: hour(10), paused: none, known: hour(0) };
  const unread = alarm("Unread-notifications");
  for (const [what, series, expected] of [
    ["all is well", {}, false],
    ["disabled a quarter of an hour ago", { polled: hour(10, 3, undefined) }, true],
    ["disabled, ten minutes ago", { polled: hour(10, 2, undefined) }, false],
    ["its rights were lost: it polls nothing", { polled: hour(10, 3, 0) }, true],
    ["dead for longer than the alarm looks back", { polled: none }, true],
    ["few records: one in four periods", { incoming: hour(0, 3, 1), polled: none }, true],
    ["an idle stream", { incoming: none, polled: hour(0) }, false],
    ["paused", { polled: none, paused: hour(1) }, false],
    // The alarm is made a minute ago with the mapping, and looks at the hour before.
    ["new in a pipeline that runs", { polled: hour(undefined, 1, 10), known: hour(undefined, 1, 0) }, false],
    ["the first deploy with this alarm", { polled: hour(undefined, 1, 5), known: none }, false],
    ["new, and without rights from its first minute", { polled: none, known: hour(undefined, 3, 0) }, true],
  ] as const)
    expect([what, rings(unread, { ...busy, ...series })]).toEqual([what, expected]);
});

describe("a consumer that is dead or late", () => {
  // https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html#event-source-mapping-metrics: PolledEventCount counts what
  // was read before any filter, is 0 for an empty poll, and is there only where MetricsConfig asks for EventCount.
  test("each mapping publishes what it polls", () => {
    const mappings = Object.values(quiet.template.findResources("AWS::Lambda::EventSourceMapping"));
    const streams = mappings.filter(({ Properties }) => Properties.StartingPosition);
    expect(streams).toHaveLength(2);
    for (const { Properties } of streams)
      expect(Properties.MetricsConfig).toEqual({ Metrics: ["EventCount"] });
  });

  test("rings where records come in and none is polled, unless it is paused", () => {
    const { Metrics, ...rest } = alarm("Unread-notifications");
    expect(rest).toMatchObject({
      ...{ EvaluationPeriods: 12, DatapointsToAlarm: 3, Threshold: 1, TreatMissingData: "notBreaching" },
      ComparisonOperator: "GreaterThanOrEqualToThreshold",
    });
    const metrics = Metrics as Record<string, never>[];
    expect(metrics.filter(({ Expression }) => Expression)).toMatchObject([
      {
        Expression:
          "IF(FILL(incoming, 0) > 0 AND FILL(polled, 0) == 0 AND FILL(paused, -1) < 0 AND FILL(known, -1) >= 0, 1, 0)",
      },
    ]);
    const [[mapping] = []] = Object.entries(
      two.template.findResources("AWS::Lambda::EventSourceMapping"),
    ).filter(([id]) => id.includes("notifications"));
    const stat = (id: string) => metrics.find(({ Id }) => Id === id)?.MetricStat;
    expect(stat("polled")).toMatchObject({
      Metric: {
        Namespace: "AWS/Lambda",
        MetricName: "PolledEventCount",
        Dimensions: [{ Name: "EventSourceMappingUUID", Value: { Ref: mapping } }],
      },
      ...{ Period: 300, Stat: "Sum" },
    });
    expect(stat("incoming")).toMatchObject({
      ...{ Metric: { Namespace: "AWS/Kinesis", MetricName: "IncomingRecords" }, Period: 300, Stat: "Sum" },
    });
    expect(stat("paused")).toMatchObject({
      Metric: {
        ...{ Namespace: "Tributary", MetricName: "PauseRetentionUsed" },
      },
    });
  });

  test("rings when a change has waited for 15 minutes, or for as long as the stack says", () => {
    expect(alarm("Late-notifications")).toMatchObject({
      MetricName: "ConsumerLagMilliseconds",
      Threshold: 300_000,
    });
    expect(alarm("Late-notifications", quiet)).toMatchObject({ Threshold: 900_000 });
    expect(alarm("Late-notifications", quiet).AlarmDescription).toContain("for 15 minutes or longer");
    // Beside the one of the retention.
    expect(alarm("IteratorAge-notifications")).toMatchObject({ Threshold: (168 * 3_600_000) / 4 });
  });

  test("rings where Lambda refuses its invocations", () => {
    expect(alarm("FunctionThrottled-notifications")).toMatchObject({
      ...{ Namespace: "AWS/Lambda", MetricName: "Throttles", TreatMissingData: "notBreaching" },
    });
  });

  test("what waits for somebody rings for as long as it does, and not less when nobody looks", () => {
    for (const [name, MetricName] of [
      ["ParkedKeys", "OpenParkedKeys"],
      ["HeldPartitions", "OpenHolds"],
      ["Late", "ConsumerLagMilliseconds"],
    ])
      expect(alarm(`${name}-notifications`)).toMatchObject({
        ...{ MetricName, EvaluationPeriods: 1, TreatMissingData: "ignore", Statistic: "Maximum" },
      });
  });
});

describe("who is called", () => {
  const known: Readonly<Record<string, { readonly severity: string; readonly unless?: readonly string[] }>> =
    {
      ...SOURCE_ALARM.slots,
      ...CAPTURE_ALARM,
      ...PIPELINE_ALARM,
      ...CONSUMER_ALARM,
    };
  const kindOf = ({ AlarmName }: Alarm) => /: (\w+)/.exec(AlarmName)?.[1] ?? "";

  test("each alarm notifies the topic of its severity, once: itself, or a composite alarm in its place", () => {
    for (const each of alarmsOf(two, "Alarm")) {
      const { severity, unless } = known[kindOf(each)] ?? {};
      expect(topicsOf(each), each.AlarmName).toEqual(unless ? [] : [severity]);
      if (!unless) continue;
      const alone = alarm(`${each.AlarmName.replace("Test/shop: ", "")}-alone`);
      expect(topicsOf(alone)).toEqual([severity]);
      expect(alone.OKActions).toEqual(alone.AlarmActions);
      expect(alone.AlarmDescription).toBe(each.AlarmDescription);
    }
  });

  test("no alarm notifies anybody where there is no topic, and there is one composite alarm", () => {
    for (const each of [...alarmsOf(quiet, "Alarm"), ...alarmsOf(quiet, "CompositeAlarm")])
      expect(each).not.toHaveProperty("AlarmActions");
    expect(alarmsOf(quiet, "CompositeAlarm").map(({ AlarmName }) => AlarmName)).toEqual([
      "Test/shop: Unhealthy",
    ]);
  });

  test("a dead task calls once, with the cause: one alarm of its slot rings without data", () => {
    const rings = alarmsOf(two, "Alarm").filter(({ TreatMissingData }) => TreatMissingData === "breaching");
    expect(rings.map(({ AlarmName }) => AlarmName)).toEqual([
      "Test/shop: SlotInactive",
      "Test/shop: SlotInactive-slot2",
    ]);
  });

  test("a task that starts again and again calls once; one that does and streams between does so too", () => {
    const alone = alarm("CaptureRestarting-slot2-alone");
    expect(ruleHolds(alone, ["CaptureRestarting-slot2", "SlotInactive-slot2"])).toBe(false);
    expect(ruleHolds(alone, ["CaptureRestarting-slot2"])).toBe(true);
    // Of another slot.
    expect(ruleHolds(alone, ["CaptureRestarting-slot2", "SlotInactive"])).toBe(true);
    expect(ruleHolds(alone, [])).toBe(false);
  });

  test("a consumer that is late calls once, with the cause where an alarm knows it", () => {
    const alone = alarm("Late-notifications-alone");
    expect(ruleHolds(alone, ["Late-notifications"])).toBe(true);
    expect(ruleHolds(alone, ["Late-notifications", "Unread-notifications"])).toBe(false);
    // A partition that is held for days hides no second failure: what is held is not late.
    expect(ruleHolds(alone, ["Late-notifications", "HeldPartitions-notifications"])).toBe(true);
    expect(ruleHolds(alone, ["Late-notifications", "Unread-customer-view"])).toBe(true);
    expect(
      ruleHolds(alarm("ParkedKeys-notifications-alone"), [
        "ParkedKeys-notifications",
        "DeadLetters-notifications",
      ]),
    ).toBe(false);
  });

  test("one composite alarm rings while any does that calls somebody, and calls nobody itself", () => {
    const health = alarm("Unhealthy");
    expect(topicsOf(health)).toEqual([]);
    for (const each of alarmsOf(two, "Alarm")) {
      const name = each.AlarmName.replace("Test/shop: ", "");
      expect(ruleHolds(health, [name]), name).toBe(known[kindOf(each)]?.severity === "page");
    }
    expect(ruleHolds(health, [])).toBe(false);
    expect(health.AlarmRule.length).toBeLessThan(10_240);
  });

  test("each composite alarm stands behind what its rule names, and says what explains it", () => {
    const metric = new Map(
      Object.entries(two.template.findResources("AWS::CloudWatch::Alarm")).map(([id, { Properties }]) => [
        Properties.AlarmName as string,
        id,
      ]),
    );
    for (const { Properties, DependsOn } of Object.values(
      two.template.findResources("AWS::CloudWatch::CompositeAlarm"),
    )) {
      const named = [...(Properties.AlarmRule as string).matchAll(/ALARM\("([^"]+)"\)/g)].map(([, name]) =>
        metric.get(name ?? ""),
      );
      expect([...DependsOn].sort()).toEqual([...named].sort());
      const [entry] = entriesOf(Properties.AlarmName);
      expect(Properties.AlarmDescription).toMatch(
        new RegExp(`More: npx tributary-cdc explain ${entry?.code}$`),
      );
      expect(Properties.AlarmDescription.length).toBeLessThan(1024);
    }
  });

  test("each cause that an alarm names is an alarm", () => {
    const causes = Object.values(known).flatMap(({ unless = [] }) => unless);
    expect(causes.length).toBeGreaterThan(3);
    expect(causes.filter((cause) => !known[cause] && !(cause in SOURCE_ALARM.tables))).toEqual([]);
  });
});

describe("at synth", () => {
  /** The problems that a stack is refused for, line by line. */
  function problemsOf(build: Parameters<typeof synthesize>[0]): string {
    try {
      synthesize(build);
    } catch (error) {
      if (error instanceof ConfigurationError) return error.message;
      throw error;
    }
    return "";
  }
  const consumers = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      ...{ name: `c${i}`, entry: "functions/customer-view.ts", topics: [`*.public.t${i}`] },
    }));
  const fannedOut = (count: number) =>
    Object.fromEntries(consumers(count).map((each) => [each.name, { enhancedFanOut: true }]));
  const slots = (count: number) => postgres({ tables: ["public.*"], slots: count });

  test("one topic for all alarms and one for each severity are not both taken", () => {
    const problems = problemsOf((stack) => {
      const topic = new sns.Topic(stack, "Topic");
      return { definition: definition(), ...basics(stack), alarmTopic: topic, alarmTopics: { page: topic } };
    });
    expect(problems).toMatch(/alarmTopics: .*leave one of the two out.*got "page"/s);
  });

  test("five consumers share a shard's five reads a second, not six; with a fan-out there are twenty, not more", () => {
    const problems = (count: number, fanOuts: number, mode: "provisioned" | "on-demand" = "provisioned") =>
      problemsOf((stack) => ({
        definition: definition({
          consumers: consumers(count),
          stream: { mode, ...(mode === "provisioned" && { shards: 1 }) },
        }),
        ...basics(stack),
        consumers: fannedOut(fanOuts),
      }));
    expect(problems(6, 0)).toMatch(
      /enhancedFanOut: .*for 1 or more of them.*got "6 consumers without it: c0, /s,
    );
    expect(problems(5, 0)).toBe("");
    expect(problems(21, 21)).toMatch(/enhancedFanOut: .*registers 20 at most.*got "21 consumers with it"/s);
    expect(problems(51, 51, "on-demand")).toMatch(/registers 50 at most.*got "51 consumers with it"/s);
  });

  test("ten consumers and three slots fit, with all their alarms on the dashboard", () => {
    const made = synthesize((stack) => ({
      definition: definition({ source: slots(3), consumers: consumers(10) }),
      ...basics(stack),
      consumers: fannedOut(8),
      alarmTopic: new sns.Topic(stack, "Topic", { enforceSSL: true }),
    }));
    const rule = alarm("Unhealthy", made).AlarmRule;
    expect(rule.split(" OR ").length).toBeLessThanOrEqual(100);
    expect(rule.length).toBeLessThanOrEqual(10_240);
    expect(Object.keys(made.template.toJSON().Resources).length).toBeLessThanOrEqual(500);
    const [{ Properties } = { Properties: {} }] = Object.values(
      made.template.findResources("AWS::CloudWatch::Dashboard"),
    );
    const body = JSON.stringify(Properties.DashboardBody);
    const widgets = body.split('\\"type\\":\\"alarm\\"').slice(1);
    const shown = widgets.map(
      (widget) => widget.split('\\"type\\":')[0]?.match(/"Fn::GetAtt":\["PipelineAlarms/g)?.length ?? 0,
    );
    expect(shown.reduce((sum, count) => sum + count, 0)).toBe(alarmsOf(made, "Alarm").length);
    expect(Math.max(...shown)).toBeLessThanOrEqual(100);
    expect(shown.length).toBeGreaterThan(1);
  });

  test("more alarms than a composite alarm takes are refused, and a rule that is too long", () => {
    const problems = (count: number) =>
      problemsOf((stack) => ({
        definition: definition({ source: slots(3), consumers: consumers(count) }),
        ...basics(stack),
        consumers: fannedOut(count),
      }));
    expect(problems(13)).toMatch(
      /definition.consumers: .*takes 100 alarms.*make two pipelines.*got "\d+ alarms in one rule"/s,
    );
    const stack = new Stack(undefined, "Test");
    const metric = new cloudwatch.Metric({ namespace: "N", metricName: "M" });
    const children = Array.from({ length: 90 }, (_, i) => ({
      alarm: new cloudwatch.Alarm(stack, `A${i}`, { metric, threshold: 1, evaluationPeriods: 1 }),
      ...{ alarmName: `${"x".repeat(110)}${i}`, description: "" },
    }));
    expect(() => new HealthAlarm(stack, "Long", { alarmName: "a", description: "b", children })).toThrow(
      /takes a rule of 10240 characters.*got "a rule of \d{5} characters"/s,
    );
  });

  test("a stack of more than 500 resources is refused before CloudFormation does", () => {
    const problems = problemsOf((stack) => {
      for (let i = 0; i < 450; i++) new sns.Topic(stack, `T${i}`);
      return { definition: definition(), ...basics(stack) };
    });
    expect(problems).toMatch(
      /definition.consumers: .*takes 500.*a stack of its own.*got "5\d\d resources in the stack Test"/s,
    );
  });
});
