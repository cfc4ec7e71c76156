import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { readDefinition } from "../../definition/file.ts";
import { projectDirectory } from "../../definition/find-definition.ts";
import { type LogPipeline, requireLog } from "../../source/postgres/definition.ts";
import { connectionFromUrl } from "../../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import { PreflightError, type PreflightProblem } from "../../source/postgres/postgres-errors.ts";
import { preflight } from "../../source/postgres/postgres-source.ts";
import type { StartArguments } from "../arguments.ts";
import type { Display } from "../display.ts";
import { FiguresSampler } from "../figures.ts";
import { checkHandlerFiles } from "../handler-files.ts";
import { startLocalAws, startLocalHost } from "../host.ts";
import { EmulatorEndedError } from "../local-errors.ts";
import { localParts } from "../local-parts.ts";
import { parsedLine } from "../parsed-line.ts";
import {
  checkFurtherSlots,
  checkUnread,
  dropSql,
  dropTraces,
  lookForTraces,
  names,
  resumeSlots,
  type Traces,
} from "./traces.ts";
import { DEFINITION_VARIABLE, EXCLUDE_VARIABLE, TABLES_VARIABLE } from "./variables.ts";

const LOCAL_DEFINITION = fileURLToPath(new URL("./pipeline.ts", import.meta.url));
/** Variables of our environment that the capture task may need to reach the database. */
const CONNECTION_VARIABLES = [
  "PGPASSWORD",
  "PGUSER",
  "PGHOST",
  "PGPORT",
  "PGDATABASE",
  "TRIBUTARY_TLS",
  "TRIBUTARY_TLS_CA_FILE",
];

const printed = z.object({ changes: z.record(z.string(), z.number()) });

/** Capture from the user's own database until `signal`; gives the exit code. */
export async function runOwnDatabase(
  args: StartArguments,
  databaseUrl: string,
  display: Display,
  signal: AbortSignal,
): Promise<number> {
  const connection = connectionFromUrl(databaseUrl, process.env);
  const variables = {
    [DEFINITION_VARIABLE]: args.pipeline === undefined ? "" : resolve(args.pipeline),
    [TABLES_VARIABLE]: (args.tables ?? []).join(","),
    [EXCLUDE_VARIABLE]: args.exclude.join(","),
  };
  Object.assign(process.env, variables);
  const definition = requireLog(await readDefinition(LOCAL_DEFINITION), "npm start on your own database");
  const project = projectDirectory(args.pipeline ?? LOCAL_DEFINITION);
  await checkHandlerFiles(definition, project);

  const before = await lookForTraces(connection, definition, signal);
  checkFurtherSlots(definition, before);
  await checkUnread(connection, definition, signal);
  await check(connection, definition, args, signal);
  announce(definition, before, args, display);
  const failure = new AbortController();
  const until = AbortSignal.any([signal, failure.signal]);
  await using parts = new AsyncDisposableStack();
  display.say("starting the Kinesis, DynamoDB and SQS emulators …");
  const { refusedText } = await localParts();
  const aws = await startLocalAws(definition, until, {
    onRefusal: (call) => display.log(refusedText(call)),
    onEnded: (service, printed) => failure.abort(new EmulatorEndedError(service, printed)),
  });
  parts.defer(() => aws.stop());
  if (before.slots.length > 0) await resumeSlots(connection, definition, aws, until);
  display.say(`starting capture and ${definition.consumers.map(({ name }) => name).join(", ")} …`);
  const tables = new Map<string, Record<string, number>>();
  parts.defer(() => farewell(connection, definition, before, args, display));
  const host = await startLocalHost({
    definition,
    definitionFile: LOCAL_DEFINITION,
    projectDirectory: project,
    databaseUrl,
    aws,
    captureEnvironment: { ...inherited(CONNECTION_VARIABLES), ...variables },
    handlerEnvironment: args.pipeline === undefined ? {} : inherited(Object.keys(process.env)),
    onLog: (line) => countChanges(tables, line) || display.log(line),
    onFailure: (error) => failure.abort(error),
  });
  parts.defer(() => host.stop());
  using sampler = new FiguresSampler(host, {
    pipeline: definition.name,
    source: `${connection.host}:${connection.port}/${connection.database}`,
    tables,
    hints: [`Change a row of ${definition.source.tables.join(", ")} and see it arrive.`],
    log: display.recent,
  });
  display.show(() => sampler.figures);
  parts.defer(() => display.close());
  while (!until.aborted) await delay(60_000, undefined, { signal: until }).catch(() => undefined);
  if (failure.signal.aborted) throw failure.signal.reason;
  return 0;
}

/** Reports whatever would stop capture, before anything is started. */
async function check(
  connection: PostgresConnectionOptions,
  pipeline: LogPipeline,
  args: StartArguments,
  signal: AbortSignal,
): Promise<void> {
  try {
    await preflight({ connection, pipeline, signal });
  } catch (error) {
    if (!(error instanceof PreflightError) || args.pipeline !== undefined) throw error;
    throw new PreflightError(error.problems.map(forTheCommandLine));
  }
}

/** Here the command line says what the remedies want in the definition. */
function forTheCommandLine(problem: PreflightProblem): PreflightProblem {
  const remedy = problem.remedy
    .replaceAll("source.exclude", "--exclude")
    .replaceAll("source.tables", "--tables")
    .replaceAll("DATABASE_URL", "--database-url");
  return { ...problem, remedy };
}

function announce({ source }: LogPipeline, before: Traces, args: StartArguments, display: Display): void {
  const state = (there: boolean) => (there ? "is there already, goes on being used" : "will be created");
  display.say(`on this database, for the tables ${source.tables.join(", ")}:`);
  for (const { slot, publication } of names(source)) {
    display.say(`  publication       ${publication}  ${state(before.publications.includes(publication))}`);
    display.say(
      `  replication slot  ${slot}  ${state(before.slots.includes(slot))}; PostgreSQL keeps WAL for it until it is dropped`,
    );
  }
  if (args.dropSlotOnExit) display.say("they are dropped at the end (--drop-slot-on-exit)");
  else for (const line of howToRemove(source)) display.say(line);
}

async function farewell(
  connection: PostgresConnectionOptions,
  definition: LogPipeline,
  before: Traces,
  args: StartArguments,
  display: Display,
): Promise<void> {
  if (args.dropSlotOnExit) {
    await dropTraces(connection, definition);
    for (const { slot, publication } of names(definition.source))
      display.say(`dropped the slot ${slot} and the publication ${publication}`);
    return;
  }
  const { slots } = await lookForTraces(connection, definition, AbortSignal.timeout(10_000)).catch(
    () => before,
  );
  for (const slot of slots)
    display.say(
      `the slot ${slot} stays, and PostgreSQL keeps WAL for it: the next start goes on from there.`,
    );
  if (slots.length === 0) return;
  for (const line of howToRemove(definition.source)) display.say(line);
}

function howToRemove(source: LogPipeline["source"]): string[] {
  return [
    "to remove them:",
    ...names(source).map(
      ({ slot, publication }) => `  ${dropSql({ slots: [slot], publications: [publication] })}`,
    ),
  ];
}

function inherited(names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}

/** Adds what `print-changes` printed, if the line is that. */
function countChanges(tables: Map<string, Record<string, number>>, line: string): boolean {
  const start = line.indexOf('{"changes"');
  if (start < 0) return false;
  const parsed = printed.safeParse(parsedLine(line.slice(start)));
  if (!parsed.success) return false;
  for (const [what, count] of Object.entries(parsed.data.changes)) {
    const space = what.lastIndexOf(" ");
    const table = what.slice(0, space);
    const operation = what.slice(space + 1);
    const counts = tables.get(table) ?? {};
    counts[operation] = (counts[operation] ?? 0) + count;
    tables.set(table, counts);
  }
  return true;
}
