import { Command } from "commander";
import pg from "pg";
import { quoteTable } from "../change/sql-identifier.ts";
import { formatTable, type TableName } from "../change/table-pattern.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import { captures } from "../definition/definition.ts";
import { routeTables } from "../definition/route.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { checkBackfillRequest } from "../source/postgres/backfill/page-sql.ts";
import { type LogPipeline, requireLog } from "../source/postgres/definition.ts";
import {
  type BackfillWanted,
  hasEnded,
  readBackfill,
  requestBackfill,
  wantBackfill,
} from "../state/backfills.ts";
import { captureIsAlive } from "../state/capture-liveness.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { leaseFromEnvironment } from "../state/lease.ts";
import type { StatePlace } from "../state/persistent-table.ts";
import { BackfillActiveError } from "../state/state-errors.ts";
import { showBackfills } from "./backfill-status.ts";
import { withDatabase } from "./database.ts";
import {
  consumerOption,
  databaseUrlOption,
  jsonOption,
  oneTableOption,
  type PlaceOptions,
  placeOf,
  readPipeline,
  tableOption,
  unknownConsumer,
  withPlace,
} from "./options.ts";
import { orRemote } from "./remote.ts";
import { note, say } from "./say.ts";

interface OfTable extends PlaceOptions {
  readonly table: string;
}
interface StartOptions extends OfTable {
  readonly where?: string;
  readonly consumer?: string;
  readonly sweep: boolean;
  readonly databaseUrl?: string;
}
interface BackfillStatusOptions extends PlaceOptions {
  readonly table?: string;
  readonly json?: boolean;
  readonly watch?: boolean;
}

/** `tributary backfill`: existing rows into the live stream. The capture task does it; this asks, shows and steers. */
export function backfillCommand(): Command {
  const start = withPlace(
    new Command("start").description("read a table's existing rows into the stream, beside its changes"),
  )
    .addOption(oneTableOption().makeOptionMandatory())
    .option("--where <sql>", "only these rows: an expression over the table's columns; no sweep then")
    .addOption(consumerOption("for this consumer alone: the others pass the rows by"))
    .option("--no-sweep", "do not let consumers remove what the source does not have any more")
    .addOption(databaseUrlOption("the database, for the checks"));
  const status = withPlace(new Command("status").description("how far backfills are"))
    .addOption(oneTableOption("only this table"))
    .addOption(jsonOption("one line"))
    .option("--watch", "again every two seconds, until all have ended")
    .action(showStatus);
  return new Command("backfill")
    .description("existing rows of a table into the live stream: start, status, pause, resume, cancel")
    .addCommand(orRemote(start, startBackfill))
    .addCommand(status)
    .addCommand(steering("pause", "pause", "hold a backfill where it stands; changes go on"))
    .addCommand(steering("resume", "run", "let a paused backfill go on where it stands"))
    .addCommand(steering("cancel", "cancel", "end a backfill; what was read stays in the stream"))
    .addHelpText(
      "after",
      `
A backfill reads in chunks between the changes and never stops them; it is resumed where it stood after a restart of the
capture task. When it has read a whole table, consumers that keep rows remove those that the source does not have any more
(sweep). See the docs, "Backfill".

  tributary backfill start --table public.orders
  tributary backfill start --table public.orders --where "placed_at >= '2026-01-01'" --consumer order-summary
  tributary backfill status --watch`,
    );
}

function steering(verb: string, wanted: BackfillWanted, description: string): Command {
  return withPlace(new Command(verb).description(description))
    .addOption(oneTableOption().makeOptionMandatory())
    .action(async (options: OfTable) => {
      const pipeline = requireLog(await readPipeline(options.pipeline), `backfill ${verb}`);
      const store = placeOf(pipeline, options);
      const table = formatTable(tableOption(options.table));
      await wantBackfill(store, table, wanted);
      const done = { run: "goes on", pause: "pauses in a moment", cancel: "ends in a moment" };
      say(`The backfill of ${table} ${done[wanted]}.${await heard(store)}`);
    });
}

/** A lock of another session is waited for no longer than this, in milliseconds. */
const LOCK_MS = 5_000;
/** https://www.postgresql.org/docs/current/errcodes-appendix.html */
const LOCK_NOT_AVAILABLE = "55P03";

async function startBackfill(options: StartOptions): Promise<void> {
  const pipeline = requireLog(await readPipeline(options.pipeline), "backfill start");
  const table = tableOption(options.table);
  const store = placeOf(pipeline, options, requestProblems(pipeline, table, options));
  const problems = await databaseProblems(pipeline, table, options);
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  const name = formatTable(table);
  const latest = await readBackfill(store, name);
  if (latest && !hasEnded(latest)) throw new BackfillActiveError(name, latest.status);
  const { where, consumer } = options;
  const sweep = options.sweep && where === undefined;
  const hearing = await heard(store);
  const run = await requestBackfill(store, name, { where, consumer, sweep, requestedAt: Date.now() });
  const what = where === undefined ? "all its rows" : "the rows of --where";
  say(
    `Backfill ${run} of ${name} is asked for: ${what}, for ${consumer ?? "every consumer"}, ${sweep ? "with" : "without"} a sweep at its end.${hearing}`,
  );
}

/** Finds the problems that the definition alone shows. */
function requestProblems(
  pipeline: LogPipeline,
  table: TableName,
  { where, consumer }: StartOptions,
): ConfigurationProblem[] {
  const problems: ConfigurationProblem[] = [];
  const name = formatTable(table);
  if (!captures(pipeline.source, table)) {
    const remedy = `the pipeline "${pipeline.name}" does not capture it: add it to source.tables and deploy; it is backfilled at the next start of the capture task`;
    problems.push({ path: "--table", value: name, remedy });
  }
  if (where?.trim() === "") {
    const remedy = "write an SQL expression over the table's columns, or leave it out for all rows";
    problems.push({ path: "--where", value: where, remedy });
  }
  if (consumer !== undefined) {
    const { topic } = routeTables(pipeline)(table);
    const known = pipeline.consumers.find((candidate) => candidate.name === consumer);
    if (!known) problems.push(unknownConsumer(consumer, pipeline));
    else if (!known.topics.some((pattern) => topicPattern(pattern)(topic.name))) {
      const remedy = `it does not read ${topic.name}, where the table's rows go, but ${known.topics.join(", ")}`;
      problems.push({ path: "--consumer", value: consumer, remedy });
    }
  }
  return problems;
}

/** Finds the problems that the database shows, where it can be asked from here; the capture task checks all of them again. */
async function databaseProblems(
  pipeline: LogPipeline,
  table: TableName,
  { where, databaseUrl }: StartOptions,
): Promise<readonly ConfigurationProblem[]> {
  const { DATABASE_URL, PGHOST, TRIBUTARY_DATABASE_SECRET_ARN } = process.env;
  if (!databaseUrl && !DATABASE_URL && !PGHOST && !TRIBUTARY_DATABASE_SECRET_ARN) {
    note(
      "no database is named here: the table is checked by the capture task alone (backfill status tells).",
    );
    return [];
  }
  return await withDatabase(databaseUrl, async (client) => {
    await client.query(`SET lock_timeout = ${LOCK_MS}`);
    try {
      return await checkBackfillRequest(client, pipeline, table, where);
    } catch (error) {
      if (!(error instanceof pg.DatabaseError && error.code === LOCK_NOT_AVAILABLE)) throw error;
      const relation = quoteTable(table).replaceAll("'", "''");
      note(
        `another session has locked ${formatTable(table)} for more than ${LOCK_MS / 1000} s: it is checked by the capture task alone, whose chunks wait for that lock too. Who has it: SELECT pid FROM pg_locks WHERE relation = '${relation}'::regclass AND granted;`,
      );
      return [];
    }
  });
}

async function showStatus({ table, json, watch, ...place }: BackfillStatusOptions): Promise<void> {
  const pipeline = requireLog(await readPipeline(place.pipeline), "backfill status");
  const store = placeOf(pipeline, place);
  await showBackfills(store, {
    table: table === undefined ? undefined : formatTable(tableOption(table)),
    json: json === true,
    watch: watch === true,
  });
}

/** Returns a hint for the operator if no capture task runs that could act on a request; empty where all do. */
export async function heard(store: StatePlace): Promise<string> {
  const { leaseMs, problem } = leaseFromEnvironment(process.env);
  if (problem) throw new ConfigurationError("The environment", [problem]);
  const { slots } = await readCaptureRecord(store);
  const alive = await Promise.all(
    Array.from({ length: slots }, (_, i) => captureIsAlive({ ...store, slot: i + 1 }, leaseMs)),
  );
  if (alive.every(Boolean)) return "";
  return slots === 1
    ? "\nNo capture task is alive: this takes effect when one starts."
    : "\nNot every slot's capture task is alive: this takes effect when that of the table's slot is.";
}
