import { fileURLToPath } from "node:url";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { tablePattern } from "../change/table-pattern.ts";
import { ConfigurationError, type ConfigurationProblem } from "../change/tributary-error.ts";

/** Ways to catch the shop's changes, and the definition of each. */
const SHOP_SOURCES = {
  log: "cdk/pipeline.ts",
  triggers: fileURLToPath(new URL("./shop/sources/triggers.ts", import.meta.url)),
  polling: fileURLToPath(new URL("./shop/sources/polling.ts", import.meta.url)),
  outbox: fileURLToPath(new URL("./shop/sources/outbox.ts", import.meta.url)),
} as const;
/** A way to catch the shop's changes. */
export type ShopSource = keyof typeof SHOP_SOURCES;

/** Parsed command line of `npm start`. */
export interface StartArguments {
  /** File of the pipeline definition; undefined where `tables` make one. */
  readonly pipeline: string | undefined;
  /** Kind of source that watches the shop; its definition is in `pipeline`. */
  readonly source: ShopSource;
  /** The user's own database; undefined for the shop on an embedded one. */
  readonly databaseUrl: string | undefined;
  readonly tables: readonly string[] | undefined;
  /** Patterns of tables left out of `tables`. */
  readonly exclude: readonly string[];
  readonly dropSlotOnExit: boolean;
  /** Changes a second of the workload; undefined: as fast as it can. */
  readonly rate: number | undefined;
  readonly changes: number | undefined;
  readonly exit: boolean;
  readonly json: boolean;
  readonly port: number | undefined;
}

const DEFAULT_RATE = 100;
const DEFAULT_PIPELINE = SHOP_SOURCES.log;

const HELP = `
The counts:
  changes        change events that follow from what the workload committed: a row inserted, updated or
                 deleted is one, an update that changes a key is two (a delete and a create), what was
                 rolled back is none. The workload stops after the transaction that reaches --changes.
  published      change events in records that Kinesis acknowledged
  applied        change events that took effect. Each of the shop's tables has one consumer, so that this is
                 changes without the dead-lettered ones when all is well
  duplicates     change events that came again and were dropped, over all consumers
  deadLettered   change events given up, over all consumers. The workload cancels an order now and then for
                 a reason that notifications has no letter for: these are expected, anything else is a mismatch
  mismatches     rows that a consumer holds otherwise than the table does, and notifications missing or
                 doubled
  seconds        from the first commit to the last effect
What a killed process had not reported yet is in no count; the comparison sees all the same.

Examples:
  npm start
  npm start -- --changes 20000 --exit --json
  npm start -- --source triggers
  npm start -- --source outbox
  npm start -- --database-url postgres://me@localhost/mine --tables 'public.*'
`;

/** Help was asked for and printed: nothing more is to be done. */
export const HELP_SHOWN = Symbol("help shown");

/**
 * Reads the command line of `npm start`.
 * @throws ConfigurationError naming the argument, what was given, and what should be.
 */
export function parseArguments(
  argv: readonly string[],
  print: (text: string) => void,
): StartArguments | typeof HELP_SHOWN {
  const command = new Command("npm start --")
    .description(
      "Runs a pipeline on this machine: PostgreSQL, capture, a Kinesis stream, Lambda handlers, all of it local.\nWithout arguments: the shop demo on an embedded PostgreSQL, until Ctrl-C.",
    )
    .addOption(
      new Option(
        "--rate <n>",
        `changes a second of the shop's workload (default ${DEFAULT_RATE}, with --changes as fast as it can)`,
      ).argParser(positive),
    )
    .addOption(new Option("--changes <n>", "stop the workload after so many changes").argParser(positive))
    .option("--exit", "with --changes: wait until all took effect, compare every table, and end", false)
    .option("--json", "with --exit: print the result as one JSON line", false)
    .addOption(
      new Option("--port <n>", "port of the embedded PostgreSQL (default a free one)").argParser(portNumber),
    )
    .addOption(
      new Option(
        "--source <kind>",
        "how the shop's changes are caught (polling sees last states; outbox: the events it publishes)",
      )
        .choices(Object.keys(SHOP_SOURCES))
        .default("log"),
    )
    .option("--pipeline <file>", `the pipeline definition (default ${DEFAULT_PIPELINE})`)
    .addOption(new Option("--database-url <url>", "capture from this database instead of the shop"))
    .addOption(
      new Option(
        "--tables <pattern...>",
        "with --database-url: capture these tables and count their changes (default public.*)",
      ).argParser(tables),
    )
    .addOption(
      new Option("--exclude <pattern...>", "with --tables: leave these out")
        .argParser(tables)
        .default([], "none"),
    )
    .option("--drop-slot-on-exit", "with --database-url: remove slot and publication at the end", false)
    .helpOption("-h, --help", "show this")
    .addHelpText("after", HELP)
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeOut: print, writeErr: () => {} });
  try {
    command.parse(argv, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === "commander.helpDisplayed") return HELP_SHOWN;
    const message = error.message.replace(/^error: /, "");
    throw new ConfigurationError("The command line", [
      {
        path: "npm start",
        value: withoutPasswords(argv.join(" ")),
        remedy: `${message}; npm start -- --help shows what there is`,
      },
    ]);
  }
  const given = command.opts<{
    rate?: number;
    changes?: number;
    exit: boolean;
    json: boolean;
    port?: number;
    pipeline?: string;
    source: ShopSource;
    databaseUrl?: string;
    tables?: string[];
    exclude: string[];
    dropSlotOnExit: boolean;
  }>();
  const own = given.databaseUrl !== undefined;
  const generic = own && given.pipeline === undefined;
  refuseContradictions(given, own, generic);
  return {
    pipeline: generic ? undefined : (given.pipeline ?? SHOP_SOURCES[given.source]),
    source: given.source,
    databaseUrl: given.databaseUrl,
    tables: generic ? (given.tables ?? ["public.*"]) : undefined,
    exclude: given.exclude,
    dropSlotOnExit: given.dropSlotOnExit,
    rate: given.rate ?? (given.changes === undefined ? DEFAULT_RATE : undefined),
    changes: given.changes,
    exit: given.exit,
    json: given.json,
    port: given.port,
  };
}

function refuseContradictions(
  given: {
    rate?: number;
    changes?: number;
    exit: boolean;
    json: boolean;
    port?: number;
    tables?: string[];
    pipeline?: string;
    source: ShopSource;
    databaseUrl?: string;
    exclude: string[];
    dropSlotOnExit: boolean;
  },
  own: boolean,
  generic: boolean,
): void {
  const problems: ConfigurationProblem[] = [];
  const refuse = (wrong: boolean, path: string, value: unknown, remedy: string) => {
    if (wrong) problems.push({ path, value, remedy });
  };
  refuse(
    given.exit && given.changes === undefined,
    "--exit",
    true,
    "say --changes <n> too: the end of what?",
  );
  refuse(
    given.source !== "log" && (own || given.pipeline !== undefined),
    "--source",
    given.source,
    "leave it out: it is the shop's, and the pipeline definition says what it captures by",
  );
  refuse(
    given.source === "polling" && given.exit,
    "--exit",
    true,
    "leave it out: polling does not see every state, so that counts cannot agree",
  );
  refuse(given.json && !given.exit, "--json", true, "say --exit too: the JSON line is printed at the end");
  refuse(
    given.databaseUrl !== undefined && !isPostgresUrl(given.databaseUrl),
    "--database-url",
    withoutPasswords(given.databaseUrl ?? ""),
    "write it as postgres://user:password@host:5432/database",
  );
  for (const [path, value] of [
    ["--rate", given.rate],
    ["--changes", given.changes],
    ["--port", given.port],
  ] as const) {
    refuse(
      own && value !== undefined,
      path,
      value,
      "leave it out: it belongs to the shop, not to --database-url",
    );
  }
  refuse(!own && given.tables !== undefined, "--tables", given.tables, "say --database-url too");
  refuse(
    own && !generic && given.tables !== undefined,
    "--tables",
    given.tables,
    "leave it out: --pipeline names the tables",
  );
  refuse(
    given.exclude.length > 0 && !generic,
    "--exclude",
    given.exclude,
    "set source.exclude in the pipeline definition instead",
  );
  refuse(
    given.dropSlotOnExit && !own,
    "--drop-slot-on-exit",
    true,
    "leave it out: the embedded database goes as a whole",
  );
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
}

function positive(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < 1) {
    throw new InvalidArgumentError("write a whole number from 1.");
  }
  return value;
}

function portNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > 65_535) {
    throw new InvalidArgumentError("write a port from 1 to 65535.");
  }
  return value;
}

/** A URL's password does not belong into an error message. */
function withoutPasswords(text: string): string {
  return text.replaceAll(/(:\/\/[^\s:@/]*):[^\s@]*@/g, "$1:***@");
}

function isPostgresUrl(text: string): boolean {
  return URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol);
}

function tables(text: string, before: string[] | undefined): string[] {
  const patterns = text.split(",").map((pattern) => pattern.trim());
  for (const pattern of patterns) {
    try {
      tablePattern(pattern);
    } catch (error) {
      throw new InvalidArgumentError(`${(error as Error).message}.`);
    }
  }
  return [...(before ?? []), ...patterns];
}
