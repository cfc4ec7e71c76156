import pg from "pg";
import { defineError, TributaryError } from "../../change/tributary-error.ts";
import { NEW_EPOCH } from "../../definition/new-epoch.ts";
import { ServerBehindError } from "../postgres/postgres-errors.ts";

/** The session that reads the tables ended or fell silent; another one is opened. */
export class TablesLinkError extends defineError("TABLES_LINK", "retry") {}

/** The server refuses what is asked of the tables, and would refuse again. */
export class TablesReadError extends defineError("TABLES_READ", "stop") {}

/** The definition names another kind of source, or another database, than the one that the pipeline has read so far. */
export class ReadingChangedError extends defineError("READING_CHANGED", "stop") {}

/** Transaction ids went back: `now` comes next where `seen` was. */
export function serverBehind(now: bigint, seen: bigint | string): ServerBehindError {
  return new ServerBehindError({
    message: `the server's next transaction id is ${now}, and ${seen} was seen there: it was restored from an older copy`,
    remedy: `What was captured beyond that copy is in the stream and not in the database. Begin a new epoch: ${NEW_EPOCH}`,
  });
}

/**
 * Turns an error of the session into one of ours. SQLSTATE classes of the server's:
 * https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function explainReadError(error: unknown): Error {
  if (error instanceof TributaryError) return error;
  const { message } = error as Error;
  // Lost sessions, a server that restarts, and a table that someone holds for long.
  const passing = /^(08|53|57|58|40|55P03)/;
  if (error instanceof pg.DatabaseError && !passing.test(error.code ?? "")) {
    return new TablesReadError({
      message: `the server refuses to read on (${error.code}): ${message}`,
      remedy:
        error.code === "42501"
          ? "Grant the role what it lacks, and start again: nothing was passed over."
          : "Heal what the message names, and start again: nothing was passed over.",
      cause: error,
    });
  }
  if (!(error instanceof pg.DatabaseError) && !isConnectionLoss(error as NodeJS.ErrnoException))
    return error as Error;
  return new TablesLinkError({
    message: `the session that reads the tables ended: ${message}`,
    remedy:
      "Nothing to do: another one is opened. When it repeats, look at the network and the server's log.",
    cause: error,
  });
}

/** Returns true for the words of `pg` and the socket when a session is gone. */
function isConnectionLoss({ code, message }: NodeJS.ErrnoException): boolean {
  return (
    /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET)/.test(code ?? "") ||
    /connection (terminated|error)|not queryable|no answer|socket|Connection ended/i.test(message)
  );
}
