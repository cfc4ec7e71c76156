import { Duration, Token } from "aws-cdk-lib";
import { ConfigurationError, type ConfigurationProblem } from "../../lib/change/tributary-error.ts";
import { nearNames } from "../../lib/definition/edit-distance.ts";
import {
  type Alarm,
  CAPTURE_ALARM,
  CONSUMER_ALARM,
  OTHER_METRIC,
  PIPELINE_ALARM,
  type Severity,
  SOURCE_ALARM,
  type ThresholdName,
} from "../../lib/telemetry/alarms.ts";

/** Thresholds of the alarms; each has a default. */
export interface AlarmThresholds {
  /** `ReplicationLag`: bytes of WAL between the confirmed position and the server's latest. Default 1 GiB. */
  readonly lagBytes?: number;
  /** `CaptureLag`: age of the changes waiting to be captured, for a source that reads tables. Default 10 minutes. */
  readonly lag?: Duration;
  /** `WalBudget`: remaining share of `max_slot_wal_keep_size`, in per cent. Default 30. */
  readonly walBudgetPercent?: number;
  /** `WalLoss`: time until the slot is lost at the present rate. Default 2 hours. */
  readonly walLoss?: Duration;
  /** `Late`: how long a change may wait for a consumer. Default 15 minutes. */
  readonly freshness?: Duration;
  /** `IteratorAge`: age of the records that a consumer receives. Default a quarter of the stream's retention. */
  readonly iteratorAge?: Duration;
  /**
   * Overrides by alarm name (`Late`), or for one consumer or slot (`Late-orders`, `ReplicationLag-slot2`); `false` removes the alarm. They take
   * precedence over the fields above. Alarms that only other kinds of source have are ignored. Default: as docs/11 lists them.
   */
  readonly byName?: Readonly<Partial<Record<AlarmKind | `${AlarmKind}-${string}`, AlarmSetting | false>>>;
}

/** Overrides for one alarm. */
export interface AlarmSetting {
  /** Threshold: a `Duration` if it is a time, else a number above 0 in the unit of the metric. */
  readonly threshold?: number | Duration;
  /** How many consecutive periods must breach (for `Unread`: how many of its twelve). */
  readonly periods?: number;
  /** `page` wakes somebody up; `ticket` can wait until working hours. */
  readonly severity?: Severity;
}

/** Names of alarms, without a consumer's or a slot's. */
export type AlarmKind =
  | keyof (typeof SOURCE_ALARM)["slots"]
  | keyof (typeof SOURCE_ALARM)["tables"]
  | keyof typeof CAPTURE_ALARM
  | keyof typeof PIPELINE_ALARM
  | keyof typeof CONSUMER_ALARM;

const ALARMS: ReadonlyMap<string, Alarm> = new Map(
  [SOURCE_ALARM.slots, SOURCE_ALARM.tables, CAPTURE_ALARM, PIPELINE_ALARM, CONSUMER_ALARM].flatMap((list) =>
    Object.entries<Alarm>(list),
  ),
);
/** An alarm whose threshold a field of `AlarmThresholds` sets. */
const BY_FIELD: ReadonlyMap<string, Alarm> = new Map(
  [...ALARMS.values()].flatMap((alarm) =>
    typeof alarm.threshold === "string" ? [[alarm.threshold, alarm] as const] : [],
  ),
);
const TIMES: ReadonlySet<unknown> = new Set<ThresholdName>(["lag", "walLoss", "freshness", "iteratorAge"]);
const PERCENTS: ReadonlySet<unknown> = new Set(["walBudgetLeft", "retentionUsed"]);
const FIELDS = ["threshold", "periods", "severity"];
const SEVERITIES: readonly unknown[] = ["page", "ticket"];
/** https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html: of an alarm whose period is below an hour. */
const LONGEST_MINUTES = 24 * 60;

/** Returns how an alarm is set, `false` where it is switched off; `suffix` is a consumer's or a slot's. */
export function alarmSetting(
  { byName = {} }: AlarmThresholds,
  kind: string,
  suffix: string,
): AlarmSetting | false {
  const settings: Readonly<Record<string, AlarmSetting | false | undefined>> = byName;
  return settings[kind + suffix] ?? settings[kind] ?? {};
}

/**
 * Checks how alarms are set; `suffixes`: of the pipeline's consumers and slots.
 * @throws ConfigurationError naming the field, with names that are near.
 */
export function checkAlarms(thresholds: AlarmThresholds, suffixes: readonly string[]): void {
  const { byName = {}, ...values } = thresholds;
  const problems = Object.entries<unknown>(values).flatMap(([field, value]) => ofField(field, value));
  for (const [name, setting] of Object.entries<unknown>(byName)) {
    const path = `alarms.byName.${name}`;
    const suffix =
      suffixes.find((each) => ALARMS.has(name.slice(0, -each.length)) && name.endsWith(each)) ?? "";
    const alarm = ALARMS.get(suffix === "" ? name : name.slice(0, -suffix.length));
    if (alarm) problems.push(...ofSetting(path, alarm, setting));
    else {
      const names = [...ALARMS.keys()].flatMap((kind) => [kind, ...suffixes.map((each) => kind + each)]);
      problems.push({ path, value: name, remedy: `no alarm has that name: ${meant(name, names)}` });
    }
  }
  if (problems.length > 0) throw new ConfigurationError("CdcPipeline", problems);
}

function ofField(field: string, value: unknown): ConfigurationProblem[] {
  const path = `alarms.${field}`;
  const alarm = BY_FIELD.get(field);
  if (alarm) return ofThreshold(path, alarm, value);
  return [{ path, value: field, remedy: `no such field: ${meant(field, [...BY_FIELD.keys(), "byName"])}` }];
}

function ofSetting(path: string, alarm: Alarm, setting: unknown): ConfigurationProblem[] {
  if (setting === false || setting === undefined) return [];
  if (typeof setting !== "object" || setting === null || setting instanceof Duration)
    return [
      { path, value: setting, remedy: "write false for no such alarm, or { threshold, periods, severity }" },
    ];
  const { threshold, periods, severity } = setting as AlarmSetting;
  const unknown = Object.keys(setting).filter((field) => !FIELDS.includes(field));
  const most = Math.floor(
    LONGEST_MINUTES / (OTHER_METRIC[alarm.metric as keyof typeof OTHER_METRIC]?.minutes ?? 1),
  );
  const bound = alarm.outOf ?? most;
  return [
    ...unknown.map((field) => ({
      path: `${path}.${field}`,
      value: field,
      remedy: `no such field: ${meant(field, FIELDS)}`,
    })),
    ...ofThreshold(`${path}.threshold`, alarm, threshold),
    ...(periods === undefined || (Number.isInteger(periods) && periods >= 1 && periods <= bound)
      ? []
      : [
          {
            path: `${path}.periods`,
            value: periods,
            remedy: alarm.outOf
              ? `it looks at ${bound} periods: write a whole number from 1 to ${bound}`
              : `CloudWatch looks back a day at most: write a whole number from 1 to ${bound}`,
          },
        ]),
    ...(severity === undefined || SEVERITIES.includes(severity)
      ? []
      : [{ path: `${path}.severity`, value: severity, remedy: 'write "page" or "ticket"' }]),
  ];
}

function ofThreshold(
  path: string,
  { metric, threshold }: Pick<Alarm, "metric" | "threshold">,
  value: unknown,
): ConfigurationProblem[] {
  if (value === undefined || Token.isUnresolved(value)) return [];
  if (TIMES.has(threshold)) {
    if (value instanceof Duration && (value.isUnresolved() || value.toMilliseconds() > 0)) return [];
    const said = value instanceof Duration ? value.toString() : value;
    return [{ path, value: said, remedy: "write a time above 0, as Duration.minutes(5)" }];
  }
  const percent = PERCENTS.has(metric);
  if (typeof value === "number" && Number.isFinite(value) && value > 0 && !(percent && value > 100))
    return [];
  const said = value instanceof Duration ? value.toString() : value;
  const remedy = percent
    ? "write a number above 0, up to 100"
    : "write a number above 0, in the unit of its metric";
  return [{ path, value: said, remedy: `${remedy}; to switch the alarm off: byName: { <alarm>: false }` }];
}

/** Returns a hint at the names that an unknown one was probably meant to be, else at all of them. */
function meant(name: string, known: readonly string[]): string {
  const near = nearNames(name, known, 3);
  if (near.length > 0) return `did you mean ${near.join(", ")}?`;
  return `it has ${known.join(", ")}`;
}
