import { errorLines } from "../change/error-text.ts";
import { type LiveFigures, renderFrame, renderLine } from "./live-view.ts";

/** Shows the progress of `npm start`. */
export interface Display {
  /** The latest lines that were logged, oldest first. */
  readonly recent: readonly string[];
  /** A step of the start or of the end, as a line. */
  say(line: string): void;
  /** A line that a part logged; a text of several stays above the figures. */
  log(text: string): void;
  /** From now on the figures are shown: redrawn in a terminal, a line now and then elsewhere. */
  show(figures: () => LiveFigures): void;
  /** Shows the figures a last time and no more. Idempotent. */
  close(): void;
}

const FRAME_MS = 500;
const LINE_MS = 5_000;
const KEPT_LOG_LINES = 50;

/** The display for a stream: a live frame where it is a terminal, plain lines where not. */
export function openDisplay(output: NodeJS.WriteStream): Display {
  const live = output.isTTY === true;
  const recent: string[] = [];
  let figures: (() => LiveFigures) | undefined;
  let timer: NodeJS.Timeout | undefined;
  let drawn = 0;

  const erase = () => {
    if (drawn > 0) output.write(`\u001b[${drawn}A\u001b[J`);
    drawn = 0;
  };
  const draw = () => {
    if (figures === undefined) return;
    if (!live) {
      output.write(`${renderLine(figures())}\n`);
      return;
    }
    const lines = renderFrame(figures(), output.columns).slice(0, Math.max(1, output.rows - 1));
    erase();
    output.write(`${lines.join("\n")}\n`);
    drawn = lines.length;
  };
  return {
    recent,
    say(line) {
      erase();
      output.write(`${line}\n`);
    },
    log(logged) {
      const text = readable(logged);
      if (text.includes("\n")) {
        erase();
        output.write(`${text}\n`);
        if (live) draw();
        return;
      }
      recent.push(text);
      if (recent.length > KEPT_LOG_LINES) recent.shift();
      // Where a frame is redrawn the latest ones stand below it.
      if (!live || figures === undefined) output.write(`${text}\n`);
    },
    show(current) {
      figures = current;
      if (live) draw();
      timer = setInterval(draw, live ? FRAME_MS : LINE_MS);
    },
    close() {
      if (timer === undefined) return;
      clearInterval(timer);
      timer = undefined;
      draw();
      figures = undefined;
      drawn = 0;
    },
  };
}

const UNREAD_FIELDS = ["more", "consumer", "timestamp", "stack", "service", "sampling_rate"];
const PLACE_FIELDS = ["topic", "partition", "position"];

function isScalar(value: unknown): boolean {
  return ["string", "number", "boolean"].includes(typeof value);
}

/** `part: {"level":"WARN","message":"…","code":"…"}` as a person reads it, with what to do below it; other texts as they are. */
export function readable(line: string): string {
  const start = line.indexOf("{");
  if (start < 0 || line.includes("\n")) return line;
  try {
    const { level, message, remedy, ...fields } = JSON.parse(line.slice(start)) as Record<string, unknown>;
    if (typeof message !== "string") return line;
    const { code } = fields;
    const below =
      typeof remedy === "string" && typeof code === "string"
        ? errorLines({ message: "", remedy, code })
            .slice(1)
            .map((text) => `\n  ${text.replaceAll(/\p{Cc}+/gu, " ")}`)
        : [];
    const more = Object.entries(fields)
      .filter(([name, value]) => !UNREAD_FIELDS.includes(name) && isScalar(value))
      // Where it happened is long, and may be cut at the terminal's edge.
      .sort(([a], [b]) => PLACE_FIELDS.indexOf(a) - PLACE_FIELDS.indexOf(b))
      .map(([name, value]) => `${name}=${String(value).replaceAll(/\p{Cc}+/gu, " ")}`);
    const grave = /^(warn|error)$/i.test(String(level)) ? `${String(level).toLowerCase()}: ` : "";
    return [`${line.slice(0, start)}${grave}${message}`, ...more].join(" ") + below.join("");
  } catch {
    return line;
  }
}
