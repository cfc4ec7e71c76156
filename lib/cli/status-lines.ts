import type {
  CaptureTaskStatus,
  ConsumerSummary,
  PipelineStatus,
  StatusProblem,
} from "../admin/pipeline-status.ts";
import type { CapturedTable } from "../admin/status-tables.ts";
import { formatLsn } from "../change/lsn.ts";
import { type PositionText, parsePosition } from "../change/position.ts";
import { columns } from "./columns.ts";
import { bytesInWords, durationInWords } from "./units.ts";

/** Colours that the status uses. */
export type Paint = (colour: "green" | "yellow" | "red" | "dim" | "bold", text: string) => string;

const NOTHING = "–";

/** Describes a status, as lines for people; `paint` colours what a terminal shows, and sentences are wrapped to its `width`. */
export function statusLines(
  status: PipelineStatus,
  paint: Paint,
  width = Number.POSITIVE_INFINITY,
): string[] {
  const { pipeline, place, at, healthy, captures, tables, consumers, problems, unknown } = status;
  return [
    `${paint("bold", pipeline)}  ${healthy ? paint("green", "healthy") : paint("red", "not healthy")}  ${paint("dim", `${place}, ${at}`)}`,
    "",
    ...captureLines(captures, paint),
    ...(tables && tables.length > 0 ? ["", ...tableLines(tables, captures.length > 1, paint)] : []),
    ...(consumers.length > 0 ? ["", ...consumerLines(consumers, unknown, paint)] : []),
    ...(unknown.length > 0
      ? [
          "",
          paint("yellow", "could not be read:"),
          ...unknown.map(({ part, reason }) => `  ${part}: ${reason}`),
        ]
      : []),
    ...(problems.length > 0 ? ["", ...problemLines(problems, paint, width)] : []),
  ];
}

function captureLines(captures: readonly CaptureTaskStatus[], paint: Paint): string[] {
  return captures.flatMap((task) => {
    const { slot, state, since, reportedAt, reportAgeMs = 0, tasks, figures } = task;
    const colour = state === "RUNNING" ? "green" : state === "STARTING" ? "yellow" : "red";
    const lastMs = since && reportedAt ? Date.parse(reportedAt) - Date.parse(since) + reportAgeMs : undefined;
    const facts = [
      lastMs === undefined ? [] : `for ${durationInWords(lastMs)}`,
      tasks > 1 ? `${tasks} tasks` : [],
      reportedAt === undefined ? "no report" : `reported ${durationInWords(reportAgeMs)} ago`,
      figures ? `${figures.changes.toLocaleString("en-US")} changes since its start` : [],
    ].flat();
    const rows = [
      ["  lag", lagInWords(task)],
      ["  slot", slotInWords(task)],
      ["  WAL", walInWords(task)],
      ["  lease", leaseInWords(task)],
    ].filter(([, words]) => words !== NOTHING);
    const name = captures.length > 1 ? `capture slot ${slot}` : "capture";
    return [`${paint("bold", name)}  ${paint(colour, state)} ${facts.join(", ")}`, ...columns(rows)];
  });
}

function leaseInWords({ lease }: CaptureTaskStatus): string {
  if (lease === undefined) return NOTHING;
  const { owner, generation, beatAgeMs } = lease;
  if (owner === undefined) return `free, generation ${generation}`;
  const beat = beatAgeMs === undefined ? "not renewed yet" : `renewed ${durationInWords(beatAgeMs)} ago`;
  return `${owner}, generation ${generation}, ${beat}`;
}

function lagInWords({ figures, state }: CaptureTaskStatus): string {
  if (!figures || state === "SILENT" || state === "STOPPED") return NOTHING;
  const { lagMs, lagBytes } = figures;
  // It reads nothing, so it knows no age of what waits.
  if (state === "PAUSED") return lagBytes === undefined ? NOTHING : bytesInWords(lagBytes);
  return `${durationInWords(lagMs)}${lagBytes === undefined ? "" : `, ${bytesInWords(lagBytes)}`}`;
}

function slotInWords({ source, figures, state }: CaptureTaskStatus): string {
  const { slot, confirmed } = source;
  const stands = confirmed === undefined ? "" : ` at ${confirmed}`;
  const isRead = state === "RUNNING" || state === "HOLDING";
  const active = !figures || !isRead ? "" : figures.connected ? ", active" : ", not connected";
  const wal = figures?.walStatus === undefined ? "" : `, ${figures.walStatus}`;
  return typeof slot === "string"
    ? `${slot}${stands}${active}${wal}`
    : stands === ""
      ? NOTHING
      : `${stands.trim()}${active}`;
}

function walInWords({ figures, walBudgetLeftPercent: left }: CaptureTaskStatus): string {
  if (figures?.walHeldBytes === undefined) return NOTHING;
  const { walHeldBytes, maxSlotWalKeepBytes: budget, safeWalBytes, walLossSeconds } = figures;
  const held = `${bytesInWords(walHeldBytes)} held`;
  if (safeWalBytes === undefined) return `${held}, no bound`;
  const of = budget !== undefined && budget > 0 ? ` of ${bytesInWords(budget)}` : "";
  const loss = walLossSeconds === undefined ? "" : `, lost in ${durationInWords(walLossSeconds * 1000)}`;
  return `${held}, ${bytesInWords(Math.max(0, safeWalBytes))} (${Math.floor(left ?? 0)}%)${of} left${loss}`;
}

function tableLines(tables: readonly CapturedTable[], severalSlots: boolean, paint: Paint): string[] {
  const rows = tables.map(({ table, topic, slot, backfill }) => [
    table,
    topic,
    ...(severalSlots ? [String(slot)] : []),
    backfillInWords(backfill),
  ]);
  const [head = "", ...lines] = columns([
    ["table", "topic", ...(severalSlots ? ["slot"] : []), "backfill"],
    ...rows,
  ]);
  return [paint("dim", head), ...lines];
}

function backfillInWords(backfill: CapturedTable["backfill"]): string {
  if (!backfill) return "unknown";
  if (backfill.status === "none") return "none";
  const { status, rows, percent, remainingSeconds, reason } = backfill;
  const count = `${rows.toLocaleString("en-US")} rows`;
  if (status === "done") return `done, ${count}`;
  const progress =
    status === "running" || status === "paused"
      ? `, ${percent === undefined ? count : `${percent}%, ${count}`}`
      : "";
  const left = remainingSeconds === undefined ? "" : `, ${durationInWords(remainingSeconds * 1000)} left`;
  return `${status}${progress}${left}${reason === undefined ? "" : ` (${reason})`}`;
}

function consumerLines(
  consumers: readonly ConsumerSummary[],
  unknown: PipelineStatus["unknown"],
  paint: Paint,
): string[] {
  const rows = consumers.map((consumer) => {
    const {
      name,
      checkpoint,
      lag,
      paused,
      held,
      parked,
      deadLetterKeys,
      gaps,
      unhealed,
      deadLetterMessages,
    } = consumer;
    const isUnknown = unknown.some(({ part }) => part === `consumer ${name}`);
    const count = (n: number) => (isUnknown ? "?" : String(n));
    return [
      paused ? `${name} (paused)` : name,
      checkpoint === undefined ? (isUnknown ? "?" : "nothing yet") : positionInWords(checkpoint),
      lagOfConsumer(lag),
      ...[held, parked, deadLetterKeys, gaps, unhealed].map(count),
      deadLetterMessages === undefined ? NOTHING : String(deadLetterMessages),
    ];
  });
  const head = [
    "consumer",
    "checkpoint",
    "lag",
    "held",
    "parked",
    "dead letters",
    "gaps",
    "unhealed",
    "queue",
  ];
  const [first = "", ...lines] = columns([head, ...rows], [3, 4, 5, 6, 7, 8]);
  return [paint("dim", first), ...lines];
}

function lagOfConsumer(lag: ConsumerSummary["lag"]): string {
  if (lag.state === "caught up") return "none";
  if (lag.state === "unknown") return "unknown";
  return `${lag.atLeast ? "over " : ""}${durationInWords(lag.forMs)}`;
}

function problemLines(problems: readonly StatusProblem[], paint: Paint, width: number): string[] {
  return problems.flatMap(({ severity, part, code, message, remedy, command }) => {
    const sign = severity === "note" ? paint("yellow", "note:") : paint("red", "!");
    return [
      `${sign} ${paint("bold", `${part}${code === undefined ? "" : ` (${code})`}`)}`,
      ...wrapped(message, width),
      ...wrapped(`What to do: ${remedy}`, width),
      ...(command === undefined ? [] : [`    ${paint("bold", command)}`]),
    ];
  });
}

/** Indented lines of whole words, as long as they fit. */
function wrapped(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines: string[] = [];
    let line = "   ";
    for (const word of paragraph.trim().split(/\s+/)) {
      if (line.trim() !== "" && line.length + 1 + word.length > width) {
        lines.push(line);
        line = "   ";
      }
      line += ` ${word}`;
    }
    return [...lines, line];
  });
}

/** `0/1F78A10#4`, with the epoch where it is not the first. */
function positionInWords(text: PositionText): string {
  const { epoch, commitLsn, ordinal } = parsePosition(text);
  return `${formatLsn(commitLsn)}#${ordinal}${epoch > 1 ? ` of epoch ${epoch}` : ""}`;
}
