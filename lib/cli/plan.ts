import { Command } from "commander";
import type { PipelinePlan } from "../admin/plan/pipeline-plan.ts";
import { planPipeline } from "../admin/plan/plan.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { dynamodbClient } from "../aws/clients.ts";
import { explain } from "../change/error-text.ts";
import { ConfigurationError, TributaryError } from "../change/tributary-error.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { commandDatabase } from "./database.ts";
import { databaseUrlOption, jsonOption, type PlaceOptions, readPipeline, withPlace } from "./options.ts";
import { planInWords } from "./plan-words.ts";
import { orRemote } from "./remote.ts";
import { resourcesOf } from "./resources-of.ts";
import { say, typed } from "./say.ts";

interface PlanArguments extends PlaceOptions {
  readonly databaseUrl?: string;
  readonly json?: boolean;
}

/** `tributary plan`: what a start of this definition would change. */
export function planCommand(): Command {
  const command = withPlace(new Command("plan"))
    .description("show what a start or deploy of this definition would change, and what it would refuse")
    .addOption(databaseUrlOption())
    .addOption(jsonOption("changes, refusals, warnings, notes, and what was not seen"))
    .addHelpText(
      "after",
      `
Nothing is changed. Exit code: 0 nothing would change, 2 something would, 1 something would be refused, or the database or a
deployed part was not seen. Without a state table (--state-table, $TRIBUTARY_STATE_TABLE) all is planned as a first start. With --remote it is the
definition that is deployed.`,
    );
  return orRemote(command, run);
}

async function run(given: PlanArguments): Promise<void> {
  let plan: PipelinePlan;
  try {
    plan = await planOf(given);
  } catch (error) {
    if (!(error instanceof TributaryError)) throw error;
    // 2 says that something would change: a definition that is wrong must not.
    process.stderr.write(`${explain(error)}\n`);
    process.exitCode = 1;
    return;
  }
  if (given.json) say(JSON.stringify(asTyped(plan), undefined, 2));
  else say(...planInWords(plan).map(typed));
  process.exitCode = exitCode(plan);
}

/** Has the commands of its remedies as they run here. */
function asTyped(plan: PipelinePlan): PipelinePlan {
  const all = (findings: PipelinePlan["refusals"]) =>
    findings.map((finding) => ({ ...finding, remedy: typed(finding.remedy) }));
  const notes = plan.notes.map(typed);
  return { ...plan, refusals: all(plan.refusals), warnings: all(plan.warnings), notes };
}

async function planOf(given: PlanArguments): Promise<PipelinePlan> {
  const pipeline = await readPipeline(given.pipeline);
  const stateTable = given.stateTable ?? (process.env.TRIBUTARY_STATE_TABLE || undefined);
  const resources = stateTable === undefined ? undefined : await resourcesOf(pipeline, given);
  return await planPipeline({
    pipeline,
    connection: await databaseOrReason(given.databaseUrl),
    state: stateTable === undefined ? undefined : { dynamodb: dynamodbClient(), stateTable },
    deployedConsumers: resources && consumersThere(resources),
    deployed: resources?.stack === undefined ? undefined : { resources, environment: process.env },
    signal: new AbortController().signal,
  });
}

/** Returns why there is no database to look at, where nothing names one. */
async function databaseOrReason(
  databaseUrl: string | undefined,
): Promise<PostgresConnectionOptions | string> {
  try {
    return await commandDatabase(databaseUrl);
  } catch (error) {
    if (databaseUrl !== undefined || !(error instanceof ConfigurationError)) throw error;
    return `nothing names it: ${error.problems.map(({ path, remedy }) => `${path}: ${remedy}`).join("; ")}`;
  }
}

/** Names of the consumers that run there; undefined where the place does not tell. */
function consumersThere({ stack, consumers }: PipelineResources): readonly string[] | undefined {
  const names = Object.keys(consumers);
  return stack === undefined && names.length === 0 ? undefined : names;
}

/** Returns the exit code of the verb. */
export function exitCode({ refusals, changes, unseen }: PipelinePlan): number {
  if (refusals.length > 0) return 1;
  if (changes.length > 0) return 2;
  // Nothing that was found does not mean that nothing would change.
  return unseen.some(({ what, failed }) => failed === true || what === "database") ? 1 : 0;
}
