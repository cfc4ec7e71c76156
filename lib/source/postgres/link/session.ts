/**
 * The settings of every session of ours: what a database, role or server default could change in the text of a
 * value, or could end a session that only waits (rules 21 and 23). Explained in docs, "Values".
 * https://www.postgresql.org/docs/current/runtime-config-client.html
 */
const PINNED = {
  datestyle: "ISO, MDY",
  intervalstyle: "iso_8601",
  timezone: "UTC",
  extra_float_digits: "1",
  bytea_output: "hex",
  xmloption: "content",
  lc_monetary: "C",
  search_path: "pg_catalog",
  quote_all_identifiers: "off",
  row_security: "off",
  statement_timeout: "0",
  lock_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  idle_session_timeout: "0",
  // A role that is to read alone makes its publication and writes its watermarks all the same, where it was granted to.
  default_transaction_read_only: "off",
  default_transaction_isolation: "read committed",
  default_transaction_deferrable: "off",
} as const;

/** A `client_encoding`: UTF8, but SQL_ASCII for a database of that encoding (the server could not convert). */
export type ClientEncoding = "UTF8" | "SQL_ASCII";

/**
 * The startup option string (`options` of the startup packet) that pins them. They outrank ALTER DATABASE and
 * ALTER ROLE settings. Append more with a blank between. Two things it cannot say and the session must SET itself:
 * an encoding other than UTF8, since `pg` writes its own into the packet, and `transaction_timeout`, which
 * servers before 17 do not know.
 * https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
 */
export function sessionSettings(encoding: ClientEncoding): string {
  return Object.entries({ ...PINNED, client_encoding: encoding })
    .map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, "\\$&")}`)
    .join(" ");
}
