import prices from "./prices.json" with { type: "json" };

/** Prices by service. */
export type Prices = typeof prices;
/** The one price basis of all estimates. */
export const PRICES: Prices = prices;

/** Prices that no source read from AWS's price list, as `group.price`. */
export function unconfirmed(): string[] {
  return Object.entries(PRICES).flatMap(([group, entry]) => {
    if (typeof entry !== "object" || !("sources" in entry)) return [];
    const listed = entry.sources.filter(({ kind }) => kind === "price list").flatMap((one) => one.prices);
    return Object.entries(entry)
      .filter(([price, value]) => typeof value === "number" && !listed.includes(price))
      .map(([price]) => `${group}.${price}`);
  });
}

/** One line of a bill. */
export interface Line {
  readonly part: string;
  /** Name of the unit that is counted, for people: `GB ingested`. */
  readonly what: string;
  /** In a month. */
  readonly quantity: number;
  readonly unitPrice: number;
  readonly usd: number;
}

/** A monthly bill. */
export interface Bill {
  readonly name: string;
  readonly usd: number;
  /** By part, the dearest first. */
  readonly parts: readonly { readonly part: string; readonly usd: number }[];
  readonly lines: readonly Line[];
}

/** A line of so much at that price. */
export function line(part: string, what: string, quantity: number, unitPrice: number): Line {
  return { part, what, quantity, unitPrice, usd: quantity * unitPrice };
}

/** Sums lines up. */
export function bill(name: string, lines: readonly Line[]): Bill {
  const parts = Map.groupBy(lines, ({ part }) => part);
  const sum = (some: readonly Line[]) => some.reduce((total, { usd }) => total + usd, 0);
  return {
    name,
    usd: sum(lines),
    parts: [...parts].map(([part, some]) => ({ part, usd: sum(some) })).sort((a, b) => b.usd - a.usd),
    lines,
  };
}
