import * as z from "zod";
import { type AwsRefusal, utf8Bytes } from "../../aws/refusal.ts";

/*
 * Lines of CloudWatch's embedded metric format. CloudWatch refuses nothing aloud: it leaves out the metrics of a wrong line, so
 * that a dashboard stays empty.
 */
const FORMAT =
  "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html";
const DATUM = "https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html";
const DIMENSION = "https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html";
const LOGS = "https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_InputLogEvent.html";
const METRICS = 100;
const VALUES = 100;
const DIMENSIONS = 30;
const NAME_CHARACTERS = 255;
const VALUE_CHARACTERS = 1024;
/** Largest and smallest magnitude of a value: 2^360. */
const MAGNITUDE = 2 ** 360;
const LINE_BYTES = 1024 * 1024;

const line = z.looseObject({
  _aws: z.looseObject({
    Timestamp: z.number(),
    CloudWatchMetrics: z.array(
      z.looseObject({
        Namespace: z.string(),
        Dimensions: z.array(z.array(z.string())),
        Metrics: z.array(z.looseObject({ Name: z.string(), Unit: z.string().optional() })),
      }),
    ),
  }),
});

/** Returns why CloudWatch takes no metrics from a printed line, or undefined; a line of anything else is taken. */
export function embeddedMetricsRefusal(printed: string): AwsRefusal | undefined {
  if (!printed.includes('"_aws"')) return undefined;
  let root: unknown;
  try {
    root = JSON.parse(printed);
  } catch {
    return undefined;
  }
  const parsed = line.safeParse(root);
  if (!parsed.success)
    return refused(`The line is not of the format: ${parsed.error.issues[0]?.path.join(".")}`, FORMAT);
  if (utf8Bytes(printed) > LINE_BYTES)
    return refused(`The line has ${utf8Bytes(printed)} bytes; CloudWatch Logs takes ${LINE_BYTES}`, LOGS);
  for (const { Namespace, Dimensions, Metrics } of parsed.data._aws.CloudWatchMetrics) {
    const wrong =
      namespaceRefusal(Namespace) ??
      metricsRefusal(Metrics, parsed.data) ??
      dimensionsRefusal(Dimensions, parsed.data);
    if (wrong) return wrong;
  }
  return undefined;
}

function namespaceRefusal(namespace: string): AwsRefusal | undefined {
  return /^[^:][0-9A-Za-z.\-_/#: ]{0,254}$/.test(namespace)
    ? undefined
    : refused(`The namespace "${namespace}" is not valid`, DATUM);
}

function metricsRefusal(
  metrics: readonly { readonly Name: string }[],
  root: Readonly<Record<string, unknown>>,
): AwsRefusal | undefined {
  if (metrics.length > METRICS)
    return refused(`${metrics.length} metrics in a line; at most ${METRICS}`, FORMAT);
  for (const { Name } of metrics) {
    if (Name === "" || Name.length > NAME_CHARACTERS)
      return refused(`The metric name "${Name}" is not valid`, DATUM);
    const value = root[Name];
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    if (values.length > VALUES)
      return refused(`${Name} has ${values.length} values; at most ${VALUES}`, FORMAT);
    const valid = (one: unknown) => typeof one === "number" && Math.abs(one) <= MAGNITUDE;
    if (!values.every(valid)) return refused(`${Name} has a value that is no number`, FORMAT);
  }
  return undefined;
}

function dimensionsRefusal(
  sets: readonly (readonly string[])[],
  root: Readonly<Record<string, unknown>>,
): AwsRefusal | undefined {
  for (const set of sets) {
    if (set.length > DIMENSIONS) return refused(`${set.length} dimensions; at most ${DIMENSIONS}`, FORMAT);
    for (const name of set) {
      const value = root[name];
      if (!isDimensionText(name, NAME_CHARACTERS) || name.startsWith(":")) {
        return refused(`The dimension name "${name}" is not valid`, DIMENSION);
      }
      if (typeof value !== "string" || !isDimensionText(value, VALUE_CHARACTERS)) {
        return refused(`The value of dimension ${name} is not valid`, DIMENSION);
      }
    }
  }
  return undefined;
}

/** ASCII without control characters, and at least one that is no blank. */
function isDimensionText(text: string, characters: number): boolean {
  return text.length <= characters && /^[\x20-\x7e]+$/.test(text) && text.trim() !== "";
}

function refused(message: string, page: string): AwsRefusal {
  return { code: "InvalidMetrics", message, page };
}
