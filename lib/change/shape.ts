import { isPosition, type PositionText } from "./position.ts";

/*
 * Checks of values that a consumer reads: records, items of the state table, variables, requests. By hand, and not by a
 * schema library, which would be a sixth of the code that a handler's function loads.
 */

/** A place in a value (`claim.bytes`; empty: the value itself) and what should stand there; never what does. */
export type ShapeFault = readonly [path: string, problem: string];

/** Returns what is wrong with a value, place by place; nothing where it is a `T`. Members that it does not know may be there. */
export interface Shape<T> {
  (value: unknown): readonly ShapeFault[];
  /** Only a type: what the shape is of. */
  readonly of?: T;
}

/** The type of the values of a shape. */
export type ShapeOf<S> = S extends Shape<infer T> ? T : never;
type Members<M> = { readonly [K in keyof M]: ShapeOf<M[K]> };
type Optional<T> = { [K in keyof T]: undefined extends T[K] ? K : never }[keyof T];

/** A shape that one test tells. */
export function shape<T>(isOne: (value: unknown) => boolean, problem: string): Shape<T> {
  return (value) => (isOne(value) ? [] : [["", problem]]);
}

export const text = shape<string>((value) => typeof value === "string", "expected a text");
export const word = textWhere((value) => value !== "", "expected a text");
export const number = shape<number>(Number.isFinite, "expected a number");
export const flag = shape<boolean>((value) => typeof value === "boolean", "expected true or false");
export const position = textWhere(isPosition, "expected a position");
export const sha256 = textLike(/^[0-9a-f]{64}$/, "expected 64 hex digits");

/** A text that passes a test. */
export function textWhere(isOne: (value: string) => boolean, problem: string): Shape<PositionText> {
  return shape((value) => typeof value === "string" && isOne(value), problem);
}

/** A text that matches a pattern. */
export function textLike(pattern: RegExp, problem: string): Shape<string> {
  return textWhere((value) => pattern.test(value), problem);
}

/** A whole number from `least` on. */
export function wholeFrom(least: number, problem = `expected a whole number from ${least}`): Shape<number> {
  return shape((value) => Number.isSafeInteger(value) && (value as number) >= least, problem);
}

/** One of these values. */
export function oneOf<const T>(values: readonly T[], problem = `expected ${values.join(", ")}`): Shape<T> {
  return shape((value) => values.includes(value as T), problem);
}

/** Nothing, or what another shape says. */
export function optional<T>(of: Shape<T>): Shape<T | undefined> {
  return (value) => (value === undefined ? [] : of(value));
}

/** An array, each element of which is of a shape. */
export function listOf<T>(of: Shape<T>): Shape<readonly T[]> {
  return (value) =>
    Array.isArray(value)
      ? value.flatMap((one, i) => within(String(i), of(one)))
      : [["", "expected an array"]];
}

/** An object, each member of which is of a shape. */
export function mapOf<T>(of: Shape<T>): Shape<Readonly<Record<string, T>>> {
  return (value) =>
    isObject(value)
      ? Object.entries(value).flatMap(([name, one]) => within(name, of(one)))
      : [["", "expected an object"]];
}

/** An object with these members. */
export function objectOf<M extends Readonly<Record<string, Shape<unknown>>>>(
  members: M,
): Shape<Omit<Members<M>, Optional<Members<M>>> & Partial<Members<M>>> {
  return (value) =>
    isObject(value)
      ? Object.entries(members).flatMap(([name, of]) => within(name, of(value[name])))
      : [["", "expected an object"]];
}

type Refuse = (path: string, problem: string) => Error;

/** Returns the value, which is of the shape; otherwise throws what `refuse` makes of the first fault. */
export function fitting<T>(of: Shape<T>, value: unknown, refuse: Refuse): T {
  const [fault] = of(value);
  if (fault) throw refuse(...fault);
  return value as T;
}

/** Returns the value of a JSON text, as `fitting` does. */
export function fittingJson<T>(of: Shape<T>, json: string, refuse: Refuse): T {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw refuse("", "is not JSON");
  }
  return fitting(of, value, refuse);
}

/** Returns the value of a JSON text; undefined where it is not of the shape. */
export function tryFittingJson<T>(of: Shape<T>, json: string): T | undefined {
  try {
    // Nobody sees it.
    return fittingJson(of, json, () => new TypeError());
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function within(name: string, faults: readonly ShapeFault[]): ShapeFault[] {
  return faults.map(([path, problem]) => [path ? `${name}.${path}` : name, problem]);
}
