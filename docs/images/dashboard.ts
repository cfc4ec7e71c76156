/*
 * Draws the dashboard from its definition, as `cdk deploy` would make it, for the docs:
 *
 *   npx node docs/images/dashboard.ts > docs/images/dashboard.svg
 *
 * Layout, titles and names are the template's; curves are invented, since there is nothing to measure here.
 */
import { App } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import definition from "../../cdk/pipeline.ts";
import { readSettings } from "../../cdk/settings.ts";
import { ShopStack } from "../../cdk/shop-stack.ts";

interface Widget {
  readonly type: "alarm" | "text" | "metric" | "log";
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly properties: {
    readonly title?: string;
    readonly markdown?: string;
    readonly alarms?: readonly unknown[];
    readonly metrics?: readonly unknown[][];
    readonly view?: string;
    readonly annotations?: {
      readonly horizontal?: readonly { readonly label: string; readonly yAxis: string }[];
    };
  };
}

const CELL = { width: 54, height: 30 };
const GAP = 4;
/** Heights of a legend's line, and of a line at which an alarm rings with its label. */
const LEGEND_HEIGHT = 13;
const THRESHOLD_HEIGHT = 14;
const COLOURS = [
  "#1f77b4",
  "#ff7f0e",
  "#2ca02c",
  "#d62728",
  "#9467bd",
  "#8c564b",
  "#e377c2",
  "#7f7f7f",
  "#17becf",
];

const app = new App({ context: { "aws:cdk:bundling-stacks": [] } });
const READ_MODEL = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:read-model-AbCdEf";
const settings = readSettings((name) => (name === "readModelSecretArn" ? READ_MODEL : undefined));
const stack = new ShopStack(app, "tributary-shop", { definition, settings });
const template = Template.fromStack(stack);
const alarmNames = new Map(
  Object.entries(template.findResources("AWS::CloudWatch::Alarm")).map(([id, { Properties }]) => [
    id,
    String(Properties.AlarmName),
  ]),
);
const bodies = Object.values(template.findResources("AWS::CloudWatch::Dashboard")).map(
  ({ Properties }) => (Properties.DashboardBody as { "Fn::Join": [string, unknown[]] })["Fn::Join"][1],
);
const { widgets } = JSON.parse(bodies.flat().map(nameOf).join("")) as { widgets: Widget[] };

const width = 24 * CELL.width + 2 * GAP;
const height = Math.max(...widgets.map((w) => w.y + w.height)) * CELL.height + 2 * GAP;
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="11">
<title>The dashboard: rows from PostgreSQL to each consumer, alarms at the top</title>
<rect width="${width}" height="${height}" fill="#f2f3f3"/>
${widgets.map(draw).join("\n")}
</svg>
`);

/** References inside of the body: an alarm's ARN by its name, all else by a word. */
function nameOf(part: unknown): string {
  if (typeof part === "string") return part;
  const { "Fn::GetAtt": attribute, Ref: ref } = part as { "Fn::GetAtt"?: [string, string]; Ref?: string };
  const id = attribute?.[0] ?? ref ?? "";
  return alarmNames.get(id)?.replace(/^.*: /, "") ?? "-";
}

function draw(widget: Widget, index: number): string {
  const x = GAP + widget.x * CELL.width;
  const y = GAP + widget.y * CELL.height;
  const w = widget.width * CELL.width - GAP;
  const h = widget.height * CELL.height - GAP;
  const { markdown, title = "" } = widget.properties;
  if (widget.type === "text" && !markdown?.startsWith("#")) return prose(markdown ?? "", x, y, w, h);
  if (widget.type === "text") {
    return `<text x="${x + 4}" y="${y + h - 6}" font-size="14" font-weight="600" fill="#16191f">${xml((markdown ?? "").replace(/^#+ /, ""))}</text>`;
  }
  const inside = insideOf(widget, x, y, w, h, index);
  return `<rect x="${x}" y="${y}" width="${w}" height="${h}" rx="3" fill="#fff" stroke="#d5dbdb"/>
<text x="${x + 10}" y="${y + 19}" font-size="12" font-weight="600" fill="#16191f">${xml(title)}</text>
${inside}`;
}

function insideOf(widget: Widget, x: number, y: number, w: number, h: number, index: number): string {
  if (widget.type === "alarm") return alarms(widget, x, y, w);
  if (widget.type === "log") return table(x, y, w);
  return widget.properties.view === "singleValue"
    ? values(widget, x, y, w, h)
    : curves(widget, x, y, w, h, index) + thresholds(widget, x, y, w);
}

/** Text that is more than a heading: as many lines as it takes. */
function prose(markdown: string, x: number, y: number, w: number, h: number): string {
  const most = Math.floor(w / 6.2);
  const lines = markdown.split("\n\n").flatMap((paragraph) => {
    const broken = [""];
    for (const word of paragraph.replace(/[*`]|\]\([^)]*\)|\[/g, "").split(" ")) {
      const last = broken.at(-1) ?? "";
      if (last.length + word.length > most) broken.push(word);
      else broken[broken.length - 1] = last ? `${last} ${word}` : word;
    }
    return broken;
  });
  const printed = lines.map(
    (line, i) => `<text x="${x + 10}" y="${y + 18 + i * 15}" fill="#16191f">${xml(line)}</text>`,
  );
  return `<rect x="${x}" y="${y}" width="${w}" height="${h}" rx="3" fill="#fff" stroke="#d5dbdb"/>${printed.join("")}`;
}

function values({ properties }: Widget, x: number, y: number, w: number, h: number): string {
  const metrics = properties.metrics ?? [];
  const columns = Math.min(2, metrics.length);
  const rows = Math.ceil(metrics.length / columns);
  const cell = { width: (w - 20) / columns, height: (h - 34) / rows };
  return metrics
    .map((metric, i) => {
      const left = x + 10 + (i % columns) * cell.width;
      const top = y + 30 + Math.floor(i / columns) * cell.height;
      const value = properties.title?.includes("(1)") ? "1" : "0";
      const course = top + cell.height - 10;
      const spark = `<line x1="${left + 4}" x2="${left + cell.width - 12}" y1="${course}" y2="${course}" stroke="${COLOURS[i % COLOURS.length]}" stroke-width="1.4"/>`;
      return `<text x="${left + 4}" y="${top + 20}" font-size="22" fill="#16191f">${value}</text><text x="${left + 24}" y="${top + 20}" font-size="9.5" fill="#545b64">${xml(labelOf(metric))}</text>${spark}`;
    })
    .join("");
}

function table(x: number, y: number, w: number): string {
  const columns = ["@timestamp", "@log", "code", "what"];
  const head = columns.map(
    (name, i) =>
      `<text x="${x + 14 + (i * w) / 4}" y="${y + 44}" font-weight="600" fill="#545b64">${name}</text>`,
  );
  return `${head.join("")}<text x="${x + 14}" y="${y + 70}" fill="#545b64">No results</text>`;
}

/** The lines at which alarms ring, one below the other above the curves: where they lie depends on the figures. */
function thresholds({ properties }: Widget, x: number, y: number, w: number): string {
  return (properties.annotations?.horizontal ?? [])
    .map(({ label }, i) => {
      const at = y + 42 + i * THRESHOLD_HEIGHT;
      return `<line x1="${x + 14}" x2="${x + w - 14}" y1="${at}" y2="${at}" stroke="#d62728" stroke-dasharray="4 3"/><text x="${x + w - 14}" y="${at - 3}" font-size="9" text-anchor="end" fill="#d62728" stroke="#fff" stroke-width="3" paint-order="stroke">${xml(label)}</text>`;
    })
    .join("");
}

function alarms({ properties }: Widget, x: number, y: number, w: number): string {
  const columns = 4;
  return (properties.alarms ?? [])
    .map((name, i) => {
      const left = x + 10 + (i % columns) * ((w - 20) / columns);
      const top = y + 36 + Math.floor(i / columns) * 26;
      return `<rect x="${left}" y="${top}" width="${(w - 20) / columns - 8}" height="20" rx="2" fill="#eaf6ed" stroke="#b7dfc1"/><text x="${left + 8}" y="${top + 14}" fill="#1d8102">OK  ${xml(String(name))}</text>`;
    })
    .join("");
}

function curves({ properties }: Widget, x: number, y: number, w: number, h: number, seed: number): string {
  const labels = (properties.metrics ?? []).filter(isVisible).flatMap(labelsOf);
  const legend = legendOf(labels, x + 14, w - 28);
  const ringing = (properties.annotations?.horizontal ?? []).length;
  const [left, right, top, bottom] = [x + 14, x + w - 14, y + 34, y + h - 16 - legend.lines * LEGEND_HEIGHT];
  // Below the lines at which alarms ring.
  const highest = top + (ringing > 0 ? 12 + (ringing - 1) * THRESHOLD_HEIGHT : 0);
  const lines = [0, 1, 2].map((i) => {
    const at = top + ((bottom - top) * i) / 2;
    return `<line x1="${left}" x2="${right}" y1="${at}" y2="${at}" stroke="#eaeded"/>`;
  });
  const drawn = labels.map((_, i) => {
    const points = Array.from({ length: 40 }, (_, step) => {
      const wave = Math.sin(step / 4 + seed + i * 2) * 0.5 + Math.sin(step / 1.7 + seed * 3 + i) * 0.2;
      const share = 0.15 + (0.7 * i) / Math.max(4, labels.length) + 0.08 * wave;
      return `${(left + ((right - left) * step) / 39).toFixed(1)},${(bottom - (bottom - highest) * share).toFixed(1)}`;
    });
    return `<polyline points="${points.join(" ")}" fill="none" stroke="${COLOURS[i % COLOURS.length]}" stroke-width="1.4"/>`;
  });
  return [...lines, ...drawn, legend.draw(bottom + 8)].join("");
}

/** The legend below a graph, in as many lines as it takes. */
function legendOf(labels: readonly string[], left: number, most: number) {
  let [at, line] = [0, 0];
  const placed = labels.map((label) => {
    const width = 22 + label.length * 5.6;
    if (at > 0 && at + width > most) [at, line] = [0, line + 1];
    const place = { label, x: left + at, line };
    at += width;
    return place;
  });
  const draw = (top: number) =>
    placed
      .map(({ label, x, line: row }, i) => {
        const y = top + row * LEGEND_HEIGHT;
        return `<rect x="${x.toFixed(1)}" y="${y}" width="8" height="8" fill="${COLOURS[i % COLOURS.length]}"/><text x="${(x + 11).toFixed(1)}" y="${y + 8}" font-size="9.5" fill="#545b64">${xml(label)}</text>`;
      })
      .join("");
  return { lines: line + 1, draw };
}

/** A metric that only feeds an expression is not drawn. */
function isVisible(metric: readonly unknown[]): boolean {
  return (optionsOf(metric) as { visible?: boolean }).visible !== false;
}

function labelOf(metric: readonly unknown[]): string {
  return (optionsOf(metric) as { label?: string }).label ?? String(metric[1] ?? "");
}

/** The labels of the lines that a metric is drawn as: a search finds one a table. */
function labelsOf(metric: readonly unknown[]): string[] {
  const { expression } = optionsOf(metric) as { expression?: string };
  return expression?.includes("SEARCH") ? ["public.orders", "public.customers"] : [labelOf(metric)];
}

function optionsOf(metric: readonly unknown[]): object {
  const last = metric.at(-1);
  return typeof last === "object" && last !== null ? last : {};
}

function xml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
