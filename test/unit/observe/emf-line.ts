import * as z from "zod";
import { embeddedMetricsRefusal } from "../../../lib/local/aws-limits/embedded-metrics.ts";

/** The format's own rules: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html */
const line = z.looseObject({
  tributary: z.string(),
  _aws: z.strictObject({
    Timestamp: z.int(),
    CloudWatchMetrics: z
      .array(
        z.strictObject({
          Namespace: z.string().min(1),
          Dimensions: z.array(z.array(z.string()).max(30)).min(1),
          Metrics: z.array(z.strictObject({ Name: z.string(), Unit: z.string() })).max(100),
        }),
      )
      .length(1),
  }),
});

/** A metrics line as CloudWatch reads it: fails where a metric or dimension that it names is not there. */
export function emf(text: string) {
  const refusal = embeddedMetricsRefusal(text);
  if (refusal) throw new Error(refusal.message);
  const parsed = line.parse(JSON.parse(text));
  const [directive] = parsed._aws.CloudWatchMetrics as [(typeof parsed._aws.CloudWatchMetrics)[0]];
  const value = z.union([z.number(), z.array(z.number()).min(1).max(100)]);
  const names = [...new Set(directive.Dimensions.flat())];
  return {
    kind: parsed.tributary,
    namespace: directive.Namespace,
    dimensionSets: directive.Dimensions,
    dimensions: Object.fromEntries(names.map((name) => [name, z.string().min(1).parse(parsed[name])])),
    units: Object.fromEntries(directive.Metrics.map(({ Name, Unit }) => [Name, Unit])),
    values: Object.fromEntries(directive.Metrics.map(({ Name }) => [Name, value.parse(parsed[Name])])),
    fields: parsed as Readonly<Record<string, unknown>>,
  };
}
