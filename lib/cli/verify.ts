import { resolve } from "node:path";
import type { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { Command } from "commander";
import type pg from "pg";
import { NoVerifyTaskError } from "../admin/remote-errors.ts";
import type { PipelineResources } from "../admin/resources.ts";
import { dynamodbClient } from "../aws/clients.ts";
import { explain } from "../change/error-text.ts";
import { formatTable, parseTable, type TableName } from "../change/table-pattern.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";
import type { SinkRow, VerifiableTable } from "../consume/api/verifiable-sink.ts";
import { StateItemError } from "../consume/consume-errors.ts";
import { ConsumerTable } from "../consume/fence/consumer-table.ts";
import { ParkedChains } from "../consume/hold/parked-chains.ts";
import { keyLabel, keyText } from "../consume/hold/parked-keys.ts";
import { readCheckpoints } from "../consume/run/checkpoints.ts";
import { captures } from "../definition/definition.ts";
import { readDefinition } from "../definition/file.ts";
import { findDefinition } from "../definition/find-definition.ts";
import { routeTables } from "../definition/route.ts";
import { topicPattern } from "../definition/topic-pattern.ts";
import { type LogPipeline, requireLog } from "../source/postgres/definition.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import { explainSessionError } from "../source/postgres/link/connection-errors.ts";
import { slotNames } from "../source/postgres/slots/assignment.ts";
import { slotOfTable } from "../source/postgres/slots/share.ts";
import { readCaptureRecord } from "../state/capture-record.ts";
import { passProbe } from "../verify/passage.ts";
import { SourceTable } from "../verify/source-table.ts";
import { type Comparison, compareTable, type RowDifference } from "../verify/verify.ts";
import { commandDatabase } from "./database.ts";
import {
  consumerOption,
  databaseUrlOption,
  jsonOption,
  limitOption,
  oneTableOption,
  pipelineOption,
  secondsOption,
  stateTableMissing,
  stateTableOption,
  unknownConsumer,
} from "./options.ts";
import { orRemote } from "./remote.ts";
import { loadSink } from "./verified-sink.ts";

interface VerifyOptions {
  readonly table: string;
  readonly consumer: string;
  readonly pipeline?: string;
  readonly stateTable?: string;
  readonly databaseUrl?: string;
  readonly timeout: number;
  readonly limit: number;
  readonly json?: boolean;
}

/** The table to compare, and how to reach both sides. */
interface Request {
  readonly pipeline: LogPipeline;
  readonly table: TableName;
  /** Absolute. */
  readonly entry: string;
  readonly stateTable: string;
}

/** `tributary verify`: compares what a consumer's sink holds with the source. */
export function verifyCommand(): Command {
  const command = new Command("verify")
    .description("compare a table with what a consumer's sink holds of it, and tell lag from loss")
    .addOption(oneTableOption().makeOptionMandatory())
    .addOption(consumerOption("the consumer, whose entry file exports `sink`").makeOptionMandatory())
    .addOption(pipelineOption())
    .addOption(stateTableOption())
    .addOption(databaseUrlOption("the primary"))
    .addOption(
      secondsOption("--timeout <seconds>", "how long to wait for a consumer that is behind", 1).default(60),
    )
    .addOption(limitOption("rows that differ: how many are looked at and named", 1, 1000))
    .addOption(jsonOption("one line"))
    .addHelpText(
      "after",
      `
The sink is read in this process, with this environment; with --remote in a task of the stack, with the code, the variables and the
policies of the deployed consumer, and only reads of the state table beside them. Rows are named by key, values are never printed. A row counts as
missing, extra or different only when the consumer has passed a probe in every partition and neither side changed the row
meanwhile. Exit code 0: equal, 1: differences, 2: could not tell (the consumer is behind, or an error).
See the docs, "Backfill".

  tributary verify --table public.orders --consumer order-summary`,
    );
  return orRemote(command, run, { taskDefinition: verifyTask, failed });
}

async function run(options: VerifyOptions): Promise<void> {
  try {
    const comparison = await verify(options);
    process.stdout.write(options.json ? `${JSON.stringify(comparison)}\n` : inWords(comparison, options));
    process.exitCode = exitCode(comparison);
  } catch (error) {
    failed(error);
  }
}

function failed(error: unknown): void {
  process.stderr.write(`${explain(explainSessionError(error))}\n`);
  // 1 says that rows differ.
  process.exitCode = 2;
}

/** Returns the task that can read the consumer's sink. @throws ConfigurationError where the stack has no such consumer; RemoteImageError */
function verifyTask({ place, consumers }: PipelineResources, { consumer }: VerifyOptions): string {
  const found = Object.hasOwn(consumers, consumer) ? consumers[consumer] : undefined;
  if (!found) {
    const names = Object.keys(consumers).join(", ");
    const remedy = `name one of ${place}: ${names || "it has none"}`;
    throw new ConfigurationError("The command line", [{ path: "--consumer", value: consumer, remedy }]);
  }
  if (found.verifyTask === undefined) throw new NoVerifyTaskError(consumer, place);
  return found.verifyTask;
}

async function verify(options: VerifyOptions): Promise<Comparison> {
  const request = await requestOf(options);
  const { pipeline, table, stateTable } = request;
  const { signal } = new AbortController();
  // The source's side as this process was started: a sink in a task of its own brings the variables of its function.
  const environment = { ...process.env };
  const dynamodb = dynamodbClient(environment);
  const sink = await loadSink(request.entry);
  try {
    const held = sink.table(table);
    if (!held) throw wrong("--table", options.table, `the sink of ${options.consumer} holds nothing of it`);
    const connection = await commandDatabase(options.databaseUrl, environment);
    return await withConnection(connection, {}, (client) =>
      compare(client, held, { ...request, ...options, dynamodb, table, pipeline, stateTable }, signal),
    );
  } finally {
    await sink.close?.();
  }
}

async function compare(
  client: pg.Client,
  sink: VerifiableTable,
  request: Request &
    Pick<VerifyOptions, "consumer" | "timeout" | "limit"> & { readonly dynamodb: DynamoDBClient },
  signal: AbortSignal,
): Promise<Comparison> {
  const { dynamodb, pipeline, table, stateTable, consumer, timeout, limit } = request;
  const place = { dynamodb, table: stateTable, pipeline: pipeline.name };
  const number = await slotOfTable(client, pipeline, table);
  const { slot } = await readCaptureRecord({ ...place, slot: number, signal });
  if (!slot) throw wrong("--state-table", stateTable, "no capture task of this pipeline ever ran with it");
  const source = await SourceTable.open(client, slotNames(pipeline.source, number).publication, table);
  checkColumns(source, sink);
  const { topic, key } = routeTables(pipeline)(table);
  const own = source.columns.filter((column) => source.key.includes(column)).map(({ name }) => name);
  return compareTable({
    source,
    sink,
    pass: () =>
      passProbe({
        ...{ client, slot: slot.slot, table: formatTable(table), epoch: slot.epoch, signal },
        checkpoints: () => readCheckpoints(place, consumer, topic, signal),
        timeoutMs: timeout * 1000,
      }),
    isParked: await parkedRows(
      new ParkedChains(new ConsumerTable({ dynamodb, table: stateTable, pipeline: pipeline.name, consumer })),
      { topic: topic.name, table, key: key ?? own },
      signal,
    ),
    maxRows: limit,
    signal,
  });
}

/** A slip in the sink's list would leave a column uncompared. */
function checkColumns(source: SourceTable, { columns }: VerifiableTable): void {
  const unknown = columns?.find((name) => !source.columns.some((column) => column.name === name));
  if (unknown !== undefined)
    throw wrong("sink.columns", unknown, "name columns of the source that are captured, under its names");
  const missing = source.key.find(({ name }) => columns && !columns.includes(name));
  if (missing) throw wrong("sink.columns", columns, `name the key's columns too: ${missing.name}`);
}

/** Tells whether the partition key of a row has an open dead letter. */
async function parkedRows(
  parking: ParkedChains,
  { topic, table, key }: { topic: string; table: TableName; key: readonly string[] },
  signal: AbortSignal,
): Promise<(row: SinkRow) => boolean> {
  const open = new Set<string>();
  for await (const deadLetter of parking.deadLetters(signal)) {
    if (deadLetter instanceof StateItemError) throw deadLetter;
    const ofTable = deadLetter.topic === topic && deadLetter.table === `${table.schema}.${table.table}`;
    if (ofTable && !deadLetter.superseded) open.add(deadLetter.key);
  }
  return (row) => {
    const text = keyText(key, row);
    return text !== undefined && open.has(keyLabel(text));
  };
}

async function requestOf(options: VerifyOptions): Promise<Request> {
  const { file, projectDirectory } = await findDefinition(options.pipeline);
  const pipeline = requireLog(await readDefinition(file), "verify");
  const stateTable = options.stateTable ?? process.env.TRIBUTARY_STATE_TABLE;
  const problems: ConfigurationProblem[] = [];
  const problem = (path: string, value: unknown, remedy: string) =>
    void problems.push({ path, value, remedy });
  let table: TableName | undefined;
  try {
    table = parseTable(options.table);
  } catch {
    problem("--table", options.table, 'write one table: public.orders, or public."Odd.Name"');
  }
  const consumer = pipeline.consumers.find(({ name }) => name === options.consumer);
  if (!consumer) problems.push(unknownConsumer(options.consumer, pipeline));
  if (table && !captures(pipeline.source, table))
    problem("--table", options.table, `the pipeline "${pipeline.name}" does not capture it`);
  else if (table && consumer) {
    const { topic } = routeTables(pipeline)(table);
    if (!consumer.topics.some((pattern) => topicPattern(pattern)(topic.name)))
      problem("--consumer", options.consumer, `it does not read ${topic.name}, where the table's rows go`);
  }
  if (!stateTable) problems.push(stateTableMissing());
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
  return {
    pipeline,
    stateTable: stateTable as string,
    table: table as TableName,
    entry: resolve(projectDirectory, consumer?.entry as string),
  };
}

function exitCode({ differences, behind, undecided, more }: Comparison): number {
  if (differences.length > 0) return 1;
  return behind.length > 0 || undecided > 0 || more ? 2 : 0;
}

function inWords(comparison: Comparison, { table, consumer, timeout }: VerifyOptions): string {
  const { rows, chunks, differences, behind, undecided, more } = comparison;
  const count = (n: number) => n.toLocaleString("en-US");
  const lines = [
    `${table}: ${count(rows.source)} rows at the source, ${count(rows.sink)} in the sink of ${consumer}; ${count(chunks.differing)} of ${count(chunks.all)} chunks differed at first.`,
    ...differences.map(differenceInWords),
  ];
  if (differences.length > 0)
    lines.push(
      `${count(differences.length)} rows differ, and the consumer has passed all that made them so.`,
    );
  if (behind.length > 0) {
    lines.push(
      `Lag: ${consumer} is behind in ${behind.length} partitions after ${timeout} s (${behind.slice(0, 8).join(", ")}${behind.length > 8 ? ", …" : ""}); ${count(undecided)} rows differ and may be on their way.`,
    );
  } else if (undecided > 0) lines.push(`${count(undecided)} rows changed at every look: run it again.`);
  if (more) lines.push("More rows may differ: not all could be looked at. Raise --limit, or run it again.");
  if (exitCode(comparison) === 0) lines.push("Equal.");
  return `${lines.join("\n")}\n`;
}

function differenceInWords({ kind, parked, key, columns }: RowDifference): string {
  const name = Object.entries(key)
    .map(([column, value]) => `${column}=${String(value)}`)
    .join(" ");
  const where = columns.length > 0 ? ` in ${columns.join(", ")}` : "";
  return `  ${kind.padEnd(9)} ${name}${where}${parked ? " (its key has an open dead letter: redrive it)" : ""}`;
}

function wrong(path: string, value: unknown, remedy: string): ConfigurationError {
  return new ConfigurationError("The comparison", [{ path, value, remedy }]);
}
