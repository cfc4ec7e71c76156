import { type ComparisonOptions, compareTable } from "../../verify/verify.ts";

/** One row that a consumer holds otherwise than the table does, or an effect that is missing or doubled. */
export interface Mismatch {
  readonly what: string;
  readonly key: string;
  /** `missing` at the consumer, `extra` there, or the columns that differ. */
  readonly kind: "missing" | "extra" | readonly string[];
}

/** Every row that differs between a table that nobody writes any more and what a consumer that is through holds of it. */
export async function compareRows(
  what: string,
  sides: Pick<ComparisonOptions, "source" | "sink" | "signal">,
): Promise<Mismatch[]> {
  const nothingIsBehind = { pass: async () => [], isParked: () => false, maxRows: Number.POSITIVE_INFINITY };
  const { differences, undecided } = await compareTable({ ...sides, ...nothingIsBehind });
  const mismatches = differences.map(({ kind, key, columns }): Mismatch => {
    const as = kind === "repeated" ? "extra" : kind;
    return { what, key: Object.values(key).join("/"), kind: as === "different" ? columns : as };
  });
  if (undecided > 0) mismatches.push({ what, key: `(${undecided} rows that still change)`, kind: "extra" });
  return mismatches;
}

/**
 * Compares what must have happened once for each key with what happened: a key that is missing, was not expected,
 * or came more than once.
 */
export function compareOnce(
  what: string,
  expected: ReadonlySet<string>,
  happened: readonly string[],
): Mismatch[] {
  const times = new Map<string, number>();
  for (const key of happened) times.set(key, (times.get(key) ?? 0) + 1);
  const missing = [...expected].filter((key) => !times.has(key));
  const extra = [...times].filter(([key, count]) => !expected.has(key) || count > 1);
  return [
    ...missing.map((key): Mismatch => ({ what, key, kind: "missing" })),
    ...extra.map(([key]): Mismatch => ({ what, key, kind: "extra" })),
  ];
}

/** A mismatch as one line: `orders 17: differs in status, total`. */
export function describeMismatch({ what, key, kind }: Mismatch): string {
  if (typeof kind === "string") return `${what} ${key}: ${kind}`;
  return `${what} ${key}: differs in ${kind.join(", ")}`;
}
