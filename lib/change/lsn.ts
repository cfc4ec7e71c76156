/**
 * Log sequence numbers: `bigint` inside, PostgreSQL's `X/Y` text at the edges.
 * https://www.postgresql.org/docs/current/datatype-pg-lsn.html
 */

const LSN = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** `0/1F788D8` → `0x1F788D8n`. Throws `RangeError` naming the text when it is not an LSN. */
export function parseLsn(text: string): bigint {
  const match = LSN.exec(text);
  if (!match) throw new RangeError(`not an LSN: "${text}" (expected two hex numbers such as 0/1F788D8)`);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

/** `0x1F788D8n` → `0/1F788D8`, as PostgreSQL prints it. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}
