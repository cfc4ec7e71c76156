import { setTimeout as delay } from "node:timers/promises";
import { formatTable, tablePattern } from "../change/table-pattern.ts";
import type { LogPipeline } from "../source/postgres/definition.ts";
import { withConnection } from "../source/postgres/link/connection.ts";
import type { PostgresConnectionOptions } from "../source/postgres/link/connection-options.ts";
import { captureTables } from "../source/postgres/preflight/captured-tables.ts";
import { preflight } from "../source/postgres/preflight/preflight.ts";
import { type RelationEntry, readRelations } from "../source/postgres/preflight/table-facts.ts";

/** Settings of `NewTables`. */
export interface NewTablesOptions {
  readonly connection: PostgresConnectionOptions;
  /** The definition that leaves these tables out, with its other exclusions. */
  readonly pipelineWithout: (tables: readonly string[]) => LogPipeline;
  readonly say: (line: string) => void;
}

const LOOK_EVERY_MS = 1_000;
/** Tells a table from another one of the same name: their oids differ. */
type Identity = Pick<RelationEntry, "schema" | "table" | "oid">;
/** One that could not be had is tried again: its owner may have added it. */
const AGAIN_MS = 10_000;

/** Finds tables that were made since the source was opened, and tells which of them it can be opened anew with. */
export class NewTables {
  readonly #options: NewTablesOptions;
  /** Tables that cannot be had, when they are tried again, and what was said of them. */
  readonly #refused = new Map<string, { readonly at: number; readonly why: string }>();

  /** Patterns whose tables were all dropped since the start: at the start they would be a mistake, now they hold nothing up. */
  #unmatched: readonly string[] = [];

  constructor(options: NewTablesOptions) {
    this.#options = options;
  }

  /** The definition of what can be had. */
  get pipeline(): LogPipeline {
    return this.#pipelineWithout([...this.#refused.keys()]);
  }

  #pipelineWithout(names: readonly string[]): LogPipeline {
    const pipeline = this.#options.pipelineWithout(names);
    const tables = pipeline.source.tables.filter((pattern) => !this.#unmatched.includes(pattern));
    return { ...pipeline, source: { ...pipeline.source, tables } };
  }

  /**
   * Looks about every second, while `isDue`, until there are tables beside `known`, or one that was made anew under its name. Returns them, or nothing at the signal's abort. That the database does not
   * answer is passed over.
   */
  async next(
    known: readonly Identity[],
    isDue: () => boolean,
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const oids = new Map(known.map((table) => [formatTable(table), table.oid]));
    while (!signal.aborted) {
      await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted || !isDue()) continue;
      const found = await this.#look(oids, signal).catch(() => []);
      if (found.length > 0) return found;
    }
    return [];
  }

  async #look(known: ReadonlyMap<string, number>, signal: AbortSignal): Promise<readonly string[]> {
    const { connection, say } = this.#options;
    return await withConnection(connection, { signal }, async (client) => {
      const { source } = this.#options.pipelineWithout([]);
      const relations = await readRelations(client);
      this.#unmatched = source.tables.filter((pattern) => !relations.some(tablePattern(pattern)));
      const found = captureTables(source, relations).tables;
      const now = new Map(found.map((table) => [formatTable(table), table.oid]));
      for (const name of this.#refused.keys()) if (!now.has(name)) this.#refused.delete(name);
      const fresh = [...now.keys()].filter(
        (name) =>
          known.get(name) !== now.get(name) && performance.now() >= (this.#refused.get(name)?.at ?? 0),
      );
      const usable: string[] = [];
      for (const name of fresh) {
        const others = [...this.#refused.keys(), ...fresh].filter(
          (other) => other !== name && !usable.includes(other),
        );
        const { problems } = await preflight(client, this.#pipelineWithout(others));
        if (problems.length === 0) {
          usable.push(name);
          this.#refused.delete(name);
          continue;
        }
        const why = problems.map(({ message, remedy }) => `${message}. ${remedy}`).join(" ");
        if (this.#refused.get(name)?.why !== why) say(`${name} is new and is not printed: ${why}`);
        this.#refused.set(name, { at: performance.now() + AGAIN_MS, why });
      }
      return usable;
    });
  }
}
