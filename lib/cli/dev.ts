import { resolve } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import type { DevArguments } from "../local/dev/arguments.ts";
import { abortOnSignals, abortWithNpm } from "../local/stop-signal.ts";
import { loadProjectEnvironment } from "./project-environment.ts";

interface DevOptions {
  readonly pipeline?: string;
  readonly databaseUrl?: string;
  readonly schema?: string;
  readonly snapshot: boolean;
  readonly fresh: boolean;
  readonly keepSlot: boolean;
  readonly clean: boolean;
  readonly port?: number;
}

const LINGER_MS = 500;

/** `tributary dev`: one's own pipeline on this machine. */
export function devCommand(): Command {
  return new Command("dev")
    .description("run your own pipeline on this machine, with your handlers reloaded when they change")
    .option(
      "--pipeline <file>",
      "the pipeline definition (default: $TRIBUTARY_PIPELINE, tributary.config.ts here or above, or cdk/pipeline.ts)",
    )
    .option(
      "--database-url <url>",
      "capture from this database (default: $DATABASE_URL, also of the project's .env, or an embedded PostgreSQL)",
    )
    .option("--schema <file>", "SQL file that a fresh embedded PostgreSQL begins with (default: schema.sql)")
    .option("--snapshot", "read the existing rows too", false)
    .option("--fresh", "forget what an earlier run has left in .tributary and in the database", false)
    .option("--keep-slot", "keep the slot at the end where the server is not this machine's", false)
    .option(
      "--clean",
      "drop what earlier runs here have made in the database, list what others left, and end",
      false,
    )
    .option(
      "--port <n>",
      "port of the embedded PostgreSQL (default: a free one, the same each time)",
      portNumber,
    )
    .addHelpText(
      "after",
      `
Position, dead letters and the embedded database are kept in .tributary/: the next run goes on. Ctrl-C ends it.

  tributary dev
  tributary dev --database-url postgres://me@localhost/mine
  tributary dev --schema db/schema.sql`,
    )
    .action(dev);
}

async function dev(options: DevOptions): Promise<void> {
  const [{ openDisplay }, { runDev }, { cleanDev }] = await Promise.all([
    import("../local/display.ts"),
    import("../local/dev/run.ts"),
    import("../local/dev/clean.ts"),
  ]);
  const stopping = stopsOnSignals();
  const { pipeline, schema, snapshot, fresh, keepSlot, port, clean } = options;
  await loadProjectEnvironment(pipeline);
  const args: DevArguments = {
    ...{ pipeline, snapshot, fresh, keepSlot, port },
    schema: schema === undefined ? undefined : resolve(schema),
    // Who names a schema wants the embedded server.
    databaseUrl:
      options.databaseUrl ?? (schema === undefined ? process.env.DATABASE_URL || undefined : undefined),
  };
  const display = openDisplay(process.stdout);
  try {
    await (clean ? cleanDev(args, display, stopping) : runDev(args, display, stopping));
  } catch (error) {
    if (!stopping.aborted || (error as Error).name !== "AbortError") throw error;
  } finally {
    display.close();
    // What still holds the event loop then (sockets of clients) must not hold the process.
    setTimeout(() => process.exit(), LINGER_MS).unref();
  }
}

/** Aborts at Ctrl-C, or when nobody reads the output any more. */
function stopsOnSignals(): AbortSignal {
  const stopping = new AbortController();
  abortOnSignals(stopping);
  abortWithNpm(stopping);
  process.stdout.on("error", () => stopping.abort());
  return stopping.signal;
}

function portNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > 65_535)
    throw new InvalidArgumentError("write a port from 1 to 65535.");
  return value;
}
