import { Command, InvalidArgumentError } from "commander";
import { beginEpoch, type EpochOptions, type EpochPlan, planEpoch } from "../admin/begin-epoch.ts";
import { dynamodbClient } from "../aws/clients.ts";
import { formatLsn } from "../change/lsn.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { NEW_EPOCH } from "../definition/new-epoch.ts";
import { sourceKind } from "../source/index.ts";
import { leaseFromEnvironment } from "../state/lease.ts";
import { confirmProblems } from "./confirm.ts";
import { commandDatabase } from "./database.ts";
import {
  confirmOption,
  databaseUrlOption,
  pipelineOption,
  readPipeline,
  stateTableMissing,
  stateTableOption,
} from "./options.ts";
import { orRemote } from "./remote.ts";
import { note, say, typed } from "./say.ts";

interface NewOptions {
  readonly pipeline?: string;
  readonly confirm?: string;
  readonly dropSlot?: boolean;
  readonly above?: number;
  readonly databaseUrl?: string;
  readonly stateTable?: string;
}

/** `tributary epoch`: what an operator does when history cannot go on. */
export function epochCommand(): Command {
  const command = new Command("new")
    .description("begin a new epoch after a lost slot, a restored or another server")
    .addOption(pipelineOption())
    .addOption(confirmOption())
    .option("--drop-slot", "drop the old replication slot")
    .option("--above <epoch>", "an epoch that was used for certain: when the state table was lost", epoch)
    .addOption(databaseUrlOption())
    .addOption(stateTableOption())
    .addHelpText(
      "after",
      `
Stop the capture task first. The next start makes a new slot; its positions are above all that were before, so that consumers
take them. Changes between what the old epoch confirmed and the new slot are not in the stream: rows that changed in
between stay as consumers have them until a re-sync. See the docs, PostgreSQL, "A new epoch".`,
    );
  return new Command("epoch")
    .description("when history cannot go on: begin a new epoch")
    .addCommand(orRemote(command, begin));
}

async function begin(options: NewOptions): Promise<void> {
  const pipeline = await readPipeline(options.pipeline);
  const stateTable = options.stateTable ?? process.env.TRIBUTARY_STATE_TABLE;
  const { leaseMs, problem } = leaseFromEnvironment(process.env);
  const problems = problem ? [problem] : [];
  if (!stateTable) problems.push(stateTableMissing());
  problems.push(...confirmProblems(options.confirm, pipeline.name));
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  const given: EpochOptions = {
    pipeline,
    connection: await commandDatabase(options.databaseUrl),
    dynamodb: dynamodbClient(),
    stateTable: stateTable as string,
    dropSlot: options.dropSlot === true,
    above: options.above,
    leaseMs,
    signal: new AbortController().signal,
    log: note,
  };
  if (options.confirm === undefined) {
    say(...describe(await planEpoch(given), given, "will"));
    say("", "Nothing was changed. Stop the capture task, then repeat the command with:");
    say(typed(`  ${NEW_EPOCH} ${again(options)}--confirm ${pipeline.name}`));
    process.exitCode = 2;
    return;
  }
  say(...describe(await beginEpoch(given), given, "did"), "Start the capture task now.");
}

function describe(plan: EpochPlan, { pipeline, dropSlot }: EpochOptions, when: "will" | "did"): string[] {
  const { name, source } = pipeline;
  const ended =
    plan.endedAt === undefined
      ? "The place where it ended is not known: its record is gone"
      : `It ended at ${formatLsn(plan.endedAt)}, what Kinesis had acknowledged`;
  const was = when === "did" ? "was" : "will be";
  const old = [plan, ...plan.further].flatMap(({ oldSlot }) => oldSlot ?? []);
  const slots = old.map(({ name: slot }) =>
    dropSlot
      ? `The old slot "${slot}" ${was} dropped.`
      : `The old slot "${slot}" stays and holds WAL back until someone drops it: SELECT pg_drop_replication_slot('${slot}');`,
  );
  const publications = plan.further.flatMap(({ leftPublication }) =>
    leftPublication === undefined ? [] : [`The publication "${leftPublication}" ${was} dropped.`],
  );
  return [
    `Pipeline "${name}": epoch ${plan.to} ${when === "did" ? "has begun" : "will begin"} after epoch ${plan.from}.`,
    `${ended}.`,
    ...(slots.length > 0 ? slots : ["There is no old slot on this server."]),
    ...publications,
    `The next start of the capture task ${sourceKind(source).operate.newEpoch(source)}.`,
    "Changes between the end of the old epoch and the next start are NOT in the stream: rows that changed in between stay as consumers have them until a re-sync.",
  ];
}

/** The options that were given, to be given again. */
function again({ pipeline, dropSlot, above, databaseUrl, stateTable }: NewOptions): string {
  const quoted = (value: string) => `'${value.replaceAll("'", "'\\''")}'`;
  return [
    pipeline === undefined ? "" : `--pipeline ${quoted(pipeline)} `,
    dropSlot ? "--drop-slot " : "",
    above === undefined ? "" : `--above ${above} `,
    // A URL may hold a password: it is not printed.
    databaseUrl === undefined ? "" : "--database-url … ",
    stateTable === undefined ? "" : `--state-table ${quoted(stateTable)} `,
  ].join("");
}

function epoch(text: string): number {
  if (!/^[1-9]\d{0,9}$/.test(text)) throw new InvalidArgumentError("write the number of an epoch, such as 1");
  return Number(text);
}
