import { shellWord } from "../../../change/printed-command.ts";
import { defineError } from "../../../change/tributary-error.ts";

/** Facts of a name that stands for another table, or for none, while its table lives on. */
export interface ReplacedTable {
  /** The captured name, as people write it: `public.orders`. */
  readonly table: string;
  /** OID of the table that was captured under it. */
  readonly oid: number;
  /** OID of the table that has the name now; undefined: none has. */
  readonly now?: number | undefined;
  /** Name of the captured table now; undefined: it was dropped. */
  readonly called?: string | undefined;
  readonly topic: string;
}

/** A captured name stands for another table than before: swapped, renamed, moved to another schema, or dropped and made anew. */
export class TableReplacedError extends defineError("TABLE_REPLACED", "restart").from(
  ({ table, oid, now, called, topic }: ReplacedTable) => {
    const before = `the one that was captured under this name (OID ${oid})`;
    const release = `tributary capture release --topic ${shellWord(topic)}`;
    return {
      message:
        now === undefined
          ? `${table} (OID ${oid}) is called ${called} now`
          : `${table} is another table now (OID ${now}); ${before} ${called === undefined ? "was dropped" : `is called ${called}`}`,
      remedy:
        now === undefined
          ? `To go on with it, name it ${table} again, or give that name to the table that takes its place; then: ${release}. Where nothing is to have the name any more, the same release ends the hold.`
          : `To go on with the table that has the name now, which is then read anew with a sweep: ${release}. Otherwise give the name back first (ALTER TABLE … RENAME).`,
      /** Name of the captured table now; undefined: it was dropped, or nobody looked. */
      called,
    };
  },
) {}

/** A table's rows are told apart by another key than before, so that they would go to other partitions. */
export class KeyChangedError extends defineError("KEY_CHANGED", "stop").from(
  (facts: { table: string; before: string; now: string; topic: string }) => {
    const { table, before, now, topic } = facts;
    return {
      message: `the key of ${table} was ${before} and is ${now} now: its rows would go to other partitions`,
      remedy: `To go on with the new key (the table is then read anew with a sweep): tributary capture release --topic ${shellWord(topic)}, which waits for consumers to pass what was stored under the old one. Otherwise put the old key back first.`,
    };
  },
) {}

/** A released topic goes on with another table, which only a new start of the task puts into the publication. */
export class TableAcceptedError extends defineError("TABLE_ACCEPTED", "restart").from((table: string) => ({
  message: `${table} goes on with the table that has the name now: the task starts anew, to have its publication hold it`,
  remedy: "Nothing to do.",
})) {}

/** Returns true if an error, or a hold for it, is of a table that is another one, or has another key: a release accepts that. */
export function isOfIdentity(code: string): boolean {
  return code === "TABLE_REPLACED" || code === "KEY_CHANGED";
}
