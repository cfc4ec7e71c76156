import { closingQuote, encodeQuoted } from "./array.ts";
import { type ValueEncoder, ValueMismatch } from "./encoder.ts";
import type { TextForm } from "./text.ts";

/**
 * `"a"=>"1", "b"=>NULL` → `{"a":"1","b":null}`.
 * https://www.postgresql.org/docs/current/hstore.html#HSTORE-EXTERNAL-REP
 */
export function hstoreEncoder(text: TextForm): ValueEncoder {
  return (buffer, start, end) => {
    let at = start;
    let json = "{";
    const take = (literal: string): boolean => {
      const found =
        at + literal.length <= end && buffer.toString("latin1", at, at + literal.length) === literal;
      if (found) at += literal.length;
      return found;
    };
    const quoted = (): string => {
      if (!take('"')) throw mismatch();
      const close = closingQuote(buffer, at, end);
      const value = encodeQuoted(text.json, buffer, at, close);
      at = close + 1;
      return value;
    };
    while (at < end) {
      if (at > start) {
        if (!take(", ")) throw mismatch();
        json += ",";
      }
      json += quoted();
      if (!take("=>")) throw mismatch();
      json += take("NULL") ? ":null" : `:${quoted()}`;
    }
    return `${json}}`;
  };
}

function mismatch(): ValueMismatch {
  return new ValueMismatch("PostgreSQL's text form of an hstore");
}
