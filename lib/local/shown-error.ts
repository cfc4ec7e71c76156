import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/** An error that a handler's process told of, as it comes: texts of any length, with anything in them. */
export interface ToldError {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
}

const MAX_LINE = 400;
const MAX_MESSAGE_LINES = 12;
const MAX_FRAMES = 8;
/** Lines of a stack that are kept where none of it is the user's. */
const FOREIGN_FRAMES = 3;

/** Class and message in one line. */
export function headline({ name, message }: ToldError): string {
  const text = printable(message).replaceAll(/\s+/g, " ").trim();
  return cut(text === "" ? printable(name) : `${printable(name)}: ${text}`);
}

/**
 * The error as lines for a terminal, bounded: class and message, then the stack's own lines of the user, with paths from the
 * working directory; causes with theirs.
 */
export function errorLines(error: ToldError, directory = process.cwd()): string[] {
  const message = printable(error.message).split("\n");
  const head = message.slice(0, MAX_MESSAGE_LINES);
  const [first = "", ...more] = head;
  const start =
    first === "" && head.length === 1 ? printable(error.name) : `${printable(error.name)}: ${first}`;
  if (message.length > head.length) more.push("…");
  return [start, ...more, ...stackLines(error.stack, directory)].map(cut);
}

/** Returns the first line of the stack that is the user's: there it was thrown. */
export function originOf(error: ToldError): string {
  return stackLines(error.stack, "/").find((line) => isFrame(line)) ?? "";
}

/** Returns the lines of a stack below its head, which repeats the message. */
function stackLines(stack: string, directory: string): string[] {
  const lines = printable(stack).split("\n");
  const first = lines.findIndex(isFrame);
  if (first < 0) return [];
  const below = lines.slice(first).filter((line) => isFrame(line) || isCause(line));
  const own = below.filter((line) => !isFrame(line) || isOwn(line));
  const hasOwn = own.some(isFrame);
  const shown = hasOwn ? own : below.slice(0, FOREIGN_FRAMES);
  const kept = shown.slice(0, MAX_FRAMES);
  return kept.map((line) => (isFrame(line) ? `    ${line.trim().replace(PATH, pathFrom(directory))}` : line));
}

const PATH = /(?:file:\/\/)?(\/[^():]+)(?=:\d+)/;

function pathFrom(directory: string) {
  return (_whole: string, path: string) => {
    const near = relative(directory, decoded(path));
    return near.startsWith("..") ? path : near;
  };
}

function decoded(path: string): string {
  try {
    return decodeURI(path);
  } catch {
    return path;
  }
}

function isFrame(line: string): boolean {
  return /^\s*at /.test(line);
}

function isCause(line: string): boolean {
  return line.startsWith("Caused by: ");
}

/** The library, of which this file is one. */
const LIBRARY = fileURLToPath(new URL("../", import.meta.url));

/** Returns true if a line of a stack is of the user's code. */
function isOwn(frame: string): boolean {
  return (
    /[/\\]/.test(frame) &&
    !/\bnode:|[/\\]node_modules[/\\]|<anonymous>\)?$/.test(frame) &&
    !decoded(frame).includes(LIBRARY)
  );
}

/** Without what a terminal would obey. */
function printable(text: string): string {
  return text
    .replaceAll("\r\n", "\n")
    .replaceAll("\t", "  ")
    .replaceAll(/[^\P{Cc}\n]/gu, "�");
}

function cut(line: string): string {
  return line.length <= MAX_LINE ? line : `${line.slice(0, MAX_LINE)}…`;
}
