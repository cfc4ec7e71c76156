import type { BuiltinForm } from "./values/builtin-types.ts";

/**
 * A value's text as it stands in a key: equal values have equal texts where PostgreSQL prints equal values
 * differently. Everything else is PostgreSQL's text: two texts are two keys. Changing it would move keys between
 * partitions (rule 2).
 */
export function canonicalText(form: BuiltinForm, text: string): string {
  switch (form) {
    case "numeric":
      // 1.50 = 1.5, 1.00 = 1
      return text.includes(".") ? withoutTail(withoutTail(text, "0"), ".") : text;
    case "bpchar":
      return withoutTail(text, " ");
    case "float":
      return text === "-0" ? "0" : text;
    default:
      return text;
  }
}

/** The key text of a row: the canonical texts joined by NUL, which no PostgreSQL text holds. No key: empty. */
export function joinKeyText(values: readonly string[]): string {
  return values.join("\0");
}

function withoutTail(text: string, character: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === character) end--;
  return text.slice(0, end);
}
