import { CommanderError } from "commander";
import { explain } from "../change/error-text.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { explainSessionError } from "../source/postgres/link/connection-errors.ts";
import { makeProgram } from "./program.ts";

/* `tributary <verb>`: what an operator uses. Exit codes: 0 done, 1 failed, 2 wrong usage. */

try {
  await makeProgram().parseAsync();
} catch (thrown) {
  const error = explainSessionError(thrown);
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.stderr.write(`${explain(error)}\n`);
    process.exitCode = error instanceof TributaryError && error.code === "CONFIGURATION" ? 2 : 1;
  }
}
