import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import { SnsAction } from "aws-cdk-lib/aws-cloudwatch-actions";
import type * as sns from "aws-cdk-lib/aws-sns";
import { Construct } from "constructs";
import { ConfigurationError } from "../../lib/change/tributary-error.ts";
import type { Severity } from "../../lib/telemetry/alarms.ts";

/** Topics that alarms notify, by severity. Alarms of a severity without a topic show in CloudWatch only. */
export type AlarmTopics = Readonly<Partial<Record<Severity, sns.ITopic>>>;

/** An alarm, and the name that it has in CloudWatch. */
export interface NamedAlarm {
  readonly alarm: cloudwatch.Alarm;
  readonly alarmName: string;
  readonly description: string;
}

/** https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html: alarms in a rule, and its characters. */
const MAX_CHILDREN = 100;
const MAX_RULE_CHARACTERS = 10_240;

/**
 * Returns the topics that a stack's props name.
 * @throws ConfigurationError where both ways to name them are taken.
 */
export function alarmTopics(one: sns.ITopic | undefined, bySeverity: AlarmTopics | undefined): AlarmTopics {
  if (one && bySeverity) {
    throw new ConfigurationError("CdcPipeline", [
      {
        path: "alarmTopics",
        value: Object.keys(bySeverity).join(", "),
        remedy: "alarmTopic names the topic of all alarms already: leave one of the two out",
      },
    ]);
  }
  return bySeverity ?? (one ? { page: one, ticket: one } : {});
}

/** Has an alarm notify a topic when it rings, and when it ends. */
export function notify(alarm: cloudwatch.AlarmBase, topic: sns.ITopic): void {
  alarm.addAlarmAction(new SnsAction(topic));
  alarm.addOkAction(new SnsAction(topic));
}

/** Props of `FollowerAlarm`. */
export interface FollowerAlarmProps {
  readonly follower: NamedAlarm;
  /** Alarms that explain it. */
  readonly causes: readonly NamedAlarm[];
  readonly topic: sns.ITopic;
}

/** Notifies in the place of an alarm that others explain: while none of those rings. What is one failure calls once, with its cause. */
export class FollowerAlarm extends Construct {
  constructor(scope: Construct, id: string, { follower, causes, topic }: FollowerAlarmProps) {
    super(scope, id);
    const { alarmName, description } = follower;
    const alarm = composite(this, {
      compositeAlarmName: `${alarmName}-alone`,
      alarmDescription: description,
      rule: `${rings(follower)} AND NOT (${causes.map(rings).join(" OR ")})`,
      children: [follower, ...causes],
    });
    notify(alarm, topic);
  }
}

/** Props of `HealthAlarm`. */
export interface HealthAlarmProps {
  readonly alarmName: string;
  readonly description: string;
  /** The pipeline's alarms of severity `page`. */
  readonly children: readonly NamedAlarm[];
}

/** One alarm that rings while any of its children does. */
export class HealthAlarm extends Construct {
  readonly alarm: cloudwatch.CompositeAlarm;

  /** @throws ConfigurationError where CloudWatch takes no rule of so many alarms. */
  constructor(scope: Construct, id: string, { alarmName, description, children }: HealthAlarmProps) {
    super(scope, id);
    const rule = children.map(rings).join(" OR ");
    checkRule(rule, children.length);
    this.alarm = composite(this, {
      ...{ compositeAlarmName: alarmName, alarmDescription: description, rule, children },
    });
  }
}

/** @throws ConfigurationError */
function checkRule(rule: string, children: number): void {
  const remedy = (limit: string) =>
    `a composite alarm takes ${limit}: give the pipeline fewer consumers or slots, or make two pipelines of it`;
  const problems = [
    ...(children > MAX_CHILDREN
      ? [{ value: `${children} alarms in one rule`, remedy: remedy(`${MAX_CHILDREN} alarms`) }]
      : []),
    ...(rule.length > MAX_RULE_CHARACTERS
      ? [
          {
            value: `a rule of ${rule.length} characters`,
            remedy: `${remedy(`a rule of ${MAX_RULE_CHARACTERS} characters`)}; shorter names of stack, pipeline and consumers help too`,
          },
        ]
      : []),
  ];
  if (problems.length === 0) return;
  throw new ConfigurationError(
    "CdcPipeline",
    problems.map((problem) => ({ path: "definition.consumers", ...problem })),
  );
}

/** Names, not ARNs: a rule has 10,240 characters. */
function rings({ alarmName }: NamedAlarm): string {
  return `ALARM("${alarmName}")`;
}

function composite(
  scope: Construct,
  {
    rule,
    children,
    ...props
  }: Omit<cloudwatch.CompositeAlarmProps, "alarmRule"> & {
    readonly rule: string;
    readonly children: readonly NamedAlarm[];
  },
): cloudwatch.CompositeAlarm {
  const alarm = new cloudwatch.CompositeAlarm(scope, "Alarm", {
    ...props,
    alarmRule: cloudwatch.AlarmRule.fromString(rule),
  });
  // The rule names them, and so does not refer to them.
  alarm.node.addDependency(...children.map((child) => child.alarm));
  return alarm;
}
