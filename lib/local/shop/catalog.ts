/** Gives numbers in [0, 1), as `Math.random` does. */
export type SeededRandom = () => number;

/** A small generator that gives the same numbers for the same seed (mulberry32). */
export function seededRandom(seed: number): SeededRandom {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `low` to `high`, both included. */
export function between(random: SeededRandom, low: number, high: number): number {
  return low + Math.floor(random() * (high - low + 1));
}

/** One of the values, each as likely as the others. */
export function oneOf<T>(random: SeededRandom, values: readonly [T, ...T[]]): T {
  return values[Math.floor(random() * values.length)] ?? values[0];
}

const GIVEN = [
  "Ada",
  "Björn",
  "Chloé",
  "Dana",
  "Emeka",
  "Fatima",
  "Grażyna",
  "Hiro",
  "Inés",
  "Jürgen",
] as const;
const FAMILY = [
  "Adeyemi",
  "Bianchi",
  "Castro",
  "Dvořák",
  "Eriksen",
  "Fischer",
  "García",
  "Hoang",
  "O'Neill",
] as const;
const GOODS = ["TEAPOT", "LAMP", "KETTLE", "CHAIR", "ATLAS", "RADIO", "BLANKET", "CLOCK"] as const;

/** Reasons of cancellation that the shop has a letter for. */
export const KNOWN_REASONS = ["changed-mind", "found-cheaper", "too-late", "payment-failed"] as const;
/** A reason without a letter: `notifications` fails on it every time. The poison of the demo. */
export const POISON_REASON = "lost-in-the-warehouse-fire";

/** Fields of the registration form. */
export interface NewCustomer {
  readonly name: string;
  readonly email: string;
}

/** A new customer, as the registration form would give it. */
export function inventCustomer(random: SeededRandom): NewCustomer {
  const name = `${oneOf(random, GIVEN)} ${oneOf(random, FAMILY)}`;
  return { name, email: `user${between(random, 1, 999_999)}@example.com` };
}

/** A line of an order; the price is decimal text, as money should be. */
export interface NewItem {
  readonly line: number;
  readonly sku: string;
  readonly quantity: number;
  readonly price: string;
}

/** One to four lines of an order. */
export function inventItems(random: SeededRandom): NewItem[] {
  return Array.from({ length: between(random, 1, 4) }, (_, i) => ({
    line: i + 1,
    sku: `${oneOf(random, GOODS)}-${between(random, 100, 999)}`,
    quantity: between(random, 1, 5),
    price: cents(between(random, 99, 19_999)),
  }));
}

/** The sum of an order, exact: counted in cents. */
export function totalOf(items: readonly NewItem[]): string {
  return cents(items.reduce((sum, item) => sum + item.quantity * Number(item.price.replace(".", "")), 0));
}

/** A note beyond the size (about 2 kB after compression) at which PostgreSQL stores a value out of line (TOAST). */
export function inventLongNote(random: SeededRandom): string {
  return Array.from({ length: 500 }, () => Math.floor(random() * 2 ** 32).toString(36)).join(" ");
}

function cents(amount: number): string {
  return `${Math.floor(amount / 100)}.${String(amount % 100).padStart(2, "0")}`;
}
