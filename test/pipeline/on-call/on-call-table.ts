import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** A row of the table "When it rings" of docs/11-operations.md. In its cells, what stands between backticks is printed so; `<word>` stands for one word there. */
export interface OnCallRow {
  readonly number: number;
  readonly what: string;
  readonly status: string;
  readonly doctor: string;
  /** For `tributary explain`. */
  readonly codes: readonly string[];
  /** The one command, or SQL statement, that mends it. */
  readonly command: string;
}

const PAGE = new URL("../../../docs/11-operations.md", import.meta.url);
const HEADING = "## When it rings\n";

/** The table's rows as the page has them. */
export const onCallRows: readonly OnCallRow[] = rowsOf(readFileSync(fileURLToPath(PAGE), "utf8"));

function rowsOf(page: string): OnCallRow[] {
  const [, section = ""] = page.split(HEADING);
  const [own = ""] = section.split(/^## /m);
  return own
    .split("\n")
    .filter((line) => /^\| \d/.test(line))
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .map(([, number = "", what = "", status = "", doctor = "", codes = "", command = ""]) => ({
      ...{ number: Number(number), what, status, doctor },
      codes: quotedIn(codes),
      command: quotedIn(command)[0] ?? "",
    }));
}

/** What a cell quotes. */
export function quotedIn(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, text = ""]) => text);
}

/** Finds what the page quotes in what is printed, with commands as they are typed there. */
export function patternOf(quoted: string): RegExp {
  const literal = (text: string) => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  const [first = "", ...rest] = quoted.split(/<[^>]+>/).map(literal);
  const words = [first.replace(/^tributary /, "(?:npm run -s tributary --|npx tributary-cdc) "), ...rest];
  return new RegExp(words.join(`[^\\s,;()]+?`) + (rest.at(-1) === "" ? "(?=[.:]?(?:[\\s,;)]|$))" : ""), "m");
}
