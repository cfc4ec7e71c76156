/*
 * Makes a picture of a terminal's last frame:
 *
 *   script -qc "npm start" capture.txt        (Ctrl-C when it looks good)
 *   npx node docs/images/render.ts capture.txt > docs/images/npm-start.svg
 *
 * Takes apart the colours that `npm start` uses (bold, dim, red, yellow, cyan) and nothing else.
 */
import { readFileSync } from "node:fs";

const CELL = { width: 8.43, height: 19 };
const PADDING = 18;
const BAR = 34;
const COLUMNS = 98;
const COLOURS: Readonly<Record<string, string>> = { "31": "#ff7b72", "33": "#e3b341", "36": "#56d4dd" };
const TEXT = "#e6edf3";
const DIM = "#8b949e";

const ESCAPE = "\u001b";
const CURSOR_UP = new RegExp(`${ESCAPE}\\[\\d+A$`);
const TOKENS = new RegExp(`${ESCAPE}\\[[\\d;]*m|[^${ESCAPE}]+`, "g");

const capture = readFileSync(process.argv[2] ?? 0, "utf8");
// Each redraw begins with "clear to the end of the screen"; what follows the last one is its end.
const frames = capture.split(`${ESCAPE}[J`).filter((part) => part.includes("tributary"));
const frame = (frames.at(-1) ?? capture).replace(CURSOR_UP, "");
const lines = frame
  .split(/\r?\n/)
  .slice(0, endOfFrame(frame.split(/\r?\n/)))
  .map((line) => line.replace(/^\^C/, ""));

const width = Math.ceil(COLUMNS * CELL.width + 2 * PADDING);
const height = Math.ceil((lines.length + 2) * CELL.height + BAR + PADDING);
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">
<title>npm start: changes a second, lag, and what each consumer has applied</title>
<rect width="${width}" height="${height}" rx="10" fill="#0d1117"/>
${["#ff5f57", "#febc2e", "#28c840"].map((fill, i) => `<circle cx="${22 + 20 * i}" cy="18" r="6" fill="${fill}"/>`).join("")}
${["\u001b[2m$\u001b[22m npm start", "", ...lines].map(renderLine).join("\n")}
</svg>
`);

/** Lines behind the frame (`stopping …`) are not part of it. */
function endOfFrame(all: readonly string[]): number {
  const stopping = all.findIndex((line) => line.startsWith("stopping"));
  const end = stopping < 0 ? all.length : stopping;
  return all[end - 1] === "" ? end - 1 : end;
}

function renderLine(line: string, row: number): string {
  let style = { bold: false, dim: false, colour: "" };
  let column = 0;
  const spans: string[] = [];
  for (const [token] of line.matchAll(TOKENS)) {
    if (token.startsWith(ESCAPE)) {
      style = apply(style, token.slice(2, -1));
      continue;
    }
    const text = [...token].slice(0, COLUMNS - column).join("");
    const fill = style.colour || (style.dim ? DIM : TEXT);
    // Every run has its own place and length: a font of another width does not shift the columns.
    if (text.trim() !== "") {
      const x = (PADDING + column * CELL.width).toFixed(1);
      const length = ([...text].length * CELL.width).toFixed(1);
      spans.push(
        `<tspan x="${x}" textLength="${length}" fill="${fill}"${style.bold ? ' font-weight="bold"' : ""}>${asXml(text)}</tspan>`,
      );
    }
    column += [...text].length;
  }
  const y = BAR + PADDING + row * CELL.height;
  return `<text y="${y}" xml:space="preserve">${spans.join("")}</text>`;
}

function apply(style: { bold: boolean; dim: boolean; colour: string }, code: string) {
  if (code === "1") return { ...style, bold: true };
  if (code === "2") return { ...style, dim: true };
  if (code === "22") return { ...style, bold: false, dim: false };
  if (code === "39") return { ...style, colour: "" };
  if (code === "0" || code === "") return { bold: false, dim: false, colour: "" };
  return { ...style, colour: COLOURS[code] ?? "" };
}

function asXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
