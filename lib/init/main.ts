import { CommanderError } from "commander";
import { explain } from "../change/error-text.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { initCommand } from "./command.ts";

/*
 * `npm create tributary-cdc`, and `tributary init` under a Node that is too old for the other verbs: what is imported here runs on
 * Node 20. Exit codes as of every verb: 0 done, 1 failed, 2 wrong usage.
 */

const [, , ...given] = process.argv;
const args = given[0] === "init" ? given.slice(1) : given;
try {
  await initCommand("create-tributary-cdc")
    .exitOverride()
    .showHelpAfterError("(--help shows the options)")
    .parseAsync(args, { from: "user" });
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.stderr.write(`${explain(error)}\n`);
    process.exitCode = error instanceof TributaryError && error.code === "CONFIGURATION" ? 2 : 1;
  }
}
