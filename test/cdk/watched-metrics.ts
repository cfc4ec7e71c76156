import type { Template } from "aws-cdk-lib/assertions";

/** A metric that an alarm or a widget looks at; `search` where any value of the dimension `table` is meant. */
export interface WatchedMetric {
  readonly by: string;
  readonly namespace: string;
  readonly name: string;
  /** Values are text, or a reference to a resource of the stack as JSON. */
  readonly dimensions: Readonly<Record<string, string>>;
  /** Dimensions that may have any value. */
  readonly any: readonly string[];
  /** An alarm that names a unit sees no value of another one. */
  readonly unit?: string;
}

/** Returns text in which each reference to a resource stands as its logical id. */
export function withReferences(value: unknown): string {
  if (typeof value === "string") return value;
  const joined = (value as { "Fn::Join"?: [string, unknown[]] })["Fn::Join"];
  if (joined) return joined[1].map(withReferences).join(joined[0]);
  return `<${JSON.stringify(value).replaceAll('"', "")}>`;
}

/** All metrics that the alarms and the dashboard of a template name, those of search expressions too. */
export function watchedMetrics(template: Template): WatchedMetric[] {
  const alarms = Object.values(template.findResources("AWS::CloudWatch::Alarm")).flatMap(({ Properties }) => {
    const by = `alarm ${withReferences(Properties.AlarmName)}`;
    const parts: { Metric: Record<string, unknown>; Unit?: string }[] =
      Properties.Metrics?.flatMap(({ MetricStat }: { MetricStat?: object }) => MetricStat ?? []) ?? [];
    return [Properties, ...parts.map(({ Metric, Unit }) => ({ ...Metric, Unit }))].flatMap((of) =>
      of.MetricName ? [ofAlarm(by, of)] : [],
    );
  });
  const widgets = Object.values(template.findResources("AWS::CloudWatch::Dashboard")).flatMap(
    ({ Properties }) => {
      const { widgets } = JSON.parse(withReferences(Properties.DashboardBody)) as {
        widgets: { properties: { title?: string; metrics?: unknown[][] } }[];
      };
      return widgets.flatMap(({ properties: { title = "", metrics = [] } }) =>
        metrics.flatMap((line) => ofWidget(`widget ${title}`, line)),
      );
    },
  );
  return [...alarms, ...widgets];
}

function ofAlarm(by: string, of: Record<string, unknown>): WatchedMetric {
  const given = (of.Dimensions ?? []) as { Name: string; Value: unknown }[];
  return {
    ...{ by, namespace: String(of.Namespace), name: withReferences(of.MetricName), any: [] },
    dimensions: Object.fromEntries(given.map(({ Name, Value }) => [Name, withReferences(Value)])),
    ...(typeof of.Unit === "string" && { unit: of.Unit }),
  };
}

function ofWidget(by: string, line: readonly unknown[]): WatchedMetric[] {
  const texts = line.filter((part): part is string => typeof part === "string");
  const [namespace, name, ...rest] = texts;
  if (namespace !== undefined && name !== undefined) {
    const dimensions = Object.fromEntries(
      rest.flatMap((part, at) => (at % 2 === 0 ? [[part, rest[at + 1] ?? ""]] : [])),
    );
    return [{ by, namespace, name, dimensions, any: [] }];
  }
  const { expression = "" } = (line[0] ?? {}) as { expression?: string };
  return [...expression.matchAll(/SEARCH\('\{([^}]*)\} ([^']*)'/g)].map(([, schema = "", terms = ""]) => {
    const [space = "", ...names] = schema.split(",");
    const wanted = new Map([...terms.matchAll(/(\w+)="([^"]*)"/g)].map(([, what, value]) => [what, value]));
    return {
      ...{ by, namespace: space, name: wanted.get("MetricName") ?? "" },
      dimensions: Object.fromEntries(
        names.flatMap((each) => {
          const value = wanted.get(each);
          return value === undefined ? [] : [[each, value]];
        }),
      ),
      any: names.filter((each) => !wanted.has(each)),
    };
  });
}

/** Whether a metric with these dimensions, and no other, is the one that is looked at, in its unit where both name one. */
export function isWatchedBy(
  watched: WatchedMetric,
  emitted: {
    readonly namespace: string;
    readonly name: string;
    readonly dimensions: Readonly<Record<string, string>>;
    readonly unit?: string | undefined;
  },
): boolean {
  const names = Object.keys(emitted.dimensions);
  return (
    watched.namespace === emitted.namespace &&
    watched.name === emitted.name &&
    (watched.unit ?? emitted.unit) === (emitted.unit ?? watched.unit) &&
    names.length === Object.keys(watched.dimensions).length + watched.any.length &&
    names.every((name) => watched.any.includes(name) || watched.dimensions[name] === emitted.dimensions[name])
  );
}
