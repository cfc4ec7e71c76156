import { Command } from "commander";
import { initCommand } from "../init/command.ts";
import { backfillCommand } from "./backfill.ts";
import { captureCommand } from "./capture.ts";
import { consumerCommand } from "./consumer.ts";
import { costCommand } from "./cost.ts";
import { devCommand } from "./dev.ts";
import { dlqCommand } from "./dlq.ts";
import { doctorCommand } from "./doctor.ts";
import { epochCommand } from "./epoch.ts";
import { explainCommand } from "./explain.ts";
import { generateCommand } from "./generate.ts";
import { outboxCommand } from "./outbox.ts";
import { placeProgram } from "./place.ts";
import { planCommand } from "./plan.ts";
import { redriveCommand } from "./redrive.ts";
import { statusCommand } from "./status.ts";
import { tailCommand } from "./tail.ts";
import { teardownCommand } from "./teardown.ts";
import { triggersCommand } from "./triggers.ts";
import { verifyCommand } from "./verify.ts";
import { packageVersion } from "./version.ts";

/** Makes the command `tributary`, with all its verbs. It throws a CommanderError where commander would end the process. */
export function makeProgram(): Command {
  const program = new Command("tributary")
    .description("Change data capture for PostgreSQL on AWS serverless")
    .showHelpAfterError("(--help shows what there is)")
    .exitOverride()
    .addCommand(initCommand())
    .addCommand(devCommand())
    .addCommand(statusCommand())
    .addCommand(tailCommand())
    .addCommand(doctorCommand())
    .addCommand(consumerCommand())
    .addCommand(dlqCommand())
    .addCommand(redriveCommand())
    .addCommand(backfillCommand())
    .addCommand(planCommand())
    .addCommand(generateCommand())
    .addCommand(captureCommand())
    .addCommand(outboxCommand())
    .addCommand(epochCommand())
    .addCommand(verifyCommand())
    .addCommand(triggersCommand())
    .addCommand(teardownCommand())
    .addCommand(costCommand())
    .addCommand(explainCommand());
  program.version(packageVersion(), "-V, --version", "print the version");
  for (const command of program.commands.flatMap((verb) => [verb, ...verb.commands]))
    command.exitOverride().showHelpAfterError("(--help shows the options)");
  return placeProgram(program);
}
