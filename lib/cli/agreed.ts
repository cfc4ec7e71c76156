import { createInterface } from "node:readline/promises";
import { ConfigurationError } from "../change/tributary-error.ts";

/** Asks on the terminal, and returns true for yes. @throws ConfigurationError where there is none: `--yes` says it then */
export async function isAgreed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) {
    const remedy = "there is no terminal to ask on: add --yes to agree";
    throw new ConfigurationError("The command line", [{ path: "--yes", value: undefined, remedy }]);
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}
