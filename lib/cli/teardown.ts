import { Command } from "commander";
import { planTeardown, type TeardownOptions, teardown } from "../admin/teardown.ts";
import { dynamodbClient } from "../aws/clients.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { NEW_EPOCH } from "../definition/new-epoch.ts";
import { sourceKind } from "../source/index.ts";
import type { TeardownPlan } from "../source/source-kind.ts";
import { leaseFromEnvironment } from "../state/lease.ts";
import { confirmProblems } from "./confirm.ts";
import { commandDatabase } from "./database.ts";
import {
  confirmOption,
  databaseUrlOption,
  pipelineOption,
  readPipeline,
  stateTableOption,
} from "./options.ts";
import { orRemote } from "./remote.ts";
import { note, say, typed } from "./say.ts";

interface TeardownArguments {
  readonly pipeline?: string;
  readonly confirm?: string;
  readonly databaseUrl?: string;
  readonly stateTable?: string;
}

/** `tributary teardown`: what a pipeline leaves behind at the server, removed. */
export function teardownCommand(): Command {
  const command = new Command("teardown")
    .description("drop a pipeline's replication slots, and their publications where we made them")
    .addOption(pipelineOption())
    .addOption(confirmOption())
    .addOption(databaseUrlOption())
    .addOption(stateTableOption())
    .addHelpText(
      "after",
      `
Leave --state-table and $TRIBUTARY_STATE_TABLE out when the table is gone already.

Stop the capture task first (desired count 0), and run cdk destroy after this (the docs, Deploy, "Tear-down"). A slot that
nobody reads from holds WAL back until the disk is full, and cdk destroy does not reach into the database.`,
    );
  return orRemote(command, run);
}

async function run(given: TeardownArguments): Promise<void> {
  const pipeline = await readPipeline(given.pipeline);
  const stateTable = given.stateTable ?? process.env.TRIBUTARY_STATE_TABLE;
  const { leaseMs, problem } = leaseFromEnvironment(process.env);
  const problems = problem ? [problem] : [];
  problems.push(...confirmProblems(given.confirm, pipeline.name));
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  const options: TeardownOptions = {
    pipeline,
    connection: await commandDatabase(given.databaseUrl),
    lease: stateTable ? { dynamodb: dynamodbClient(), stateTable, leaseMs } : undefined,
    signal: new AbortController().signal,
    log: note,
  };
  const { operate, tasks } = sourceKind(pipeline.source);
  const { teardown: kind } = operate;
  const numbers = tasks(pipeline.source);
  if (given.confirm === undefined) {
    const plans: TeardownPlan[] = [];
    for (const number of numbers) plans.push(await planTeardown({ ...options, number }));
    say(...(await kind.describe(plans, pipeline, "will be")));
    if (plans.every(({ removes }) => !removes)) return;
    say("", `Nothing was changed. To do it, repeat the command with: --confirm ${pipeline.name}`);
    process.exitCode = 2;
    return;
  }
  const plans: TeardownPlan[] = [];
  // The first one last: what a task of the others would make anew it makes only beside the first one.
  for (const number of [...numbers].reverse()) plans.unshift(await teardown({ ...options, number }));
  say(
    ...(await kind.describe(plans, pipeline, "was")),
    "",
    ...remains(pipeline, kind.remains, stateTable).map(typed),
  );
}

function remains(pipeline: Pipeline, atServer: string, stateTable: string | undefined): string[] {
  return [
    "What remains, because others may need it:",
    `  at the server: ${atServer};`,
    "  in AWS: what cdk destroy leaves (stream, state table, queues, bucket, logs, as their removal policies say);",
    "  in the sinks: everything that was applied.",
    stateTable
      ? `The state table "${stateTable}" still knows the pipeline "${pipeline.name}". To start it again, begin a new epoch: ${NEW_EPOCH}`
      : `Where a state table still knows the pipeline "${pipeline.name}", a new start needs a new epoch: ${NEW_EPOCH}`,
  ];
}
