import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { Command, Option } from "commander";
import { errorLines } from "../change/error-text.ts";
import { quoteTable } from "../change/sql-identifier.ts";
import { formatTable } from "../change/table-pattern.ts";
import { ConfigurationError, TributaryError } from "../change/tributary-error.ts";
import { completeDefinition, postgres } from "../definition/pipeline.ts";
import type { Log } from "../log.ts";
import { isTailsOwn, type LogPipeline, TAIL_NAME } from "../source/postgres/definition.ts";
import { isOfIdentity } from "../source/postgres/identity/identity-errors.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { PreflightError, SlotInUseError } from "../source/postgres/postgres-errors.ts";
import { openPostgresSource, type PostgresSource } from "../source/postgres/postgres-source.ts";
import { changedLine, hidesOldValues } from "./changed-line.ts";
import { commandDatabase } from "./database.ts";
import { databaseUrlOption, limitOption, patternsOption } from "./options.ts";
import { prettyLine } from "./pretty-line.ts";
import { readableEvent } from "./readable-event.ts";
import { note } from "./say.ts";
import { standardOutput } from "./standard-output.ts";
import { NewTables } from "./tail-new-tables.ts";
import { endOnSignals } from "./tail-output.ts";
import { TailPrinter } from "./tail-printer.ts";
import { TailRows } from "./tail-rows.ts";
import { checkTailSlot, dropTailSlot } from "./tail-slot.ts";

interface TailOptions {
  readonly databaseUrl?: string;
  readonly tables?: readonly string[];
  readonly exclude?: readonly string[];
  readonly publication?: string;
  readonly slot: string;
  readonly limit?: number;
  readonly json?: boolean;
  readonly pretty?: boolean;
  readonly changed?: boolean;
  readonly snapshot?: boolean;
  readonly dropSlot?: boolean;
}

/** Time that the server has to let go of the slot that we have closed. */
const LETS_GO_MS = 10_000;

/** `tributary tail`: change events of a database as JSON lines on standard output, as they happen. */
export function tailCommand(): Command {
  return new Command("tail")
    .description("print change events of a PostgreSQL database as JSON lines, as they happen")
    .addOption(databaseUrlOption())
    .addOption(
      patternsOption(
        "--tables <pattern...>",
        "tables to print, such as public.*,sales.orders (default: all)",
      ),
    )
    .addOption(patternsOption("--exclude <pattern...>", "tables to leave out, stronger than --tables"))
    .option(
      "--publication <name>",
      `an existing publication to follow: tables that join it are printed (default: one of our own, ${TAIL_NAME})`,
    )
    .option(
      "--slot <name>",
      "replication slot; it stays, so that the next tail goes on where this one ended",
      TAIL_NAME,
    )
    .addOption(limitOption("end after this many events", 0))
    .option("--snapshot", "the rows that are there first, as events of op r")
    .addOption(
      new Option("--json", "events as JSON lines, which is the default").conflicts(["pretty", "changed"]),
    )
    .addOption(new Option("--pretty", "a short line for people instead of JSON").conflicts("changed"))
    .option("--changed", "what became of each row, for people: public.orders 17  status: placed → paid")
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
  const { slot } = definitionOf(options, []).source;
  const [read, drop] = [options.limit !== 0, options.dropSlot === true];
  await checkTailSlot({ connection, slot, read, drop });
  if (read && !(await follow(connection, output, options, ending.signal))) return;
  if (drop) {
    const dropped = await dropTailSlot(connection, slot);
    note(dropped.length > 0 ? `dropped ${dropped.join(" and ")}` : `there is no slot "${slot}" to drop`);
  } else {
    const how = isTailsOwn(slot) ? "--drop-slot" : `SELECT pg_drop_replication_slot('${slot}');`;
    note(`the slot "${slot}" stays, and PostgreSQL keeps WAL for it; ${how} removes it`);
  }
}

/** Prints until the end. The source is opened anew with each table that comes to a publication of our own. Returns false where it never was opened. */
async function follow(
  connection: PostgresConnectionOptions,
  output: Writable,
  options: TailOptions,
  ending: AbortSignal,
): Promise<boolean> {
  const rows = new TailRows({ all: options.snapshot === true, say: note });
  const tables = new NewTables({
    connection,
    pipelineWithout: (names) => definitionOf(options, names),
    say: note,
  });
  const printer = new TailPrinter(output, lineOf(options), options.limit, ending);
  const log = spoken();
  for (let opened = 0; ; opened++) {
    const anew = new AbortController();
    const source = await open(connection, tables.pipeline, {
      ...{ rows, log },
      follow: options.publication !== undefined,
      isFirst: opened === 0,
      signal: AbortSignal.any([ending, anew.signal]),
    }).catch((error) => {
      if (ending.aborted) return undefined;
      throw error;
    });
    if (!source) return opened > 0;
    const isDue = () => rows.isIdle;
    const watched =
      options.publication === undefined
        ? tables.next(source.tables, isDue, AbortSignal.any([ending, anew.signal]))
        : Promise.resolve([]);
    let found: readonly string[] = [];
    void watched.then((names) => {
      found = names;
      if (names.length > 0) anew.abort();
    });
    try {
      await printer.print(source);
    } catch (error) {
      throw asTailEnds(error);
    } finally {
      await source.close();
    }
    const isOver = !anew.signal.aborted || printer.isDone || ending.aborted;
    anew.abort();
    await watched;
    if (isOver) return true;
    for (const name of found) {
      note(`${name} is new: it is printed, with the rows that it has`);
      rows.add(name);
    }
  }
}

/** Tail holds no topic that could be released. */
const RENAMED =
  "Run the same tail again: it goes on where this one ended, with the tables as they are called and keyed now.";

/** What tail ends with: where a table is another one, or has another key, capture's way out is none here. */
function asTailEnds(error: unknown): unknown {
  if (error instanceof TributaryError && isOfIdentity(error.code))
    return Object.assign(error, { remedy: RENAMED });
  return error;
}

/** Opens the slot; behind ourselves as soon as the server has let go of it. */
async function open(
  connection: PostgresConnectionOptions,
  pipeline: LogPipeline,
  given: {
    readonly rows: TailRows;
    readonly log: Log;
    readonly follow: boolean;
    readonly isFirst: boolean;
    readonly signal: AbortSignal;
  },
): Promise<PostgresSource> {
  const { rows, log, follow, isFirst, signal } = given;
  const until = performance.now() + LETS_GO_MS;
  for (;;) {
    try {
      return await openPostgresSource({
        ...{ connection, pipeline, follow, signal },
        record: undefined,
        backfill: { record: rows },
        // There is no lease that says the other reader must end: the person who waits is told at once.
        takeoverMs: 0,
        log: isFirst ? log : { ...log, info: () => {} },
      });
    } catch (error) {
      // Another tail may have added the same table to the publication meanwhile.
      const passes = error instanceof SlotInUseError || error instanceof PreflightError;
      if (isFirst || !passes || performance.now() > until) throw error;
      await delay(100, undefined, { signal });
    }
  }
}

function definitionOf(options: TailOptions, without: readonly string[]): LogPipeline {
  return completeDefinition({
    name: "tail",
    source: postgres({
      tables: [...(options.tables ?? ["*.*"])],
      exclude: [...(options.exclude ?? []), ...without],
      slot: options.slot,
      publication: options.publication ?? TAIL_NAME,
      snapshot: options.snapshot ? "initial" : "never",
      // Said on standard error at the end instead: someone is looking.
      acceptUnboundedWal: true,
      sqlAsciiEncoding: "utf-8",
      messages: ["*"],
    }),
  });
}

/** Format of printed events. */
function lineOf({ pretty, changed }: TailOptions): (json: string) => string {
  if (changed) {
    const hinted = new Set<string>();
    return (json) => {
      const event = readableEvent(json);
      const table = formatTable(event.source);
      if (hidesOldValues(event) && !hinted.has(table)) {
        hinted.add(table);
        note(
          `the log has no old values of ${table}: ALTER TABLE ${quoteTable(event.source)} REPLICA IDENTITY FULL; shows them`,
        );
      }
      return changedLine(event);
    };
  }
  return pretty ? (json) => prettyLine(readableEvent(json)) : (json) => json;
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
      note(`the publication "${publication}" holds no table now: what joins it is printed from then on`);
    if (rows.length > 0) return;
    const remedy = "name an existing publication, or leave the option out for one of our own";
    throw new ConfigurationError("The command line", [{ path: "--publication", value: publication, remedy }]);
  });
}

/** Prints the log of one source after the other for a person at the terminal: of warnings each once. */
function spoken(): Log {
  const warned = new Set<string>();
  const withRemedy: Log["warn"] = (message, fields) => {
    const remedy = isOfIdentity(String(fields?.code)) ? RENAMED : fields?.remedy;
    const [first = "", ...more] = errorLines({
      ...{ message, remedy: typeof remedy === "string" ? remedy : undefined },
      code: typeof fields?.code === "string" ? fields.code : undefined,
    });
    const lines = [first, ...more.map((line) => `  ${line}`)].join("\n");
    if (!warned.has(lines)) note(lines);
    warned.add(lines);
  };
  return { info: note, warn: withRemedy, error: withRemedy };
}
