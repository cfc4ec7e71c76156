import { Command, InvalidArgumentError } from "commander";
import type pg from "pg";
import { formatTable, type TableName } from "../change/table-pattern.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import type { PipelineOf } from "../definition/definition.ts";
import { requireTriggers, type TriggersSource } from "../source/triggers/definition.ts";
import {
  installTriggers,
  planTriggers,
  planUninstall,
  uninstallTriggers,
} from "../source/triggers/triggers.ts";
import { confirmProblems } from "./confirm.ts";
import { withDatabase } from "./database.ts";
import { confirmOption, databaseUrlOption, pipelineOption, readPipeline } from "./options.ts";
import { say } from "./say.ts";

interface TriggersArguments {
  readonly pipeline?: string;
  readonly databaseUrl?: string;
  readonly reader?: string;
  readonly lockTimeout: number;
  readonly confirm?: string;
}

/** `tributary triggers`: what a pipeline with `source: triggers({…})` needs in the database. */
export function triggersCommand(): Command {
  const command = new Command("triggers").description("the triggers that write changes into an audit table");
  const verb = (name: string, about: string) =>
    command
      .command(name)
      .description(about)
      .addOption(pipelineOption())
      .addOption(databaseUrlOption("the database, as the owner of the tables"));
  const reader = ["--reader <role>", "the capture task's role: what it needs is granted"] as const;
  const timeout = ["--lock-timeout <seconds>", "how long a table in use is waited for", seconds, 10] as const;
  verb("plan", "print the SQL, and what is there; nothing is changed")
    .option(...reader)
    .action(plan);
  verb("install", "install them, or bring them up to date; again, nothing is changed")
    .option(...reader)
    .option(...timeout)
    .action(install);
  verb("uninstall", "remove triggers, function and audit table")
    .option(...timeout)
    .addOption(confirmOption())
    .action(uninstall);
  return command;
}

async function plan(given: TriggersArguments): Promise<void> {
  await withClient(given, async (client, pipeline) => {
    const { tables, missing, surplus, waiting, current, sql } = await planTriggers(
      client,
      pipeline,
      given.reader,
    );
    say(
      `-- ${tables.length} tables are captured; triggers are missing on ${list(missing)}, to be removed from ${list(surplus)}.`,
      `-- ${waiting} changes wait in the audit table.`,
      ...(current ? [] : ["-- The function that the triggers call is none, or of another version."]),
      ...sql.map((statement) => `${statement};`),
    );
  });
}

async function install(given: TriggersArguments): Promise<void> {
  await withClient(given, async (client, pipeline) => {
    const { tables, missing, surplus } = await installTriggers(client, pipeline, {
      reader: given.reader,
      lockTimeoutMs: given.lockTimeout * 1000,
    });
    say(
      `Triggers stand on ${list(tables)}.`,
      `They are new on ${list(missing)}, and were removed from ${list(surplus)}.`,
    );
  });
}

async function uninstall(given: TriggersArguments): Promise<void> {
  await withClient(given, async (client, pipeline) => {
    const { name, source } = pipeline;
    const problems = confirmProblems(given.confirm, name);
    if (problems.length > 0) throw new ConfigurationError("The command line", problems);
    const planned = await planUninstall(client, pipeline);
    if (planned.schema !== "ours") {
      say(`There is no schema "${source.schema}" that Tributary made.`);
      return;
    }
    if (planned.waiting > 0)
      say(`${planned.waiting} changes in the audit table may not have been read: they would be lost.`);
    if (given.confirm === undefined) {
      say(...planned.sql.map((statement) => `${statement};`), "");
      say(`Nothing was changed. To do it, repeat the command with: --confirm ${name}`);
      process.exitCode = 2;
      return;
    }
    await uninstallTriggers(client, pipeline, { lockTimeoutMs: given.lockTimeout * 1000 });
    say(`Removed from ${list(planned.tables)}, with the schema "${source.schema}".`);
  });
}

async function withClient(
  given: TriggersArguments,
  work: (client: pg.Client, pipeline: PipelineOf<TriggersSource>) => Promise<void>,
): Promise<void> {
  const pipeline = requireTriggers(await readPipeline(given.pipeline));
  await withDatabase(given.databaseUrl, (client) => work(client, pipeline));
}

function list(tables: readonly TableName[]): string {
  return tables.length === 0 ? "none" : tables.map(formatTable).join(", ");
}

function seconds(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError("write seconds from 1 to 9999");
  return Number(text);
}
