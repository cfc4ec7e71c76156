import { Command, CommanderError } from "commander";
import { explain, TributaryError } from "../change/tributary-error.ts";
import { explainSessionError } from "../source/postgres/link/connection-errors.ts";
import { backfillCommand } from "./backfill.ts";
import { captureCommand } from "./capture.ts";
import { consumerCommand } from "./consumer.ts";
import { costCommand } from "./cost.ts";
import { epochCommand } from "./epoch.ts";
import { outboxCommand } from "./outbox.ts";
import { redriveCommand } from "./redrive.ts";
import { tailCommand } from "./tail.ts";
import { teardownCommand } from "./teardown.ts";
import { triggersCommand } from "./triggers.ts";
import { verifyCommand } from "./verify.ts";

/* `tributary <verb>`: what an operator uses. Exit codes: 0 done, 1 failed, 2 wrong usage. */

const program = new Command("tributary")
  .description("Change data capture for PostgreSQL on AWS serverless")
  .showHelpAfterError("(--help shows what there is)")
  .exitOverride()
  .addCommand(tailCommand())
  .addCommand(consumerCommand())
  .addCommand(redriveCommand())
  .addCommand(backfillCommand())
  .addCommand(captureCommand())
  .addCommand(outboxCommand())
  .addCommand(epochCommand())
  .addCommand(verifyCommand())
  .addCommand(triggersCommand())
  .addCommand(teardownCommand())
  .addCommand(costCommand());

for (const command of program.commands.flatMap((verb) => [verb, ...verb.commands]))
  command.exitOverride().showHelpAfterError("(--help shows the options)");

try {
  await program.parseAsync();
} catch (thrown) {
  const error = explainSessionError(thrown);
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    process.stderr.write(`${explain(error)}\n`);
    process.exitCode = error instanceof TributaryError && error.code === "CONFIGURATION" ? 2 : 1;
  }
}
