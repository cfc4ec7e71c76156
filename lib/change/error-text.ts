import { commandPlace } from "./command-place.ts";
import { type CommandPlace, withCommands } from "./printed-command.ts";
import { TributaryError } from "./tributary-error.ts";

/** One of several problems that an error tells of, with its own way out. */
export interface PrintedProblem {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** What is printed of an error. */
export interface PrintedError {
  readonly message: string;
  readonly remedy?: string | undefined;
  readonly code?: string | undefined;
  /** Each is printed with its own remedy, in place of that of the whole. */
  readonly problems?: readonly PrintedProblem[] | undefined;
}

/** An error as text for a person: what happened, what to do, where there is more; a stack only for what is not an error of ours. */
export function explain(error: unknown, place: CommandPlace = commandPlace()): string {
  if (error instanceof TributaryError) return errorLines(printedOf(error), place).join("\n");
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** What is printed of an error of ours. */
export function printedOf(error: TributaryError): PrintedError {
  const { told } = error as { readonly told?: PrintedError };
  // An error that ended another process is that process's own.
  if (told?.code !== undefined) return told;
  const { message, remedy, code } = error;
  return { message, remedy, code, problems: problemsOf(error) };
}

/** Returns the problems of an error that has several, each with a code and a remedy of its own. */
export function problemsOf(error: object): readonly PrintedProblem[] | undefined {
  const found = (error as { readonly problems?: readonly Partial<PrintedProblem>[] }).problems;
  return Array.isArray(found) && found.every((one) => one.code && one.message && one.remedy)
    ? (found as readonly PrintedProblem[])
    : undefined;
}

/** The lines that an error is printed as, everywhere. */
export function errorLines(
  { message, remedy, code, problems }: PrintedError,
  place: CommandPlace = commandPlace(),
): string[] {
  const told = (text: string) => withCommands(text, place);
  const lines = problems
    ? [
        message.split("\n")[0] ?? "",
        ...problems.flatMap((one) => [
          `  ${one.code}: ${one.message}`,
          ...indented(`What to do: ${told(one.remedy)}`, "    "),
        ]),
      ]
    : [...message.split("\n"), ...(remedy ? indented(`What to do: ${told(remedy)}`, "") : [])];
  const codes = problems ? [...new Set(problems.map((one) => one.code))] : code ? [code] : [];
  return codes.length === 0 ? lines : [...lines, told(moreOf(...codes))];
}

/** The line that leads to all that is known of these codes. */
export function moreOf(...codes: readonly string[]): string {
  return `More: tributary explain ${codes.join(" ")}`;
}

/** The following lines of a text stand below the first one's words. */
function indented(text: string, by: string): string[] {
  return text.split("\n").map((line, i) => (i === 0 ? `${by}${line}` : `${by}            ${line}`));
}
