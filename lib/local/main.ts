import { explain } from "../change/error-text.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { explainSessionError } from "../source/postgres/link/connection-errors.ts";
import { HELP_SHOWN, parseArguments, type StartArguments } from "./arguments.ts";
import { type Display, openDisplay } from "./display.ts";
import { runOwnDatabase } from "./own-database/run.ts";
import { runShop } from "./shop/run.ts";
import { abortOnSignals, abortWithNpm } from "./stop-signal.ts";

/*
 * `npm start`. Exit code 0 when all is well, 1 when something failed or a comparison found a mismatch, 2 when the
 * command line or the definition is wrong, 130 when interrupted before the end of `--exit`.
 */

const stopping = new AbortController();
abortOnSignals(stopping);
abortWithNpm(stopping);
// `npm start | head`
process.stdout.on("error", () => stopping.abort());

let exitCode: number;
try {
  const args = parseArguments(process.argv.slice(2), (text) => process.stdout.write(text));
  exitCode = args === HELP_SHOWN ? 0 : await run(args);
} catch (error) {
  exitCode = complain(error);
}
// What still holds the event loop (sockets of clients) must not hold the process.
process.exit(exitCode);

async function run(args: StartArguments): Promise<number> {
  const display: Display = openDisplay(args.json ? process.stderr : process.stdout);
  try {
    const { signal } = stopping;
    return await (args.databaseUrl === undefined
      ? runShop(args, display, signal)
      : runOwnDatabase(args, args.databaseUrl, display, signal));
  } catch (error) {
    if (stopping.signal.aborted && (error as Error).name === "AbortError") return args.exit ? 130 : 0;
    throw error;
  } finally {
    display.close();
  }
}

/** Errors of ours as sentences; a stack only where it is a bug. */
function complain(thrown: unknown): number {
  const error = explainSessionError(thrown);
  process.stderr.write(`\n${explain(error)}\n`);
  return error instanceof TributaryError && error.code === "CONFIGURATION" ? 2 : 1;
}
