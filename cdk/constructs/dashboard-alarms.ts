import { Stack } from "aws-cdk-lib";
import * as cloudwatch from "aws-cdk-lib/aws-cloudwatch";
import type { Construct } from "constructs";
import { PROGRAM, withCommands } from "../../lib/change/printed-command.ts";
import { CAPTURE_ALARM, CONSUMER_ALARM, PIPELINE_ALARM, SOURCE_ALARM } from "../../lib/telemetry/alarms.ts";
import { entryOf } from "./runbook.ts";

/*
 * The text about alarms on the dashboard, beside their tiles.
 */

/** Returns the lines at which alarms of the drawn metrics ring. */
export type ThresholdLines = (drawn: readonly cloudwatch.IMetric[]) => cloudwatch.HorizontalAnnotation[];

/** Returns what finds the lines for a graph; alarms that ring at one value share a line. */
export function thresholdLines(alarms: readonly cloudwatch.Alarm[]): ThresholdLines {
  const ofMetric = new Map<string, cloudwatch.HorizontalAnnotation[]>();
  for (const alarm of alarms) {
    const key = metricKey(alarm.metric);
    if (key === undefined) continue;
    const { value } = alarm.toAnnotation();
    const line = { value, label: alarm.node.id };
    ofMetric.set(key, [...(ofMetric.get(key) ?? []), line]);
  }
  return (drawn) => {
    const found = drawn.flatMap((each) => ofMetric.get(metricKey(each) ?? "") ?? []);
    return [...Map.groupBy(found, ({ value }) => value)].map(([value, lines]) => ({
      value,
      // The kinds alone: whose they are the graph's row says.
      label: [...new Set(lines.map(({ label = "" }) => label.replace(/-.*/, "")))].join(", "),
      color: cloudwatch.Color.RED,
    }));
  };
}

/** Returns a key that is equal for equal metrics, of an alarm and of a graph; undefined for an expression. */
function metricKey(of: cloudwatch.IMetric): string | undefined {
  if (!(of instanceof cloudwatch.Metric)) return undefined;
  const dimensions = Object.entries(of.dimensions ?? {}).sort(([a], [b]) => a.localeCompare(b));
  return JSON.stringify([of.namespace, of.metricName, of.statistic, dimensions]);
}

/** Says where more is to be read of each alarm: its tile has meaning and remedy, the command all else; `runbook` is the page with their entries. */
export function whatToRead(
  scope: Construct,
  alarms: readonly cloudwatch.Alarm[],
  runbook: string | undefined,
): string {
  const known = [...Object.values(SOURCE_ALARM), CAPTURE_ALARM, PIPELINE_ALARM, CONSUMER_ALARM].flatMap(
    (list) => Object.keys(list),
  );
  const made = known.filter((kind) =>
    alarms.some(({ node: { id } }) => id === kind || id.startsWith(`${kind}-`)),
  );
  const place = { program: PROGRAM, stack: Stack.of(scope).stackName };
  const command = (text: string) => `\`${withCommands(text, place)}\``;
  const where = runbook === undefined ? "" : `, and [the runbook](${runbook}#alarms) has an entry of each`;
  return [
    `**When an alarm rings**, its tile leads to what it means and what to do. All at a glance: ${command("tributary status")}. Cause, remedy and what happens if nobody acts: ${command("tributary explain <alarm>")}${where}.`,
    made
      .map((kind) => (runbook === undefined ? `\`${kind}\`` : `[${kind}](${entryOf(runbook, kind)})`))
      .join(" · "),
  ].join("\n\n");
}
