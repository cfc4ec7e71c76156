/** Differences of `printJson` from `JSON.stringify`. */
export interface PrintOptions {
  /** Members in the order of their names. */
  readonly sorted?: boolean;
  /** Replaces a value that is neither object nor array before it is printed. */
  readonly leaf?: (value: unknown) => unknown;
}

interface Open {
  readonly names: readonly string[] | undefined;
  readonly of: object;
  next: number;
}

/**
 * Prints a value that came from JSON, as `JSON.stringify` does but for any depth. Integers beyond 2^53 (`bigint`) are
 * printed as strings.
 */
export function printJson(root: unknown, { sorted = false, leaf }: PrintOptions = {}): string {
  const parts: string[] = [];
  const open: Open[] = [];
  const begin = (value: unknown) => {
    if (typeof value !== "object" || value === null) {
      const shown = leaf ? leaf(value) : value;
      parts.push(JSON.stringify(typeof shown === "bigint" ? shown.toString() : shown) ?? "null");
      return;
    }
    const names = Array.isArray(value) ? undefined : Object.keys(value);
    if (sorted) names?.sort();
    parts.push(names ? "{" : "[");
    open.push({ names, of: value, next: 0 });
  };
  begin(root);
  for (let at = open.at(-1); at !== undefined; at = open.at(-1)) {
    const { names, of, next } = at;
    const size = names ? names.length : (of as unknown[]).length;
    if (next === size) {
      parts.push(names ? "}" : "]");
      open.pop();
      continue;
    }
    at.next++;
    if (next > 0) parts.push(",");
    const name = names?.[next];
    if (name !== undefined) parts.push(JSON.stringify(name), ":");
    begin(name === undefined ? (of as unknown[])[next] : (of as Record<string, unknown>)[name]);
  }
  return parts.join("");
}
