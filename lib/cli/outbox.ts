import { Command } from "commander";
import type pg from "pg";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { quoteOutboxTable } from "../definition/outbox-table.ts";
import type { OutboxPlan } from "../publish/install.ts";
import { sourceKind } from "../source/index.ts";
import { confirmProblems } from "./confirm.ts";
import { withDatabase } from "./database.ts";
import { confirmOption, databaseUrlOption, pipelineOption, readPipeline } from "./options.ts";
import { say } from "./say.ts";

interface OutboxArguments {
  readonly pipeline?: string;
  readonly databaseUrl?: string;
  readonly confirm?: string;
}

/** `tributary outbox`: the table that applications publish events through. */
export function outboxCommand(): Command {
  const command = new Command("outbox").description("the outbox that applications publish events through");
  const verb = (name: string, about: string) =>
    command.command(name).description(about).addOption(pipelineOption());
  verb("plan", "print the SQL that makes it, and the grants that the roles need").action(plan);
  verb("install", "make it; again, nothing is changed").addOption(databaseUrlOption()).action(install);
  verb("uninstall", "drop it").addOption(databaseUrlOption()).addOption(confirmOption()).action(uninstall);
  return command;
}

async function plan(given: OutboxArguments): Promise<void> {
  const { install: statements, grants } = await read(given);
  if (statements.length === 0) {
    say("-- The events are logical messages: there is nothing to make, and nobody needs a grant.");
    return;
  }
  say(...statements, "", "-- For the names of your roles:", ...grants);
}

async function install(given: OutboxArguments): Promise<void> {
  const { install: statements, table, grants } = await read(given);
  if (!table) {
    say("The events are logical messages: there is nothing to make.");
    return;
  }
  await withDatabase(given.databaseUrl, async (client) => {
    // One transaction: all of it, or nothing.
    await client.query("BEGIN");
    for (const statement of statements) await client.query(statement);
    await client.query("COMMIT");
  });
  say(`${quoteOutboxTable(table)} is there. Where other roles than its owner write and read it:`, ...grants);
}

async function uninstall(given: OutboxArguments): Promise<void> {
  const { uninstall: statements, table, waiting: counting, pipeline } = await read(given);
  if (!table) {
    say("The events are logical messages: there is nothing to drop.");
    return;
  }
  const problems = confirmProblems(given.confirm, pipeline.name);
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  await withDatabase(given.databaseUrl, async (client) => {
    const waiting = await waitingRows(client, quoteOutboxTable(table), counting);
    if (waiting === undefined) say(`There is no ${quoteOutboxTable(table)}.`);
    else if (waiting > 0)
      say(`${waiting} rows in ${quoteOutboxTable(table)} are not published: they would be lost.`);
    if (given.confirm === undefined) {
      say(
        ...statements,
        "",
        `Nothing was changed. To do it, repeat the command with: --confirm ${pipeline.name}`,
      );
      process.exitCode = 2;
      return;
    }
    await client.query("BEGIN");
    for (const statement of statements) await client.query(statement);
    await client.query("COMMIT");
    say(`${quoteOutboxTable(table)} was dropped.`);
  });
}

/** Rows that a relay has not published; of a table that is caught from the log, none waits. */
async function waitingRows(
  client: pg.Client,
  table: string,
  counting: string | undefined,
): Promise<number | undefined> {
  const { rows } = await client.query("SELECT to_regclass($1) IS NOT NULL AS there", [table]);
  if (!rows[0].there) return undefined;
  if (counting === undefined) return 0;
  const counted = await client.query(counting);
  return Number(counted.rows[0].n);
}

async function read(given: OutboxArguments): Promise<OutboxPlan & { readonly pipeline: Pipeline }> {
  const pipeline = await readPipeline(given.pipeline);
  const planned = sourceKind(pipeline.source).outbox(pipeline);
  if (planned) return { ...planned, pipeline };
  throw new ConfigurationError("The pipeline definition", [
    {
      path: "source.outbox",
      value: undefined,
      remedy: "the pipeline has no outbox: write postgres({ outbox: { table: … } }) or outbox({…})",
    },
  ]);
}
