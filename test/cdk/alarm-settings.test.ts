import { Duration } from "aws-cdk-lib";
import * as sns from "aws-cdk-lib/aws-sns";
import { expect, test } from "vitest";
import type { AlarmThresholds } from "../../cdk/constructs/alarm-settings.ts";
import { CAPTURE_ALARM, CONSUMER_ALARM, PIPELINE_ALARM, SOURCE_ALARM } from "../../lib/telemetry/alarms.ts";
import { basics, definition, full, minimal, type Synthesized, synthesize } from "./stacks.ts";

const KINDS = [
  SOURCE_ALARM.slots,
  SOURCE_ALARM.tables,
  CAPTURE_ALARM,
  PIPELINE_ALARM,
  CONSUMER_ALARM,
].flatMap((list) => Object.keys(list));

function alarms({ template }: Pick<Synthesized, "template">) {
  return new Map(
    Object.values(template.findResources("AWS::CloudWatch::Alarm")).map(({ Properties }) => [
      (Properties.AlarmName as string).replace(/^.*: /, ""),
      Properties,
    ]),
  );
}

const rule = ({ template }: Pick<Synthesized, "template">) =>
  Object.values(template.findResources("AWS::CloudWatch::CompositeAlarm"))
    .map(({ Properties }) => Properties)
    .find(({ AlarmName }) => AlarmName.endsWith(": Unhealthy")).AlarmRule as string;

test("an alarm is set by its name, for all consumers or one, and switched off", () => {
  const made = alarms(full());
  expect(made.has("Throttled")).toBe(false);
  expect(made.get("ReplicationLag")).toMatchObject({ Threshold: 5 * 1024 ** 3, EvaluationPeriods: 20 });
  expect(made.get("ReplicationLag")?.AlarmDescription).toContain(
    "(This stack's choice: at 5 GiB, after 20 periods.)",
  );
  // The field beside it counts for the others.
  expect(made.get("OldestReplicationSlotLag")).toBeUndefined();
  expect(made.get("Late-customer-view")).toMatchObject({ Threshold: 300_000, EvaluationPeriods: 1 });
  expect(made.get("Late-notifications")).toMatchObject({ Threshold: 5_400_000 });
  expect(made.get("Errors-notifications")).toMatchObject({ Threshold: 10, EvaluationPeriods: 3 });
  expect(rule(full())).toContain(": Late-notifications");
  expect(rule(full())).not.toContain(": Late-customer-view");
  expect(rule(minimal())).toContain(": Late-customer-view");
});

test("every alarm of the list can be switched off but the last that calls, and each can be set", () => {
  const only = (alarm: string, byName: AlarmThresholds["byName"]) =>
    synthesize((stack) => ({
      ...basics(stack),
      definition: definition(),
      alarmTopic: new sns.Topic(stack, alarm, { enforceSSL: true }),
      alarms: { byName: byName ?? {} },
    }));
  const off = Object.fromEntries(
    KINDS.filter((kind) => kind !== "SlotInactive").map((kind) => [kind, false]),
  );
  expect([...alarms(only("off", off as AlarmThresholds["byName"])).keys()]).toEqual(["SlotInactive"]);
  expect(() => only("none", { ...(off as AlarmThresholds["byName"]), SlotInactive: false })).toThrow(
    /alarms\.byName: leave one alarm of severity page on/,
  );
  const set = alarms(
    only("set", Object.fromEntries(KINDS.map((kind) => [kind, { periods: 7 }])) as AlarmThresholds["byName"]),
  );
  expect(set.size).toBe(alarms(minimal()).size);
  for (const [name, { EvaluationPeriods, DatapointsToAlarm }] of set)
    expect([name, DatapointsToAlarm ?? EvaluationPeriods]).toEqual([name, 7]);
});

test("an alarm whose causes are switched off notifies by itself", () => {
  const made = alarms(
    synthesize((stack) => ({
      ...basics(stack),
      definition: definition(),
      alarmTopic: new sns.Topic(stack, "Topic", { enforceSSL: true }),
      alarms: { byName: { DeadLetters: false }, freshness: Duration.minutes(20) },
    })),
  );
  expect(made.get("ParkedKeys-notifications")?.AlarmActions).toHaveLength(1);
  expect(made.get("Late-notifications")).toMatchObject({ Threshold: 1_200_000 });
});
