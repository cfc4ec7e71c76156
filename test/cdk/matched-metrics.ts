import { Template } from "aws-cdk-lib/assertions";
import {
  BACKFILL_METRIC,
  CAPTURE_METRIC,
  CONSUMER_METRIC,
  DIMENSION,
  METRICS_NAMESPACE,
  type Metric,
  PAUSE_METRIC,
  REDRIVE_METRIC,
  STANDING_METRIC,
  TABLE_METRIC,
} from "../../lib/telemetry/metrics.ts";
import { emf } from "../unit/observe/emf-line.ts";
import { isWatchedBy, type WatchedMetric, watchedMetrics } from "./watched-metrics.ts";

const LISTED = new Map<string, Metric>(
  [
    CAPTURE_METRIC,
    TABLE_METRIC,
    BACKFILL_METRIC,
    CONSUMER_METRIC,
    PAUSE_METRIC,
    STANDING_METRIC,
    REDRIVE_METRIC,
  ]
    .flatMap((list) => Object.values<Metric>(list))
    .map((metric) => [metric.name, metric]),
);

/** A metric that CloudWatch would make of a line, in one of its sets of dimensions. */
export interface EmittedMetric {
  readonly namespace: string;
  readonly name: string;
  /** Undefined of one that is counted in the log. */
  readonly unit: string | undefined;
  readonly dimensions: Readonly<Record<string, string>>;
}

/** What does not fit between the lines of a run and the template that it was deployed by. */
export interface Mismatch {
  /** Emitted, and neither an alarm nor a widget asks for them, or in another unit than the list says: name, unit, dimensions. */
  readonly hidden: readonly string[];
  /**
   * Asked for by an alarm or a widget of the pipeline, and emitted by nobody, whichever the consumer or table: their names. Of a further
   * slot what its task always emits: the rest is as the first one's.
   */
  readonly silent: readonly string[];
}

/**
 * Compares all that programs of a run printed with the alarms and widgets of a template, both ways. `hidden` is of everything in
 * the lines; `silent` of one pipeline.
 */
export function matchMetrics(template: Template, lines: readonly string[], pipeline: string): Mismatch {
  const emitted = [...emittedMetrics(lines), ...countedMetrics(template, lines)];
  const watched = watchedMetrics(template).filter(({ namespace }) => namespace === METRICS_NAMESPACE);
  const hidden = emitted.filter(
    (metric) =>
      !watched.some((asked) => isWatchedBy(asked, metric)) ||
      (metric.unit !== undefined && metric.unit !== LISTED.get(metric.name)?.unit),
  );
  const silent = watched.filter(
    (asked) =>
      (asked.dimensions.pipeline === pipeline || asked.name.split("/").includes(pipeline)) &&
      !(asked.dimensions[DIMENSION.slot] !== undefined && LISTED.get(asked.name)?.whereKnown) &&
      !emitted.some((metric) => isWatchedBy(ofAnyConsumer(asked), metric)),
  );
  return {
    hidden: [
      ...new Set(hidden.map(({ name, unit, dimensions }) => `${name} ${unit} ${JSON.stringify(dimensions)}`)),
    ],
    silent: [...new Set(silent.map(({ name }) => name))].sort(),
  };
}

/** Returns the template of a stack in a folder that `cdk synth` or `cdk deploy` left. */
export function templateOf(text: string): Template {
  return Template.fromJSON(JSON.parse(text) as object, { skipCyclicalDependenciesCheck: true });
}

/** The metrics of all lines in the embedded metric format, each once. @throws Error where CloudWatch would refuse a line. */
function emittedMetrics(lines: readonly string[]): EmittedMetric[] {
  const found = new Map<string, EmittedMetric>();
  for (const line of lines.filter((each) => each.includes('"_aws"'))) {
    const { namespace, dimensionSets, dimensions, units } = emf(line.trim());
    for (const names of dimensionSets) {
      const of = Object.fromEntries(names.map((name) => [name, dimensions[name] as string]));
      for (const [name, unit] of Object.entries(units)) {
        const metric = { namespace, name, unit, dimensions: of };
        found.set(JSON.stringify(metric), metric);
      }
    }
  }
  return [...found.values()];
}

/** The metrics that the template's filters count in these lines. */
function countedMetrics(template: Template, lines: readonly string[]): EmittedMetric[] {
  const messages = new Set(lines.filter((line) => line.startsWith("{")).map(messageOf));
  return Object.values(template.findResources("AWS::Logs::MetricFilter")).flatMap(({ Properties }) => {
    const [, message] = /^\{ ?\$\.message = "([^"]*)" ?\}$/.exec(Properties.FilterPattern) ?? [];
    if (message === undefined) throw new Error(`a filter that this cannot read: ${Properties.FilterPattern}`);
    const [{ MetricNamespace: namespace, MetricName: name }] = Properties.MetricTransformations;
    return messages.has(message) ? [{ namespace, name, unit: undefined, dimensions: {} }] : [];
  });
}

function messageOf(line: string): unknown {
  try {
    return (JSON.parse(line) as { readonly message?: unknown }).message;
  } catch {
    return undefined;
  }
}

/** What is asked for, whichever the consumer: not each of them fails in every way. */
function ofAnyConsumer(asked: WatchedMetric): WatchedMetric {
  const { [DIMENSION.consumer]: consumer, ...dimensions } = asked.dimensions;
  return consumer === undefined ? asked : { ...asked, dimensions, any: [...asked.any, DIMENSION.consumer] };
}
