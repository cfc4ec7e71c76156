/* What a remedy names to be run: a verb of ours, or a statement of SQL. */

/** A verb with its options, as remedies write it. */
const COMMAND =
  /\btributary (?:(?:backfill|capture|consumer|dlq|epoch|generate|outbox|triggers) [a-z][a-z-]*|(?:cost|dev|doctor|explain|init|plan|redrive|status|tail|teardown|verify)\b)(?: --[a-z-]+(?: (?!-)[^\s,;()]+)?)*/;

/** A statement of SQL as remedies write it, with the one that makes a setting count. */
const STATEMENT =
  /\b(?:ALTER|CREATE|DROP|GRANT|REVOKE|SELECT) (?:(?!\. )[^;\n])+;(?: SELECT pg_reload_conf\(\);)?/;

/** The first command or statement that a text names, as it is typed; undefined where it names none. */
export function mendingIn(text: string): string | undefined {
  const [command, statement] = [COMMAND, STATEMENT].map((pattern) => text.search(pattern));
  if (statement === undefined || statement < 0) return commandIn(text);
  if (command !== undefined && command >= 0 && command < statement) return commandIn(text);
  return STATEMENT.exec(text)?.[0];
}

/** The first command that a text names, as it is typed; undefined where it names none. */
export function commandIn(text: string): string | undefined {
  return COMMAND.exec(text)?.[0].replace(/[.:]+$/, "");
}
