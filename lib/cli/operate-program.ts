import { Command } from "commander";
import { backfillCommand } from "./backfill.ts";
import { doctorCommand } from "./doctor.ts";
import { epochCommand } from "./epoch.ts";
import { planCommand } from "./plan.ts";
import { teardownCommand } from "./teardown.ts";
import { verifyCommand } from "./verify.ts";

/** Makes the command with the verbs that have `--remote`: what the capture image runs. */
export function remoteProgram(): Command {
  const program = new Command("tributary")
    .exitOverride()
    .addCommand(teardownCommand())
    .addCommand(epochCommand())
    .addCommand(backfillCommand())
    .addCommand(planCommand())
    .addCommand(doctorCommand())
    .addCommand(verifyCommand());
  for (const command of program.commands.flatMap((verb) => [verb, ...verb.commands])) command.exitOverride();
  return program;
}
