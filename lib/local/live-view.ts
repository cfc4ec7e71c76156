import { stripVTControlCharacters, styleText } from "node:util";

/** One consumer as the view shows it. */
export interface ConsumerFigures {
  readonly name: string;
  /** Changes a second that took effect, oldest first. */
  readonly rates: readonly number[];
  readonly rate: number;
  readonly applied: number;
  readonly retried: number;
  readonly duplicates: number;
  /** Changes that no handler matched. */
  readonly unhandled: number;
  readonly deadLettered: number;
  /** Changes that wait behind a dead letter of their key. */
  readonly parkedBehind: number;
  /** Commit to effect, of the latest batch, in milliseconds. */
  readonly latencyMs: number | undefined;
}

/** Everything the live view shows, at one moment. */
export interface LiveFigures {
  readonly pipeline: string;
  readonly upMs: number;
  /** URL of the source, without its password. */
  readonly source: string;
  /** Counts of the shop's workload; undefined on a database of the user's own. */
  readonly workload:
    | {
        readonly rate: number;
        readonly changes: number;
        readonly commits: number;
        readonly rollbacks: number;
      }
    | undefined;
  readonly capture: {
    readonly rates: readonly number[];
    readonly rate: number;
    readonly changes: number;
    readonly lagBytes: number | undefined;
    readonly lagMs: number | undefined;
    readonly restarts: number;
  };
  /** Backfills under way, or that have just ended. */
  readonly backfills: readonly {
    readonly table: string;
    readonly status: string;
    readonly rows: number;
    readonly percent?: number | undefined;
  }[];
  readonly consumers: readonly ConsumerFigures[];
  /** Changes seen by table, where a consumer counts them. */
  readonly tables: readonly { readonly table: string; readonly counts: Readonly<Record<string, number>> }[];
  /** Lines below the figures: what to try. */
  readonly hints: readonly string[];
  /** The latest lines that the parts logged, oldest first. */
  readonly log: readonly string[];
}

const BARS = "▁▂▃▄▅▆▇█";
const LOG_LINES = 5;
const BACKFILL_LINES = 4;

/** The terminal's frame: lines with colours, none wider than `columns`. */
export function renderFrame(figures: LiveFigures, columns: number): string[] {
  const dim = (text: string) => styleText("dim", text, { validateStream: false });
  const bold = (text: string) => styleText("bold", text, { validateStream: false });
  const cyan = (text: string) => styleText("cyan", text, { validateStream: false });
  const warn = (count: number, text: string) =>
    count > 0 ? styleText("yellow", text, { validateStream: false }) : dim(text);
  const { workload, capture } = figures;
  const rule = dim("─".repeat(Math.min(columns, 96)));
  const lines = [
    `${bold(cyan("tributary"))} ${bold(figures.pipeline)}  ${dim(`up ${formatDuration(figures.upMs)}`)}  ${dim("Ctrl-C stops")}`,
    rule,
  ];
  if (workload) {
    lines.push(
      `${label("workload")}${rate(workload.rate)}  ${dim("changes")} ${count(workload.changes)}  ${dim("commits")} ${count(workload.commits)}  ${dim("rolled back")} ${count(workload.rollbacks)}`,
    );
  } else lines.push(`${label("source")}${figures.source}`);
  lines.push(
    `${label("capture")}${rate(capture.rate)}  ${cyan(sparkline(capture.rates, 24))}  ${dim("lag")} ${formatBytes(capture.lagBytes)} ${dim("·")} ${formatMs(capture.lagMs)}${capture.restarts > 0 ? `  ${warn(1, `restarts ${capture.restarts}`)}` : ""}`,
    ...figures.backfills.slice(0, BACKFILL_LINES).map(({ table, status, rows, percent }, i) => {
      const done = percent === undefined ? "" : `  ${cyan(progressBar(percent, 24))} ${percent}%`;
      return `${label(i === 0 ? "backfill" : "")}${table} ${dim(status)}  ${dim("rows")} ${count(rows)}${done}`;
    }),
    "",
    dim(
      `${"consumer".padEnd(16)}${"changes/s".padStart(10)}${"".padStart(11)}${"applied".padStart(11)}${"retried".padStart(9)}${"duplicates".padStart(12)}${"unhandled".padStart(11)}${"dead".padStart(6)}${"latency".padStart(10)}`,
    ),
  );
  for (const consumer of figures.consumers) {
    lines.push(
      [
        bold(consumer.name.slice(0, 15).padEnd(16)),
        formatRate(consumer.rate).padStart(10),
        `  ${cyan(sparkline(consumer.rates, 8))} `,
        count(consumer.applied).padStart(11),
        warn(consumer.retried, count(consumer.retried).padStart(9)),
        warn(consumer.duplicates, count(consumer.duplicates).padStart(12)),
        // No fault: a consumer may want a few changes of a table alone.
        (consumer.unhandled > 0 ? String : dim)(count(consumer.unhandled).padStart(11)),
        consumer.deadLettered > 0
          ? styleText("red", count(consumer.deadLettered).padStart(6), { validateStream: false })
          : dim("0".padStart(6)),
        formatMs(consumer.latencyMs).padStart(10),
        consumer.parkedBehind > 0 ? `  ${warn(1, `parked ${count(consumer.parkedBehind)}`)}` : "",
      ].join(""),
    );
  }
  if (figures.tables.length > 0) {
    lines.push("");
    for (const { table, counts } of figures.tables.slice(0, 20)) {
      const parts = Object.entries(counts).map(([operation, n]) => `${dim(operation)} ${count(n)}`);
      lines.push(`${table.padEnd(30)} ${parts.join("  ")}`);
    }
  }
  if (figures.hints.length > 0) lines.push("", ...figures.hints.map((hint) => dim(hint)));
  if (figures.log.length > 0) lines.push(rule, ...figures.log.slice(-LOG_LINES).map((line) => dim(line)));
  return lines.map((line) => cut(line, columns));
}

/** The same in one line, for where there is no terminal. */
export function renderLine(figures: LiveFigures): string {
  const { workload, capture } = figures;
  const parts = [formatDuration(figures.upMs)];
  if (workload) parts.push(`workload ${formatRate(workload.rate)}/s (${count(workload.changes)} changes)`);
  parts.push(
    `capture ${formatRate(capture.rate)}/s, lag ${formatBytes(capture.lagBytes)} ${formatMs(capture.lagMs)}`,
  );
  for (const { table, status, rows, percent } of figures.backfills) {
    if (status === "done") continue;
    parts.push(
      `backfill ${table} ${status}, ${count(rows)} rows${percent === undefined ? "" : `, ${percent}%`}`,
    );
  }
  for (const c of figures.consumers) {
    parts.push(
      `${c.name} ${formatRate(c.rate)}/s, applied ${count(c.applied)}, retried ${count(c.retried)}, duplicates ${count(c.duplicates)}, dead ${count(c.deadLettered)}, parked ${count(c.parkedBehind)}, unhandled ${count(c.unhandled)}`,
    );
  }
  for (const { table, counts } of figures.tables) {
    parts.push(
      `${table} ${Object.entries(counts)
        .map(([operation, n]) => `${operation} ${n}`)
        .join(" ")}`,
    );
  }
  return parts.join(" | ");
}

/** Bars as high as the values, the highest of them full; as wide as `width`, the latest at the right. */
export function sparkline(values: readonly number[], width: number): string {
  const shown = values.slice(-width);
  const top = Math.max(...shown, Number.MIN_VALUE);
  const bars = shown.map((value) =>
    value <= 0 ? BARS[0] : BARS[Math.min(BARS.length - 1, Math.floor((value / top) * BARS.length))],
  );
  return bars.join("").padStart(width);
}

function progressBar(percent: number, width: number): string {
  const full = Math.round((percent * width) / 100);
  return "█".repeat(full) + "░".repeat(width - full);
}

/** Bytes for people: `1.5 MB`; `–` where unknown. */
export function formatBytes(bytes: number | undefined): string {
  if (bytes === undefined) return "–";
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  const power = Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(1)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

/** Milliseconds for people: `12 ms`, `12.3 s`; `–` where unknown. */
function formatMs(ms: number | undefined): string {
  if (ms === undefined) return "–";
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Milliseconds as `01:02:03`. */
export function formatDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

function formatRate(perSecond: number): string {
  return perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond));
}

function label(text: string): string {
  return styleText("bold", text.padEnd(16), { validateStream: false });
}

function rate(perSecond: number): string {
  return `${formatRate(perSecond).padStart(10)} changes/s`;
}

function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** Cuts a line with colours so that it takes at most `columns` places. */
function cut(line: string, columns: number): string {
  if (stripVTControlCharacters(line).length <= columns) return line;
  let places = 0;
  let end = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with an escape
  for (const [token] of line.matchAll(/\u001b\[[0-9;]*m|./gsu)) {
    if (!token.startsWith("\u001b")) places++;
    if (places >= columns) break;
    end += token.length;
  }
  return `${line.slice(0, end)}\u001b[0m…`;
}
