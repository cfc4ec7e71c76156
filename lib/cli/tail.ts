import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { Command, InvalidArgumentError } from "commander";
import type { ChangeStream, SourceMessage } from "../change/change-stream.ts";
import { ConfigurationError } from "../change/tributary-error.ts";
import { completeDefinition, postgres } from "../definition/pipeline.ts";
import type { Log } from "../log.ts";
import { isTailsOwn, type LogPipeline, TAIL_NAME } from "../source/postgres/definition.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { openPostgresSource } from "../source/postgres/postgres-source.ts";
import { whenReaderLeaves } from "./closed-pipe.ts";
import { commandDatabase } from "./database.ts";
import { prettyLine } from "./pretty-line.ts";
import { standardOutput } from "./standard-output.ts";
import { checkTailSlot, dropTailSlot } from "./tail-slot.ts";

interface TailOptions {
  readonly databaseUrl?: string;
  readonly tables?: readonly string[];
  readonly exclude?: readonly string[];
  readonly publication?: string;
  readonly slot: string;
  readonly limit?: number;
  readonly pretty?: boolean;
  readonly dropSlot?: boolean;
}

/** Ctrl-C comes from the terminal and once more from npm, which passes it on: that is not a second one. */
const SAME_SIGNAL_MS = 500;
/** At the end a reader that stands still gets this long to take the last lines. */
const LAST_WRITE_MS = 1000;

/** `tributary tail`: change events of a database as JSON lines on standard output, as they happen. */
export function tailCommand(): Command {
  return new Command("tail")
    .description("print change events of a PostgreSQL database as JSON lines, as they happen")
    .option(
      "--database-url <url>",
      "postgres://user:password@host/database; default: as the capture task finds it in the environment",
    )
    .option("--tables <patterns>", "tables to print, comma separated, such as public.* (default: all)", list)
    .option("--exclude <patterns>", "tables to leave out, stronger than --tables", list)
    .option(
      "--publication <name>",
      `an existing publication to follow: tables that join it are printed (default: one of our own, ${TAIL_NAME})`,
    )
    .option(
      "--slot <name>",
      "replication slot; it stays, so that the next tail goes on where this one ended",
      TAIL_NAME,
    )
    .option("--limit <n>", "end after this many events", count)
    .option("--pretty", "a short line for people instead of JSON")
    .option("--drop-slot", "drop the slot (and our own publication) at the end; only one that tail made")
    .addHelpText(
      "after",
      `
Standard output carries events alone; what happens is said on standard error. A line is acknowledged to PostgreSQL once it
was written out. A closed pipe, Ctrl-C or SIGTERM end it cleanly.

  tributary tail --database-url postgres://me@localhost/shop --tables 'public.*' | jq -c '[.op, .source.table, .after]'

While the slot stays, PostgreSQL keeps WAL for it. Drop it when you are done: tail --drop-slot --limit 0. That drops a slot
named ${TAIL_NAME} or ${TAIL_NAME}_…, or one that this run made. Others: SELECT pg_drop_replication_slot('…');`,
    )
    .action(tail);
}

async function tail(options: TailOptions): Promise<void> {
  const connection = await commandDatabase(options.databaseUrl);
  const output = standardOutput();
  using ending = endOnSignals(output);
  if (options.publication) await checkPublication(connection, options.publication, ending.signal);
  const pipeline = definitionOf(options, options.tables ?? ["*.*"]);
  const { slot } = pipeline.source;
  const [read, drop] = [options.limit !== 0, options.dropSlot === true];
  await checkTailSlot({ connection, slot, read, drop });
  if (read) {
    const source = await openPostgresSource({
      connection,
      pipeline,
      record: undefined,
      follow: options.publication !== undefined,
      // There is no lease that says the other reader must end: the person who waits is told at once.
      takeoverMs: 0,
      signal: ending.signal,
      log: spoken,
    }).catch((error) => {
      if (ending.signal.aborted) return undefined;
      throw error;
    });
    if (!source) return;
    try {
      await print(source, output, options, ending.signal);
    } finally {
      await source.close();
    }
  }
  if (drop) {
    const dropped = await dropTailSlot(connection, slot);
    say(dropped.length > 0 ? `dropped ${dropped.join(" and ")}` : `there is no slot "${slot}" to drop`);
  } else {
    const how = isTailsOwn(slot) ? "--drop-slot" : `SELECT pg_drop_replication_slot('${slot}');`;
    say(`the slot "${slot}" stays, and PostgreSQL keeps WAL for it; ${how} removes it`);
  }
}

function definitionOf(options: TailOptions, tables: readonly string[]): LogPipeline {
  return completeDefinition({
    name: "tail",
    source: postgres({
      tables: [...tables],
      exclude: [...(options.exclude ?? [])],
      slot: options.slot,
      publication: options.publication ?? TAIL_NAME,
      // Said on standard error at the end instead: someone is looking.
      acceptUnboundedWal: true,
      sqlAsciiEncoding: "utf-8",
      messages: ["*"],
    }),
  });
}

async function print(
  source: ChangeStream,
  output: Writable,
  options: TailOptions,
  signal: AbortSignal,
): Promise<void> {
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  for await (const batch of source.changes) {
    const lines: string[] = [];
    let durable: bigint | undefined;
    let done = false;
    for (const message of batch) {
      // Behind the last line its commit may follow: with it acknowledged, the next tail does not print the line again.
      done = left === 0;
      if (message.kind === "commit") durable = message.endLsn;
      else if (message.kind === "idle") durable = message.lsn;
      if (done) break;
      if (message.kind === "change") {
        lines.push(lineOf(message, options.pretty === true));
        left--;
      }
    }
    if (lines.length > 0 && !(await write(output, `${lines.join("\n")}\n`, signal))) return;
    if (durable !== undefined) source.acknowledge(durable);
    if (done || signal.aborted) return;
  }
}

function lineOf(change: Extract<SourceMessage, { kind: "change" }>, pretty: boolean): string {
  const json = `${change.json},"after":null}}`;
  return pretty ? prettyLine(json) : json;
}

/** Resolves when the text was handed to the system; false when nobody reads any more, or not in time at the end. */
async function write(output: Writable, text: string, signal: AbortSignal): Promise<boolean> {
  const written = Promise.withResolvers<boolean>();
  output.write(text, (error) => {
    if (!error) written.resolve(true);
    else if ((error as NodeJS.ErrnoException).code === "EPIPE") written.resolve(false);
    else written.reject(error);
  });
  const giveUp = () =>
    void delay(LAST_WRITE_MS, undefined, { ref: false }).then(() => written.resolve(false));
  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) giveUp();
  try {
    return await written.promise;
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

interface Ending extends Disposable {
  /** Aborts when the user or the reader wants no more. */
  readonly signal: AbortSignal;
}

function endOnSignals(output: Writable): Ending {
  const controller = new AbortController();
  const end = () => controller.abort();
  let since = Number.POSITIVE_INFINITY;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      const now = performance.now();
      if (now - since > SAME_SIGNAL_MS) process.exit(130);
      since = Math.min(since, now);
      end();
    });
  }
  output.on("error", end);
  const stopWatching = whenReaderLeaves(end);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      stopWatching();
      // What a reader that stands still has not taken must not hold the process.
      if (output !== process.stdout) output.destroy();
    },
  };
}

/** @throws ConfigurationError when there is no publication of that name. */
async function checkPublication(
  connection: PostgresConnectionOptions,
  publication: string,
  signal: AbortSignal,
): Promise<void> {
  await withConnection(connection, { signal }, async (client) => {
    const { rows } = await client.query<{ tables: number }>(
      `SELECT (SELECT count(*)::int FROM pg_publication_tables t WHERE t.pubname = p.pubname) AS tables
         FROM pg_publication p WHERE p.pubname = $1`,
      [publication],
    );
    if (rows[0]?.tables === 0)
      say(`the publication "${publication}" holds no table now: what joins it is printed from then on`);
    if (rows.length > 0) return;
    const remedy = "name an existing publication, or leave the option out for one of our own";
    throw new ConfigurationError("The command line", [{ path: "--publication", value: publication, remedy }]);
  });
}

/** Prints the source's log for a person at the terminal. */
const spoken: Log = {
  info: (message) => say(message),
  warn: (message, fields) =>
    say(typeof fields?.remedy === "string" ? `${message}. ${fields.remedy}` : message),
  error: (message) => say(message),
};

function say(line: string): void {
  process.stderr.write(`tributary: ${line}\n`);
}

function list(text: string): string[] {
  const patterns = text.split(",").map((pattern) => pattern.trim());
  if (patterns.includes(""))
    throw new InvalidArgumentError("write patterns such as public.orders,public.customers");
  return patterns;
}

function count(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw new InvalidArgumentError("write a whole number");
  return value;
}
