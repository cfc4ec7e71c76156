/*
 * Writes the tables of metrics and alarms into 11-operations.md, between the comments that name them:
 *
 *   npx node docs/operations-tables.ts
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  type Alarm,
  alarmAnchor,
  CAPTURE_ALARM,
  CONSUMER_ALARM,
  OTHER_METRIC,
  type OtherMetric,
  PERIODS,
  PIPELINE_ALARM,
  SOURCE_ALARM,
  THRESHOLD,
} from "../lib/telemetry/alarms.ts";
import { CONSUMER_MEANING, REDRIVE_MEANING } from "../lib/telemetry/consumer-meanings.ts";
import {
  BACKFILL_METRIC,
  CAPTURE_METRIC,
  CONSUMER_METRIC,
  type Metric,
  PAUSE_METRIC,
  REDRIVE_METRIC,
  STANDING_METRIC,
  TABLE_METRIC,
} from "../lib/telemetry/metrics.ts";

const PAGE = fileURLToPath(new URL("11-operations.md", import.meta.url));

const UNIT: Readonly<Record<Metric["unit"], string>> = {
  Bytes: "bytes",
  Count: "count",
  Milliseconds: "ms",
  None: "1, 0",
  Percent: "per cent",
  Seconds: "s",
};

const TABLES: Readonly<Record<string, string>> = {
  "capture metrics": metricTable(CAPTURE_METRIC),
  "table metrics": metricTable({ ...TABLE_METRIC, ...BACKFILL_METRIC }),
  "consumer metrics": metricTable(
    { ...CONSUMER_METRIC, ...PAUSE_METRIC, ...STANDING_METRIC },
    CONSUMER_MEANING,
  ),
  "redrive metrics": metricTable(REDRIVE_METRIC, REDRIVE_MEANING),
  "alarms of a log": alarmTable(SOURCE_ALARM.slots, CAPTURE_METRIC),
  "alarms of tables": alarmTable(SOURCE_ALARM.tables, CAPTURE_METRIC),
  "alarms of capture": alarmTable({ ...CAPTURE_ALARM, ...PIPELINE_ALARM }, CAPTURE_METRIC),
  "alarms of a consumer": alarmTable(
    CONSUMER_ALARM,
    { ...CONSUMER_METRIC, ...PAUSE_METRIC, ...STANDING_METRIC },
    "-<consumer>",
  ),
};

if (import.meta.main) writeFileSync(PAGE, withTables(readFileSync(PAGE, "utf8")));

/**
 * Gives the page with its tables as they should be.
 * @throws Error where it has no place for one.
 */
export function withTables(page: string): string {
  return Object.entries(TABLES).reduce((text, [name, table]) => {
    const [before, rest] = cut(text, `<!-- ${name} -->\n`);
    const [, after] = cut(rest, `<!-- end of ${name} -->\n`);
    return `${before}<!-- ${name} -->\n${table}<!-- end of ${name} -->\n${after}`;
  }, page);
}

function cut(text: string, at: string): readonly [before: string, after: string] {
  const parts = text.split(at);
  if (parts.length !== 2) throw new Error(`11-operations.md has ${parts.length - 1} times: ${at}`);
  return parts as [string, string];
}

function metricTable(
  metrics: Readonly<Record<string, Metric>>,
  meanings: Readonly<Record<string, string>> = {},
): string {
  return table(
    ["metric", "unit", "look at", "meaning"],
    Object.entries(metrics).map(([key, { name, unit, statistic, meaning, whereKnown }]) => [
      `\`${name}\`${whereKnown ? " ○" : ""}`,
      UNIT[unit],
      statistic,
      meaning ?? meanings[key] ?? "",
    ]),
  );
}

function alarmTable(
  alarms: Readonly<Record<string, Alarm>>,
  metrics: Readonly<Record<string, Metric>>,
  suffix = "",
): string {
  return table(
    ["alarm", "rings while", "severity", "meaning", "what to do"],
    Object.entries(alarms).map(([name, alarm]) => [
      // Where the prop `runbook` of CdcPipeline links to.
      `<a id="${alarmAnchor(name)}"></a>\`${name}${suffix}\``,
      ringsAt(alarm, metrics),
      alarm.unless
        ? `${alarm.severity}, unless ${alarm.unless.map((cause) => `\`${cause}\``).join(" or ")} rings`
        : alarm.severity,
      filled(alarm.meaning, alarm),
      filled(alarm.remedy, alarm),
    ]),
  );
}

function ringsAt(alarm: Alarm, metrics: Readonly<Record<string, Metric>>): string {
  const { name, of, minutes = 1 } = found(alarm, metrics);
  const bound = alarm.below ? `below ${threshold(alarm)}` : `at ${threshold(alarm)} or more`;
  const { periods = PERIODS, outOf } = alarm;
  const long = outOf ? `in ${periods} of ${outOf} times ${minutes} min` : `for ${periods * minutes} min`;
  if (alarm.metric === "unread") return `${name} ${long}`;
  return `\`${name}\`${of ? ` of ${of}` : ""} ${bound} ${long}${alarm.missing === "dead" ? ", or no data" : ""}`;
}

function found(
  { metric }: Alarm,
  metrics: Readonly<Record<string, Metric>>,
): (typeof OTHER_METRIC)[OtherMetric] {
  return metrics[metric] ?? OTHER_METRIC[metric as OtherMetric];
}

function threshold({ threshold }: Alarm): string {
  return typeof threshold === "number" ? String(threshold) : THRESHOLD[threshold].text;
}

function filled(text: string, alarm: Alarm): string {
  return text.replaceAll("{threshold}", threshold(alarm)).replaceAll("{consumer}", "`<consumer>`");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`;
  return `${line(head)}|${"---|".repeat(head.length)}\n${rows.map(line).join("")}`;
}
