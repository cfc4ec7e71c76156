import { setTimeout as delay } from "node:timers/promises";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { Pipeline } from "../../definition/definition.ts";
import { readDefinition } from "../../definition/file.ts";
import { sourceKind } from "../../source/index.ts";
import type { LogPipeline } from "../../source/postgres/definition.ts";
import type { Display } from "../display.ts";
import { FiguresSampler } from "../figures.ts";
import { type LocalHost, startLocalHost } from "../host.ts";
import { announce, sayEndpoints } from "./announcements.ts";
import type { DevArguments } from "./arguments.ts";
import { Bundler } from "./bundler.ts";
import { awaitUnread, check, checkBelongs, type DevDatabase, ownDatabase, placeOf } from "./database.ts";
import { DevRemoteError } from "./dev-errors.ts";
import { DEV_DEFINITION, removeDevFile, writeDevFile } from "./dev-file.ts";
import { findSchema, removeProjectServer } from "./embedded-server.ts";
import { FileCheckpoints } from "./file-checkpoints.ts";
import { continueHistory, DEV_LEASE_MS } from "./history.ts";
import { startAws } from "./kept-aws.ts";
import { openDatabase } from "./open-database.ts";
import { definitionName, findProject, type Project } from "./project.ts";
import { redriveChanged } from "./redrive-changed.ts";
import { HandlerReloader } from "./reloader.ts";
import { dropDevTraces, dropSql } from "./server-traces.ts";
import { devSlotName } from "./slot-name.ts";
import { StateDirectory } from "./state-directory.ts";
import { DEFINITION_VARIABLE, NAME_VARIABLE, SNAPSHOT_VARIABLE, UNBOUNDED_VARIABLE } from "./variables.ts";

/** Variables of our environment that the capture task may need to reach the database. */
const CONNECTION_VARIABLES = ["PGPASSWORD", "TRIBUTARY_TLS", "TRIBUTARY_TLS_CA_FILE"];
/** The handlers' bundles, in the state directory. */
const BUILD = "build";
/** Time that the farewell to a server may take. */
const FAREWELL_MS = 15_000;

/** Runs the user's own pipeline on this machine until `signal`. @throws TributaryError with all that is wrong */
export async function runDev(args: DevArguments, display: Display, signal: AbortSignal): Promise<void> {
  refuseContradictions(args);
  const project = await findProject(args.pipeline);
  const own = args.databaseUrl === undefined ? undefined : ownDatabase(args.databaseUrl);
  const schema = own ? undefined : await findSchema(args.schema, project.definitionFile, project.directory);
  await using parts = new AsyncDisposableStack();
  const directory = await StateDirectory.open(project.directory, { anyVersion: args.fresh });
  parts.defer(() => directory.close());
  const { bundler, bundles } = await Bundler.start(project.definition.consumers, {
    project: project.directory,
    output: directory.file(BUILD),
  });
  parts.defer(() => bundler.stop());
  const { name } = project.definition;
  if (args.fresh) await beginAnew(directory, own, name, display);
  checkBelongs(directory, name, own ? placeOf(own) : "embedded");

  const failure = new AbortController();
  const until = AbortSignal.any([signal, failure.signal]);
  display.say(`tributary dev: pipeline ${name} of ${definitionName(project)}`);
  const database = await openDatabase({
    args,
    own,
    schema,
    project,
    directory,
    display,
    parts,
    signal: until,
  });

  const variables = {
    [DEFINITION_VARIABLE]: project.definitionFile,
    [NAME_VARIABLE]: devSlotName(name, directory.state.id),
    [SNAPSHOT_VARIABLE]: args.snapshot ? "1" : "0",
    [UNBOUNDED_VARIABLE]: database.here ? "1" : "0",
  };
  Object.assign(process.env, variables);
  const definition = await readDefinition(DEV_DEFINITION);
  const log = await checkSource(definition, database, directory, display, until);

  display.say("starting the Kinesis, DynamoDB and SQS emulators …");
  const aws = await startAws(directory, definition, until, display, (error) => failure.abort(error));
  parts.defer(() => aws.stop());
  await directory.update({ pipeline: name, database: database.place, ready: true });
  if (log && (await continueHistory(directory, log, database, aws, until)))
    display.say("a new epoch begins: the slot was dropped when the last run ended");
  if (log) announce(log, database, args, display);
  display.say(`starting capture and ${definition.consumers.map((consumer) => consumer.name).join(", ")} …`);
  const entries = Object.fromEntries([...bundles].map(([consumer, { file }]) => [consumer, file]));
  const facts = { project: project.directory, definition, aws, database, variables };
  if (log && !database.here) parts.defer(() => farewell(directory, database, log, args, display));
  const host = await startLocalHost({
    definition,
    definitionFile: DEV_DEFINITION,
    projectDirectory: project.directory,
    databaseUrl: database.url,
    aws,
    captureEnvironment: {
      ...inherited(CONNECTION_VARIABLES),
      ...variables,
      TRIBUTARY_LEASE_MS: String(DEV_LEASE_MS),
    },
    handlerEnvironment: inherited(Object.keys(process.env)),
    files: new Map(Object.entries(entries)),
    sourceMaps: true,
    canRedrive: true,
    checkpoints: (consumer) => new FileCheckpoints(directory.file("checkpoints", `${consumer}.json`)),
    onLog: display.log,
    onFailure: (error) => failure.abort(error),
    signal: until,
  });
  parts.defer(() => host.stop());
  const write = (files: Readonly<Record<string, string>>) =>
    writeDevFile(directory, { ...facts, entries: files });
  await write(entries);
  parts.defer(() => removeDevFile(directory));
  const reloader = new HandlerReloader({
    host,
    bundles,
    directory,
    redrive: (consumer) => redriveChanged(host, consumer, { pipeline: name, aws, signal: until }),
    display,
    signal: until,
    write,
  });
  parts.defer(() => reloader.stop());
  sayEndpoints(aws, database, display);
  await reloader.start(bundler);
  await show(host, project, log, database, display, parts, until);
  if (failure.signal.aborted) throw failure.signal.reason;
}

function refuseContradictions({ databaseUrl, schema, port }: DevArguments): void {
  const problems = [
    [
      "--schema",
      schema,
      "leave it out: it is for the embedded server; run it on your database yourself",
    ] as const,
    ["--port", port, "leave it out: it is for the embedded server"] as const,
  ].flatMap(([path, value, remedy]) =>
    databaseUrl !== undefined && value !== undefined ? [{ path, value, remedy }] : [],
  );
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
}

/** Removes what an earlier run has left here and in the database. */
async function beginAnew(
  directory: StateDirectory,
  own: ReturnType<typeof ownDatabase> | undefined,
  pipeline: string,
  display: Display,
): Promise<void> {
  const { state } = directory;
  const name = devSlotName(state.pipeline ?? pipeline, state.id);
  if (own) {
    const dropped = await dropDevTraces(own, name, AbortSignal.timeout(FAREWELL_MS));
    if (dropped.length > 0) display.say(`dropped ${[...new Set(dropped)].join(", ")}`);
  }
  if (
    state.database !== undefined &&
    state.database !== "embedded" &&
    (!own || state.database !== placeOf(own))
  )
    display.say(`on ${state.database} the slot ${name} may still be: ${dropSql(name)}`);
  await removeProjectServer(directory);
  await directory.begin([BUILD]);
}

/**
 * Reports whatever would stop capture, before anything is made. Gives the pipeline where it reads through slots.
 * @throws PreflightError, SlotInUseError, DevRemoteError
 */
async function checkSource(
  definition: Pipeline,
  database: DevDatabase,
  directory: StateDirectory,
  display: Display,
  signal: AbortSignal,
): Promise<LogPipeline | undefined> {
  const { connection } = database;
  const log = sourceKind(definition.source).throughSlots?.(definition);
  if (!log) {
    if (!database.here) throw refusedKind(definition, database);
    await sourceKind(definition.source).check({ connection, pipeline: definition, signal });
    return undefined;
  }
  await awaitUnread(connection, log, directory.wasKilled ? "killed" : "ended", signal, (pid) =>
    display.say(`waiting for the reader of the last run to end (server process ${pid}) …`),
  );
  await check(database, log, signal);
  return log;
}

/** Other kinds keep what they have read where a deployed pipeline would look for it too. */
function refusedKind({ source }: Pipeline, { place }: DevDatabase): Error {
  return new DevRemoteError({
    message: `${place} is not this machine's, and a pipeline that reads by ${source.kind} shares its tables with every other one there: it would take changes from them`,
    remedy: "Run it on the embedded server (leave --database-url out), or on a server of this machine.",
  });
}

async function farewell(
  directory: StateDirectory,
  { connection, place }: DevDatabase,
  { source }: LogPipeline,
  { keepSlot }: DevArguments,
  display: Display,
): Promise<void> {
  if (keepSlot) {
    display.say(
      `the slot ${source.slot} stays on ${place}, and WAL is kept for it: tributary dev --clean drops it`,
    );
    return;
  }
  try {
    // First: a start that finds neither slot nor this word would think that changes are lost.
    await directory.update({ slotDropped: true });
    await dropDevTraces(connection, source.slot, AbortSignal.timeout(FAREWELL_MS));
    display.say(`dropped the slot and the publication ${source.slot} on ${place}`);
  } catch (error) {
    display.say(`the slot ${source.slot} could not be dropped on ${place}: ${(error as Error).message}`);
    display.say(`  tributary dev --clean, or: ${dropSql(source.slot)}`);
  }
}

async function show(
  host: LocalHost,
  { definition }: Project,
  log: LogPipeline | undefined,
  database: DevDatabase,
  display: Display,
  parts: AsyncDisposableStack,
  until: AbortSignal,
): Promise<void> {
  const tables = (log ?? definition).source.tables.join(", ");
  using sampler = new FiguresSampler(host, {
    pipeline: definition.name,
    source:
      database.place === "embedded" ? `embedded PostgreSQL, ${placeOf(database.connection)}` : database.place,
    hints: [`Change a row of ${tables} and see it arrive.`],
    log: display.recent,
  });
  display.show(() => sampler.figures);
  parts.defer(() => display.say("stopping …"));
  parts.defer(() => display.close());
  while (!until.aborted) await delay(60_000, undefined, { signal: until }).catch(() => undefined);
}

function inherited(names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}
