import { Command } from "commander";
import { init, terminalAsk } from "./init.ts";

interface Given {
  readonly databaseUrl?: string;
  readonly tables?: string[];
  readonly name?: string;
  readonly install: boolean;
  readonly yes?: boolean;
}

/** `tributary init`, which `npm create tributary-cdc` runs too. */
export function initCommand(name = "init"): Command {
  return new Command(name)
    .description("make a project: definition, handler with a test, CDK app")
    .argument("[directory]", "where (default: here)")
    .option("--database-url <url>", "capture from this database (default: $DATABASE_URL, or an embedded one)")
    .option("--tables <pattern...>", "of that database: capture these, and ask nothing", patterns)
    .option("--name <name>", "of the pipeline and the package (default: the folder's)")
    .option("--no-install", "do not run npm install")
    .option("--yes", "ask nothing: capture every table that can be")
    .addHelpText(
      "after",
      `
Nothing is overwritten: where a file is there with another text, nothing is written at all. The database's password goes into
.env, which only its owner may read and git leaves out.

Examples:
  npx tributary-cdc init shop-changes
  npx tributary-cdc init --database-url postgres://me:secret@localhost/shop --tables public.orders`,
    )
    .action(async (directory: string | undefined, given: Given) => {
      await init(
        {
          directory,
          databaseUrl: given.databaseUrl ?? (process.env.DATABASE_URL || undefined),
          tables: given.tables,
          name: given.name,
          install: given.install,
          yes: given.yes === true,
        },
        { say: (line) => void process.stdout.write(`${line}\n`), ask: terminalAsk() },
      );
    });
}

function patterns(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), ...text.split(",").map((pattern) => pattern.trim())];
}
