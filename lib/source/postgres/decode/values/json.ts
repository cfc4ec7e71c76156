import type { ValueEncoder } from "./encoder.ts";
import type { TextForm } from "./text.ts";

/**
 * json and jsonb as they are: PostgreSQL has validated them, digits and duplicate keys stay. Only line breaks,
 * which json text may hold between its tokens (never inside a string), become blanks: an event is one line.
 * https://www.postgresql.org/docs/current/datatype-json.html
 */
export function jsonEncoder(text: TextForm): ValueEncoder {
  return (buffer, start, end) => {
    const json = text.decode(buffer, start, end);
    return json.includes("\n") || json.includes("\r") ? json.replace(/[\r\n]/g, " ") : json;
  };
}
