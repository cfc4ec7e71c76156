import { databaseScript, readServerSort, type ServerSort } from "../admin/database-script.ts";
import { ConfigurationError, TributaryError } from "../change/tributary-error.ts";
import type { Pipeline } from "../definition/definition.ts";
import { isOfConnecting, withConnection } from "../source/postgres/link/connection.ts";
import { commandDatabase } from "./database.ts";
import { note, say } from "./say.ts";

/** Options of `tributary doctor --sql`. */
export interface ScriptArguments {
  readonly databaseUrl?: string;
  /** Left out: the server is asked. */
  readonly for?: ServerSort;
  readonly role: string;
}

/** Time that the database has to answer. */
const ASK_MS = 30_000;

/**
 * Prints the script that makes the database ready. A database that cannot be reached may be one whose role the script is to make: it is
 * written of the definition alone then.
 */
export async function printScript(
  pipeline: Pipeline,
  { databaseUrl, for: given, role }: ScriptArguments,
  hasDatabase: boolean,
): Promise<void> {
  if (hasDatabase) {
    try {
      const connection = await commandDatabase(databaseUrl);
      const signal = AbortSignal.timeout(ASK_MS);
      const script = await withConnection(connection, { signal }, async (client) =>
        databaseScript({ pipeline, role, server: given ?? (await readServerSort(client)), client }),
      );
      say(script);
      return;
    } catch (error) {
      if (!isOfConnecting(error) || !(error instanceof TributaryError)) throw error;
      note(`the database cannot be asked, so the script is of the definition alone: ${error.message}`);
    }
  }
  if (given === undefined) {
    const remedy =
      "say where the server is: self-hosted, rds or aurora (the database, which would tell, cannot be asked)";
    throw new ConfigurationError("The command line", [{ path: "--for", value: undefined, remedy }]);
  }
  say(await databaseScript({ pipeline, role, server: given }));
}
