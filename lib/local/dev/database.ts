import { setTimeout as delay } from "node:timers/promises";
import { ConfigurationError } from "../../change/tributary-error.ts";
import type { LogPipeline } from "../../source/postgres/definition.ts";
import { connectionFromUrl, withConnection } from "../../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../../source/postgres/link/connection-options.ts";
import { PreflightError } from "../../source/postgres/postgres-errors.ts";
import { preflight } from "../../source/postgres/postgres-source.ts";
import { readSlot } from "../../source/postgres/slot/slot.ts";
import { slotNames, slotNumbers } from "../../source/postgres/slots/assignment.ts";
import { readByOthers } from "./server-traces.ts";
import type { StateDirectory } from "./state-directory.ts";

/** The database of a run. */
export interface DevDatabase {
  readonly url: string;
  readonly connection: PostgresConnectionOptions;
  /** `embedded`, or where the server is, as it is written down and shown. */
  readonly place: string;
  /** True where only this machine is concerned. */
  readonly here: boolean;
  readonly passwordFile: string | undefined;
}

/** Time that the reader of the last run may take to end: after its own word, and where it was killed. */
const READER_MS = { ended: 2_000, killed: 30_000 };
const LOOK_MS = 200;

/** Returns a database's name for people and files: without user and password. */
export function placeOf({ host, port, database }: PostgresConnectionOptions): string {
  return `${host}:${port}/${database}`;
}

/** The user's own database. @throws ConfigurationError */
export function ownDatabase(url: string): PostgresConnectionOptions {
  return connectionFromUrl(url, process.env);
}

/**
 * The state of another pipeline or database is not gone on with.
 * @throws ConfigurationError
 */
export function checkBelongs({ state, path }: StateDirectory, pipeline: string, place: string): void {
  const problems = [
    { path: "name", kept: state.pipeline, now: pipeline, what: "pipeline" },
    { path: "--database-url", kept: state.database, now: place, what: "database" },
  ]
    .filter(({ kept, now }) => kept !== undefined && kept !== now)
    .map(({ path: field, kept, now, what }) => ({
      path: field,
      value: now,
      remedy: `${path} holds the state of another ${what}, ${kept}: go on with that one, or begin anew with --fresh`,
    }));
  if (problems.length > 0) throw new ConfigurationError("The command line", problems);
}

/**
 * Waits until nobody reads from the slots any more: the reader of a run that was killed takes a moment.
 * @throws SlotInUseError when somebody goes on: another computer with a copy of the state directory.
 */
export async function awaitUnread(
  connection: PostgresConnectionOptions,
  definition: LogPipeline,
  lastRun: keyof typeof READER_MS,
  signal: AbortSignal,
  onWait: (pid: number) => void,
): Promise<void> {
  const deadline = performance.now() + READER_MS[lastRun];
  await withConnection(connection, { signal }, async (client) => {
    for (const number of slotNumbers(definition)) {
      const { slot } = slotNames(definition.source, number);
      for (let told = false; ; told = true) {
        const found = await readSlot((sql) => client.query(sql), slot);
        if (found?.activePid === undefined) break;
        if (performance.now() > deadline) throw readByOthers(slot, found.activePid, found.holder);
        if (!told) onWait(found.activePid);
        await delay(LOOK_MS, undefined, { signal });
      }
    }
  });
}

/** Reports whatever would stop capture, before anything is made. @throws PreflightError */
export async function check(
  database: DevDatabase,
  pipeline: LogPipeline,
  signal: AbortSignal,
): Promise<void> {
  try {
    await preflight({ connection: database.connection, pipeline, signal });
  } catch (error) {
    if (!(error instanceof PreflightError)) throw error;
    // The definition has no say in it here: the disk is not ours alone.
    throw new PreflightError(
      error.problems.map((problem) => ({
        ...problem,
        remedy: problem.remedy
          .replace(
            ", or accept it with acceptUnboundedWal: true in the definition's source.",
            "; or use a server of this machine.",
          )
          .replaceAll("DATABASE_URL", "--database-url"),
      })),
    );
  }
}

/** Tells whether a slot is there. */
export async function hasSlot(
  connection: PostgresConnectionOptions,
  slot: string,
  signal: AbortSignal,
): Promise<boolean> {
  return await withConnection(connection, { signal }, async (client) =>
    Boolean(await readSlot((sql) => client.query(sql), slot)),
  );
}
