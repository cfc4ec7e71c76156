import type { RowValues } from "./row-messages.ts";

/**
 * The fields of a row as PostgreSQL prints a composite value: apart by commas, quoted where they must be, with doubled
 * quotes and backslashes inside; an empty field is null, so that `()` is a row of one. https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX
 * @throws RangeError for a text that is none.
 */
export function parseRecord(text: string): RowValues {
  if (!text.startsWith("(") || !text.endsWith(")")) throw new RangeError("not the text of a row");
  const values: (string | null)[] = [];
  const end = text.length - 1;
  for (let at = 1; ; at++) {
    if (text[at] === '"') {
      let value = "";
      let from = at + 1;
      for (;;) {
        let to = from;
        while (to < end && text[to] !== '"' && text[to] !== "\\") to++;
        value += text.slice(from, to);
        if (to >= end) throw new RangeError("a quoted field of a row has no end");
        // Both stand for the character behind them; a single quote ends the field.
        if (text[to] === '"' && text[to + 1] !== '"') {
          at = to + 1;
          break;
        }
        value += text[to + 1];
        from = to + 2;
      }
      values.push(value);
    } else {
      const comma = text.indexOf(",", at);
      const to = comma === -1 ? end : comma;
      values.push(to === at ? null : text.slice(at, to));
      at = to;
    }
    if (at === end) return values;
    if (text[at] !== ",") throw new RangeError("a field of a row does not end where it should");
  }
}
