/*
 * We ask for protocol 1. These are the messages that protocols 2 to 4 add to it; docs/internals/pgoutput.md has the whole table.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */

/** A type of message that protocol 1 does not have and that is refused when it comes. */
export interface RefusedType {
  readonly name: string;
  /** The first protocol that has it. */
  readonly protocol: number;
}

/**
 * Messages that are refused, by type byte. All of them carry, or decide over, rows of a transaction whose commit is not known yet: to pass
 * them would lose the rows, and the rows between Stream Start and Stream Stop have a transaction id where protocol 1 has the relation.
 * A server sends them only to who asks for `streaming` or `two_phase`.
 *
 * Stream Abort ('A') is not here: PostgreSQL 18 sends it in protocol 1 (`decodeStreamAbort`).
 */
export const REFUSED_TYPES: ReadonlyMap<number, RefusedType> = new Map(
  (
    [
      ["S", "Stream Start", 2],
      ["E", "Stream Stop", 2],
      ["c", "Stream Commit", 2],
      ["b", "Begin Prepare", 3],
      ["P", "Prepare", 3],
      ["K", "Commit Prepared", 3],
      ["r", "Rollback Prepared", 3],
      ["p", "Stream Prepare", 3],
    ] as const
  ).map(([letter, name, protocol]) => [letter.charCodeAt(0), { name, protocol }]),
);
