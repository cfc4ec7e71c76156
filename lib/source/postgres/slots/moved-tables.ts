import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { Log } from "../../../log.ts";
import type { TextQuery } from "../link/connection-options.ts";
import { readMove, tablesGone } from "./move.ts";
import { TablesMovedError } from "./slots-errors.ts";

/** Dependencies of `MovedTables`. */
export interface MovedTablesOptions {
  readonly slot: string;
  readonly publication: string;
  readonly tables: readonly TableName[];
  readonly query: TextQuery;
  readonly log: Log;
}

/** Notices that tables of a slot leave it, which a message says at its place of the log. */
export class MovedTables {
  readonly #options: MovedTablesOptions;
  /** Tables that a message says have left, and nobody has looked yet. */
  #said: readonly string[] = [];

  constructor(options: MovedTablesOptions) {
    this.#options = options;
  }

  /** Takes what a message says: `check` must follow before anything behind it is given. */
  message(content: Buffer): void {
    const { slot, tables } = this.#options;
    const move = readMove(content);
    if (move?.from !== slot) return;
    const said = tables.map(formatTable).filter((table) => move.tables.includes(table));
    if (said.length > 0) this.#said = [...this.#said, ...said];
  }

  /** Looks whether they have left: what follows of them is another slot's, rows that a backfill reads included. @throws TablesMovedError */
  async check(): Promise<void> {
    if (this.#said.length === 0) return;
    const said = this.#said;
    const { slot, publication, query, log } = this.#options;
    const gone = await tablesGone(query, publication, said);
    this.#said = [];
    if (gone.length > 0) throw new TablesMovedError(slot, gone);
    log.warn(
      `a message in the log says that ${said.join(", ")} moved to another slot, but the publication "${publication}" still has them: ignored`,
      {
        remedy: "It is not ours: find the role that calls pg_logical_emit_message with the prefix tributary.",
      },
    );
  }
}
